"""Floor 1: pairs of points in blocks, with kernels mixed for some of them at a time, in float32 and float64."""

from __future__ import annotations

from torch import Tensor

from inrbridge.compiled.bins import DTYPES, Blocks
from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call


def available(like: Tensor) -> bool:
    """Say whether pairs beside a tensor can be worked on by compiled kernels."""
    return like.device.type == "cpu" and like.dtype in DTYPES and library("mixed") is not None


def gather(blocks: Blocks, values: Tensor, features: Tensor, kernel: Tensor, turned: bool = False) -> Tensor:
    """Return out[i] = sum over the pairs of i: w f[j] sum_h phi[node, h] W[h].

    Args:
        values: (n, b, c). features: phi, (nodes, h).
        kernel: W, (h, c, o); with `turned` (h, o, c), to be transposed.

    Returns:
        (m, b, o).
    """
    (_, b, c), o = values.shape, kernel.shape[1 if turned else 2]
    out = values.new_empty(len(blocks.order), b, o)
    if values.numel() == 0:
        return out.zero_()
    _call("mixed_gather", blocks, (len(kernel), b, c, o, int(turned)), values, features, kernel, out)
    return out


def correlate(blocks: Blocks, values: Tensor, features: Tensor | None, kernel: Tensor | None,
              cotangent: Tensor) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Return the gradients of the features of each run (runs, h), with a kernel, and of the kernel (h, c, o), with features."""
    (_, b, c), o = values.shape, cotangent.shape[2]
    h = len(kernel) if kernel is not None else features.shape[1]
    found = None if kernel is None else values.new_empty(len(blocks.nodes), h)
    total = None if features is None else values.new_empty(h, c, o)
    if values.numel() * cotangent.numel() == 0:
        return tuple(None if t is None else t.zero_() for t in (found, total))
    spread = None if kernel is None else kernel.permute(1, 2, 0)
    _call("mixed_correlate", blocks, (h, b, c, o), values, features, spread, cotangent, found, total)
    return found, total


def _call(name: str, blocks: Blocks, sizes: tuple[int, ...], *tensors: Tensor | None) -> None:
    lists = (blocks.order, blocks.bounds, blocks.starts, blocks.nodes, blocks.target, blocks.source, blocks.weight)
    given = (t if t is None else t.contiguous() for t in tensors)  # results are
    dtype = str(blocks.weight.dtype).removeprefix("torch.")
    call("mixed", f"{name}_{dtype}", len(blocks.bounds) - 1, blocks.size, len(blocks.order), *sizes, *lists, *given)
