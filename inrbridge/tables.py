"""Floor 1: rows of tables of numbers, weighted and summed, for many fields at once; differentiable any number of times.

Row r of a table of f columns stands for one place of a field's grid. Tables (b, r, f) of b fields lie one after the other, or,
by `side_by_side`, so that row r of all fields is one piece of memory. Which is quicker: rows are scattered, and memory gives 64
bytes at once, of which a row of two numbers uses eight. Where all fields are asked at the same points, side by side is as many
times quicker as its rows are longer; where each has its own points it makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from inrbridge.compiled import rows as _compiled
from inrbridge.compiled.calling import is_eager

_NARROW = 32  # columns of a table up to which sums by counting are the quickest
_MOST_KEPT = 2**14  # coordinates of a set of points that is recalled
_SETS_KEPT = 8
Result = TypeVar("Result")


def side_by_side(tables: Sequence[Tensor]) -> Tensor:
    """Stack tables (r, .., f) to (b, r, .., f), a view of memory in which the numbers of all fields stand beside each other."""
    return torch.stack(list(tables), -2).movedim(-2, 0)


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k weights[:, k] table[rows[:, k]].

    Args:
        table: (r, f).
        rows: (m, k), int32 or int64.
        weights: (m, k).

    Returns:
        (m, f) in the dtype of the weights.
    """
    return table_rows(table.unsqueeze(0), rows.unsqueeze(0), weights.unsqueeze(0))[0]


def table_rows(tables: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Return sums of weighted rows of the tables of b fields, those of one level beside those of the next.

    Args:
        tables: (b, r, f).
        rows: (levels, n, k) for points that all fields share, else (levels, b, n, k); int32 or int64.
        weights: of the shape of the rows.

    Returns:
        (b, n, levels f) in the dtype of the weights; numbers of 16 bits are summed in 32.
    """
    if weights.dtype not in (torch.float32, torch.float64):
        return table_rows(tables, rows, weights.float()).to(weights.dtype)
    asked = torch.is_grad_enabled() and (tables.requires_grad or weights.requires_grad)
    if not asked and is_eager() and _compiled.available(tables, weights.dtype):
        return _compiled.sums(tables, rows, weights)
    if tables.dtype == weights.dtype:
        return _Sums.apply(tables, rows, weights)
    if tables.shape[1] <= len(rows) * rows.shape[-2] * rows.shape[-1]:  # fewer rows than are read
        return _Sums.apply(tables.to(weights.dtype), rows, weights)
    return _arranged((_gathered(tables, rows).to(weights.dtype) * _of_fields(weights).unsqueeze(-1)).sum(-2))


class Recall:
    """The last few results of a function of points, for those who ask at the same points again.

    A set of points is compared number by number, which takes a thousandth of the time that a search for corners takes; points
    that ask for gradients, large sets and those on a GPU are not kept.
    """

    def __init__(self):
        self._kept: list[tuple[Tensor, object]] = []

    def __reduce__(self):
        return Recall, ()  # a copy begins anew

    def __call__(self, function: Callable[[Tensor], Result], points: Tensor) -> Result:
        """Return function(points), which must depend on nothing else."""
        plain = points.device.type == "cpu" and is_eager() and not (points.requires_grad or torch.is_inference_mode_enabled())
        if not plain or points.numel() > _MOST_KEPT:
            return function(points)
        for known, found in self._kept:
            if known.dtype == points.dtype and torch.equal(known, points):
                return found
        found = function(points)
        self._kept = [(points.detach().clone(), found), *self._kept[: _SETS_KEPT - 1]]
        return found


def _sums(tables: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """table_rows, as a plain computation."""
    if _is_compiled(tables, weights.dtype):
        return _compiled.sums(tables, rows, weights)
    b, r, f = tables.shape
    levels, n, k = rows.shape[0], *rows.shape[-2:]
    if b * f == 0:  # of which some builds of torch take no sums
        return weights.new_zeros(b, n, levels * f)
    if rows.ndim == 3 and (b == 1 or tables.stride(0) == f):  # a long row for all fields
        table = tables.transpose(0, 1).reshape(r, b * f)
        found = functional.embedding_bag(rows.reshape(-1, k), table, per_sample_weights=weights.reshape(-1, k), mode="sum")
        return _arranged(found.reshape(levels, n, b, f).transpose(1, 2))
    rows, weights = _of_all(rows, tables), _of_fields(weights).expand(levels, b, n, k)
    table = tables.reshape(b * r, f)
    found = functional.embedding_bag(rows.reshape(-1, k), table, per_sample_weights=weights.reshape(-1, k), mode="sum")
    return _arranged(found.reshape(levels, b, n, f))


def _spread(weights: Tensor, rows: Tensor, grad: Tensor, like: Tensor) -> Tensor:
    """The derivative of <grad, table_rows> toward the tables, which lie as `like` does."""
    if _is_compiled(like, grad.dtype):
        return _compiled.spread(weights, rows, grad, like)
    b, r, f = like.shape
    parts = _of_fields(weights).unsqueeze(-1) * grad.unflatten(-1, (len(rows), f)).permute(2, 0, 1, 3).unsqueeze(-2)
    flat, parts = _of_all(rows, like).flatten(), parts.flatten(0, -2)  # (levels b n k,), (levels b n k, f)
    if f <= _NARROW and like.device.type == "cpu":
        sums = [torch.bincount(flat, column, b * r) for column in parts.unbind(1)]
        return torch.stack(sums, 1).reshape(b, r, f) if sums else torch.zeros_like(like)
    return parts.new_zeros(b * r, f).index_add(0, flat, parts).reshape(b, r, f)


def _dots(tables: Tensor, rows: Tensor, grad: Tensor) -> Tensor:
    """The derivative of <grad, table_rows> toward the weights."""
    if _is_compiled(tables, grad.dtype):
        return _compiled.dots(tables, rows, grad)
    grad = grad.unflatten(-1, (len(rows), tables.shape[2])).permute(2, 0, 1, 3).unsqueeze(-2)  # (levels, b, n, 1, f)
    found = (_gathered(tables, rows) * grad).sum(-1)
    return found.sum(1) if rows.ndim == 3 else found


def _is_compiled(tables: Tensor, dtype: torch.dtype) -> bool:
    """Say whether the compiled kernels do the work; a recorder of graphs sees plain torch."""
    return not torch.compiler.is_compiling() and _compiled.available(tables, dtype)


def _of_fields(values: Tensor) -> Tensor:
    """Rows or weights with an axis of fields: (levels, b or 1, n, k)."""
    return values.unsqueeze(1) if values.ndim == 3 else values


def _of_all(rows: Tensor, tables: Tensor) -> Tensor:
    """Rows in the table that all tables make, one after the other: (levels, b, n, k), int64."""
    b, r, _ = tables.shape
    return _of_fields(rows) + r * torch.arange(b, device=rows.device)[:, None, None]


def _gathered(tables: Tensor, rows: Tensor) -> Tensor:
    """(levels, b, n, k, f)."""
    return functional.embedding(_of_all(rows, tables), tables.flatten(0, 1))


def _arranged(found: Tensor) -> Tensor:
    """(levels, b, n, f) -> (b, n, levels f)."""
    return found.permute(1, 2, 0, 3).flatten(2).contiguous()


class _Sums(torch.autograd.Function):
    """<grad, table_rows(tables, rows, weights)> is linear in each of three; derivatives of its derivatives are those again."""

    @staticmethod
    def forward(tables: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        return _sums(tables, rows, weights)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        tables, rows, weights = ctx.saved_tensors
        to_tables = _Spread.apply(weights, rows, grad, tables.detach()) if ctx.needs_input_grad[0] else None
        return to_tables, None, _Dots.apply(tables, rows, grad) if ctx.needs_input_grad[2] else None

    @staticmethod
    def jvp(ctx, *tangents: Tensor | None):
        return _moved(_Sums, ctx.saved_tensors, tangents)

    @staticmethod
    def vmap(info, in_dims, tables: Tensor, rows: Tensor, weights: Tensor):
        if in_dims[0] is not None:
            return _one_by_one(_Sums, info, in_dims, (tables, rows, weights))
        rows, weights = (_more_points(x, dim, info) for x, dim in zip((rows, weights), in_dims[1:], strict=True))
        return _Sums.apply(tables, rows, weights).unflatten(1, (info.batch_size, -1)), 1


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(weights: Tensor, rows: Tensor, grad: Tensor, like: Tensor) -> Tensor:
        return _spread(weights, rows, grad, like)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, asked: Tensor):
        weights, rows, grad = ctx.saved_tensors
        to_weights = _Dots.apply(asked, rows, grad) if ctx.needs_input_grad[0] else None
        return to_weights, None, _Sums.apply(asked, rows, weights) if ctx.needs_input_grad[2] else None, None

    @staticmethod
    def jvp(ctx, *tangents: Tensor | None):
        return _moved(_Spread, ctx.saved_tensors, tangents)

    @staticmethod
    def vmap(info, in_dims, *given):
        return _one_by_one(_Spread, info, in_dims, given)


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(tables: Tensor, rows: Tensor, grad: Tensor) -> Tensor:
        return _dots(tables, rows, grad)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, asked: Tensor):
        tables, rows, grad = ctx.saved_tensors
        to_tables = _Spread.apply(asked, rows, grad, tables.detach()) if ctx.needs_input_grad[0] else None
        return to_tables, None, _Sums.apply(tables, rows, asked) if ctx.needs_input_grad[2] else None

    @staticmethod
    def jvp(ctx, *tangents: Tensor | None):
        return _moved(_Dots, ctx.saved_tensors, tangents)

    @staticmethod
    def vmap(info, in_dims, tables: Tensor, rows: Tensor, grad: Tensor):
        if in_dims[0] is not None:
            return _one_by_one(_Dots, info, in_dims, (tables, rows, grad))
        rows, grad = _more_points(rows, in_dims[1], info), _more_points(grad, in_dims[2], info)
        found = _Dots.apply(tables, rows, grad).unflatten(-2, (info.batch_size, -1))
        return found, found.ndim - 3


def _moved(function: type[torch.autograd.Function], given: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> Tensor:
    """The derivative along tangents of a function that is linear in its first and its third argument."""
    parts = [function.apply(*given[:at], tangents[at], *given[at + 1 :]) for at in (0, 2) if tangents[at] is not None]
    return sum(parts[1:], parts[0])


def _more_points(values: Tensor, dim: int | None, info) -> Tensor:
    """Take the copies that vmap makes for further points of the same tables: they go before the last axis but one."""
    copies = values.unsqueeze(0).expand(info.batch_size, *values.shape) if dim is None else values.movedim(dim, 0)
    return copies.movedim(0, -3).flatten(-3, -2)


def _one_by_one(function: type[torch.autograd.Function], info, in_dims, given):
    each = ([x] * info.batch_size if dim is None else x.unbind(dim) for x, dim in zip(given, in_dims, strict=True))
    return torch.stack([function.apply(*some) for some in zip(*each, strict=True)]), 0
