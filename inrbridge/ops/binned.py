"""Floor 1: the local operator where each neighbour feeds one node only: work is pairs x c x o for any number of nodes
(Wang & Golland 2023, section 4.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inrbridge.compiled import bins
from inrbridge.ops.dispatch import Dispatched
from inrbridge.ops.pairs import Pairs
from inrbridge.ops.products import matmul, wide
from inrbridge.ops.stacked_bins import stacked_bins

_CHUNK = 3 << 17  # elements of gathered and of multiplied rows at a time: 1.5 MiB in float32


def binned_operator(pairs: Pairs) -> Dispatched:
    """Return the operator of P, given as pairs, on the CPU."""

    def compiled(like: Tensor) -> CompiledBins | None:
        return CompiledBins(BlockedPairs(pairs.to(like))) if bins.available(like) else None

    def plain(like: Tensor) -> PlainBins:
        return PlainBins(pairs.to(like))

    m, nodes, n = pairs.shape
    return Dispatched({"gpu": stacked_bins(pairs), "compiled": compiled, "plain": plain}, n, m, nodes)


@dataclass(frozen=True, eq=False)
class BlockedPairs:
    """Pairs in blocks, cut for results of several sizes and kept."""

    pairs: Pairs
    _blocks: dict = field(default_factory=dict, repr=False)

    def cut(self, numbers: int, turned: bool = False) -> bins.Blocks:
        """Return the blocks for so many numbers of a result for each point; `turned`: of inputs and outputs exchanged."""
        pairs = self.pairs.turned if turned else self.pairs
        size = bins.block_size(pairs.shape[0], numbers, pairs.weight.itemsize)
        if (turned, size) not in self._blocks:
            lists = (pairs.target, pairs.source, pairs.node, pairs.weight)
            self._blocks[turned, size] = bins.Blocks.cut(size, pairs.order, pairs.shape[1], *lists)
        return self._blocks[turned, size]


@dataclass(frozen=True, eq=False)
class CompiledBins:
    """Blocks of output points by the kernels of `inrbridge.compiled.bins`."""

    blocks: BlockedPairs

    def output(self, values, kernel):
        return bins.gather(self.blocks.cut(values.shape[1] * kernel.shape[2]), values, kernel)

    def values_gradient(self, kernel, cotangent):
        blocks = self.blocks.cut(cotangent.shape[1] * kernel.shape[1], turned=True)
        return bins.gather(blocks, cotangent, kernel, turned=True)

    def kernel_gradient(self, values, cotangent):
        blocks = self.blocks.cut(values.shape[1] * cotangent.shape[2])
        return bins.correlate(blocks, self.blocks.pairs.shape[1], values, cotangent)

    def gradients(self, values, kernel, cotangent):
        return self.values_gradient(kernel, cotangent), self.kernel_gradient(values, cotangent)


@dataclass(frozen=True, eq=False)
class PlainBins:
    """Gather, multiply and scatter in plain torch, some pairs of one bin at a time."""

    pairs: Pairs

    def output(self, values, kernel):
        out = values.new_zeros(self.pairs.shape[0], values.shape[1], kernel.shape[2])
        matrices = kernel.transpose(1, 2).contiguous()
        for k, target, source, weight in self._chunks(out, values):
            rows = values.index_select(0, source).mul_(weight)  # (p, b, c)
            out.index_add_(0, target, _product(rows, matrices[k]))
        return out

    def values_gradient(self, kernel, cotangent):
        out = cotangent.new_zeros(self.pairs.shape[2], cotangent.shape[1], kernel.shape[1])
        for k, target, source, weight in self._chunks(out, cotangent):
            flow = cotangent.index_select(0, target).mul_(weight)  # (p, b, o)
            out.index_add_(0, source, _product(flow, kernel[k]))
        return out

    def kernel_gradient(self, values, cotangent):
        total = self._total(values, cotangent)
        for k, target, source, weight in self._chunks(values, cotangent):
            self._correlate(total[k], values, cotangent.index_select(0, target).mul_(weight), source)
        return total.to(values.dtype)

    def gradients(self, values, kernel, cotangent):
        back, total = torch.zeros_like(values), self._total(values, cotangent)
        for k, target, source, weight in self._chunks(values, cotangent):
            flow = cotangent.index_select(0, target).mul_(weight)  # (p, b, o)
            back.index_add_(0, source, _product(flow, kernel[k]))
            self._correlate(total[k], values, flow, source)
        return back, total.to(values.dtype)

    def _total(self, values: Tensor, cotangent: Tensor) -> Tensor:
        return values.new_zeros(self.pairs.shape[1], values.shape[2], cotangent.shape[2], dtype=wide(values.dtype))

    def _correlate(self, total: Tensor, values: Tensor, flow: Tensor, source: Tensor) -> None:
        rows = values.index_select(0, source).flatten(0, 1)
        if total.dtype == rows.dtype:
            total.addmm_(rows.t(), flow.flatten(0, 1))
        else:
            total += rows.t() @ flow.flatten(0, 1)

    def _chunks(self, *rows: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Node, target, source and weight (p, 1, 1) of some pairs of one node, whose rows of tensors (n, b, c) fit a cache."""
        step = max(1, _CHUNK // max(1, sum(t[0].numel() for t in rows)))
        by_node = self.pairs.by_node
        for k, (start, stop) in enumerate(itertools.pairwise(by_node.starts.tolist())):
            for first in range(start, stop, step):
                part = slice(first, min(stop, first + step))
                yield k, by_node.target[part], by_node.source[part], by_node.weight[part, None, None]


def _product(rows: Tensor, transposed: Tensor) -> Tensor:
    return matmul(rows.flatten(0, 1), transposed).view(*rows.shape[:2], -1)
