"""Floor 4: the sparse tensor P (n_out, k, n_in) in the two forms that the kernels take."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from inrbridge.discretization import Discretization, constant
from inrbridge.ops.binned import binned_operator
from inrbridge.ops.dispatch import Dispatched
from inrbridge.ops.local import Placements, apply_local, local_operator
from inrbridge.ops.pairs import Pairs
from inrbridge.ops.sparse import SparseRows


@constant  # a compiled graph holds for one stencil, and need not know how its kernels are found
def form_number(stencil: Stencil | BinnedStencil, groups: int = 1) -> int:
    """Return the number of the form that applies a stencil (`apply_local`)."""
    return stencil.operator(groups).form.number


@dataclass(frozen=True, eq=False)
class Stencil:
    """P as a sparse matrix with one row for each node of each output point, row i * nodes + k, and float64 weights."""

    target: Discretization
    n_in: int
    nodes: int
    matrix: SparseRows  # (n_out * nodes, n_in)
    _cache: dict = field(default_factory=dict, repr=False)

    @classmethod
    def from_entries(
        cls, target: Discretization, n_in: int, nodes: int, rows: Tensor, columns: Tensor, weights: Tensor
    ) -> Stencil:
        """Build P from its entries (e,) in any order: rows i * nodes + k, columns j, weights; all on the CPU."""
        return cls(target, n_in, nodes, SparseRows.from_entries(rows, columns, weights.double(), len(target) * nodes))

    def apply(self, values: Tensor, kernel: Tensor, groups: int = 1, bias: Tensor | None = None) -> Tensor:
        """Return y_i = sum_k (sum_j P[i,k,j] f_j) W_k + bias: (b, n_in, c), (k, c / groups, o), (o,) -> (b, n_out, o)."""
        return apply_local(form_number(self, groups), values, kernel, bias=bias)

    def operator(self, groups: int) -> Dispatched:
        """The operator that applies P in some number of groups of channels; made once."""
        if ("operator", groups) not in self._cache:
            if "placements" not in self._cache:
                self._cache["placements"] = Placements(self.matrix, self.n_in, self.nodes, self.target.points)
            self._cache["operator", groups] = local_operator(self._cache["placements"], groups)
        return self._cache["operator", groups]

    def interpolate(self, values: Tensor) -> Tensor:
        """Return sum_k sum_j P[i,k,j] f_j for every channel by itself: (b, n_in, c) -> (b, n_out, c)."""
        channels = values.shape[2]
        return self.apply(values, values.new_ones(self.nodes, 1, channels), groups=channels)

    @cached_property
    def apart(self) -> Stencil:
        """The same with every node of an output as an output of its own, (n_out * nodes, 1, n_in)."""
        points, weights = (t.repeat_interleave(self.nodes, 0) for t in (self.target.points, self.target.weights / self.nodes))
        alone = {"structure": None, "extend_to": None, "finer": None, "cache": {}}
        return Stencil(replace(self.target, points=points, weights=weights, **alone), self.n_in, 1, self.matrix)

    def dense(self) -> Tensor:
        """Return P as a dense (n_out, k, n_in) tensor, for tests and small sizes."""
        out = self.matrix.weights.new_zeros(len(self.target) * self.nodes, self.n_in)
        out.index_put_((self.matrix.rows(), self.matrix.columns), self.matrix.weights, accumulate=True)
        return out.unflatten(0, (-1, self.nodes))


@dataclass(frozen=True, eq=False)
class BinnedStencil:
    """P where each pair of points feeds one node."""

    target: Discretization
    pairs: Pairs
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def nodes(self) -> int:
        return self.pairs.shape[1]

    def apply(self, values: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return y_i = sum_k (sum_j P[i,k,j] f_j) W_k + bias: (b, n_in, c), (k, c, o), (o,) -> (b, n_out, o)."""
        return apply_local(form_number(self), values, kernel, bias=bias)

    def operator(self, groups: int = 1) -> Dispatched:
        """The operator that applies P, made once."""
        if "operator" not in self._cache:
            self._cache["operator"] = binned_operator(self.pairs)
        return self._cache["operator"]

    def dense(self) -> Tensor:
        """Return P as a dense (n_out, k, n_in) tensor, for tests and small sizes."""
        return self.pairs.dense()
