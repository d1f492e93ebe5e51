"""Floor 1: a bilinear operator of values and kernel that torch may differentiate any number of times, in both modes.

<g, F(v, W)> is linear in the values v, the kernel W and the cotangent g of the output. Its three partial derivatives are
the output, the gradient of the values and the gradient of the kernel; the derivatives of each are again among the three.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

VALUES, KERNEL, OUTPUT = range(3)
_OTHERS = ((KERNEL, OUTPUT), (VALUES, OUTPUT), (VALUES, KERNEL))  # of each place, in the order of the arguments


class BilinearOperator(Protocol):
    """The three partial derivatives, as plain computations without a graph."""

    def output(self, values: Tensor, kernel: Tensor) -> Tensor: ...

    def values_gradient(self, kernel: Tensor, cotangent: Tensor) -> Tensor: ...

    def kernel_gradient(self, values: Tensor, cotangent: Tensor) -> Tensor: ...

    def gradients(self, values: Tensor, kernel: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Both of them, for less than one after the other where they share work."""
        ...


def apply_bilinear(operator: BilinearOperator, values: Tensor, kernel: Tensor) -> Tensor:
    """Return the output of an operator, differentiable in values and kernel."""
    return _Partial.apply(values, kernel, operator, OUTPUT)


class _Partial(torch.autograd.Function):
    """The partial derivative toward one place, of what stands in the other two."""

    @staticmethod
    def forward(first, second, operator, place):
        compute = (operator.values_gradient, operator.kernel_gradient, operator.output)[place]
        return compute(first, second)

    @staticmethod
    def setup_context(ctx, inputs, output):
        first, second, ctx.operator, ctx.place = inputs
        ctx.save_for_backward(first, second)
        ctx.save_for_forward(first, second)

    @staticmethod
    def backward(ctx, grad):
        if ctx.place == OUTPUT and all(ctx.needs_input_grad[:2]) and not torch.is_grad_enabled():
            return *ctx.operator.gradients(*ctx.saved_tensors, grad), None, None  # nobody differentiates this again
        places = _OTHERS[ctx.place]
        stands = dict(zip(places, ctx.saved_tensors, strict=True)) | {ctx.place: grad}
        asked = zip(places, ctx.needs_input_grad, strict=False)  # two of four arguments are tensors
        return *(_toward(place, stands, ctx.operator) if needed else None for place, needed in asked), None, None

    @staticmethod
    def jvp(ctx, first_tangent, second_tangent, *_):
        first, second = ctx.saved_tensors
        parts = []
        if first_tangent is not None:
            parts.append(_Partial.apply(first_tangent, second, ctx.operator, ctx.place))
        if second_tangent is not None:
            parts.append(_Partial.apply(first, second_tangent, ctx.operator, ctx.place))
        return sum(parts[1:], parts[0])


def _toward(place: int, stands: dict[int, Tensor], operator: BilinearOperator) -> Tensor:
    first, second = (stands[other] for other in _OTHERS[place])
    return _Partial.apply(first, second, operator, place)
