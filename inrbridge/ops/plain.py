"""Floor 1: the local operator in chunks of plain torch: linear in the points, small temporaries.

Values travel points first, (n, b, c), so that a neighbour is one contiguous row. A chunk of output points sums its
neighbours into the nodes of the kernel (a sparse product, `embedding_bag`) and multiplies them by the kernel while they
are still in cache. The gradients sum again instead of storing the nodes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.ops.products import matmul
from inrbridge.ops.sparse import SparseRows

_CHUNK = 3 << 17  # elements of nodes at a time: 1.5 MiB in float32, about the second-level cache of one core
_SLICE = 1 << 22  # elements of node gradients at a time


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
        return matmul(rows[0], matrices[0])
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
