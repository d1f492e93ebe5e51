"""Floor 1: the local operator where each neighbour feeds one node only, in plain torch: one bin of pairs at a time."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.ops.products import matmul


@dataclass(frozen=True, eq=False)
class BinnedOperator:
    """The local operator where each neighbour feeds one node only: gather, multiply, scatter, one bin at a time.

    Work is pairs x c x o whatever the number of bins (Wang & Golland 2023, section 4.3). Pairs are sorted by bin: bin k
    owns offsets[k]:offsets[k + 1].
    """

    target: Tensor  # (p,)
    source: Tensor  # (p,)
    weight: Tensor  # (p,)
    offsets: tuple[int, ...]
    n_in: int
    n_out: int

    def output(self, values, kernel):
        out = values.new_zeros(self.n_out, values.shape[1], kernel.shape[2])
        matrices = kernel.transpose(1, 2).contiguous()
        for k, pairs in self._bins():
            rows = values.index_select(0, self.source[pairs]) * self.weight[pairs, None, None]  # (p, b, c)
            out.index_add_(0, self.target[pairs], matmul(rows.flatten(0, 1), matrices[k]).view(*rows.shape[:2], -1))
        return out

    def values_gradient(self, kernel, cotangent):
        out = cotangent.new_zeros(self.n_in, cotangent.shape[1], kernel.shape[1])
        for k, pairs in self._bins():
            self._add_back(out, self._flow(cotangent, pairs), kernel[k], pairs)
        return out

    def kernel_gradient(self, values, cotangent):
        out = values.new_zeros(len(self.offsets) - 1, values.shape[2], cotangent.shape[2])
        for k, pairs in self._bins():
            out[k] = self._product(values, self._flow(cotangent, pairs), pairs)
        return out

    def gradients(self, values, kernel, cotangent):
        back, total = torch.zeros_like(values), torch.zeros_like(kernel)
        for k, pairs in self._bins():
            flow = self._flow(cotangent, pairs)
            self._add_back(back, flow, kernel[k], pairs)
            total[k] = self._product(values, flow, pairs)
        return back, total

    def _flow(self, cotangent: Tensor, pairs: slice) -> Tensor:
        return cotangent.index_select(0, self.target[pairs]) * self.weight[pairs, None, None]  # (p, b, o)

    def _add_back(self, out: Tensor, flow: Tensor, matrix: Tensor, pairs: slice) -> None:
        out.index_add_(0, self.source[pairs], matmul(flow.flatten(0, 1), matrix).view(*flow.shape[:2], -1))

    def _product(self, values: Tensor, flow: Tensor, pairs: slice) -> Tensor:
        return values.index_select(0, self.source[pairs]).flatten(0, 1).t() @ flow.flatten(0, 1)

    def _bins(self) -> Iterator[tuple[int, slice]]:
        """The bins that hold pairs, with their slice of them."""
        for k, (start, stop) in enumerate(itertools.pairwise(self.offsets)):
            if start < stop:
                yield k, slice(start, stop)
