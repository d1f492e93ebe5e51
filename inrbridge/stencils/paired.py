"""Floor 4: P where every pair of points has a node of its own, or shares it with the pairs of the same offset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from inrbridge.discretization import Discretization, constant
from inrbridge.ops.local import apply_local
from inrbridge.ops.mixed import MixedPairs
from inrbridge.ops.pairs import Pairs


@constant  # as that of other stencils
def _form_number(stencil: PairStencil) -> int:
    return stencil.operator.form.number


@dataclass(frozen=True, eq=False)
class PairStencil:
    """P (n_out, u, n_in) with one entry for each pair of points, at the node of its offset, and float64 weights."""

    target: Discretization
    offsets: Tensor  # (u, d), float64, in domain units
    pairs: Pairs

    @property
    def nodes(self) -> int:
        return len(self.offsets)

    def apply(self, values: Tensor, features: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return y_i = sum_u (sum_j P[i,u,j] f_j) sum_h features[u,h] W_h + bias.

        Args:
            values: f, (b, n_in, c).
            features: of the kernel at the offsets, (u, h).
            kernel: W, (h, c, o). bias: (o,).

        Returns:
            (b, n_out, o).
        """
        return apply_local(_form_number(self), values, features, kernel, bias=bias)

    @cached_property
    def operator(self) -> MixedPairs:
        """The operator that applies P to mixed kernels."""
        return MixedPairs(self.pairs)

    def dense(self) -> Tensor:
        """Return P as a dense (n_out, u, n_in) tensor, for tests and small sizes."""
        return self.pairs.dense()
