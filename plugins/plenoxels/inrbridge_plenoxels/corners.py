"""Which rows of a lattice's table surround points on the CPU, and with which weights, by `corners.cpp`, compiled on first use."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from inrbridge.batched import Sources, asks_gradient, is_eager

_sources = Sources(Path(__file__).parent)
_NAMES = {torch.float32: "corners_float", torch.float64: "corners_double"}
_ARGUMENTS = [*[ctypes.c_int64] * 5, *[ctypes.c_void_p] * 5]


def available(u: Tensor, resolution: Sequence[int], links: Tensor | None) -> bool:
    """Say whether the compiled kernel finds the corners that `corners` takes; it gives no derivatives."""
    fits = u.device.type == "cpu" and u.dtype in _NAMES and u.shape[-1] == len(resolution) and not asks_gradient(u, ())
    if fits and links is not None:
        fits = links.dtype == torch.int32 and links.device == u.device and links.shape[1] == math.prod(resolution)
        fits = fits and (u.ndim == 2 or len(links) == len(u))
    return fits and is_eager() and _sources.library("corners") is not None


def corners(u: Tensor, resolution: Sequence[int], links: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return rows (.., 2^d) int32 and weights (.., 2^d) around u, as `Lattice.find` does.

    Args:
        u: (n, d) shared by all fields or (b, n, d).
        links: (b, cells) int32, or None where each cell has its row.
    """
    n, dim = u.shape[-2:]
    shape = (*u.shape[:-1], 2**dim) if links is None or u.ndim == 3 else (len(links), n, 2**dim)
    rows, weights = u.new_empty(shape, dtype=torch.int32), u.new_empty(shape)
    if rows.numel():
        links = links if links is None or links.stride(1) == 1 else links.contiguous()
        sizes = (dim, rows.numel() // (n * 2**dim), n, u.ndim == 2, 0 if links is None else links.stride(0))
        points = u.contiguous()
        function = getattr(_sources.library("corners"), _NAMES[u.dtype])
        function.argtypes, function.restype = _ARGUMENTS, None
        function(*sizes, (ctypes.c_int64 * dim)(*resolution), points.data_ptr(), None if links is None else links.data_ptr(),
                 rows.data_ptr(), weights.data_ptr())  # fmt: skip
    return rows, weights
