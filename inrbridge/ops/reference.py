"""Floor 1: the local operator written as its definition, for small sizes and as the truth of tests."""

import torch
from torch import Tensor


def local_dense(values: Tensor, stencil: Tensor, kernel: Tensor, groups: int = 1) -> Tensor:
    """Return y_i = sum_k (sum_j P[i, k, j] f_j) W_k.

    Args:
        values: f, (b, n_in, c).
        stencil: P, dense (n_out, k, n_in).
        kernel: W, (k, c / groups, o); output channels are split evenly over the groups, as in torch convolutions.

    Returns:
        (b, n_out, o).
    """
    nodes = torch.einsum("ikj,bjc->bikc", stencil.to(values), values)
    nodes = nodes.unflatten(3, (groups, -1))  # (b, n_out, k, g, c/g)
    return torch.einsum("bikgc,kcgo->bigo", nodes, kernel.unflatten(2, (groups, -1))).flatten(2)
