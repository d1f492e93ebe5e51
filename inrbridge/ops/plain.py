"""Floor 1: the local operator in plain torch, on any device: linear in the points, small temporaries.

A chunk of output points sums its neighbours into the nodes of the kernel, one field at a time (`embedding_bag` on rows of
channels), so that the sums (p, k * c) of a field lie as the product with the kernel wants them and are multiplied while still
in cache. Fields of few channels go together, for rows that are worth reading.

The backward pass sums the gradient of the output, Y[j, k] = sum_i P[i, k, j] g_i, by the stencil with inputs and outputs
exchanged: the gradient of the values is Y W^T, that of the kernel f^T Y.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.ops.products import add_product, matmul, wide
from inrbridge.ops.sparse import SparseRows

_CHUNK = 1 << 19  # elements of sums at a time: 2 MiB in float32
_WIDTH = 32  # columns of a row that are worth the reading of an index


def _parts(matrix: SparseRows, values: Tensor, nodes: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """The values (n, b, c) summed at the kernel nodes: chunk by chunk of output points, and there some fields at a time.

    Yields the points, the fields and their sums (p, k, fields, c).
    """
    n, b, c = values.shape
    points = (len(matrix.edges) - 1) // nodes
    together, chunk = min(b, -(-_WIDTH // c)), _CHUNK
    if values.device.type != "cpu":
        together, chunk = b, 16 * _CHUNK  # few and large pieces of work
    tables = [some.reshape(n, -1).contiguous() for some in values.split(together, 1)]
    step = max(1, chunk // (nodes * together * c))
    for first in range(0, points, step):
        last = min(points, first + step)
        rows = matrix.part(first * nodes, last * nodes)
        for place, table in enumerate(tables):
            fields = slice(place * together, min(b, (place + 1) * together))
            yield slice(first, last), fields, rows.times(table).view(last - first, nodes, -1, c)


def _rows(values: Tensor, groups: int) -> Tensor:
    """Values (p, b, c) or sums (p, k, b, c) as rows of each group: (groups, p * b, c / groups or k * c / groups)."""
    if values.ndim == 3:
        values = values.unsqueeze(1)
    p, k, b, c = values.shape
    if groups == 1:
        return values.transpose(1, 2).reshape(1, p * b, k * c)
    return values.unflatten(3, (groups, -1)).permute(3, 0, 2, 1, 4).reshape(groups, p * b, -1)


def _by_group(kernel: Tensor, groups: int) -> Tensor:
    """Kernel (k, c / groups, o) as one matrix a group, transposed: (groups, o / groups, k * c / groups), contiguous."""
    k, c, _ = kernel.shape
    return kernel.unflatten(2, (groups, -1)).permute(2, 3, 0, 1).reshape(groups, -1, k * c)


def _exchanged(kernel: Tensor, groups: int) -> Tensor:
    """The kernel (k, c / groups, o) from output channels to input channels: (k, o / groups, c)."""
    return kernel.unflatten(2, (groups, -1)).permute(0, 3, 2, 1).flatten(2)


def _mix(rows: Tensor, matrices: Tensor) -> Tensor:
    """Rows (groups, m, q) by matrices (groups, o / groups, q) -> (m, o)."""
    if len(matrices) == 1:
        return matmul(rows[0], matrices[0])
    return torch.bmm(rows, matrices.mT).transpose(0, 1).flatten(1)


def _output(matrix: SparseRows, values: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """The local operator: values (n, b, c), kernel (k, c / groups, o), matrix (m * k, n) -> (m, b, o)."""
    (k, _, o), (_, b, c) = kernel.shape, values.shape
    out = values.new_empty((len(matrix.edges) - 1) // k, b, o)
    matrices = _by_group(kernel, groups)
    for points, fields, sums in _parts(matrix, values, k):
        if c == groups == o:  # depth-wise: one multiply and add a node
            out[points, fields] = (sums * kernel[:, :1]).sum(1)
        else:
            out[points, fields] = _mix(_rows(sums, groups), matrices).view(*sums.shape[::2], o)
    return out


def _correlation(matrix: SparseRows, values: Tensor, others: Tensor, nodes: int, groups: int) -> Tensor:
    """Sum over points and fields of summed values (m, k, b, c) times others (m, b, o): (groups, k, c / groups, o / groups)."""
    c, o = values.shape[2], others.shape[2]
    total = values.new_zeros(groups, nodes * c // groups, o // groups, dtype=wide(values.dtype))
    for points, fields, sums in _parts(matrix, values, nodes):
        add_product(total, _rows(sums, groups), _rows(others[points, fields], groups))
    return total.to(values.dtype).unflatten(1, (nodes, -1))


@dataclass(frozen=True, eq=False)
class LocalOperator:
    """The local operator of a sparse matrix P, row i * k + node of output point i.

    `exchanged` gives on demand the same stencil with inputs and outputs exchanged, row j * k + node of input point j.
    """

    matrix: SparseRows  # (m * k, n)
    exchanged: Callable[[], SparseRows]  # (n * k, m)
    groups: int

    def output(self, values, kernel):
        return _output(self.matrix, values, kernel, self.groups)

    def values_gradient(self, kernel, cotangent):
        return _output(self.exchanged(), cotangent, _exchanged(kernel, self.groups), self.groups)

    def kernel_gradient(self, values, cotangent):
        nodes = (len(self.matrix.edges) - 1) // len(cotangent)
        if values.shape[2] <= cotangent.shape[2]:
            return _correlation(self.matrix, values, cotangent, nodes, self.groups).permute(1, 2, 0, 3).flatten(2)
        return _correlation(self.exchanged(), cotangent, values, nodes, self.groups).permute(1, 3, 0, 2).flatten(2)

    def gradients(self, values, kernel, cotangent):
        nodes, groups = len(kernel), self.groups
        (n, b, c), o = values.shape, cotangent.shape[2]
        if o > 2 * c:  # the sums of the values twice are less than those of the cotangent
            return self.values_gradient(kernel, cotangent), self.kernel_gradient(values, cotangent)
        back = values.new_empty(n, b, c)
        total = values.new_zeros(groups, nodes * o // groups, c // groups, dtype=wide(values.dtype))
        matrices = _by_group(_exchanged(kernel, groups), groups)
        for points, fields, sums in _parts(self.exchanged(), cotangent, nodes):
            rows = _rows(sums, groups)
            back[points, fields] = _mix(rows, matrices).view(*sums.shape[::2], c)
            add_product(total, rows, _rows(values[points, fields], groups))
        return back, total.to(values.dtype).unflatten(1, (nodes, -1)).permute(1, 3, 0, 2).flatten(2)
