"""Floor 5: B-spline surfaces through given values (Wang & Golland 2023, appendix C, "Tokenization").

They carry what a discrete layer holds on a net of cells, weights of a patch or positions of tokens, over to all points.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrbridge.domains import Box
from inrbridge.errors import ConfigError
from inrbridge.stencils.bases import cardinal_bspline


@dataclass(frozen=True)
class SplineBasis:
    """Tensor B-splines on the cells of a box, combined so that B_k is 1 at the centre of cell k and 0 at the other centres.

    The surface continues beyond the edges as its mirror image, as half-sample symmetric extension has it. So constants are
    reproduced up to the edge, and the integral of a surface is the mean of its values at the centres times the measure.

    Args:
        domain: a Box.
        shape: cells along each axis; the functions are in row-major order.
        order: degree of the splines, 0 to 3; None: 2 for up to 3 cells an axis, 3 for more (the paper's choice).

    >>> len(SplineBasis(Box.unit(2), (4, 3)))
    12
    """

    domain: Box
    shape: tuple[int, ...]
    order: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if not isinstance(self.domain, Box) or len(self.shape) != self.domain.dim or min(self.shape) < 1:
            raise ConfigError(f"Got splines on {self.shape} cells of {self.domain}, expected a Box and one number for each axis.")
        if self.order not in (None, 0, 1, 2, 3):
            raise ConfigError(f"Got splines of order {self.order}, expected 0, 1, 2 or 3.")

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __call__(self, coords: Tensor) -> Tensor:
        low, size = (torch.as_tensor(v, dtype=coords.dtype, device=coords.device) for v in (self.domain.low, self.domain.size))
        axes = _splines((coords - low) / size, self.shape, self.degree)
        return _outer(values @ _interpolation(n, self.degree, coords) for values, n in zip(axes, self.shape, strict=True))

    @property
    def degree(self) -> int:
        """The order, chosen."""
        return self.order if self.order is not None else 2 if max(self.shape) <= 3 else 3

    def coefficients(self, values: Tensor) -> Tensor:
        """From values at the centres (.., *shape) to the coefficients (.., *shape) of `CompactSplines` through them."""
        for axis, n in enumerate(self.shape, start=values.ndim - len(self.shape)):
            values = (values.movedim(axis, -1) @ _interpolation(n, self.degree, values).mT).movedim(-1, axis)
        return values


@dataclass(frozen=True)
class CompactSplines:
    """The B-splines that a SplineBasis combines, on the unit cube: each is 0 but near its own cell.

    So a point feeds few of them: (order + 1)^d, however many there are.
    """

    shape: tuple[int, ...]
    order: int

    def __call__(self, coords: Tensor) -> Tensor:
        return _outer(_splines(coords, self.shape, self.order))


def _splines(place: Tensor, shape: tuple[int, ...], order: int) -> Iterator[Tensor]:
    """Of each axis the mirrored B-splines at places (.., d) in the unit cube: (.., n)."""
    for axis, n in enumerate(shape):
        nodes, fold = (torch.as_tensor(v, dtype=place.dtype, device=place.device) for v in _mirrors(n))
        yield _cardinal(place[..., axis, None] * n - 0.5 - nodes, order) @ fold


def _outer(axes: Iterable[Tensor]) -> Tensor:
    """Multiply one function of each axis, the last axis fastest."""
    return functools.reduce(lambda a, b: (a[..., :, None] * b[..., None, :]).flatten(-2), axes)


def _cardinal(x: Tensor, order: int) -> Tensor:
    """The centred cardinal B-spline, as `stencils.bases.cardinal_bspline`, for tensors that may carry gradients."""
    x = x.abs()
    if order == 0:
        return (x < 0.5).to(x) + 0.5 * (x == 0.5).to(x)
    if order == 1:
        return (1 - x).clamp(min=0)
    if order == 2:
        return torch.where(x < 0.5, 0.75 - x**2, 0.5 * (1.5 - x).clamp(min=0) ** 2)
    return torch.where(x < 1, 2 / 3 - x**2 + x**3 / 2, (2 - x).clamp(min=0) ** 3 / 6)


def _mirrors(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes as far outside as a spline reaches in (n + 4,), and of which of the n nodes each is the image in mirrors at -1/2
    and n - 1/2: (n + 4, n)."""
    nodes = np.arange(-2, n + 2)
    turned = nodes % (2 * n)
    return nodes, np.eye(n)[np.minimum(turned, 2 * n - 1 - turned)]


def _interpolation(n: int, order: int, like: Tensor) -> Tensor:
    """From the values at n nodes to the coefficients of mirrored splines (n, n)."""
    return torch.as_tensor(_inverse(n, order), dtype=like.dtype, device=like.device)


@functools.lru_cache(maxsize=64)
def _inverse(n: int, order: int) -> np.ndarray:
    nodes, fold = _mirrors(n)
    return np.linalg.inv(cardinal_bspline(np.arange(n)[:, None] - nodes, order) @ fold)  # at node i, spline j
