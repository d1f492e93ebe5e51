"""Floor 1: a sparse matrix by rows, the form in which geometry reaches the kernels."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from inrbridge.compiled import entries


class SparseRows(NamedTuple):
    """A sparse matrix by rows: row r holds weights[offsets[r]:offsets[r + 1]] in columns[offsets[r]:offsets[r + 1]]."""

    columns: Tensor  # (e,)
    weights: Tensor  # (e,)
    offsets: Tensor  # (rows + 1,)
    edges: Tensor  # offsets again, on the CPU: chunks are cut without waiting for a device

    @classmethod
    def from_entries(cls, rows: Tensor, columns: Tensor, weights: Tensor, count: int) -> "SparseRows":
        """Build it from entries in any order, all on the CPU."""
        if not bool((rows[1:] >= rows[:-1]).all()):
            order = _order(rows, count)
            columns, weights = columns[order], weights[order]
        return cls.from_counts(torch.bincount(rows, minlength=count), columns, weights)

    @classmethod
    def from_counts(cls, counts: Tensor, columns: Tensor, weights: Tensor) -> "SparseRows":
        """Build it from the number of entries in each row (rows,) and the entries, one row after the other, all on the CPU."""
        offsets = torch.zeros(len(counts) + 1, dtype=torch.long)
        torch.cumsum(counts, 0, out=offsets[1:])
        return cls(columns, weights, offsets, offsets)

    def rows(self) -> Tensor:
        """The row of each entry (e,)."""
        return torch.repeat_interleave(torch.arange(self.edges.numel() - 1), self.edges.diff())

    def sums(self) -> Tensor:
        """The sum of the weights of each row (rows,). On the CPU."""
        return torch.zeros(len(self.edges) - 1, dtype=self.weights.dtype).index_add_(0, self.rows(), self.weights)

    def scaled(self, factor: Tensor) -> "SparseRows":
        """Rows times a factor each (rows,). On the CPU."""
        if bool((factor == 1).all()):
            return self
        return self._replace(weights=self.weights * factor.repeat_interleave(self.edges.diff()))

    def spread(self, rows: Tensor, count: int) -> "SparseRows":
        """The rows at other, ascending places among `count`; the rest is empty. On the CPU."""
        counts = torch.zeros(count, dtype=torch.long).index_put_((rows,), self.edges.diff())
        return SparseRows.from_counts(counts, self.columns, self.weights)

    def exchanged(self, nodes: int, columns: int) -> "SparseRows":
        """The stencil with its inputs and outputs exchanged: entries (i * nodes + k, j) become (j * nodes + k, i). On the CPU."""
        if entries.available() and self.weights.dtype == torch.float64:
            held = (t.contiguous().numpy() for t in (self.edges, self.columns, self.weights))
            edges, points, weights = map(torch.from_numpy, entries.exchange(nodes, columns, *held))
            return SparseRows(points, weights, edges, edges)
        rows = self.rows()
        point, node = rows // nodes, rows % nodes
        return SparseRows.from_entries(self.columns * nodes + node, point, self.weights, columns * nodes)

    def to(self, like: Tensor) -> "SparseRows":
        """The same matrix on the device and in the dtype of a tensor."""
        columns, offsets = self.columns.to(like.device), self.offsets.to(like.device)
        return SparseRows(columns, self.weights.to(like), offsets, self.edges)

    def part(self, first: int, last: int) -> "SparseRows":
        """Rows first to last; the entries are shared."""
        start, stop = int(self.edges[first]), int(self.edges[last])
        offsets, edges = (bounds[first : last + 1] - start for bounds in (self.offsets, self.edges))
        return SparseRows(self.columns[start:stop], self.weights[start:stop], offsets, edges)

    def times(self, table: Tensor) -> Tensor:
        """The product with a table (columns, v) -> (rows, v)."""
        if len(self.columns) == 0:
            return table.new_zeros(len(self.edges) - 1, table.shape[1])
        return embedding_bag(self.columns, table, self.offsets, mode="sum", per_sample_weights=self.weights,
                             include_last_offset=True)  # fmt: skip


def _order(keys: Tensor, count: int) -> Tensor:
    """The order of keys from 0 to count - 1, equal ones as they come."""
    if entries.available():
        return torch.from_numpy(entries.order_by_key(keys.numpy(), count)[1])
    return keys.argsort(stable=True)
