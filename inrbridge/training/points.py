"""Floor 8: the discretization of each step (Wang & Golland 2023, Algorithm 1, "query points x <- LD(N)"), and samples kept.

Fields are frozen: where the discretizations of a run come from a fixed pool, their samples may be remembered, so that a
field is evaluated once per discretization and not once per epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.sampling.fixed import named_sampler
from inrbridge.training.config import PointsConfig
from inrbridge.training.seeding import generator

BLOCK = 64  # fields evaluated together when samples are remembered


@dataclass(frozen=True, eq=False)
class Draw:
    """The discretization of one step; `pooled` is its number in the pool, None when it is used only once."""

    discretization: Discretization
    pooled: int | None = None


class PointSource:
    """Draw a discretization for each step, as a pure function of seed and step.

    Args:
        points: sampler(s), size(s), and `pool`: 0 for new points in each step, k for a choice among k fixed ones,
            which go through all pairs of sampler and size in turn.
    """

    def __init__(self, domain: Domain, points: PointsConfig, seed: int, device: torch.device | str = "cpu"):
        self.domain, self.points, self.seed, self.device = domain, points, seed, torch.device(device)
        self._choices = [(named_sampler(name), n) for name in points.samplers for n in points.sizes]
        self._pool: dict[int, Discretization] = {}

    def draw(self, step: int) -> Draw:
        """Return the points of a step."""
        chance = generator(self.seed, "points", step)
        if self.points.pool:
            return self._pooled(_choice(self.points.pool, chance))
        sampler, n = self._choices[_choice(len(self._choices), chance)]
        return Draw(sampler(self.domain, n, chance, device=self.device))

    def _pooled(self, number: int) -> Draw:
        if number not in self._pool:
            sampler, n = self._choices[number % len(self._choices)]
            self._pool[number] = sampler(self.domain, n, generator(self.seed, "pool", number), device=self.device)
        return Draw(self._pool[number], number)


def _choice(count: int, chance: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=chance)) if count > 1 else 0


class SampleCache:
    """Samples of the fields of a dataset on pooled discretizations, within a budget of memory.

    Args:
        dataset: its `stack(indices)` gives a FieldStack.
        budget: bytes; a discretization that does not fit whole is not remembered.

    Fields are always evaluated in the same blocks of consecutive items, so that a value does not depend, even in its
    last bit, on the order in which the fields are asked for: a resumed run sees the same numbers.
    """

    def __init__(self, dataset, budget: int, device: torch.device | str = "cpu"):
        self.dataset, self.budget, self.device = dataset, budget, torch.device(device)
        self._values: dict[int, Tensor] = {}  # pool number -> (items, n, c)
        self._known: dict[int, Tensor] = {}  # pool number -> bool (blocks,)

    def values(self, indices: list[int], draw: Draw, channels: int) -> Tensor | None:
        """Return the samples (b, n, c) of these items; None where the budget does not hold them."""
        if not self._has_room(draw, channels):
            return None
        number, points = draw.pooled, draw.discretization.points
        known = self._known[number]
        for block in sorted({index // BLOCK for index in indices}):
            if not known[block]:
                rows = range(block * BLOCK, min((block + 1) * BLOCK, len(self.dataset)))
                with torch.no_grad():
                    self._values[number][rows.start : rows.stop] = self.dataset.stack(list(rows)).to(self.device)(points)
                known[block] = True
        return self._values[number][torch.tensor(indices, device=self.device)]

    def _has_room(self, draw: Draw, channels: int) -> bool:
        if draw.pooled is None:
            return False
        if draw.pooled in self._values:
            return True
        points = draw.discretization.points
        size = len(self.dataset) * len(points) * channels * points.element_size()
        if sum(kept.nbytes for kept in self._values.values()) + size > self.budget:
            return False
        shape = (len(self.dataset), len(points), channels)
        self._values[draw.pooled] = torch.empty(shape, dtype=points.dtype, device=self.device)
        self._known[draw.pooled] = torch.zeros(-(-len(self.dataset) // BLOCK), dtype=torch.bool)
        return True
