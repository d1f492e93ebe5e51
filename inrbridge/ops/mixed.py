"""Floor 1: the local operator where every pair of points has a kernel of its own, mixed from a few.

    y_i = sum over pairs p of i: w_p sum_h phi[u(p), h] f_j(p) W_h

The features phi (u, h) of the nodes are learned as well as the kernel W (h, c, o): the form is linear in values, features and
kernel. The neighbours of a point are summed for each h before they are multiplied by the kernel; or, which may be less work,
the kernels sum_h phi_h W_h of some pairs are made at a time. Where nodes are few, make all of their kernels and use `binned`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from inrbridge.ops.dispatch import Paths
from inrbridge.ops.mixed_compiled import compiled_mixture
from inrbridge.ops.mixed_plain import plain_mixture
from inrbridge.ops.multilinear import Multilinear
from inrbridge.ops.pairs import Pairs


class MixtureOperator(Protocol):
    """The four partial derivatives of <g, F(f, phi, W)>, as plain computations without a graph, of points-first tensors.

    Values f (n, b, c), features phi (u, h), kernel W (h, c, o), cotangent g (m, b, o).
    """

    def output(self, values: Tensor, features: Tensor, kernel: Tensor) -> Tensor: ...

    def values_gradient(self, features: Tensor, kernel: Tensor, cotangent: Tensor) -> Tensor: ...

    def features_gradient(self, values: Tensor, kernel: Tensor, cotangent: Tensor) -> Tensor: ...

    def kernel_gradient(self, values: Tensor, features: Tensor, cotangent: Tensor) -> Tensor: ...

    def gradients(self, values: Tensor, features: Tensor, kernel: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three of them, for less than one after the other where they share work."""
        ...


@dataclass(frozen=True, eq=False)
class MixedPairs:
    """The operator of pairs on the CPU, wherever its arguments are."""

    pairs: Pairs
    form: Multilinear = field(init=False, repr=False)

    def __post_init__(self):
        paths: Paths[MixtureOperator] = Paths({"compiled": self._compiled, "plain": self._plain})

        def call(name: str) -> Callable:
            return lambda *given: getattr(paths.beside(given[0]), name)(*given)

        partials = tuple(map(call, ("values_gradient", "features_gradient", "kernel_gradient", "output")))
        object.__setattr__(self, "form", Multilinear(partials, call("gradients"), self._shape))

    def _compiled(self, like: Tensor) -> MixtureOperator | None:
        return compiled_mixture(self.pairs, like)

    def _plain(self, like: Tensor) -> MixtureOperator:
        return plain_mixture(self.pairs.to(like))

    def _shape(self, place: int, first: Tensor, second: Tensor, third: Tensor) -> tuple[int, ...]:
        """Shape of a partial derivative, of what stands in the other three places."""
        m, u, n = self.pairs.shape
        if place == 0:  # values, of features, kernel and cotangent
            return n, third.shape[1], second.shape[1]
        if place == 1:  # features, of values, kernel and cotangent
            return u, second.shape[0]
        if place == 2:  # kernel, of values, features and cotangent
            return second.shape[1], first.shape[2], third.shape[2]
        return m, first.shape[1], third.shape[2]  # output, of values, features and kernel
