"""Octrees of the unit cube: which row of a table a point lies in (Yu et al. 2021, "PlenOctrees").

A node has N^3 cells, of equal size, a cell is a leaf or another node. Row (i, x, y, z) of the table belongs to cell
(x, y, z) of node i; rows of cells that are nodes themselves are not read. Values are constant in a leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge import errors

MOST_LEVELS = 32  # below 2^-24 of the cube single precision tells no two points apart
MOST_ROWS = 2**31
_LAST = 1 - 1e-10  # of the cube's coordinates, where they keep so many digits


@dataclass(frozen=True)
class Octree:
    """A tree of `nodes` nodes with `branching`^3 cells each, at most `levels` nodes deep.

    The buffer "child" (nodes, N, N, N) int32 holds how many nodes further on the node of a cell stands; 0: a leaf.
    """

    nodes: int
    branching: int = 2
    levels: int = 1

    dim = 3
    nearest = 1

    def __post_init__(self):
        for name, most in (("nodes", MOST_ROWS - 1), ("branching", 64), ("levels", MOST_LEVELS)):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= most:
                raise errors.ConfigError(f"Got {name} = {value} of an octree, expected 1 to {most}.")
        if self.rows >= MOST_ROWS:
            raise errors.ConfigError(f"Got an octree of {self.rows} cells, expected fewer than 2^31.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Axes of the table before its columns."""
        return (self.nodes, *[self.branching] * 3)

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.nodes * self.branching**3

    def buffers(self) -> dict[str, Tensor]:
        """Return fresh buffers: a root whose cells are leaves."""
        n = self.branching
        return {"child": torch.zeros(self.nodes, n, n, n, dtype=torch.int32)}

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Raise CannotOpen unless the cells make a tree of no more than `levels` levels."""
        levels = count_levels(state["child"])
        if levels > self.levels:
            raise errors.CannotOpen(f"its octree is {levels} nodes deep, expected {self.levels}; the file is damaged.")

    def to_options(self) -> dict:
        """Return the options of `build` that give this octree (JSON)."""
        return {"nodes": self.nodes, "branching": self.branching, "levels": self.levels}

    def find(self, u: Tensor, states: Mapping[str, Tensor], b: int) -> tuple[Tensor, Tensor]:
        """Find the leaves of u, (n, 3) shared or (b, n, 3), in the table of each of b fields: rows, weights of 1 (b, n, 1)."""
        child = states["child"].flatten(1)
        cells, n = self.branching**3, self.branching
        t = u.detach().clamp(0, _LAST).expand(b, *u.shape[-2:])
        node = torch.zeros(t.shape[:-1], dtype=torch.long, device=u.device)
        row, below = torch.zeros_like(node), torch.ones_like(node, dtype=torch.bool)
        for _ in range(self.levels):  # a point whose row is a leaf's stays there
            t = t * n
            k = t.long().clamp(0, n - 1)
            t = t - k
            row = torch.where(below, node * cells + (k[..., 0] * n + k[..., 1]) * n + k[..., 2], row)
            step = child.gather(1, row).long()
            node, below = node + step, step != 0
        # a sum that is 0, so that the values depend on the coordinates, with a slope of 0
        weights = (0 * u).sum(-1, keepdim=True) + 1
        return row.unsqueeze(-1), weights.expand(b, *weights.shape[-2:])


def count_levels(child: Tensor) -> int:
    """Return how many nodes deep a tree of relative offsets (n, N, N, N) is.

    Raises:
        CannotOpen: an offset leads out of the nodes, two cells share a node, or the tree is too deep.
    """
    count, offsets = len(child), child.flatten(1).long()
    seen = torch.zeros(count, dtype=torch.bool)
    seen[0] = True
    front, levels = torch.zeros(1, dtype=torch.long), 1
    while True:
        steps = offsets[front]
        below = (front[:, None] + steps)[steps != 0]
        if not len(below):
            return levels
        if int(below.min()) < 0 or int(below.max()) >= count:
            raise errors.CannotOpen(f"its octree leads to a node beyond its {count}; the file is damaged.")
        if bool(seen[below].any()) or len(below.unique()) != len(below):
            raise errors.CannotOpen("two cells of its octree lead to one node, expected a tree; the file is damaged.")
        levels += 1
        if levels > MOST_LEVELS:
            raise errors.CannotOpen(f"its octree is more than {MOST_LEVELS} nodes deep; the file is damaged.")
        seen[below] = True
        front = below
