"""Floor 1: the binned operator as batched products, for devices where the number of calls is what costs.

The pairs of a bin are cut into blocks of equal length, the last one padded: a gather, one batched product of all blocks, and a
sum of the rows of each point. No call waits for the device, and every number is summed in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.ops.pairs import Pairs
from inrbridge.ops.sparse import SparseRows

LENGTH = 64  # pairs of a block
_MEMORY = 1 << 28  # bytes of gathered and of multiplied rows at a time


@dataclass(frozen=True, eq=False)
class StackedBins:
    """The operator of pairs, as a `BilinearOperator` of points-first tensors beside which all of this lies."""

    length: int  # of a block
    node: Tensor  # (blocks,)
    target: Tensor  # (blocks * length,)
    source: Tensor  # (blocks * length,)
    weight: Tensor  # (blocks * length,), 0 for what only fills a block
    by_target: SparseRows  # (m, blocks * length): weights of the rows that an output point sums
    by_source: SparseRows  # (n, blocks * length)
    by_node: SparseRows  # (nodes, blocks)

    @classmethod
    def of(cls, pairs: Pairs, like: Tensor, length: int = LENGTH) -> StackedBins:
        """Cut pairs that lie on the CPU."""
        m, nodes, n = pairs.shape
        sorted_pairs = pairs.by_node
        counts = sorted_pairs.starts.diff()
        blocks = -(-counts // length)
        node = torch.repeat_interleave(torch.arange(nodes), blocks)
        first = torch.zeros_like(counts)  # place of a bin's first pair
        first[1:] = (blocks * length).cumsum(0)[:-1]
        own = torch.arange(len(sorted_pairs.target)) - torch.repeat_interleave(sorted_pairs.starts[:-1], counts)
        place = torch.repeat_interleave(first, counts) + own
        target, source, weight = (t.new_zeros(len(node) * length) for t in (pairs.target, pairs.source, pairs.weight))
        target[place], source[place], weight[place] = sorted_pairs.target, sorted_pairs.source, sorted_pairs.weight
        by_target = SparseRows.from_entries(sorted_pairs.target, place, sorted_pairs.weight, m)
        by_source = SparseRows.from_entries(sorted_pairs.source, place, sorted_pairs.weight, n)
        by_node = SparseRows.from_counts(blocks, torch.arange(len(node)), torch.ones(len(node), dtype=weight.dtype))
        indices = (t.to(like.device) for t in (node, target, source))
        return cls(length, *indices, weight.to(like), by_target.to(like), by_source.to(like), by_node.to(like))

    def output(self, values: Tensor, kernel: Tensor) -> Tensor:
        return self._through(values, kernel, self.source, self.by_target)

    def values_gradient(self, kernel: Tensor, cotangent: Tensor) -> Tensor:
        return self._through(cotangent, kernel.mT, self.target, self.by_source)

    def kernel_gradient(self, values: Tensor, cotangent: Tensor) -> Tensor:
        c, o = values.shape[2], cotangent.shape[2]
        total = values.new_zeros(self.by_node.edges.numel() - 1, c * o)
        for part in self._fields(values, c + o):
            rows = self._gathered(values[:, part], self.source)
            flow = self._gathered(cotangent[:, part], self.target)
            weight = self.weight.view(len(self.node), self.length, 1)
            flow = (flow.view(*weight.shape[:2], flow.shape[1] // self.length * o) * weight).view_as(flow)
            total = total + self.by_node.times(torch.bmm(rows.mT, flow).flatten(1))
        return total.view(-1, c, o)

    def gradients(self, values: Tensor, kernel: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        return self.values_gradient(kernel, cotangent), self.kernel_gradient(values, cotangent)

    def _through(self, rows: Tensor, kernel: Tensor, gathered: Tensor, summed: SparseRows) -> Tensor:
        """Rows (n, b, c) of the points of each pair, times the kernel (nodes, c, o) of its bin, summed -> (m, b, o)."""
        matrices = kernel.index_select(0, self.node)
        parts = []
        for part in self._fields(rows, kernel.shape[1] + kernel.shape[2]):
            table = torch.bmm(self._gathered(rows[:, part], gathered), matrices)
            fields = table.shape[1] // self.length
            table = table.view(len(gathered), fields * kernel.shape[2])
            parts.append(summed.times(table).view(-1, fields, kernel.shape[2]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _gathered(self, rows: Tensor, index: Tensor) -> Tensor:
        """Rows (n, b, c) -> (blocks, length * b, c)."""
        return rows.index_select(0, index).view(len(self.node), self.length * rows.shape[1], rows.shape[2])

    def _fields(self, rows: Tensor, numbers: int) -> Iterator[slice]:
        """Some fields at a time, so that what is gathered stays small."""
        step = max(1, _MEMORY // max(1, len(self.weight) * numbers * rows.element_size()))
        return (slice(first, first + step) for first in range(0, max(1, rows.shape[1]), step))


def stacked_bins(pairs: Pairs) -> Callable[[Tensor], StackedBins | None]:
    """Return what makes the operator beside a tensor on a GPU, and None elsewhere: a CPU is quicker with one block at a time."""
    return lambda like: StackedBins.of(pairs, like) if like.device.type == "cuda" else None
