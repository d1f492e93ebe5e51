"""Floor 1: a bilinear operator of values and kernel that torch may differentiate any number of times, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from inrbridge.ops.multilinear import Multilinear


class BilinearOperator(Protocol):
    """The three partial derivatives of <g, F(v, W)>, as plain computations without a graph."""

    def output(self, values: Tensor, kernel: Tensor) -> Tensor: ...

    def values_gradient(self, kernel: Tensor, cotangent: Tensor) -> Tensor: ...

    def kernel_gradient(self, values: Tensor, cotangent: Tensor) -> Tensor: ...

    def gradients(self, values: Tensor, kernel: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Both of them, for less than one after the other where they share work."""
        ...


def form_of(operator: BilinearOperator, shape: Callable[..., tuple[int, ...]] | None = None) -> Multilinear:
    """Return the operator as a form that torch differentiates; with `shape` (see `Multilinear`) also records and compiles."""
    partials = (operator.values_gradient, operator.kernel_gradient, operator.output)
    return Multilinear(partials, operator.gradients, shape)


def apply_bilinear(operator: BilinearOperator, values: Tensor, kernel: Tensor) -> Tensor:
    """Return the output of an operator, differentiable in values and kernel."""
    return form_of(operator)(values, kernel)
