"""Floor 5: B-spline surfaces through given values (Wang & Golland 2023, appendix C, "Tokenization").

They carry what a discrete layer holds on a net of cells, weights of a patch or positions of tokens, over to all points.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrbridge.domains import Box
from inrbridge.errors import ConfigError
from inrbridge.stencils.bases import cardinal_bspline


@dataclass(frozen=True)
class SplineBasis:
    """Tensor B-splines on the cells of a box: B_k is 1 at the centre of cell k and 0 at the other centres.

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
        place = (coords - low) / size
        order = self.order if self.order is not None else 2 if max(self.shape) <= 3 else 3
        out = coords.new_ones(*coords.shape[:-1], 1)
        for axis, n in enumerate(self.shape):
            images = torch.as_tensor(_images(n), dtype=coords.dtype, device=coords.device)  # (n, images)
            splines = _cardinal(place[..., axis, None, None] * n - 0.5 - images, order).sum(-1)  # (..., n)
            values = splines @ torch.as_tensor(_interpolation(n, order), dtype=coords.dtype, device=coords.device)
            out = (out[..., :, None] * values[..., None, :]).flatten(-2)
        return out


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


def _images(n: int) -> np.ndarray:
    """Where node j stands in the mirrors at -1/2 and n - 1/2, as far as a spline reaches: (n, images)."""
    nodes, turns = np.arange(n)[:, None], 2 * n * np.arange(-2, 3)
    return np.concatenate([nodes + turns, -1 - nodes + turns], axis=1)


@functools.lru_cache(maxsize=64)
def _interpolation(n: int, order: int) -> np.ndarray:
    """From the values at n nodes to the coefficients of mirrored splines, transposed: (n, n)."""
    splines = cardinal_bspline(np.arange(n)[:, None, None] - _images(n), order).sum(-1)  # at node i, spline j
    return np.linalg.inv(splines)
