"""Floor 1: what fields share that evaluate many of their architecture at once: layers, rows of tables, and chunks of points.

Written for the authors of plugins; parameters of b fields are stacked along the first axis.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

_NARROW = 32  # columns of a table up to which sums by counting are the quickest


def unset_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer without values, on the default device: `nn.Linear` would draw them from the global generator."""
    return nn.Linear(inputs, outputs, bias, device="meta").to_empty(device=torch.get_default_device())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply b linear layers: x (b, n, in), weight (b, out, in), bias (b, out) or None -> (b, n, out)."""
    return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


def asks_gradient(x: Tensor, states: Iterable[Tensor]) -> bool:
    """Say whether a gradient can be asked for, in x or in one of the states; else points may be taken a few at a time."""
    return torch.is_grad_enabled() and (x.requires_grad or any(value.requires_grad for value in states))


def slices(count: int, step: int) -> list[slice]:
    """Cut `count` things into runs of `step`, at least one, which may be empty.

    >>> slices(5, 2), slices(0, 2)
    ([slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)], [slice(0, 2, None)])
    """
    return [slice(start, start + step) for start in range(0, max(1, count), step)]


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k weights[:, k] table[rows[:, k]], twice differentiable in the table and the weights.

    Args:
        table: (r, f).
        rows: (m, k), int32 or int64.
        weights: (m, k).

    Returns:
        (m, f) in the dtype of the weights.
    """
    if table.shape[1] == 0:  # of which some builds of torch take no sums
        return weights.new_zeros(len(rows), 0)
    if table.dtype == weights.dtype and table.dtype in (torch.float32, torch.float64):
        return _WeightedRows.apply(table, rows, weights)
    return (functional.embedding(rows.long(), table).to(weights.dtype) * weights.unsqueeze(-1)).sum(-2)


class _WeightedRows(torch.autograd.Function):
    """One pass over the table.

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
            to_weights = (table[rows.long()] * grad.unsqueeze(1)).sum(-1)
        return to_table, None, to_weights


def _spread(grad: Tensor, rows: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """Add weights[:, k] grad to rows[:, k] of a table of zeros."""
    flat = rows.flatten()
    if table.shape[1] <= _NARROW and table.device.type == "cpu" and not torch.is_grad_enabled():  # quicker, without a derivative
        sums = [torch.bincount(flat, (weights * column.unsqueeze(1)).flatten(), len(table)) for column in grad.unbind(1)]
        return torch.stack(sums, 1)
    parts = (weights.unsqueeze(-1) * grad.unsqueeze(1)).flatten(0, 1)
    return torch.zeros_like(table).scatter_add(0, flat.long().unsqueeze(1).expand_as(parts), parts)
