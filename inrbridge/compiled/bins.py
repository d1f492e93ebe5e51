"""Floor 1: pairs of points that feed one node of a kernel each, by compiled products of listed rows, in float32 and float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call

_RESULTS = 128 << 10  # bytes of a block's results, that stay in the second cache
DTYPES = (torch.float32, torch.float64)


def available(like: Tensor) -> bool:
    """Say whether pairs beside a tensor can be worked on by compiled kernels."""
    return like.device.type == "cpu" and like.dtype in DTYPES and library("bins") is not None


@dataclass(frozen=True, eq=False)
class Blocks:
    """Pairs in blocks of output points, those of a block sorted by node into runs."""

    size: int
    order: Tensor  # (m,), the output points: near ones follow one another
    bounds: Tensor  # (blocks + 1,), runs of each block
    starts: Tensor  # (runs + 1,), pairs of each run
    nodes: Tensor  # (runs,)
    target: Tensor  # (p,)
    source: Tensor  # (p,)
    weight: Tensor  # (p,)

    @classmethod
    def cut(cls, size: int, order: Tensor, nodes: int, target: Tensor, source: Tensor, node: Tensor, weight: Tensor) -> Blocks:
        """Sort pairs, given in any order, into blocks of `size` points of an order."""
        m = len(order)
        place = torch.empty_like(order)
        place[order] = torch.arange(m)
        key, by_key = (place[target] // size * nodes + node).sort(stable=True)
        runs, counts = torch.unique_consecutive(key, return_counts=True)
        starts = torch.zeros(len(runs) + 1, dtype=torch.long)
        torch.cumsum(counts, 0, out=starts[1:])
        bounds = torch.searchsorted(runs // nodes, torch.arange(-(-m // size) + 1))
        return cls(size, order, bounds, starts, runs % nodes, target[by_key], source[by_key], weight[by_key])


def block_size(points: int, numbers: int, itemsize: int) -> int:
    """Points of a block, a power of two, where each point has so many numbers of a result."""
    size = 8
    while size < points and 2 * size * numbers * itemsize <= _RESULTS:
        size *= 2
    return size


def gather(blocks: Blocks, values: Tensor, kernel: Tensor, turned: bool = False) -> Tensor:
    """Return out[i] = sum over the pairs of i: w f[j] W[node].

    Args:
        values: (n, b, c).
        kernel: (nodes, c, o); with `turned` (nodes, o, c), to be transposed.

    Returns:
        (m, b, o).
    """
    (_, b, c), o = values.shape, kernel.shape[1 if turned else 2]
    out = values.new_empty(len(blocks.order), b, o)
    return _call("bins_gather", blocks, (len(kernel), b, c, o, int(turned)), values, kernel, out)


def correlate(blocks: Blocks, nodes: int, values: Tensor, cotangent: Tensor) -> Tensor:
    """Return for each node the sum over its pairs of w f[j]^T g[i]: values (n, b, c), g (m, b, o) -> (nodes, c, o)."""
    (_, b, c), o = values.shape, cotangent.shape[2]
    out = values.new_empty(nodes, c, o)
    return _call("bins_correlate", blocks, (nodes, b, c, o), values, cotangent, out)


def _call(name: str, blocks: Blocks, sizes: tuple[int, ...], first: Tensor, second: Tensor, out: Tensor) -> Tensor:
    if first.numel() * second.numel() == 0:
        return out.zero_()
    lists = (blocks.order, blocks.bounds, blocks.starts, blocks.nodes, blocks.target, blocks.source, blocks.weight)
    counts = (len(blocks.bounds) - 1, blocks.size, len(blocks.order), *sizes)
    dtype = str(out.dtype).removeprefix("torch.")
    call("bins", f"{name}_{dtype}", *counts, *lists, first.contiguous(), second.contiguous(), out)
    return out
