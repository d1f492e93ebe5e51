"""Floor 1: a form that is linear in each of several tensors, that torch may differentiate any number of times, in both modes.

<g, F(u, v, ..)> is linear in each factor u, v, .. and in the cotangent g of the output. Its partial derivative toward one of
these places is a product of what stands in the others; the derivatives of each partial are again among the partials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Multilinear:
    """The partial derivatives of a form of q factors and a cotangent, as plain computations without a graph.

    partials: q + 1 functions; number i takes what stands in all places but i, in order, the cotangent last. The last one is
        the output. gradients: all but the output at once, of factors and cotangent, for less than one after the other.
    """

    partials: Sequence[Callable[..., Tensor]]
    gradients: Callable[..., tuple[Tensor, ...]]

    def __call__(self, *factors: Tensor) -> Tensor:
        """Return the output, differentiable in every factor."""
        return self.toward(len(self.partials) - 1, factors)

    def toward(self, place: int, stands: Sequence[Tensor]) -> Tensor:
        """Return the partial derivative toward a place, differentiable in what stands in the others."""
        return _Partial.apply(self, place, *stands)


class _Partial(torch.autograd.Function):
    @staticmethod
    def forward(form, place, *stands):
        return form.partials[place](*stands)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.form, ctx.place, *stands = inputs
        ctx.save_for_backward(*stands)
        ctx.save_for_forward(*stands)

    @staticmethod
    def backward(ctx, grad):
        form, place, needed = ctx.form, ctx.place, ctx.needs_input_grad[2:]
        if place == len(needed) and all(needed) and not torch.is_grad_enabled():
            return None, None, *form.gradients(*ctx.saved_tensors, grad)  # nobody differentiates this again
        stands = list(ctx.saved_tensors)
        stands.insert(place, grad)
        others = [other for other in range(len(stands)) if other != place]
        parts = (form.toward(other, stands[:other] + stands[other + 1 :]) if asked else None
                 for other, asked in zip(others, needed, strict=True))  # fmt: skip
        return None, None, *parts

    @staticmethod
    def jvp(ctx, _form, _place, *tangents):
        stands, parts = list(ctx.saved_tensors), []
        for at, tangent in enumerate(tangents):
            if tangent is not None:
                parts.append(ctx.form.toward(ctx.place, [*stands[:at], tangent, *stands[at + 1 :]]))
        return sum(parts[1:], parts[0])
