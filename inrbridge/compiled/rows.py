"""Floor 1: sums of weighted rows of the tables of b fields on the CPU by `rows.cpp`, and their two derivatives.

Rows and weights are (levels, n, corners) where all fields share their points, else (levels, b, n, corners).
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from inrbridge.compiled.building import library

_NAMES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}
MOST_ROWS = 2**31  # of one table


def available(tables: Tensor, dtype: torch.dtype) -> bool:
    """Say whether rows of tables (b, r, f) can be summed with weights of a dtype: their own, or float32 for bfloat16."""
    fits = dtype == (torch.float32 if tables.dtype == torch.bfloat16 else tables.dtype)
    fits = fits and tables.device.type == "cpu" and tables.dtype in _NAMES and tables.shape[1] < MOST_ROWS
    return fits and (tables.stride(2) == 1 or tables.shape[2] == 1) and library("rows") is not None


def sums(tables: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Return sum_q weights[.., q] table_i[rows[.., q]] for the fields i: (b, n, levels f), level beside level."""
    b, _, width = tables.shape
    levels, n = rows.shape[0], rows.shape[-2]
    out = weights.new_empty(b, n, levels * width)
    _call(f"sum_{_NAMES[tables.dtype]}", (tables, _checked(rows, tables), weights.contiguous(), out), tables, rows)
    return out


def spread(weights: Tensor, rows: Tensor, grad: Tensor, like: Tensor) -> Tensor:
    """Return the derivative of <grad, sums(tables, rows, weights)> toward tables that lie as `like` does."""
    tables = torch.zeros_like(like)
    given = (_checked(rows, like), weights.contiguous(), grad.contiguous(), tables)
    _call(f"spread_{_NAMES[like.dtype]}", given, tables, rows)
    return tables


def dots(tables: Tensor, rows: Tensor, grad: Tensor) -> Tensor:
    """Return the derivative of <grad, sums(tables, rows, weights)> toward the weights."""
    out = torch.zeros(rows.shape, dtype=grad.dtype)
    _call(f"dots_{_NAMES[tables.dtype]}", (tables, _checked(rows, tables), grad.contiguous(), out), tables, rows)
    return out


def _checked(rows: Tensor, tables: Tensor) -> Tensor:
    """Rows as the kernels take them; a row beyond the table would be read from somewhere else."""
    if rows.numel() and tables.shape[0]:
        low, high = map(int, torch.aminmax(rows))
        if low < 0 or high >= tables.shape[1]:
            raise IndexError(f"Got rows from {low} to {high} of tables of {tables.shape[1]} rows, expected 0 to the last one.")
    return rows.to(torch.int32).contiguous()


def _call(name: str, arrays: tuple[Tensor, ...], tables: Tensor, rows: Tensor) -> None:
    b, _, width = tables.shape
    levels, n, corners = rows.shape[0], *rows.shape[-2:]
    sizes = (b, levels, n, corners, width, tables.stride(0), tables.stride(1), int(rows.ndim == 3))
    if 0 in sizes[:5]:  # a sum of nothing
        arrays[-1].zero_()
        return
    function = getattr(library("rows"), name)
    function.argtypes, function.restype = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64] * len(sizes), None
    function(*(array.data_ptr() for array in arrays), *sizes)
