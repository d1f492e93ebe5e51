"""Floor 1: pairs of points that feed a node each, the form in which geometry reaches the kernels of `binned` and `mixed`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from inrbridge.ops.curve import z_order


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
        return PairRows(self.source[order], self.node[order], self.weight[order], bounds)

    def sum_by_node(self, found: Tensor) -> Tensor:
        """Sum what was found for the pairs, in the order of `rows` (p, h), times their weights, into the nodes (nodes, h)."""
        if len(found) == 0:
            return found.new_zeros(self.shape[1], found.shape[1])
        columns, weights, offsets = self._node_sums
        return embedding_bag(columns, found, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)

    @cached_property
    def _node_sums(self) -> tuple[Tensor, Tensor, Tensor]:
        columns = self.rows.nodes.argsort(stable=True)
        offsets = torch.zeros(self.shape[1] + 1, dtype=torch.long)
        torch.cumsum(torch.bincount(self.node.cpu(), minlength=self.shape[1]), 0, out=offsets[1:])
        return columns, self.rows.weights[columns], offsets.to(self.node.device)


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
    bounds: Tensor  # (m + 1,), on the CPU

    def lists(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Places (q, t) of the pairs of points first to last, as lists of one length, and which of them are pairs."""
        starts, stops = self.bounds[first:last, None], self.bounds[first + 1 : last + 1, None]
        length = int((stops - starts).max())
        places = starts + torch.arange(length)
        real = places < stops
        places = torch.where(real, places, (stops - 1).clamp(min=0))  # padded by their last pair
        return places.to(self.columns.device), real.to(self.columns.device)
