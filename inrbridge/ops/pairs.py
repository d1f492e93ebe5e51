"""Floor 1: the local operator where every pair of points has its own mixture of kernels, in chunks of plain torch.

    y_i = sum over pairs p of i: w_p sum_h phi[u(p), h] f_j(p) W_h

The features phi (u, h) are learned as well as the kernel W (h, c, o): the form is linear in values, features and kernel. A chunk
of output points sums its neighbours into one row a feature, while they are in cache, and multiplies the rows by the kernel. The
gradients do the same with the pairs turned round; nothing of size pairs x channels outlives its chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from inrbridge.ops.curve import z_order
from inrbridge.ops.multilinear import Multilinear
from inrbridge.ops.products import matmul
from inrbridge.ops.sparse import SparseRows

_CHUNK = 3 << 17  # elements of gathered and of summed rows at a time: 1.5 MiB in float32


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of an output point, an input point and a node, with a weight: P[i, k, j] has one entry each. On one device."""

    target: Tensor  # (p,)
    source: Tensor  # (p,)
    node: Tensor  # (p,)
    weight: Tensor  # (p,)
    shape: tuple[int, int, int]  # output points, nodes, input points
    places: tuple[Tensor, Tensor] | None = None  # coordinates of output and input points (m, d) and (n, d), where they are known

    def to(self, like: Tensor) -> Pairs:
        """The same pairs on the device and in the dtype of a tensor."""
        indices = (t.to(like.device) for t in (self.target, self.source, self.node))
        return Pairs(*indices, self.weight.to(like), self.shape, self.places)

    def dense(self) -> Tensor:
        """Return P as a dense tensor (m, k, n), for tests and small sizes."""
        out = self.weight.new_zeros(self.shape)
        return out.index_put_((self.target, self.node, self.source), self.weight, accumulate=True)

    @cached_property
    def turned(self) -> Pairs:
        """The pairs of the transposed operator, in the same order: outputs are inputs."""
        places = None if self.places is None else self.places[::-1]
        return Pairs(self.source, self.target, self.node, self.weight, self.shape[::-1], places)

    @cached_property
    def order(self) -> Tensor:
        """The output points so that near ones follow one another, where places are known (m,), on the CPU."""
        return torch.arange(self.shape[0]) if self.places is None else z_order(self.places[0])

    @cached_property
    def by_node(self) -> ByNode:
        """The pairs sorted by node, those of a node by the order of the output points."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(self.shape[0])
        order = (self.node * self.shape[0] + place.to(self.node.device)[self.target]).argsort(stable=True)
        starts = torch.zeros(self.shape[1] + 1, dtype=torch.long)
        torch.cumsum(torch.bincount(self.node.cpu(), minlength=self.shape[1]), 0, out=starts[1:])
        return ByNode(self.target[order], self.source[order], self.weight[order], starts)

    @cached_property
    def rows(self) -> PairRows:
        """The pairs by output point."""
        order = self.target.argsort(stable=True)
        bounds = torch.zeros(self.shape[0] + 1, dtype=torch.long)
        torch.cumsum(torch.bincount(self.target.cpu(), minlength=self.shape[0]), 0, out=bounds[1:])
        return PairRows(self.source[order], self.node[order], self.weight[order], order, bounds)

    @cached_property
    def of_nodes(self) -> SparseRows:
        """The pairs by node, as a matrix (nodes, pairs) of their weights."""
        numbers = torch.arange(self.node.numel())
        return SparseRows.from_entries(self.node.cpu(), numbers, self.weight.cpu(), self.shape[1]).to(self.weight)


class ByNode(NamedTuple):
    """Pairs by node: node k owns pairs starts[k]:starts[k + 1]."""

    target: Tensor  # (p,)
    source: Tensor  # (p,)
    weight: Tensor  # (p,)
    starts: Tensor  # (nodes + 1,), on the CPU


@dataclass(frozen=True, eq=False)
class PairRows:
    """Pairs by output point: point i owns places bounds[i]:bounds[i + 1]."""

    columns: Tensor  # (p,)
    nodes: Tensor  # (p,)
    weights: Tensor  # (p,)
    numbers: Tensor  # (p,) of the pairs
    bounds: Tensor  # (m + 1,), on the CPU

    def lists(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Places (q, t) of the pairs of points first to last, as lists of one length, and which of them are pairs."""
        starts, stops = self.bounds[first:last, None], self.bounds[first + 1 : last + 1, None]
        length = int((stops - starts).max())
        places = starts + torch.arange(length)
        real = places < stops
        places = torch.where(real, places, (stops - 1).clamp(min=0))  # padded by their last pair
        return places.to(self.columns.device), real.to(self.columns.device)


@dataclass(frozen=True, eq=False)
class PairOperator:
    """The four partial derivatives of <g, F(values, features, kernel)>, of points-first tensors.

    Values (n, b, c), features (u, h), kernel (h, c, o), cotangent g (m, b, o).
    """

    pairs: Pairs

    @cached_property
    def form(self) -> Multilinear:
        """The operator as torch differentiates it."""
        partials = (self.values_gradient, self.features_gradient, self.kernel_gradient, self.output)
        return Multilinear(partials, self.gradients)

    def output(self, values, features, kernel):
        return _sum_and_mix(self.pairs, values, features, kernel)

    def values_gradient(self, features, kernel, cotangent):
        return _sum_and_mix(self.pairs.turned, cotangent, features, kernel.transpose(1, 2))

    def features_gradient(self, values, kernel, cotangent):
        found = values.new_zeros(len(self.pairs.node), kernel.shape[0])
        for chunk in _chunks(self.pairs.rows, values, len(kernel)):
            self._match(chunk, kernel, cotangent, found)
        return self._by_node(found)

    def kernel_gradient(self, values, features, cotangent):
        total = values.new_zeros(features.shape[1] * values.shape[2], cotangent.shape[2])
        for chunk in _chunks(self.pairs.rows, values, features.shape[1]):
            total.addmm_(chunk.sums(features).t(), cotangent[chunk.part].flatten(0, 1))
        return total.view(features.shape[1], values.shape[2], -1)

    def gradients(self, values, features, kernel, cotangent):
        found, total = values.new_zeros(len(self.pairs.node), kernel.shape[0]), torch.zeros_like(kernel).flatten(0, 1)
        for chunk in _chunks(self.pairs.rows, values, len(kernel)):  # both from the neighbours gathered once
            total.addmm_(chunk.sums(features).t(), cotangent[chunk.part].flatten(0, 1))
            self._match(chunk, kernel, cotangent, found)
        return self.values_gradient(features, kernel, cotangent), self._by_node(found), total.view_as(kernel)

    def _match(self, chunk: _Chunk, kernel: Tensor, cotangent: Tensor, found: Tensor) -> None:
        """Write <g_i W_h^T, f_j> (h,) of the pairs of a chunk."""
        (h, c, o), (q, b) = kernel.shape, (chunk.part.stop - chunk.part.start, cotangent.shape[1])
        flow = matmul(cotangent[chunk.part].flatten(0, 1), kernel.reshape(h * c, o)).view(q, b, h, c)
        products = torch.bmm(chunk.found, flow.permute(0, 1, 3, 2).reshape(q, b * c, h))  # (q, t, h)
        found[chunk.rows.numbers[chunk.places[chunk.real]]] = products[chunk.real]

    def _by_node(self, found: Tensor) -> Tensor:
        """Sum what was found for each pair (p, h) into the nodes (u, h)."""
        if len(found) == 0:
            return found.new_zeros(self.pairs.shape[1], found.shape[1])
        matrix = self.pairs.of_nodes
        return embedding_bag(matrix.columns, found, matrix.offsets, mode="sum", per_sample_weights=matrix.weights,
                             include_last_offset=True)  # fmt: skip


class _Chunk(NamedTuple):
    """Some output points with their gathered neighbours, in lists of one length."""

    rows: PairRows
    part: slice  # the q output points
    places: Tensor  # (q, t) of their pairs in the rows
    real: Tensor  # (q, t), whether there is one
    found: Tensor  # (q, t, b * c)
    batch: int

    def sums(self, features: Tensor) -> Tensor:
        """The neighbours summed by feature (q * b, h * c)."""
        factors = features[self.rows.nodes[self.places]] * (self.rows.weights[self.places] * self.real)[..., None]  # (q, t, h)
        sums = torch.bmm(factors.transpose(1, 2), self.found)  # (q, h, b * c)
        return sums.unflatten(2, (self.batch, -1)).transpose(1, 2).flatten(2).flatten(0, 1)


def _chunks(rows: PairRows, values: Tensor, features: int) -> Iterator[_Chunk]:
    n, b, c = values.shape
    table, points = values.reshape(n, b * c), rows.bounds.numel() - 1
    step = max(1, _CHUNK // ((rows.columns.numel() // points + 2 * features) * b * c + 1))
    for first in range(0, points, step):
        last = min(points, first + step)
        places, real = rows.lists(first, last)
        found = table.index_select(0, rows.columns[places.flatten()]).view(*places.shape, b * c)
        yield _Chunk(rows, slice(first, last), places, real, found, b)


def _sum_and_mix(pairs: Pairs, values: Tensor, features: Tensor, kernel: Tensor) -> Tensor:
    """The output (m, b, o), or with pairs and kernel transposed the gradient of the values."""
    h, c, o = kernel.shape
    out = values.new_empty(pairs.shape[0], values.shape[1], o)
    matrix = kernel.reshape(h * c, o).t().contiguous()
    for chunk in _chunks(pairs.rows, values, h):
        out[chunk.part] = matmul(chunk.sums(features), matrix).view(-1, values.shape[1], o)
    return out
