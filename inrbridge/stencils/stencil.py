"""Floor 4: the sparse tensor P (n_out, k, n_in) in the two forms that the kernels take."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.ops.local import local, local_binned


def pad_lists(rows: Tensor, columns: Tensor, values: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Turn entries sorted by row into lists of equal length.

    Args:
        rows, columns: (e,) with rows ascending; values: (e, k).

    Returns:
        index (n_rows, t), weight (n_rows, k, t); unused places hold index 0 and weight 0.
    """
    counts = torch.bincount(rows, minlength=n_rows)
    longest = max(1, int(counts.max()) if rows.numel() else 1)
    slot = torch.arange(rows.numel()) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    index = torch.zeros(n_rows, longest, dtype=torch.long)
    index[rows, slot] = columns
    weight = torch.zeros(n_rows, longest, values.shape[1], dtype=values.dtype)
    weight[rows, slot] = values
    return index, weight.transpose(1, 2).contiguous()


@dataclass(frozen=True, eq=False)
class Stencil:
    """P as one list of neighbours for each output point, each neighbour with its weight at every node."""

    target: Discretization
    n_in: int
    index: Tensor  # (n_out, t)
    weight: Tensor  # (n_out, k, t), float64
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def nodes(self) -> int:
        return self.weight.shape[1]

    def apply(self, values: Tensor, kernel: Tensor, groups: int = 1) -> Tensor:
        """Return y_i = sum_k (sum_j P[i,k,j] f_j) W_k: values (b, n_in, c), kernel (k, c / groups, o) -> (b, n_out, o)."""
        index, weight = self._placed(values, "forward", lambda: (self.index, self.weight))
        return local(values, kernel, index, weight, lambda: self._placed(values, "transposed", self._transpose), groups)

    def interpolate(self, values: Tensor) -> Tensor:
        """Return sum_k sum_j P[i,k,j] f_j for every channel by itself: (b, n_in, c) -> (b, n_out, c)."""
        channels = values.shape[2]
        return self.apply(values, values.new_ones(self.nodes, 1, channels), groups=channels)

    def dense(self) -> Tensor:
        """Return P as a dense (n_out, k, n_in) tensor, for tests and small sizes."""
        n_out, k, t = self.weight.shape
        out = self.weight.new_zeros(n_out, k, self.n_in)
        return out.scatter_add_(2, self.index[:, None].expand(n_out, k, t), self.weight)

    def _placed(self, values: Tensor, name: str, make) -> tuple[Tensor, Tensor]:
        """Lists on the device and in the dtype of the values, kept for the next call."""
        key = (name, values.dtype, values.device)
        if key not in self._cache:
            index, weight = make()
            self._cache[key] = (index.to(values.device), weight.to(values))
        return self._cache[key]

    def _transpose(self) -> tuple[Tensor, Tensor]:
        used = (self.weight != 0).any(1)  # (n_out, t)
        target, slot = used.nonzero(as_tuple=True)
        source = self.index[target, slot]
        order = source.argsort(stable=True)
        return pad_lists(source[order], target[order], self.weight[target, :, slot][order], self.n_in)


@dataclass(frozen=True, eq=False)
class BinnedStencil:
    """P where each pair of points feeds one node: pairs sorted by node, node k owns offsets[k]:offsets[k + 1]."""

    target: Discretization
    n_in: int
    target_index: Tensor  # (pairs,)
    source_index: Tensor  # (pairs,)
    weight: Tensor  # (pairs,), float64
    offsets: tuple[int, ...]
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def nodes(self) -> int:
        return len(self.offsets) - 1

    def apply(self, values: Tensor, kernel: Tensor) -> Tensor:
        """Return y_i = sum_k (sum_j P[i,k,j] f_j) W_k: values (b, n_in, c), kernel (k, c, o) -> (b, n_out, o)."""
        key = (values.dtype, values.device)
        if key not in self._cache:
            moved = (self.target_index, self.source_index)
            self._cache[key] = (*(t.to(values.device) for t in moved), self.weight.to(values))
        return local_binned(values, kernel, *self._cache[key], self.offsets, len(self.target))

    def dense(self) -> Tensor:
        """Return P as a dense (n_out, k, n_in) tensor, for tests and small sizes."""
        out = self.weight.new_zeros(len(self.target), self.nodes, self.n_in)
        node = torch.repeat_interleave(torch.arange(self.nodes), torch.tensor(self.offsets).diff())
        return out.index_put_((self.target_index, node, self.source_index), self.weight, accumulate=True)
