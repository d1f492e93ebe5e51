"""Floor 1: a sparse matrix by rows, the form in which geometry reaches the kernels."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


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
            order = rows.argsort(stable=True)
            columns, weights = columns[order], weights[order]
        offsets = torch.zeros(count + 1, dtype=torch.long)
        torch.cumsum(torch.bincount(rows, minlength=count), 0, out=offsets[1:])
        return cls(columns, weights, offsets, offsets)

    def rows(self) -> Tensor:
        """The row of each entry (e,)."""
        return torch.repeat_interleave(torch.arange(self.edges.numel() - 1), self.edges.diff())

    def exchanged(self, nodes: int, columns: int) -> "SparseRows":
        """The stencil with its inputs and outputs exchanged: entries (i * nodes + k, j) become (j * nodes + k, i). On the CPU."""
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
