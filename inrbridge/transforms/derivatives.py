"""Floor 4: derivatives of fields as fields: the D^alpha f that a layer may depend on (Wang & Golland 2023, eq. 2-3).

They come from a field's own `gradient` where it has one, else from autograd of the field, in one batched call for a whole
stack. They are derivatives of the field itself, not of its samples, and can be differentiated again, by coordinates and by
parameters; `keep` puts the field's own channels before them, so that a net can take [f, grad f].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inrbridge.errors import CannotAlign, ConfigError, ShapeMismatch
from inrbridge.field import Differentiable, Field, channel_names
from inrbridge.transforms.base import Transform, channel_ranges

Powers = tuple[tuple[int, ...], ...]


class DerivativeField(Transform):
    """Partial derivatives of a field: channel i * len(powers) + k is D^alpha f_i for the multi-index alpha = powers[k].

    Args:
        inner: the field f, on a flat domain: a Box, Torus, Ball, or a part of one.
        powers: multi-indices, d whole numbers each; (1, 0) is df / dx_0, (0, 2) the second derivative by x_1.
        keep: put the channels of f first.

    Raises:
        CannotAlign: the domain is curved: there, coordinates cannot vary one by one.
    """

    def __init__(self, inner: Field, powers: Sequence[Sequence[int]], *, keep: bool = False):
        self.powers, self.keep = _checked(powers, inner), keep
        self.derivatives = max(sum(alpha) for alpha in self.powers)
        derived = self._names(channel_names(inner))
        ranges = (None,) * len(derived)
        if keep:
            derived, ranges = (*channel_names(inner), *derived), (*channel_ranges(inner), *ranges)
        super().__init__(inner, inner.domain, derived, ranges)

    @property
    def signature(self):
        return type(self).__name__, self.powers, self.keep

    def around(self, inner):
        return DerivativeField(inner, self.powers, keep=self.keep)

    def _names(self, names: Sequence[str]) -> tuple[str, ...]:
        suffix = ["".join(f"x{a}" * p for a, p in enumerate(alpha)) for alpha in self.powers]
        return tuple(f"{name}_{s}" if s else name for name in names for s in suffix)

    def combine(self, partials: Tensor) -> Tensor:
        """Turn D^alpha f_i (..., c, len(powers)) into the new channels."""
        return partials.flatten(-2)

    def __call__(self, coords: Tensor) -> Tensor:
        if coords.ndim == 1:
            return self(coords[None])[0]
        if isinstance(self.inner, Differentiable) and all(sum(alpha) == 1 for alpha in self.powers):
            gradient = self.inner.gradient(coords)  # (..., c, d)
            found = self.combine(gradient[..., [alpha.index(1) for alpha in self.powers]])
            return torch.cat([self.inner(coords), found], dim=-1) if self.keep else found
        return super().__call__(coords)

    def apply(self, evaluate, coords):
        enabled = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            probe = evaluate(coords[..., :1, :].clone())  # each field of a stack has its own slope at a shared point
            wanted = enabled and probe.requires_grad  # by the coordinates, or by parameters of the field
            x = coords.expand(*probe.shape[:-2], *coords.shape[-2:]).clone()
            x = x if x.requires_grad else x.requires_grad_()
            values = evaluate(x)
            found = self.combine(partial_derivatives(values, x, self.powers))
        found = torch.cat([values, found], dim=-1) if self.keep else found
        return found if wanted else found.detach()


class GradientField(DerivativeField):
    """All first derivatives: channel i d + a is df_i / dx_a."""

    def __init__(self, inner: Field, *, keep: bool = False):
        super().__init__(inner, unit_powers(inner.domain.dim), keep=keep)

    def around(self, inner):
        return GradientField(inner, keep=self.keep)


class HessianField(DerivativeField):
    """All second derivatives: channel (i d + a) d + b is d^2 f_i / dx_a dx_b."""

    def __init__(self, inner: Field, *, keep: bool = False):
        units = unit_powers(inner.domain.dim)
        pairs = [tuple(p + q for p, q in zip(first, second, strict=True)) for first in units for second in units]
        super().__init__(inner, pairs, keep=keep)

    def around(self, inner):
        return HessianField(inner, keep=self.keep)


class LaplacianField(DerivativeField):
    """The sum of the unmixed second derivatives, channel by channel."""

    def __init__(self, inner: Field, *, keep: bool = False):
        super().__init__(inner, unit_powers(inner.domain.dim, 2), keep=keep)

    def around(self, inner):
        return LaplacianField(inner, keep=self.keep)

    def _names(self, names):
        return tuple(f"laplacian_{name}" for name in names)

    def combine(self, partials):
        return partials.sum(-1)


class DivergenceField(DerivativeField):
    """The divergence sum_a df_a / dx_a of a field with one channel for each coordinate."""

    def __init__(self, inner: Field, *, keep: bool = False):
        if inner.channels != inner.domain.dim:
            raise ShapeMismatch(
                f"Got the divergence of a field of {inner.channels} channels on {inner.domain}, expected {inner.domain.dim}: "
                "one for each coordinate; select them first (SelectChannels)."
            )
        super().__init__(inner, unit_powers(inner.domain.dim), keep=keep)

    def around(self, inner):
        return DivergenceField(inner, keep=self.keep)

    def _names(self, names):
        return ("divergence",)

    def combine(self, partials):
        return partials.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)


def unit_powers(dim: int, order: int = 1) -> Powers:
    """Return the multi-indices of the unmixed derivatives of an order along each axis.

    >>> unit_powers(2)
    ((1, 0), (0, 1))
    """
    return tuple(tuple(order if a == axis else 0 for a in range(dim)) for axis in range(dim))


def partial_derivatives(values: Tensor, x: Tensor, powers: Powers) -> Tensor:
    """Return D^alpha of values (..., n, c) by the coordinates x (..., n, d) that they were computed from: (..., n, c, k).

    One backward pass for each channel and each derivative on the way; what two multi-indices share is computed once.
    """
    known: dict[tuple[int, ...], Tensor] = {(0,) * x.shape[-1]: values}

    def find(alpha: tuple[int, ...]) -> Tensor:
        if alpha not in known:
            axis = next(a for a, p in enumerate(alpha) if p)
            lower = tuple(p - (a == axis) for a, p in enumerate(alpha))
            slopes = torch.stack([_slope(column, x) for column in find(lower).unbind(-1)], dim=-2)  # (..., c, d)
            for a in range(x.shape[-1]):
                known.setdefault(tuple(p + (b == a) for b, p in enumerate(lower)), slopes[..., a])
        return known[alpha]

    return torch.stack([find(alpha) for alpha in powers], dim=-1)


def _slope(column: Tensor, x: Tensor) -> Tensor:
    if not column.requires_grad:  # a constant
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(column.sum(), x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope


def _checked(powers: Sequence[Sequence[int]], inner: Field) -> Powers:
    domain = inner.domain
    if domain.intrinsic_dim != domain.dim:
        raise CannotAlign(
            f"Got derivatives of a field on {domain}, expected a flat domain (a Box, Torus, Ball or Region of one): "
            "the coordinates of a curved one cannot vary one by one."
        )
    powers = tuple(tuple(alpha) for alpha in powers)
    if not powers or any(len(a) != domain.dim or not all(isinstance(p, int) and p >= 0 for p in a) for a in powers):
        raise ConfigError(
            f"Got the derivatives {powers} on {domain}, expected multi-indices of {domain.dim} whole numbers, such as "
            f"{unit_powers(domain.dim)[0]} for the first derivative along axis 0."
        )
    return powers
