"""Floor 1: reductions over neighbour lists that are not linear: maxima and log-mean-exponentials.

One pass over the places of the lists; each gathers a (b, m, c) slice, so that (b, m, t, c) never exists.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


@torch.no_grad()
def window_argmax(values: Tensor, index: Tensor) -> Tensor:
    """Return, for values (b, n, c) and lists index (m, t), which point holds the maximum: long (b, m, c).

    The first of equal values wins, a NaN wins over all. Lists are padded by repeating one of their points.
    """
    best = values.index_select(1, index[:, 0])
    arg = index[:, 0, None].expand_as(best).clone()
    for place in index.unbind(1)[1:]:
        candidate = values.index_select(1, place)
        better = ~(candidate <= best) & (best == best)  # the second term keeps a NaN
        best = torch.where(better, candidate, best)
        arg = torch.where(better, place[:, None], arg)
    return arg


class _LogMeanExp(torch.autograd.Function):
    """y_i = log(sum_t w_it exp(beta f_it)) / beta, by a first pass for the maximum and a second for the sum.

    The derivatives are written in torch operations on values and output, so that they have derivatives themselves.
    """

    @staticmethod
    def forward(values, index, weight, beta):
        places, weights = index.unbind(1), weight.unbind(1)
        top = values.index_select(1, places[0])
        for place in places[1:]:
            top = torch.maximum(top, values.index_select(1, place))
        total = torch.zeros_like(top)
        for place, w in zip(places, weights, strict=True):
            total += w[:, None] * torch.exp(beta * (values.index_select(1, place) - top))
        return top + total.clamp(min=torch.finfo(total.dtype).tiny).log() / beta

    @staticmethod
    def setup_context(ctx, inputs, output):
        values, index, weight, ctx.beta = inputs
        ctx.save_for_backward(values, index, weight, output)
        ctx.save_for_forward(values, index, weight, output)

    @staticmethod
    def backward(ctx, grad):
        values = ctx.saved_tensors[0]
        grad_values = torch.zeros_like(values)
        for place, share in _shares(ctx):
            grad_values.index_add_(1, place, grad * share)
        return grad_values, None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return sum(share * tangent.index_select(1, place) for place, share in _shares(ctx))


def _shares(ctx) -> Iterator[tuple[Tensor, Tensor]]:
    """For each place of the lists, its points (m,) and their derivatives dy / df (b, m, c), which sum to one."""
    values, index, weight, out = ctx.saved_tensors
    for place, w in zip(index.unbind(1), weight.unbind(1), strict=True):
        yield place, w[:, None] * torch.exp(ctx.beta * (values.index_select(1, place) - out))


def window_logmeanexp(values: Tensor, index: Tensor, weight: Tensor, beta: float) -> Tensor:
    """Return log(sum_t w exp(beta f)) / beta over each list: values (b, n, c), index and weight (m, t) -> (b, m, c).

    The weights of a list sum to 1; padding repeats one of its points with weight 0.
    """
    return _LogMeanExp.apply(values, index, weight, beta)
