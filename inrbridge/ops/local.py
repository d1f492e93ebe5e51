"""Floor 1: one local operator, y_i = sum_k (sum_j P[i, k, j] f_j) W_k, dispatched to the kernel that fits.

Every convolution, pooling and tokenization of the engine is this sum; only P and W differ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inrbridge.ops.bilinear import apply_bilinear
from inrbridge.ops.binned import BinnedOperator
from inrbridge.ops.plain import LocalOperator
from inrbridge.ops.sparse import SparseRows


def _points_first(values: Tensor) -> Tensor:
    return values.transpose(0, 1).contiguous()  # (b, n, c) -> (n, b, c); free when it already lies so


def local(values: Tensor, kernel: Tensor, matrix: SparseRows, transposed: Callable[[], SparseRows], groups: int = 1) -> Tensor:
    """Apply the local operator given as a sparse matrix.

    Args:
        values: (b, n_in, c).
        kernel: (k, c / groups, o).
        matrix: P as (n_out * k, n_in): row i * k + node.
        transposed: returns its transpose (n_in, n_out * k), asked for in backward only.

    Returns:
        (b, n_out, o); memory lies points first, so that a following local operator copies nothing.
    """
    return apply_bilinear(LocalOperator(matrix, transposed, groups), _points_first(values), kernel).transpose(0, 1)


def local_binned(values: Tensor, kernel: Tensor, target: Tensor, source: Tensor, weight: Tensor, offsets: tuple[int, ...],
                 n_out: int) -> Tensor:  # fmt: skip
    """Apply the local operator given as pairs sorted by node: each pair feeds one node.

    Args:
        values: (b, n_in, c).
        kernel: (k, c, o).
        target, source, weight: (pairs,) output point, input point and weight of each pair.
        offsets: k + 1 bounds; node k owns pairs offsets[k] to offsets[k + 1].

    Returns:
        (b, n_out, o).
    """
    operator = BinnedOperator(target, source, weight, offsets, values.shape[1], n_out)
    return apply_bilinear(operator, _points_first(values), kernel).transpose(0, 1)


def grid_convolution(values: Tensor, kernel: Tensor, bias: Tensor | None, shape: tuple[int, ...], *, stride: int,
                     dilation: tuple[int, ...], groups: int, pads: tuple[tuple[int, int], ...], mode: str) -> Tensor:  # fmt: skip
    """Convolve values (b, n, c) on a row-major grid by torch's own convolution: same result, same cost.

    Args:
        kernel: (o, c / groups, *sizes) as torch lays it out; bias: (o,) or None.
        pads: cells (before, after) added along each axis; mode: "constant", "reflect" or "circular".

    Returns:
        (b, n_out, o).
    """
    d = len(shape)
    image = values.unflatten(1, shape).movedim(-1, 1)  # (b, c, *shape), channels last in memory
    symmetric = mode == "constant" and all(before == after for before, after in pads)
    if not symmetric:
        flat = [amount for pair in reversed(pads) for amount in pair]
        image = torch.nn.functional.pad(image, flat, mode=mode)
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[d - 1]
    padding = [before for before, _ in pads] if symmetric else 0
    out = convolve(image, kernel, bias, stride, padding, dilation, groups)
    return out.movedim(1, -1).flatten(1, d)
