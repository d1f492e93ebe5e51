"""Floor 1: the local operator where every pair of points has a kernel of its own, mixed from a few.

    y_i = sum over pairs p of i: w_p sum_h phi[u(p), h] f_j(p) W_h

The features phi (u, h) of the nodes are learned as well as the kernel W (h, c, o): the form is linear in values, features and
kernel. Three ways lead there, of equal result: where nodes are few, their kernels sum_h phi_h W_h are made first and used by
the pairs (`binned`); else the neighbours of a point are summed for each h before they are multiplied; or, where there are
many fields and few neighbours, kernels are made for some pairs at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from inrbridge.compiled import pairs as compiled_pairs
from inrbridge.ops.dispatch import Paths
from inrbridge.ops.mixed_plain import PlainMixture
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
        return CompiledMixture(self.pairs.to(like)) if compiled_pairs.available(like) else None

    def _plain(self, like: Tensor) -> MixtureOperator:
        return PlainMixture(self.pairs.to(like))

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


@dataclass(frozen=True, eq=False)
class CompiledMixture:
    """Sums and products in cache by the kernels of `inrbridge.compiled.pairs`."""

    pairs: Pairs

    def output(self, values, features, kernel):
        return compiled_pairs.forward(_lists(self.pairs), values, features, kernel)

    def values_gradient(self, features, kernel, cotangent):
        return self._backward(None, features, kernel, cotangent, (True, False, False))[0]

    def features_gradient(self, values, kernel, cotangent):
        features = cotangent.new_zeros(self.pairs.shape[1], kernel.shape[0])  # the gradient is the same for all
        return self._backward(values, features, kernel, cotangent, (False, True, False))[1]

    def kernel_gradient(self, values, features, cotangent):
        kernel = cotangent.new_zeros(features.shape[1], values.shape[2], cotangent.shape[2])
        return self._backward(values, features, kernel, cotangent, (False, False, True))[2]

    def gradients(self, values, features, kernel, cotangent):
        return self._backward(values, features, kernel, cotangent, (True, True, True))

    def _backward(self, values, features, kernel, cotangent, wanted):
        turned = self.pairs.turned
        found = compiled_pairs.backward(_lists(turned), values, features, kernel, cotangent, wanted)
        return found if found[1] is None else (found[0], turned.sum_by_node(found[1]), found[2])


def _lists(pairs: Pairs) -> compiled_pairs.Lists:
    rows = pairs.rows
    return compiled_pairs.Lists(pairs.order, rows.bounds, rows.columns, rows.nodes, rows.weights)
