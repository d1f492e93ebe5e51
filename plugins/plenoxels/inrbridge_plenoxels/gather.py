"""Weighted sums of rows of a table, twice differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_NARROW = 32  # columns of a table up to which sums by counting are the quickest


class _WeightedRows(torch.autograd.Function):
    """sum_k weights[:, k] table[rows[:, k]] in one pass over the table.

    `embedding_bag` does the same forward; its own backward pass sorts all rows, and has no derivative.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        return functional.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        table, rows, weights = ctx.saved_tensors
        to_table = to_weights = None
        if ctx.needs_input_grad[0]:
            to_table = _spread(grad, rows, weights, table)
        if ctx.needs_input_grad[2]:
            to_weights = (table[rows] * grad.unsqueeze(1)).sum(-1)
        return to_table, None, to_weights


def _spread(grad: Tensor, rows: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """Add weights[:, k] grad to rows[:, k] of a table of zeros."""
    flat = rows.flatten()
    if table.shape[1] <= _NARROW and table.device.type == "cpu" and not torch.is_grad_enabled():  # up to twice as quick
        sums = [torch.bincount(flat, (weights * column.unsqueeze(1)).flatten(), len(table)) for column in grad.unbind(1)]
        return torch.stack(sums, 1)
    parts = (weights.unsqueeze(-1) * grad.unsqueeze(1)).flatten(0, 1)
    return torch.zeros_like(table).scatter_add(0, flat.unsqueeze(1).expand_as(parts), parts)


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k weights[:, k] table[rows[:, k]]: table (r, f), rows and weights (m, k) -> (m, f) in the weights' dtype."""
    if table.dtype == weights.dtype and table.dtype in (torch.float32, torch.float64):
        return _WeightedRows.apply(table, rows, weights)
    return (functional.embedding(rows, table).to(weights.dtype) * weights.unsqueeze(-1)).sum(-2)
