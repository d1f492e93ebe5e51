"""Floor 6: what flows through a converted net off the pixel grid: a tensor of the discrete net, its pixels replaced by points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrbridge.models.converted.levels import Level
from inrbridge.nn import Sampled


class NeedsGrid(Exception):
    """A step has no meaning on points: its level has to live on its own grid; `line` is where the discrete network does this."""

    def __init__(self, level: Level, why: str, line: str = ""):
        super().__init__(why)
        self.level, self.why, self.line = level, why, line


@dataclass(frozen=True, eq=False)
class Padding:
    """Padding that waits for the local operation which reads it: cells (before, after) of each axis, and torch's mode."""

    amounts: tuple[tuple[int, int], ...]
    mode: str
    value: float = 0.0


@dataclass(frozen=True, eq=False)
class Withheld:
    """A result that points do not have, in place of one that the discrete network may never look at."""

    level: Level
    why: str


@dataclass(frozen=True, eq=False)
class Located:
    """A tensor of the discrete net whose spatial axes are one axis of points.

    Args:
        values: (.., n, ..) with the n points of `level` at `axis`.
        tokens: the discrete tensor has one axis of prod(shape) tokens there, instead of the spatial axes.
        padding: what the next local operation sees beyond the edge, if a padding step came before.
    """

    values: Tensor
    level: Level
    axis: int
    tokens: bool = False
    padding: Padding | None = None

    @property
    def spread(self) -> int:
        """Axes of the discrete tensor that the points stand for."""
        return 1 if self.tokens else len(self.level.shape)

    @property
    def ndim(self) -> int:
        """Of the discrete tensor."""
        return self.values.ndim - 1 + self.spread

    @property
    def shape(self) -> torch.Size:
        """Of the discrete tensor."""
        middle = (self.level.size,) if self.tokens else self.level.shape
        return torch.Size((*self.values.shape[: self.axis], *middle, *self.values.shape[self.axis + 1 :]))

    @property
    def is_map(self) -> bool:
        """Whether it is a feature map (b, c, *shape)."""
        return not self.tokens and self.values.ndim == 3 and self.axis == 2

    def dim(self, dim: int) -> int | None:
        """Return the axis of `values` that a dimension of the discrete tensor is, None where it is one of the points'."""
        dim = dim % self.ndim
        if dim < self.axis:
            return dim
        return None if dim < self.axis + self.spread else dim - self.spread + 1

    def with_values(self, values: Tensor) -> Located:
        """Return new values at the same places."""
        return replace(self, values=values)

    def sampled(self) -> Sampled:
        """Return a feature map as values (b, n, c) on the points of its level."""
        return Sampled(self.level.points, self.values.transpose(1, 2))

    def on_grid(self) -> Tensor:
        """Return the discrete tensor itself, where the level lives on its grid.

        Raises:
            NeedsGrid: it lives on other points.
        """
        if not self.level.on_grid:
            raise NeedsGrid(self.level, "it is bound to the pixels of a grid")
        values = self.values.contiguous()  # as the discrete network has it, which may call view()
        return values if self.tokens else values.unflatten(self.axis, self.level.shape)


def feature_map(sampled: Sampled, level: Level) -> Located:
    """Return values (b, n, c) on the points of a level as a feature map."""
    return Located(sampled.values.transpose(1, 2), level, 2)


def from_grid(image: Tensor, level: Level, axis: int = 2) -> Located:
    """Return a discrete tensor on the grid of a level that lives there."""
    return Located(image.flatten(axis, axis + len(level.shape) - 1), level, axis)
