"""Floor 1: the local operator of mixed kernels in chunks of plain torch: nothing of size pairs x channels outlives its chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inrbridge.ops.binned import PlainBins
from inrbridge.ops.pairs import PairRows, Pairs
from inrbridge.ops.products import matmul

_FEW = 1024  # nodes, at most, whose kernels are made first
_CHUNK = 3 << 17  # elements of gathered and of summed rows at a time: 1.5 MiB in float32


def plain_mixture(pairs: Pairs) -> PlainKernels | PlainMixture:
    """Return the operator of pairs on their device: for few nodes, as of a lattice, or for many."""
    nodes = pairs.shape[1]
    return PlainKernels(PlainBins(pairs)) if nodes <= _FEW and 2 * nodes <= len(pairs.node) else PlainMixture(pairs)


@dataclass(frozen=True, eq=False)
class PlainMixture:
    """A chunk of output points sums its neighbours into one row a feature and multiplies the rows by the kernel."""

    pairs: Pairs

    def output(self, values, features, kernel):
        return _sum_and_mix(self.pairs, values, features, kernel)

    def values_gradient(self, features, kernel, cotangent):
        return _sum_and_mix(self.pairs.turned, cotangent, features, kernel.transpose(1, 2))

    def features_gradient(self, values, kernel, cotangent):
        found = values.new_zeros(len(self.pairs.node), kernel.shape[0])
        for chunk in _chunks(self.pairs.rows, values, len(kernel)):
            self._match(chunk, kernel, cotangent, found)
        return self.pairs.sum_by_node(found)

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
        return self.values_gradient(features, kernel, cotangent), self.pairs.sum_by_node(found), total.view_as(kernel)

    def _match(self, chunk: _Chunk, kernel: Tensor, cotangent: Tensor, found: Tensor) -> None:
        """Write <g_i W_h^T, f_j> (h,) of the pairs of a chunk."""
        (h, c, o), (q, b) = kernel.shape, (chunk.part.stop - chunk.part.start, cotangent.shape[1])
        flow = matmul(cotangent[chunk.part].flatten(0, 1), kernel.reshape(h * c, o)).view(q, b, h, c)
        products = torch.bmm(chunk.found, flow.permute(0, 1, 3, 2).reshape(q, b * c, h))  # (q, t, h)
        found[chunk.places[chunk.real]] = products[chunk.real]


@dataclass(frozen=True, eq=False)
class PlainKernels:
    """The kernels of all nodes are made first, and used by all pairs that share them: for nodes that are few."""

    bins: PlainBins

    def output(self, values, features, kernel):
        return self.bins.output(values, _mixed(features, kernel))

    def values_gradient(self, features, kernel, cotangent):
        return self.bins.values_gradient(_mixed(features, kernel), cotangent)

    def features_gradient(self, values, kernel, cotangent):
        return torch.einsum("uco,hco->uh", self.bins.kernel_gradient(values, cotangent), kernel)

    def kernel_gradient(self, values, features, cotangent):
        return torch.einsum("uh,uco->hco", features, self.bins.kernel_gradient(values, cotangent))

    def gradients(self, values, features, kernel, cotangent):
        back, total = self.bins.gradients(values, _mixed(features, kernel), cotangent)
        return back, torch.einsum("uco,hco->uh", total, kernel), torch.einsum("uh,uco->hco", features, total)


def _mixed(features: Tensor, kernel: Tensor) -> Tensor:
    return torch.einsum("uh,hco->uco", features, kernel)


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
