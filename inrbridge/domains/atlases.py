"""Floor 2: ready-made atlases: the sphere twice, the flat torus, the ring torus. They can be written to a file by name.

`Sphere` and `Torus` are the same sets with a measure-preserving map of their own, which serves integrals better; an atlas
shows how any other manifold is put together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.domains.base import numbers
from inrbridge.domains.charts import Chart
from inrbridge.domains.manifold import Manifold
from inrbridge.errors import ConfigError, ShapeMismatch, unknown_name

ORIGIN = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class CubeFace(Chart):
    """One face of a cube around the sphere, enlarged by `overlap` on each side and pushed out onto it along rays."""

    axis: int
    sign: int
    radius: float
    center: tuple[float, ...]
    overlap: float = 0.25

    ends = ("open", "open")

    def __call__(self, unit):
        # equal angles, so that cells are nearly equal
        tangent = torch.tan((2 * unit - 1) * self._reach)
        others = [a for a in range(3) if a != self.axis]
        directions = unit.new_empty(len(unit), 3)
        directions[:, self.axis] = self.sign
        directions[:, others] = tangent
        return _like(self.center, unit) + self.radius * directions / directions.norm(dim=-1, keepdim=True)

    def inverse(self, coords):
        offsets = coords - _like(self.center, coords)
        height = offsets[:, self.axis] * self.sign
        others = [a for a in range(3) if a != self.axis]
        angle = torch.atan2(offsets[:, others], height[:, None])
        return torch.where(height[:, None] > 0, (angle / self._reach + 1) / 2, -1.0)

    @property
    def _reach(self) -> float:
        return math.pi / 4 * (1 + self.overlap)


@dataclass(frozen=True)
class Stereographic(Chart):
    """The sphere seen from a pole (`sign` 1: all around the north pole, seen from the south): a square of half width
    `reach` in the plane of the equator."""

    sign: int
    radius: float
    center: tuple[float, ...]
    reach: float = 1.6

    ends = ("open", "open")

    def __call__(self, unit):
        plane = (2 * unit - 1) * self.reach
        square = plane.square().sum(-1, keepdim=True)
        directions = torch.cat([2 * plane, self.sign * (1 - square)], dim=-1) / (1 + square)
        return _like(self.center, unit) + self.radius * directions

    def inverse(self, coords):
        directions = (coords - _like(self.center, coords)) / self.radius
        plane = directions[:, :2] / (1 + self.sign * directions[:, 2:]).clamp(min=1e-12)
        return (plane / self.reach + 1) / 2


@dataclass(frozen=True)
class Ring(Chart):
    """A patch of the torus of revolution: angles along the ring and around the tube, from `first`, over `share` of a turn."""

    first: tuple[float, ...]
    share: float
    major: float
    minor: float

    ends = ("open", "open")

    def __call__(self, unit):
        along, around = (2 * math.pi * (_like(self.first, unit) + self.share * unit)).unbind(-1)
        out = self.major + self.minor * around.cos()
        return torch.stack([out * along.cos(), out * along.sin(), self.minor * around.sin()], dim=-1)

    def inverse(self, coords):
        x, y, z = coords.unbind(-1)
        angles = torch.stack([torch.atan2(y, x), torch.atan2(z, torch.hypot(x, y) - self.major)], dim=-1)
        return ((angles / (2 * math.pi) - _like(self.first, coords)) % 1.0) / self.share


@dataclass(frozen=True)
class Patch(Chart):
    """A box of the flat torus: from `first`, over `share` of each period."""

    first: tuple[float, ...]
    share: float
    periods: tuple[float, ...]

    @property
    def ends(self):
        return ("open",) * len(self.periods)

    def __call__(self, unit):
        return ((_like(self.first, unit) + self.share * unit) % 1.0) * _like(self.periods, unit)

    def inverse(self, coords):
        return ((coords / _like(self.periods, coords) - _like(self.first, coords)) % 1.0) / self.share


def cube_sphere(radius: float = 1.0, center: tuple[float, ...] = ORIGIN, overlap: float = 0.25) -> Manifold:
    """Return the sphere as six overlapping faces of a cube.

    >>> len(cube_sphere().charts)
    6
    """
    center = _center(radius, center)
    _check(0.02 <= overlap <= 0.9, "overlap", overlap, "between 0.02 and 0.9: the faces meet, and stay in front")
    charts = tuple(CubeFace(axis, sign, float(radius), center, float(overlap)) for axis in range(3) for sign in (1, -1))
    return _ready("cube_sphere", charts, 4 * math.pi * radius**2, radius=float(radius), center=center, overlap=float(overlap))


def stereographic_sphere(radius: float = 1.0, center: tuple[float, ...] = ORIGIN, reach: float = 1.6) -> Manifold:
    """Return the sphere as two charts, each seen from the other's pole and reaching beyond the equator (reach 1)."""
    center = _center(radius, center)
    _check(1.05 <= reach <= 20, "reach", reach, "between 1.05 and 20: the charts meet at 1")
    charts = tuple(Stereographic(sign, float(radius), center, float(reach)) for sign in (1, -1))
    return _ready(
        "stereographic_sphere", charts, 4 * math.pi * radius**2, radius=float(radius), center=center, reach=float(reach)
    )


def ring_torus(major: float = 1.0, minor: float = 0.4, share: float = 0.7) -> Manifold:
    """Return the torus of revolution around the z axis in R^3: a tube of radius `minor` around a circle of radius `major`."""
    _check(0 < minor < major < math.inf, "radii", (major, minor), "0 < minor < major")
    _check(0.55 <= share < 1, "share", share, "from 0.55 to below 1 of a turn: two charts meet on each axis")
    charts = tuple(Ring(first, float(share), float(major), float(minor)) for first in itertools.product((0.0, 0.5), repeat=2))
    return _ready(
        "ring_torus", charts, 4 * math.pi**2 * major * minor, major=float(major), minor=float(minor), share=float(share)
    )


def flat_torus(periods: tuple[float, ...] = (1.0, 1.0), share: float = 0.7) -> Manifold:
    """Return the flat torus as 2^d boxes that overlap."""
    periods = numbers(periods, "the periods of a flat torus")
    _check(min(periods) > 0, "periods", periods, "numbers above 0")
    _check(0.55 <= share < 1, "share", share, "from 0.55 to below 1 of a period: two charts meet on each axis")
    charts = tuple(Patch(first, float(share), periods) for first in itertools.product((0.0, 0.5), repeat=len(periods)))
    return _ready("flat_torus", charts, math.prod(periods), space=periods, periods=periods, share=float(share))


ATLASES = {"cube_sphere": cube_sphere, "stereographic_sphere": stereographic_sphere, "ring_torus": ring_torus,
           "flat_torus": flat_torus}  # fmt: skip


def atlas_from_config(config: Mapping) -> Manifold:
    """Build a ready-made atlas from the description that `Manifold.to_config` wrote."""
    if config["atlas"] not in ATLASES:
        raise unknown_name("atlas", config["atlas"], ATLASES, ConfigError)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in config["options"].items()}
    return ATLASES[config["atlas"]](**options)


def _ready(name: str, charts: tuple[Chart, ...], measure: float, space: tuple[float, ...] = (), **options) -> Manifold:
    return Manifold(charts, measure=measure, periods=space, recipe=(name, tuple(options.items())))


def _center(radius: float, center: tuple[float, ...]) -> tuple[float, ...]:
    _check(0 < radius < math.inf, "radius", radius, "a number above 0")
    center = numbers(center, "the center of a sphere")
    if len(center) != 3:
        raise ShapeMismatch(f"Got the center {center} of a sphere, expected three coordinates.")
    return center


def _check(fits: bool, what: str, value: object, expected: str) -> None:
    if not fits:
        raise ConfigError(f"Got {what} {value} of an atlas, expected {expected}.")


def _like(values: tuple[float, ...], tensor: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=tensor.dtype, device=tensor.device)
