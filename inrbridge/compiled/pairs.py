"""Floor 1: pairs of points with a mixture of kernels each, by compiled sums and products, in float32 and float64."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inrbridge.compiled.bins import DTYPES
from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call


def available(like: Tensor) -> bool:
    """Say whether pairs beside a tensor can be worked on by compiled kernels."""
    return like.device.type == "cpu" and like.dtype in DTYPES and library("pairs") is not None


@dataclass(frozen=True, eq=False)
class Lists:
    """Pairs by output point: point i owns pairs bounds[i]:bounds[i + 1]."""

    order: Tensor  # (m,), the output points: near ones follow one another
    bounds: Tensor  # (m + 1,)
    column: Tensor  # (p,), input points
    node: Tensor  # (p,)
    weight: Tensor  # (p,)


def forward(lists: Lists, values: Tensor, features: Tensor, kernel: Tensor) -> Tensor:
    """Return sum over the pairs of i, and over h, of w phi[node, h] f[j] W[h].

    Args:
        values: (n, b, c). features: phi, (nodes, h). kernel: W, (h, c, o).

    Returns:
        (m, b, o).
    """
    (_, b, _), (h, c, o), m = values.shape, kernel.shape, len(lists.order)
    out = values.new_empty(m, b, o)
    if out.numel():
        _call("pairs_forward", (m, h, b, c, o), lists, features, values, kernel, out)
    return out


def backward(lists: Lists, values: Tensor | None, features: Tensor, kernel: Tensor, cotangent: Tensor,
             wanted: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Return the gradients that are wanted, None for the others.

    Args:
        lists: of the pairs turned round: by input point, with output points as columns.
        values: (n, b, c); None where only their gradient is wanted. cotangent: (m, b, o).

    Returns:
        Gradients of the values (n, b, c), of the features of each pair but for its weight (p, h), and of the kernel (h, c, o).
    """
    (_, b, _), (h, c, o), n = cotangent.shape, kernel.shape, len(lists.order)
    shapes = (n, b, c), (len(lists.node), h), (h, c, o)
    given = [cotangent.new_empty(shape) if asked else None for shape, asked in zip(shapes, wanted, strict=True)]
    spread = kernel.permute(1, 2, 0) if wanted[1] else kernel
    if n * b * c * o == 0:
        return tuple(None if t is None else t.zero_() for t in given)
    _call("pairs_backward", (n, h, b, c, o), lists, features, values, kernel, spread, cotangent, *given)
    return tuple(given)


def _call(name: str, sizes: tuple[int, ...], lists: Lists, *tensors: Tensor | None) -> None:
    given = [lists.order, lists.bounds, lists.column, lists.node, lists.weight, *tensors]
    dtype = str(lists.weight.dtype).removeprefix("torch.")
    call("pairs", f"{name}_{dtype}", *sizes, *(t if t is None else t.contiguous() for t in given))  # results are
