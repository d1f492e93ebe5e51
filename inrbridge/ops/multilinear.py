"""Floor 1: a form that is linear in each of several tensors, that torch may differentiate any number of times, in both modes.

<g, F(u, v, ..)> is linear in each factor u, v, .. and in the cotangent g of the output. Its partial derivative toward one of
these places is a product of what stands in the others; the derivatives of each partial are again among the partials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inrbridge.ops.custom import numbered, register


@dataclass(frozen=True, eq=False)
class Multilinear:
    """The partial derivatives of a form of q factors and a cotangent, as plain computations without a graph.

    The first factor and the cotangent have one row for each point and one column for each field, (n, b, c) and (m, b, o); the
    others are shared by the fields.

    partials: q + 1 functions; number i takes what stands in all places but i, in order, the cotangent last. The last one is
        the output. gradients: all but the output at once, of factors and cotangent, for less than one after the other.
    shape: of a partial: takes its place, then what the partial takes; all that a recorder of graphs asks for (None: a form
        that cannot be recorded).
    """

    partials: Sequence[Callable[..., Tensor]]
    gradients: Callable[..., tuple[Tensor, ...]]
    shape: Callable[..., tuple[int, ...]] | None = None
    number: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "number", register(self))

    def __call__(self, *factors: Tensor) -> Tensor:
        """Return the output, differentiable in every factor."""
        return apply_number(self.number, *factors)

    def toward(self, place: int, stands: Sequence[Tensor]) -> Tensor:
        """Return the partial derivative toward a place, differentiable in what stands in the others."""
        return _Partial.apply(self, place, *stands)


def apply_number(number: int, *factors: Tensor) -> Tensor:
    """Return the output of the form that has a number (`custom.register`), differentiable in every factor."""
    if torch.compiler.is_compiling():
        _introduce()
    return _output(number, *factors)


def _introduce() -> bool:
    """Tell torch.compile, when it comes by, to write `_output` to its graph: into functions with a `jvp` it cannot look."""
    torch.compiler.allow_in_graph(_output)
    return True


_introduce._dynamo_marked_constant = True  # called while it records; the decorators of torch.compiler import it, for seconds


def _output(number: int, *factors: Tensor) -> Tensor:
    form = numbered(number)
    return form.toward(len(form.partials) - 1, factors)


class _Partial(torch.autograd.Function):
    @staticmethod
    def forward(form, place, *stands):
        return torch.ops.inrbridge.partial.default(stands, form.number, place)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.form, ctx.place, *stands = inputs
        ctx.save_for_backward(*stands)
        ctx.save_for_forward(*stands)

    @staticmethod
    def backward(ctx, grad):
        form, place, needed = ctx.form, ctx.place, ctx.needs_input_grad[2:]
        if place == len(needed) and all(needed) and not torch.is_grad_enabled():  # nobody differentiates this again
            return None, None, *torch.ops.inrbridge.gradients.default(ctx.saved_tensors, grad, form.number)
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

    @staticmethod
    def vmap(info, in_dims, form, place, *stands):
        """Copies of values are more fields, in one call; copies of what the fields share are a call each."""
        dims, last = in_dims[2:], len(form.partials) - 1
        copied = [at + (at >= place) for at, dim in enumerate(dims) if dim is not None]  # places
        if copied == [last - place] and place in (0, last):  # of <g, F(f, ..)>, f stands alone and g is asked for, or the reverse
            at = next(at for at, dim in enumerate(dims) if dim is not None)
            folded = stands[at].movedim(dims[at], 1).flatten(1, 2)
            return form.toward(place, [*stands[:at], folded, *stands[at + 1 :]]).unflatten(1, (info.batch_size, -1)), 1
        each = ([t] * info.batch_size if dim is None else t.unbind(dim) for t, dim in zip(stands, dims, strict=True))
        return torch.stack([form.toward(place, some) for some in zip(*each, strict=True)]), 0
