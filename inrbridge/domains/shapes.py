"""Floor 2: the round domains and their measure-preserving maps from the unit cube."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.domains.base import Domain, numbers, rounding
from inrbridge.errors import ShapeMismatch


@dataclass(frozen=True)
class Ball(Domain):
    """The points within `radius` of `center`, in any dimension.

    Map: radius r u_0^(1/d), since the volume within radius s grows like s^d, times a uniform direction.
    """

    center: tuple[float, ...]
    radius: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "center", numbers(self.center, "the center of a Ball"))
        object.__setattr__(self, "radius", _positive(self.radius, "the radius of a Ball"))

    @property
    def dim(self) -> int:
        return len(self.center)

    intrinsic_dim = dim

    @property
    def measure(self) -> float:
        return math.pi ** (self.dim / 2) / math.gamma(self.dim / 2 + 1) * self.radius**self.dim

    @property
    def bounds(self):
        return tuple(c - self.radius for c in self.center), tuple(c + self.radius for c in self.center)

    def contains(self, coords):
        return _distance(coords, self.center) <= self.radius + _slack(coords, self.center, self.radius)

    def from_unit(self, unit):
        center = torch.as_tensor(self.center, dtype=unit.dtype, device=unit.device)
        if self.dim == 1:  # an interval has two directions only: map it straight
            return center + self.radius * (2 * unit - 1)
        return center + self.radius * unit[..., :1] ** (1.0 / self.dim) * _direction(unit[..., 1:])

    def to_unit(self, coords):
        offsets = coords - torch.as_tensor(self.center, dtype=coords.dtype, device=coords.device)
        if self.dim == 1:
            return ((offsets / self.radius + 1) / 2).clamp(0, 1)
        share = (offsets.norm(dim=-1, keepdim=True) / self.radius).clamp(max=1) ** self.dim
        return torch.cat([share, _angles(offsets)], dim=-1)

    def to_config(self):
        return {"type": "ball", "center": list(self.center), "radius": self.radius}


@dataclass(frozen=True)
class Sphere(Domain):
    """The surface of a ball in R^3; the weights of a discretization are areas, offsets arcs towards east and north.

    Map: Lambert's equal-area cylinder, z = 1 - 2 u_0 and longitude 2 pi u_1 (Archimedes: equal heights, equal areas).
    """

    radius: float = 1.0
    center: tuple[float, ...] = (0.0, 0.0, 0.0)

    dim = 3
    intrinsic_dim = 2

    def __post_init__(self):
        object.__setattr__(self, "radius", _positive(self.radius, "the radius of a Sphere"))
        object.__setattr__(self, "center", numbers(self.center, "the center of a Sphere"))
        if len(self.center) != 3:
            raise ShapeMismatch(f"Got the center {self.center} of a Sphere, expected three coordinates.")

    @property
    def measure(self) -> float:
        return 4 * math.pi * self.radius**2

    @property
    def bounds(self):
        return tuple(c - self.radius for c in self.center), tuple(c + self.radius for c in self.center)

    def contains(self, coords):
        off = (_distance(coords, self.center) - self.radius).abs()
        return off <= _slack(coords, self.center, self.radius)

    def from_unit(self, unit):
        return torch.as_tensor(self.center, dtype=unit.dtype, device=unit.device) + self.radius * _direction(unit)

    def to_unit(self, coords):
        return _angles(coords - torch.as_tensor(self.center, dtype=coords.dtype, device=coords.device))

    def tangent_frame(self, coords):
        """East and north, (..., 3, 2); at the poles those of the meridian of longitude 0."""
        x, y, z = self._directions(coords).unbind(-1)
        sine = torch.hypot(x, y)  # of the angle from the pole
        at_pole = sine < 1e-9
        safe = torch.where(at_pole, 1.0, sine)
        cos, sin = torch.where(at_pole, 1.0, x / safe), torch.where(at_pole, 0.0, y / safe)
        east = torch.stack([-sin, cos, torch.zeros_like(z)], dim=-1)
        return torch.stack([east, torch.stack([-z * cos, -z * sin, sine], dim=-1)], dim=-1)

    def log_map(self, base, coords):
        frame, toward = self.tangent_frame(base), self._directions(coords)
        along = (frame.mT @ toward[..., None])[..., 0]
        sine = along.norm(dim=-1)  # of the angle between the two
        angle = torch.atan2(sine, (self._directions(base) * toward).sum(-1))
        # the antipode lies in every direction: east is as good as another
        opposite = torch.stack([math.pi * (angle > 1).to(angle), torch.zeros_like(angle)], dim=-1)
        scale = angle / torch.where(sine > 0, sine, 1.0)
        return self.radius * torch.where((sine > 0)[..., None], along * scale[..., None], opposite)

    def exp_map(self, base, offsets):
        frame = self.tangent_frame(base)
        angle = offsets.norm(dim=-1, keepdim=True) / self.radius
        along = (frame @ offsets[..., None])[..., 0] / self.radius * torch.sinc(angle / math.pi)  # sin(t) / t
        center = torch.as_tensor(self.center, dtype=base.dtype, device=base.device)
        return center + self.radius * (angle.cos() * self._directions(base) + along)

    def _directions(self, coords: Tensor) -> Tensor:
        offsets = coords - torch.as_tensor(self.center, dtype=coords.dtype, device=coords.device)
        return offsets / offsets.norm(dim=-1, keepdim=True)

    def to_config(self):
        return {"type": "sphere", "radius": self.radius, "center": list(self.center)}


@dataclass(frozen=True)
class Torus(Domain):
    """The flat torus: coordinates a in [0, periods_a), where opposite sides are the same points."""

    periods: tuple[float, ...]

    def __post_init__(self):
        periods = numbers(self.periods, "the periods of a Torus")
        object.__setattr__(self, "periods", tuple(_positive(p, "a period of a Torus") for p in periods))

    @property
    def dim(self) -> int:
        return len(self.periods)

    intrinsic_dim = dim

    @property
    def measure(self) -> float:
        return math.prod(self.periods)

    @property
    def bounds(self):
        return (0.0,) * self.dim, self.periods

    def contains(self, coords):
        periods = torch.as_tensor(self.periods, dtype=coords.dtype, device=coords.device)
        slack = rounding(coords) * periods
        return ((coords >= -slack) & (coords <= periods + slack)).all(-1)

    def from_unit(self, unit):
        return unit * torch.as_tensor(self.periods, dtype=unit.dtype, device=unit.device)

    def to_unit(self, coords):
        return (coords / torch.as_tensor(self.periods, dtype=coords.dtype, device=coords.device)).clamp(0, 1)

    @property
    def axis_periods(self):
        return self.periods

    def exp_map(self, base, offsets):
        return (base + offsets) % torch.as_tensor(self.periods, dtype=base.dtype, device=base.device)

    def to_config(self):
        return {"type": "torus", "periods": list(self.periods)}


def _direction(unit: Tensor) -> Tensor:
    """Map the cube (..., d-1) onto the unit sphere of R^d (..., d), areas in proportion.

    Spherical angles t_1..t_(d-2) in [0, pi] have density ~ sin(t)^k, k = d-2, ..., 1; then (1 - cos t) / 2 follows the
    symmetric Beta((k+1)/2) law, uniform for k = 1. The last angle is uniform in [0, 2 pi).
    """
    d = unit.shape[-1] + 1
    rest = torch.ones_like(unit[..., 0])  # product of the sines so far
    components = []
    for a in range(d - 2):
        k = d - 2 - a
        cosine = 1 - 2 * _beta_quantile((k + 1) / 2, unit[..., a])
        components.append(rest * cosine)
        rest = rest * (1 - cosine**2).clamp(min=0).sqrt()
    angle = 2 * math.pi * unit[..., d - 2]
    first_two = [rest * angle.cos(), rest * angle.sin()]
    return torch.stack(first_two + components[::-1], dim=-1)


def _angles(offsets: Tensor) -> Tensor:
    """Undo `_direction`: offsets (..., d) of any length from the centre to the cube (..., d-1)."""
    d = offsets.shape[-1]
    lengths = offsets.square().cumsum(-1).sqrt()  # of the first 1, 2, ... components
    shares = []
    for a in range(d - 2):
        cosine = offsets[..., d - 1 - a] / lengths[..., d - 1 - a].clamp(min=torch.finfo(offsets.dtype).tiny)
        shares.append(_beta_probability((d - 1 - a) / 2, (1 - cosine).clamp(0, 2) / 2))
    turn = torch.atan2(offsets[..., 1], offsets[..., 0]) / (2 * math.pi)
    return torch.stack([*shares, torch.where(turn < 0, turn + 1, turn).clamp(0, 1)], dim=-1)


def _beta_quantile(a: float, unit: Tensor) -> Tensor:
    """Invert the distribution function of Beta(a, a)."""
    if a == 1:
        return unit
    from scipy.special import betaincinv

    values = betaincinv(a, a, unit.detach().to("cpu", torch.float64).numpy())
    return torch.as_tensor(values).to(unit)


def _beta_probability(a: float, value: Tensor) -> Tensor:
    """Distribution function of Beta(a, a)."""
    if a == 1:
        return value
    from scipy.special import betainc

    return torch.as_tensor(betainc(a, a, value.detach().to("cpu", torch.float64).numpy())).to(value)


def _distance(coords: Tensor, center: tuple[float, ...]) -> Tensor:
    return (coords - torch.as_tensor(center, dtype=coords.dtype, device=coords.device)).norm(dim=-1)


def _slack(coords: Tensor, center: tuple[float, ...], radius: float) -> float:
    return rounding(coords) * max(radius, *(abs(c) for c in center))


def _positive(value: float, what: str) -> float:
    (number,) = numbers((value,), what)
    if number <= 0:
        raise ShapeMismatch(f"Got {value!r} for {what}, expected a number above 0.")
    return number
