"""Which rows of a grid's table surround points on the CPU, and with which weights, by `levels.cpp`, compiled on first use."""

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
    *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 5, ctypes.c_double, *[ctypes.c_int64] * 4,
    ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p,
]  # fmt: skip


def available(u: Tensor) -> bool:
    """Say whether the compiled kernel finds the cells of points u (m, dim); it gives no derivatives."""
    return u.device.type == "cpu" and u.dtype in _NAMES and is_eager() and _sources.library("levels") is not None


@dataclass(frozen=True)
class Finder:
    """What the kernel knows of a grid.

    Attributes:
        scales: (levels,) steps along the unit interval, of which `shift` is the first.
        factors: (levels, dim) of whole numbers along each axis in the number of a row.
        hashed, sizes, firsts: (levels,) whether those are joined by xor, a level's rows, and its first row.
        wide: places are computed in double precision and rounded once.
        ceils: the high end of a cell is ceil(place), not floor(place) + 1.
        smooth, nearest: weights are those of smoothstep; there is one corner, of weight 1.
    """

    scales: np.ndarray
    factors: np.ndarray
    hashed: np.ndarray
    sizes: np.ndarray
    firsts: np.ndarray
    shift: float
    wide: bool
    ceils: bool
    smooth: bool
    nearest: bool

    @cached_property
    def _corners(self) -> int:
        return 1 if self.nearest else 2 ** self.factors.shape[1]

    @cached_property
    def _index(self) -> torch.dtype:
        return torch.int32 if int(self.firsts[-1] + self.sizes[-1]) < 2**31 else torch.int64

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows and weights (levels, m, corners) of the cells around u (m, dim), as `GridSpec.cells` does."""
        levels, dim = self.factors.shape
        shape = (levels, len(u), self._corners)
        rows, weights = torch.empty(shape, dtype=self._index), torch.empty(shape, dtype=u.dtype)
        points = u.detach().contiguous()
        arrays = (array.ctypes.data for array in (self.scales, self.factors, self.hashed, self.sizes, self.firsts))
        kinds = (self.shift, self.wide, self.ceils, self.smooth, self.nearest)
        function = getattr(_sources.library("levels"), _NAMES[u.dtype])
        function.argtypes, function.restype = _ARGUMENTS, None
        function(dim, levels, *arrays, *kinds, points.data_ptr(), len(u), rows.data_ptr(), rows.itemsize, weights.data_ptr())
        return rows, weights
