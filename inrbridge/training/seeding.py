"""Floor 8: randomness as a pure function of (seed, purpose, position).

Nothing draws from a stream that must be saved: the generator of step 17 is derived from the seed and 17. A resumed run,
and any number of processes, therefore see the same minibatches, points and dropout as one uninterrupted process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor


def derive(seed: int, *purpose: object) -> int:
    """Return a seed in [0, 2^63) for one purpose.

    >>> derive(0, "points", 1) != derive(0, "points", 2) and derive(0, "order") == derive(0, "order")
    True
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Noise:
    """Normal numbers for b fields, drawn for each field by itself: its own do not depend on which others are drawn with it.

    Args:
        seeds: one for each field. device: where the numbers go; they are drawn on the CPU.

    >>> Noise([3, 4])(2)[1].equal(Noise([4])(2)[0])
    True
    """

    def __init__(self, seeds: Iterable[int], device: torch.device | str = "cpu"):
        self.seeds, self.device = list(seeds), device

    @cached_property
    def _chances(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def __call__(self, width: int) -> Tensor:
        """Return the next numbers (b, width)."""
        return torch.stack([torch.randn(width, generator=chance) for chance in self._chances]).to(self.device)


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator for one purpose, e.g. `generator(0, "points", step)`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
