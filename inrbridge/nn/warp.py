"""Floor 5: a sampled field read at displaced points, g(x) = f(x + u(x)), differentiable in f and in u.

Between its samples f is the modified Shepard interpolant (Shepard 1968; Renka 1988): around each sample a local polynomial
through it, the nearest of them blended with weights (1 - rho^2)^2 / rho^2, rho the distance over that to the first sample
left out. It passes through the samples and is exact for polynomials up to `order`. The derivative by u is that of the
interpolant itself; where one neighbour takes the place of another, g is continuous and that derivative jumps a little.
Which samples are near is decided once, without a gradient. Where f itself is at hand, `inrbridge.transforms.WarpField` is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, NotFinite, ShapeMismatch, unknown_name
from inrbridge.nn.sampled import Sampled
from inrbridge.stencils.borders import periods, repeats
from inrbridge.stencils.derivatives import derivative_stencil
from inrbridge.stencils.reconstruct import monomial_powers
from inrbridge.transforms.returning import RETURNS, check_border, returned

BORDERS = (*RETURNS, "zeros")
TINY = 1e-14  # in units of the squared radius: keeps the weight of a sample finite at the sample itself


class Warp(nn.Module):
    """Read f (b, n, c) at x + u(x): `Warp()(f, u)` for samples u (b, m, d) on whatever points, such as another net's output;
    `Warp(u)(f)` for a u that is a function of the coordinates, a module whose parameters are trained, or d numbers.

    The result lies on the points of u. One u serves many fields, and many displacements one field: a batch of 1 is shared.

    Args:
        displacement: u in domain units, coordinates (n, d) -> (n, d), or d numbers; None: given with each call.
        border: where points go that leave the domain: "clamp", "reflect", "circular" (`transforms.returning`), or "zeros":
            f is 0 there. A torus closes on itself whatever the border.
        order: degree of the local polynomials, 1 or more.
        neighbors: how many of them are blended; None: 2 d + 1.

    Raises:
        ShapeMismatch: u does not have one channel for each coordinate, or the batches differ. NotFinite: u is damaged.
    """

    def __init__(self, displacement: Callable[[Tensor], Tensor] | Sequence[float] | None = None, *, border: str = "clamp",
                 order: int = 2, neighbors: int | None = None):  # fmt: skip
        super().__init__()
        if border not in BORDERS:
            raise unknown_name("border mode", border, BORDERS, ConfigError)
        if order < 1 or (neighbors is not None and neighbors < 1):
            raise ConfigError(f"Got order={order} and neighbors={neighbors} of a warp, expected 1 or more of each.")
        if displacement is not None and not callable(displacement):
            displacement = tuple(float(v) for v in displacement)
        self.displacement, self.border, self.order, self.neighbors = displacement, border, order, neighbors

    def forward(self, sampled: Sampled, displacement: Sampled | None = None) -> Sampled:
        displacement = self._own(sampled) if displacement is None else displacement
        domain, u = sampled.discretization.domain, displacement.values
        if u.shape[2] != domain.dim or displacement.discretization.domain != domain:
            raise ShapeMismatch(
                f"Got a displacement of {u.shape[2]} channels on {displacement.discretization.domain} for fields on {domain}, "
                f"expected {domain.dim} channels on the same domain: one for each coordinate."
            )
        if len({len(u), len(sampled.values)} - {1}) > 1:
            raise ShapeMismatch(
                f"Got {len(u)} displacements for {len(sampled.values)} fields, expected as many, or one of either."
            )
        if not bool(u.isfinite().all()):
            raise NotFinite("Got NaN or infinite displacements, expected finite ones; lower the learning rate of their maker.")
        inside = "clamp" if self.border == "zeros" else self.border
        check_border(inside, domain)
        asked = displacement.discretization.points.to(u) + u
        circular = inside == "circular"
        coords = returned(asked, domain, inside)
        values = interpolant(sampled, coords, self.order, self.neighbors, circular=circular)
        if self.border == "zeros":
            around = torch.as_tensor(repeats("zeros", domain), device=coords.device)  # axes that have no outside
            values = values * domain.contains(torch.where(around, coords, asked).detach())[..., None].to(values)
        return Sampled(displacement.discretization, values)

    def _own(self, sampled: Sampled) -> Sampled:
        points = sampled.discretization.points.to(sampled.values)
        if self.displacement is None:
            raise ConfigError("Got one field to warp, expected a displacement too: Warp()(field, u), or Warp(u)(field).")
        if isinstance(self.displacement, tuple):
            return Sampled(sampled.discretization, points.new_tensor(self.displacement).expand(1, len(points), -1))
        return Sampled(sampled.discretization, self.displacement(points)[None])

    def extra_repr(self):
        return f"border={self.border!r}, order={self.order}"


def interpolant(
    sampled: Sampled, coords: Tensor, order: int = 2, neighbors: int | None = None, *, circular: bool = False
) -> Tensor:
    """Evaluate the modified Shepard interpolant of samples (b, n, c) at coords (b, m, d) of the domain: (b, m, c).

    Differentiable in the values and in the coordinates; a batch of 1 of either is shared.
    """
    source = sampled.discretization
    d = source.domain.dim
    powers = tuple(power for power in monomial_powers(order, d) if any(power))
    slopes = derivative_stencil(powers, source, order=order, circular=circular)
    c, k = sampled.channels, len(powers)
    kernel = torch.eye(k, dtype=sampled.values.dtype, device=sampled.values.device)[:, None].repeat(1, 1, c)
    taylor = slopes.apply(sampled.values, kernel, groups=c).unflatten(2, (c, k))  # D^alpha f_i at the samples
    taylor = torch.cat([sampled.values[..., None], taylor], dim=3)  # (b, n, c, k + 1)

    wrap = periods("circular" if circular else "zeros", source.domain)
    index = _nearest(source, coords, min(2 * d + 1 if neighbors is None else neighbors, len(source) - 1), wrap)
    x = coords.double()
    offset = x[:, :, None] - source.points.to(x)[index]  # (b, m, near, d)
    if wrap is not None:
        period = torch.as_tensor(wrap, dtype=x.dtype, device=x.device)
        offset = offset - period * (offset.detach() / period).round()
    squared = offset.square().sum(3)
    rho2 = squared / squared[:, :, -1:]  # the last one sets the radius and weighs nothing
    weight = (1 - rho2).clamp(min=0) ** 2 / (rho2 + TINY)
    weight = weight / weight.sum(2, keepdim=True)
    terms = [torch.ones_like(squared)]
    for power in powers:
        factors = [offset[..., a] ** p / math.factorial(p) for a, p in enumerate(power) if p]
        terms.append(math.prod(factors[1:], start=factors[0]))
    basis = (torch.stack(terms, dim=3) * weight[..., None]).to(taylor)  # (b, m, near, k + 1)
    basis, index = basis[:, :, :-1], index[:, :, :-1]
    near = taylor[:, index[0]] if len(index) == 1 else taylor[_rows(taylor, index), index]  # (b, m, near, c, k + 1)
    return torch.einsum("bmjck,bmjk->bmc", near, basis.expand(len(near), -1, -1, -1))


def _rows(taylor: Tensor, index: Tensor) -> Tensor:
    """Which field each neighbour is taken from (b, 1, 1)."""
    rows = torch.arange(len(index), device=index.device) if len(taylor) > 1 else torch.zeros(len(index), dtype=torch.long)
    return rows.to(index.device)[:, None, None]


def _nearest(source: Discretization, coords: Tensor, count: int, wrap: np.ndarray | None) -> Tensor:
    """Indices (b, m, count + 1) of the nearest samples, the nearest first."""
    if count < 1:
        raise ShapeMismatch(f"Got {len(source)} points to interpolate between, expected at least 2; use more points.")
    low = np.asarray(source.domain.bounds[0])
    points, asked = (t.detach().double().cpu().numpy() - low for t in (source.points, coords.flatten(0, 1)))
    if wrap is None:
        found = cKDTree(points).query(asked, count + 1)[1]
    else:
        found = cKDTree(np.mod(points, wrap), boxsize=np.asarray(wrap, float)).query(np.mod(asked, wrap), count + 1)[1]
    return torch.from_numpy(found).reshape(*coords.shape[:2], count + 1).to(coords.device)
