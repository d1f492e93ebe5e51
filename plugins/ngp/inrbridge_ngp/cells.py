"""Which rows of a grid's table surround points on the CPU, and with which weights, by `cells.cpp`, compiled on first use."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inrbridge.batched import Sources, is_eager

_sources = Sources(Path(__file__).parent)
_NAMES = {torch.float32: "cells_float", torch.float64: "cells_double"}
_ARGUMENTS = [
    ctypes.c_void_p, *[ctypes.c_int64] * 2, ctypes.c_double, *[ctypes.c_int64] * 4,
    ctypes.c_void_p, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 2,
]  # fmt: skip
MOST_DIMENSIONS = 7
LEVEL = np.dtype([("scale", "f8"), ("size", "i8"), ("first", "i8"), ("is_hashed", "i8"), ("factors", "i8", MOST_DIMENSIONS)])


def available(u: Tensor, dim: int) -> bool:
    """Say whether the compiled kernel finds the cells of points u (m, dim); it gives no derivatives."""
    fits = u.device.type == "cpu" and u.dtype in _NAMES and u.ndim == 2 and u.shape[1] == dim
    return fits and is_eager() and _sources.library("cells") is not None


@dataclass(frozen=True, eq=False)
class Finder:
    """What the kernel knows of a grid.

    Attributes:
        levels: (levels,) of dtype LEVEL: steps along the unit interval, number of rows and the first of them, and the factors
            along each axis in the number of a row, joined by xor where the level is hashed, else by a sum.
        dim: number of coordinates.
        shift: of all lattices, in steps.
        wide: places are computed in double precision and rounded once.
        ceils: the high end of a cell is ceil(place), not floor(place) + 1.
        smooth, nearest: weights are those of smoothstep; there is one corner, of weight 1.
    """

    levels: np.ndarray
    dim: int
    shift: float
    wide: bool
    ceils: bool
    smooth: bool
    nearest: bool

    @cached_property
    def _index(self) -> torch.dtype:
        return torch.int32 if int(self.levels["first"][-1] + self.levels["size"][-1]) < 2**31 else torch.int64

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows and weights (levels, m, corners) of the cells around u (m, dim), as `GridSpec.cells` does."""
        shape = (len(self.levels), len(u), 1 if self.nearest else 2**self.dim)
        rows, weights = u.new_empty(shape, dtype=self._index), u.new_empty(shape)
        points = u.detach().contiguous()
        grid = (self.levels.ctypes.data, len(self.levels), self.dim, self.shift, self.wide, self.ceils, self.smooth, self.nearest)
        function = getattr(_sources.library("cells"), _NAMES[u.dtype])
        function.argtypes, function.restype = _ARGUMENTS, None
        function(*grid, points.data_ptr(), len(u), rows.itemsize, rows.data_ptr(), weights.data_ptr())
        return rows, weights
