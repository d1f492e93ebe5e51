"""Floor 5: statistics over all processes of a run, each of which holds a share of the minibatch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def are_several() -> bool:
    """Say whether this process works together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def pooled(mean: Tensor, variance: Tensor, fields: int, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (c,), variance (c,) and effective number of values over the fields of all processes, which weigh the same.

    Every process must call it, and run its backward pass, as often as the others: gradients flow through the exchange.

    Args:
        mean, variance: of this process's fields (c,). fields: how many these are.
        count: effective number of values that this process's statistics rest on.
    """
    channels = len(mean)
    rows = _Gather.apply(torch.cat([mean, variance, mean.new_tensor([fields]), count.reshape(1).to(mean)]))  # (r, 2 c + 2)
    means, variances, numbers, counts = rows.split([channels, channels, 1, 1], dim=1)
    share = (numbers / numbers.sum()).detach()  # (r, 1)
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean) ** 2)).sum(0)
    return mean, variance, 1 / (share**2 / counts).sum().detach()


class _Gather(torch.autograd.Function):
    """Stack the vector (k,) of every process into (processes, k); the gradient comes back from all of them."""

    @staticmethod
    def forward(ctx, mine: Tensor) -> Tensor:
        mine = mine.contiguous()
        rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, mine)
        return torch.stack(rows)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]
