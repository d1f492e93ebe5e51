"""Floor 4: P where every pair of points has a node of its own, or shares it with the pairs of the same offset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from inrbridge.discretization import Discretization, constant
from inrbridge.ops.binned import binned_operator
from inrbridge.ops.dispatch import Dispatched
from inrbridge.ops.local import apply_local
from inrbridge.ops.mixed import MixedPairs
from inrbridge.ops.pairs import Pairs

_TABLE = 1 << 22  # numbers of all kernels together, at most, to be made at once


@constant  # as that of other stencils
def _form_number(stencil: PairStencil, by_offset: bool) -> int:
    return (stencil.by_offset if by_offset else stencil.mixed).form.number


@dataclass(frozen=True, eq=False)
class PairStencil:
    """P (n_out, u, n_in) with one entry for each pair of points, at the node of its offset, and float64 weights."""

    target: Discretization
    offsets: Tensor  # (u, d), float64, in domain units
    pairs: Pairs

    @property
    def nodes(self) -> int:
        return len(self.offsets)

    def apply(self, values: Tensor, features: Tensor, kernel: Tensor) -> Tensor:
        """Return y_i = sum_u (sum_j P[i,u,j] f_j) sum_h features[u,h] W_h.

        Where offsets repeat, their kernels are made first, and used by all the pairs that share them.

        Args:
            values: f, (b, n_in, c).
            features: of the kernel at the offsets, (u, h).
            kernel: W, (h, c, o).

        Returns:
            (b, n_out, o).
        """
        if self._kernels_are_few(values.shape[0], *kernel.shape):
            return apply_local(_form_number(self, True), values, torch.einsum("uh,hco->uco", features, kernel))
        return apply_local(_form_number(self, False), values, features, kernel)

    def _kernels_are_few(self, b: int, h: int, c: int, o: int) -> bool:
        """Whether it is less work to make them than to sum the neighbours of each point for each feature."""
        (m, u, _), pairs = self.pairs.shape, len(self.pairs.node)
        return 2 * u <= pairs and u * c * o <= _TABLE and c * o * (u * h + pairs * b) < 1.25 * b * h * c * (pairs + m * o)

    @cached_property
    def by_offset(self) -> Dispatched:
        """The operator that applies P to one kernel for each offset."""
        return binned_operator(self.pairs)

    @cached_property
    def mixed(self) -> MixedPairs:
        """The operator that applies P to mixed kernels."""
        return MixedPairs(self.pairs)

    def dense(self) -> Tensor:
        """Return P as a dense (n_out, u, n_in) tensor, for tests and small sizes."""
        return self.pairs.dense()
