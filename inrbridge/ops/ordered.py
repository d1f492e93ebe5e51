"""Floor 1: a stencil renumbered along a curve through its points: what is read together lies together, in memory and in time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.ops.sparse import SparseRows


@dataclass(frozen=True, eq=False)
class Ordered:
    """A stencil (m * nodes, n) whose outputs and inputs have places along a curve; rows are place * nodes + node."""

    matrix: SparseRows
    nodes: int
    outputs: Tensor  # (m,): the output point at each place
    inputs: Tensor  # (n,): the input point at each place

    @classmethod
    def along(cls, matrix: SparseRows, nodes: int, n: int, outputs: Tensor) -> Ordered:
        """Order a stencil (m * nodes, n) by an order of its outputs (m,): inputs follow as they are read. All on the CPU."""
        counts = matrix.edges.diff().view(-1, nodes)[outputs].flatten()
        starts = matrix.edges[:-1].view(-1, nodes)[outputs].flatten()
        offsets = torch.zeros_like(matrix.edges)
        torch.cumsum(counts, 0, out=offsets[1:])
        entries = torch.repeat_interleave(starts - offsets[:-1], counts) + torch.arange(len(matrix.columns))
        columns = matrix.columns[entries]
        first = torch.full((n,), len(columns)).scatter_reduce_(0, columns, torch.arange(len(columns)), "amin")
        inputs = first.argsort(stable=True)
        place = torch.empty_like(inputs)
        place[inputs] = torch.arange(n)
        return cls(SparseRows(place[columns], matrix.weights[entries], offsets, offsets), nodes, outputs, inputs)

    def exchanged(self) -> Ordered:
        """The same with inputs and outputs exchanged. On the CPU."""
        return Ordered(self.matrix.exchanged(self.nodes, len(self.inputs)), self.nodes, self.inputs, self.outputs)

    def to(self, like: Tensor) -> Ordered:
        """The same on the device and in the dtype of a tensor; columns in 32 bits where they fit, for they are read often."""
        matrix = self.matrix.to(like)
        if max(len(matrix.columns), len(self.inputs)) < 2**31:
            matrix = matrix._replace(columns=matrix.columns.int(), offsets=matrix.offsets.int())
        return Ordered(matrix, self.nodes, self.outputs.to(like.device), self.inputs.to(like.device))
