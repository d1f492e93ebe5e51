"""Floor 1: where Triton's kernels run and in which arithmetic."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def interprets() -> bool:
    """Say whether Triton interprets its kernels, on the CPU, as tests ask it to."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def has_triton(device: torch.device) -> bool:
    """Say whether Triton's kernels run on a device: one of compute capability 8 or more, or any where they are interpreted."""
    if interprets():
        return _installed()
    return device.type == "cuda" and _installed() and _has_compiler() and _capable(device)


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _has_compiler() -> bool:
    """Triton builds the launcher of a kernel by the system's C compiler."""
    return any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))


@functools.cache
def _capable(device: torch.device) -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def beside(like: torch.Tensor) -> contextlib.AbstractContextManager:
    """Launch on the device of a tensor, whatever the current one is."""
    return torch.cuda.device(like.device) if like.device.type == "cuda" else contextlib.nullcontext()


def precision(dtype: torch.dtype) -> str:
    """Arithmetic of a product: float32 by tf32 where torch allows it for its own, else by three of them that make up float32."""
    return "tf32" if dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def multiprocessors(like: torch.Tensor) -> int:
    """The programs that run at a time, one on each multiprocessor."""
    return torch.cuda.get_device_properties(like.device).multi_processor_count if like.device.type == "cuda" else 1
