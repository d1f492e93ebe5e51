"""Floor 1: which samples of a regular grid surround points on the CPU, and with which weights, by `corners.cpp`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call

MOST_AXES = 4
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
    box = (np.array(shape, np.int64), np.array(low, np.float64), np.array(size, np.float64))
    call("corners", _NAMES[points.dtype], points.contiguous(), m, d, *box, int(align), taps, rows, weights)
    return rows, weights
