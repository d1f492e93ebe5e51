"""Floor 1: which samples of a regular grid surround points on the CPU, and with which weights, by `corners.cpp`."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrbridge.compiled.building import library

MOST_AXES = 4
_ARGUMENTS = [ctypes.c_void_p, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 2]
_NAMES = {torch.float32: "corners_float", torch.float64: "corners_double"}


def available(points: Tensor, shape: Sequence[int]) -> bool:
    """Say whether the compiled kernel finds the samples of a grid of this shape around points (m, d)."""
    fits = points.device.type == "cpu" and points.dtype in _NAMES and len(shape) <= MOST_AXES and math.prod(shape) < 2**31
    return fits and library("corners") is not None


def corners(
    points: Tensor, shape: Sequence[int], low: Sequence[float], size: Sequence[float], align: bool, taps: int
) -> tuple[Tensor, Tensor]:
    """Return the rows (m, taps^d) int32 of the samples around points (m, d) of the box at `low` of `size`, and their weights.

    Args:
        align: the outermost samples lie on the border, not half a cell inside.
        taps: 2, linear, or 4, cubic convolution.
    """
    m, d = points.shape
    rows = torch.empty(m, taps**d, dtype=torch.int32)
    weights = points.new_empty(m, taps**d)
    function = getattr(library("corners"), _NAMES[points.dtype])
    function.argtypes, function.restype = _ARGUMENTS, None
    box = ((ctypes.c_int64 * d)(*shape), (ctypes.c_double * d)(*low), (ctypes.c_double * d)(*size))
    points = points.contiguous()
    function(points.data_ptr(), m, d, *box, int(align), taps, rows.data_ptr(), weights.data_ptr())
    return rows, weights
