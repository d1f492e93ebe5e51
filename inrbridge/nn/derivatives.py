"""Floor 5: derivatives of a sampled field: the D^alpha f under the integrals of a layer (Wang & Golland 2023, eq. 2-3).

The samples are all that is known here; a polynomial fitted to the nearest ones is differentiated (`stencils.derivatives`),
exactly for polynomials up to `order`. Where the field itself is at hand, `inrbridge.transforms.GradientField` and its
siblings are exact for every field, and their channels enter a net as any others. All are linear in the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.nn.channels import check_channels
from inrbridge.nn.sampled import Sampled
from inrbridge.stencils import Stencil
from inrbridge.stencils.derivatives import Powers, derivative_stencil


class Derivative(nn.Module):
    """Partial derivatives: values (b, n, c) -> (b, n, c k), channel i k + j being D^powers[j] f_i, in values per domain unit.

    Args:
        powers: k multi-indices of d whole numbers; (1, 0) is df / dx_0.
        order: total degree up to which polynomials are differentiated exactly; None: one more than the derivative.
        neighbors: samples used for each point; None: about twice the terms of the polynomial.
        circular: a box closes on itself; a torus always does. Elsewhere fits near an edge are one-sided.
        keep: put the channels of f first.

    Raises:
        ShapeMismatch: a curved domain, or points that do not determine the polynomial.
    """

    def __init__(self, powers: Sequence[Sequence[int]], *, order: int | None = None, neighbors: int | None = None,
                 circular: bool = False, keep: bool = False):  # fmt: skip
        super().__init__()
        self.powers: Powers = tuple(tuple(alpha) for alpha in powers)
        self.order, self.neighbors, self.circular, self.keep = order, neighbors, circular, keep

    def powers_on(self, dim: int) -> Powers:
        """The multi-indices on a domain of `dim` coordinates."""
        return self.powers

    def combine(self, stencil: Stencil, values: Tensor) -> Tensor:
        """Turn the stencil, whose nodes are the derivatives, and values (b, n, c) into the new channels."""
        channels, k = values.shape[2], stencil.nodes
        kernel = torch.eye(k, dtype=values.dtype, device=values.device)[:, None].repeat(1, 1, channels)
        return stencil.apply(values, kernel, groups=channels)

    def forward(self, sampled: Sampled) -> Sampled:
        powers = self.powers_on(sampled.discretization.domain.dim)
        stencil = derivative_stencil(powers, sampled.discretization, order=self.order, neighbors=self.neighbors,
                                     circular=self.circular)  # fmt: skip
        found = self.combine(stencil, sampled.values)
        return sampled.with_values(torch.cat([sampled.values, found], dim=2) if self.keep else found)

    def extra_repr(self) -> str:
        named = f"{self.powers}, " if self.powers else ""
        return f"{named}order={self.order}, circular={self.circular}, keep={self.keep}"


class _Named(Derivative):
    """Derivatives whose multi-indices follow from the dimension of the domain; the other arguments are those of Derivative."""

    def __init__(self, *, order: int | None = None, neighbors: int | None = None, circular: bool = False, keep: bool = False):
        super().__init__((), order=order, neighbors=neighbors, circular=circular, keep=keep)


class Gradient(_Named):
    """All first derivatives: channel i d + a is df_i / dx_a. Arguments: those of Derivative after `powers`."""

    def powers_on(self, dim):
        return _units(dim)


class Hessian(_Named):
    """All second derivatives: channel (i d + a) d + b is d^2 f_i / dx_a dx_b. Arguments: those of Derivative after `powers`."""

    def powers_on(self, dim):
        units = _units(dim)
        return tuple(tuple(p + q for p, q in zip(u, v, strict=True)) for u in units for v in units)


class Laplacian(_Named):
    """The sum of the unmixed second derivatives, channel by channel. Arguments: those of Derivative after `powers`."""

    def powers_on(self, dim):
        return _units(dim, 2)

    def combine(self, stencil, values):
        return stencil.interpolate(values)  # the sum over all nodes


class Divergence(_Named):
    """sum_a df_a / dx_a of fields with one channel for each coordinate: (b, n, d) -> (b, n, 1)."""

    def powers_on(self, dim):
        return _units(dim)

    def combine(self, stencil, values):
        kernel = torch.eye(stencil.nodes, dtype=values.dtype, device=values.device)[:, :, None]
        return stencil.apply(values, kernel)

    def forward(self, sampled: Sampled) -> Sampled:
        check_channels(sampled, sampled.discretization.domain.dim, "Divergence()")
        return super().forward(sampled)


def _units(dim: int, order: int = 1) -> Powers:
    return tuple(tuple(order if a == axis else 0 for a in range(dim)) for axis in range(dim))
