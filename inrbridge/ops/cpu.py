"""Floor 1: the local operator in chunks of plain torch: linear in the points, small temporaries.

Values travel points first, (n, b, c), so that a neighbour is one contiguous row. A chunk of output points sums its
neighbours into the nodes of the kernel (a sparse product, `embedding_bag`) and multiplies them by the kernel while they
are still in cache. The gradients sum again instead of storing the nodes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_CHUNK = 3 << 17  # elements of nodes at a time: 1.5 MiB in float32, about the second-level cache of one core
_SLICE = 1 << 22  # elements of node gradients at a time


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

    def to(self, like: Tensor) -> "SparseRows":
        """The same matrix on the device and in the dtype of a tensor."""
        columns, offsets = self.columns.to(like.device), self.offsets.to(like.device)
        return SparseRows(columns, self.weights.to(like), offsets, self.edges)

    def times(self, table: Tensor, first: int, last: int) -> Tensor:
        """Rows first to last of the product with a table (columns, v) -> (last - first, v)."""
        start, stop = int(self.edges[first]), int(self.edges[last])
        if start == stop:
            return table.new_zeros(last - first, table.shape[1])
        offsets = self.offsets[first : last + 1] - start
        return embedding_bag(self.columns[start:stop], table, offsets, mode="sum",
                             per_sample_weights=self.weights[start:stop], include_last_offset=True)  # fmt: skip


def _matmul(rows: Tensor, transposed: Tensor) -> Tensor:
    """rows (m, p) times the transpose of (q, p), by oneDNN where torch has it: MKL is slow at skinny float32 products on AMD."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(rows, transposed, None, "none", [], "")
    return rows @ transposed.t()


def _by_group(kernel: Tensor, groups: int) -> Tensor:
    """Kernel (k, c / groups, o) as one matrix a group, transposed: (groups, o / groups, k * c / groups), contiguous."""
    k, c, _ = kernel.shape
    return kernel.unflatten(2, (groups, -1)).permute(2, 3, 0, 1).reshape(groups, -1, k * c)


def _group_rows(nodes: Tensor, groups: int) -> Tensor:
    """Nodes (p, k, b, c) as rows of each group: (groups, p * b, k * c / groups)."""
    p, k, b, c = nodes.shape
    if groups == 1:
        return nodes.transpose(1, 2).reshape(1, p * b, k * c)
    return nodes.unflatten(3, (groups, -1)).permute(3, 0, 2, 1, 4).reshape(groups, p * b, -1)


def _mix(rows: Tensor, matrices: Tensor) -> Tensor:
    """Rows (groups, m, q) by matrices (groups, o / groups, q) -> (m, o)."""
    if len(matrices) == 1:
        return _matmul(rows[0], matrices[0])
    return torch.bmm(rows, matrices.transpose(1, 2)).transpose(0, 1).flatten(1)


def _nodes(matrix: SparseRows, rows: Tensor, nodes: int, batch: int) -> Iterator[tuple[slice, Tensor]]:
    """Chunk by chunk, the values (p, k, b, c) at the kernel nodes of p output points."""
    points = (matrix.edges.numel() - 1) // nodes
    step = max(1, _CHUNK // (nodes * rows.shape[1]))
    for first in range(0, points, step):
        last = min(points, first + step)
        yield slice(first, last), matrix.times(rows, first * nodes, last * nodes).view(last - first, nodes, batch, -1)


def local_forward(values: Tensor, kernel: Tensor, matrix: SparseRows, groups: int) -> Tensor:
    """Points-first forward: values (n, b, c), kernel (k, c / groups, o), matrix (m * k, n) -> (m, b, o)."""
    n, b, c = values.shape
    k, _, o = kernel.shape
    out = values.new_empty((matrix.edges.numel() - 1) // k, b, o)
    matrices = _by_group(kernel, groups)
    for part, nodes in _nodes(matrix, values.reshape(n, b * c), k, b):
        if c == groups == o:  # depth-wise: one multiply and add a node
            out[part] = (nodes * kernel[:, :1]).sum(1)
        else:
            out[part] = _mix(_group_rows(nodes, groups), matrices).view(-1, b, o)
    return out


def local_kernel_gradient(values: Tensor, grad: Tensor, matrix: SparseRows, groups: int) -> Tensor:
    """Gradient of the kernel (k, c / groups, o) from the output's gradient (m, b, o)."""
    n, b, c = values.shape
    m, _, o = grad.shape
    k = (matrix.edges.numel() - 1) // m
    total = values.new_zeros(groups, k * c // groups, o // groups)
    for part, nodes in _nodes(matrix, values.reshape(n, b * c), k, b):
        right = grad[part].reshape(-1, groups, o // groups).transpose(0, 1)
        total.baddbmm_(_group_rows(nodes, groups).transpose(1, 2), right)
    return total.unflatten(1, (k, -1)).permute(1, 2, 0, 3).reshape(k, c // groups, o)


def local_input_gradient(kernel: Tensor, grad: Tensor, transposed: SparseRows, channels: int, groups: int) -> Tensor:
    """Gradient of the values (n, b, c): that of the nodes, some fields at a time, summed by the transposed stencil."""
    m, b, o = grad.shape
    k = kernel.shape[0]
    n = transposed.edges.numel() - 1
    out = grad.new_empty(n, b, channels)
    adjoint = kernel.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).reshape(groups, -1, o // groups)  # (g, k * c / g, o / g)
    step = max(1, _SLICE // (m * k * channels))
    for first in range(0, b, step):
        some = grad[:, first : first + step]
        fields = some.shape[1]
        rows = some.reshape(m * fields, groups, -1).transpose(0, 1)
        flow = _mix(rows, adjoint).view(m, fields, groups, k, channels // groups)
        table = flow.permute(0, 3, 1, 2, 4).reshape(m * k, fields * channels)
        out[:, first : first + step] = transposed.times(table, 0, n).view(n, fields, channels)
    return out


@dataclass(frozen=True, eq=False)
class LocalOperator:
    """The local operator of a sparse matrix; `transposed` gives the transposed matrix on demand."""

    matrix: SparseRows  # (m * k, n)
    transposed: Callable[[], SparseRows]
    groups: int

    def output(self, values, kernel):
        return local_forward(values, kernel, self.matrix, self.groups)

    def values_gradient(self, kernel, cotangent):
        channels = kernel.shape[1] * self.groups
        return local_input_gradient(kernel, cotangent.contiguous(), self.transposed(), channels, self.groups)

    def kernel_gradient(self, values, cotangent):
        return local_kernel_gradient(values, cotangent.contiguous(), self.matrix, self.groups)

    def gradients(self, values, kernel, cotangent):
        cotangent = cotangent.contiguous()
        return self.values_gradient(kernel, cotangent), self.kernel_gradient(values, cotangent)
