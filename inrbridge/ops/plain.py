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

from inrbridge.ops.ordered import Ordered
from inrbridge.ops.products import add_product, matmul, wide

_CHUNK = 1 << 19  # elements of sums at a time: 2 MiB in float32
_WIDTH = 32  # columns of a row that are worth the reading of an index


def _chunks(stencil: Ordered, values: Tensor) -> Iterator[tuple[Tensor, Iterator[tuple[slice, Tensor]]]]:
    """The values (n, b, c) summed at the kernel nodes: chunk by chunk of output points, and there some fields at a time.

    Yields the numbers of the points (p,), and one after the other the fields and their sums (p, k, fields, c).
    """
    (n, b, c), nodes = values.shape, stencil.nodes
    together, chunk = min(b, -(-_WIDTH // c)), _CHUNK
    if values.device.type != "cpu":
        together, chunk = b, 16 * _CHUNK  # few and large pieces of work
    tables = [some.index_select(0, stencil.inputs).view(n, -1) for some in values.split(together, 1)]
    step = max(1, chunk // (nodes * together * c))
    for first, points in zip(range(0, len(stencil.outputs), step), stencil.outputs.split(step), strict=True):
        rows = stencil.matrix.part(first * nodes, (first + len(points)) * nodes)
        yield (
            points,
            (
                (
                    slice(place * together, place * together + table.shape[1] // c),
                    rows.times(table).view(len(points), nodes, -1, c),
                )
                for place, table in enumerate(tables)
            ),
        )


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


def _output(stencil: Ordered, values: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """The local operator: values (n, b, c), kernel (k, c / groups, o) -> (m, b, o)."""
    (_, b, c), o = values.shape, kernel.shape[2]
    out = values.new_empty(len(stencil.outputs), b, o)
    matrices = _by_group(kernel, groups)
    for points, parts in _chunks(stencil, values):
        for fields, sums in parts:
            if c == groups == o:  # depth-wise: one multiply and add a node
                mixed = (sums * kernel[:, :1]).sum(1)
            else:
                mixed = _mix(_rows(sums, groups), matrices).view(*sums.shape[::2], o)
            out[:, fields].index_copy_(0, points, mixed)
    return out


def _correlation(stencil: Ordered, values: Tensor, others: Tensor, groups: int) -> Tensor:
    """Sum over points and fields of summed values (m, k, b, c) times others (m, b, o): (groups, k, c / groups, o / groups)."""
    total = _zeros(values, others, stencil.nodes, groups)
    for points, parts in _chunks(stencil, values):
        for fields, sums in parts:
            add_product(total, _rows(sums, groups), _rows(others[:, fields].index_select(0, points), groups))
    return total.to(values.dtype).unflatten(1, (stencil.nodes, -1))


def _output_and_correlation(stencil: Ordered, values: Tensor, kernel: Tensor, others: Tensor, groups: int):
    """Both at once, from the same sums."""
    out, total, matrices = torch.empty_like(others), _zeros(values, others, stencil.nodes, groups), _by_group(kernel, groups)
    for points, parts in _chunks(stencil, values):
        for fields, sums in parts:
            rows = _rows(sums, groups)
            out[:, fields].index_copy_(0, points, _mix(rows, matrices).view(*sums.shape[::2], -1))
            add_product(total, rows, _rows(others[:, fields].index_select(0, points), groups))
    return out, total.to(values.dtype).unflatten(1, (stencil.nodes, -1))


def _zeros(values: Tensor, others: Tensor, nodes: int, groups: int) -> Tensor:
    """Where products of sums of values and others are added: (groups, k * c / groups, o / groups)."""
    return values.new_zeros(groups, nodes * values.shape[2] // groups, others.shape[2] // groups, dtype=wide(values.dtype))


@dataclass(frozen=True, eq=False)
class LocalOperator:
    """The local operator of a stencil; `exchanged` gives on demand the one with inputs and outputs exchanged."""

    stencil: Ordered
    exchanged: Callable[[], Ordered]
    groups: int

    def output(self, values, kernel):
        return _output(self.stencil, values, kernel, self.groups)

    def values_gradient(self, kernel, cotangent):
        return _output(self.exchanged(), cotangent, _exchanged(kernel, self.groups), self.groups)

    def kernel_gradient(self, values, cotangent):
        if values.shape[2] <= cotangent.shape[2]:  # sum where there are fewer channels
            return _correlation(self.stencil, values, cotangent, self.groups).permute(1, 2, 0, 3).flatten(2)
        return _correlation(self.exchanged(), cotangent, values, self.groups).permute(1, 3, 0, 2).flatten(2)

    def gradients(self, values, kernel, cotangent):
        if cotangent.shape[2] > 2 * values.shape[2]:  # two sums of the values are less than one of the cotangent
            return self.values_gradient(kernel, cotangent), self.kernel_gradient(values, cotangent)
        adjoint = _exchanged(kernel, self.groups)
        back, total = _output_and_correlation(self.exchanged(), cotangent, adjoint, values, self.groups)
        return back, total.permute(1, 3, 0, 2).flatten(2)
