"""Floor 4: P where every pair of points has a node of its own, or shares it with the pairs of the same offset."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.ops.local import apply_local
from inrbridge.ops.pairs import PairOperator, Pairs


@dataclass(frozen=True, eq=False)
class PairStencil:
    """P (n_out, u, n_in) with one entry for each pair of points, at the node of its offset, and float64 weights."""

    target: Discretization
    offsets: Tensor  # (u, d), float64, in domain units
    pairs: Pairs
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def nodes(self) -> int:
        return len(self.offsets)

    def apply(self, values: Tensor, features: Tensor, kernel: Tensor) -> Tensor:
        """Return y_i = sum_u (sum_j P[i,u,j] f_j) sum_h features[u,h] W_h.

        Args:
            values: f, (b, n_in, c).
            features: of the kernel at the offsets, (u, h).
            kernel: W, (h, c, o).

        Returns:
            (b, n_out, o).
        """
        key = (values.dtype, values.device)
        if key not in self._cache:
            self._cache[key] = PairOperator(self.pairs.to(values))
        return apply_local(self._cache[key].form.number, values, features, kernel)

    def dense(self) -> Tensor:
        """Return P as a dense (n_out, u, n_in) tensor, for tests and small sizes."""
        return self.pairs.dense()
