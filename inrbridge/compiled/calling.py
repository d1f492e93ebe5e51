"""Floor 1: how C functions on pointers and 64-bit integers are called with arrays."""

from __future__ import annotations

import ctypes

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from inrbridge.compiled.building import library


def call(name: str, function: str, *given: np.ndarray | Tensor | int | float | None) -> None:
    """Call a function of NAME.cpp: contiguous arrays and tensors as pointers, None as a null one, numbers as int64 or double."""
    getattr(library(name), function)(*map(_argument, given))


def is_eager() -> bool:
    """Say whether tensors are plain ones, with addresses and no tangents: neither traced for a compiler, nor wrapped by
    `torch.func`, nor dual numbers of `torch.autograd.forward_ad`."""
    wrapped = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return not wrapped and forward_ad._current_level < 0


def _argument(value):
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, Tensor):
        assert value.device.type == "cpu" and value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value)


def room(*shape: int, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """Return an array for results, of torch's memory, which is used again once it is free: for large arrays numpy asks the system
    for huge pages every time, and where memory is in pieces that has cost several times the work itself."""
    return torch.empty(shape, dtype=dtype).numpy()
