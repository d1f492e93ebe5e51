"""Floor 1: sines of tensors on the CPU by `sine.cpp`, with their slopes in the same pass."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from inrbridge.compiled.building import library

_NAMES = {torch.float32: "sine_f32", torch.float64: "sine_f64"}
_ARGUMENTS = [ctypes.c_void_p, ctypes.c_double, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]


def available(x: Tensor) -> bool:
    """Say whether the compiled sine takes a tensor: dense numbers of 32 or 64 bits on the CPU, where there is a compiler."""
    return x.device.type == "cpu" and x.dtype in _NAMES and x.is_contiguous() and library("sine") is not None


def sine(x: Tensor, omega: float = 1.0, *, slopes: bool = False, out: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return sin(omega x), and omega cos(omega x) if asked for; omega x is rounded as a tensor of its own would be.

    Errors are below 1e-7 (float32) and 2e-16 (float64) everywhere, and within 1.5 units in the last place where the sine is not
    small, for |omega x| up to 1e5 and 1e9; larger arguments go to the C library.

    Args:
        x: any shape; `available(x)` holds.
        out: takes the sines; x itself may be given.
    """
    y = torch.empty_like(x) if out is None else out
    c = torch.empty_like(x) if slopes else None
    function = getattr(library("sine"), _NAMES[x.dtype])
    function.argtypes, function.restype = _ARGUMENTS, None
    function(x.data_ptr(), omega, x.numel(), y.data_ptr(), None if c is None else c.data_ptr())
    return y, c
