"""Floor 2: what a domain is, and the most common one, the box."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.errors import ConfigError, NotFinite, OutsideDomain, ShapeMismatch


class Domain(ABC):
    """A bounded measurable set: `dim` coordinates a point, `intrinsic_dim` of the set, `measure` > 0."""

    dim: int
    intrinsic_dim: int
    measure: float

    @property
    @abstractmethod
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Corners (low, high) of a box that holds the domain."""

    @abstractmethod
    def contains(self, coords: Tensor) -> Tensor:
        """Say for coords (..., d) which lie on the domain, up to rounding: bool (...)."""

    @abstractmethod
    def from_unit(self, unit: Tensor) -> Tensor:
        """Map the unit cube onto the domain, volumes in proportion: (n, unit_dim) -> (n, d)."""

    def to_unit(self, coords: Tensor) -> Tensor:
        """Undo `from_unit`: points (..., d) of the domain to the unit cube (..., unit_dim); at a seam or pole, one of them."""
        raise ConfigError(
            f"Got {self}, expected a domain whose map from the unit cube can be inverted: a Box, Ball, Sphere, Torus or Product."
        )

    @property
    def unit_dim(self) -> int:
        """Dimension of the cube that `from_unit` takes."""
        return self.intrinsic_dim

    def unit_jacobian(self, unit: Tensor) -> Tensor | None:
        """Return how much measure `from_unit` makes of a volume around each row (n,), relative to its mean; None: the same
        everywhere, as on all domains but those of charts."""
        return None

    @property
    def envelope(self) -> Domain:
        """The smallest domain around this one that `from_unit` can fill: itself, unless it is made of a Region."""
        return self

    @property
    def ground(self) -> Domain:
        """The same points under their uniform measure: itself, unless it is made of a `Weighted`."""
        return self

    def weigh(self, coords: Tensor) -> Tensor | None:
        """Return the density of this measure against that of `ground` at coords (..., d): (...), or None for 1 everywhere."""
        return None

    @property
    def is_flat(self) -> bool:
        """Whether a point and its tangent plane have the same coordinates: offsets are differences of coordinates."""
        return self.intrinsic_dim == self.dim

    @property
    def axis_periods(self) -> tuple[float, ...]:
        """Length after which each coordinate repeats, 0 for one that does not (d,)."""
        return (0.0,) * self.dim

    @property
    def lengths(self) -> tuple[float, ...]:
        """Size of the domain along each tangent direction (intrinsic_dim,): the sides of its bounds, and of a square of equal
        measure where it is curved."""
        if self.is_flat:
            return tuple(b - a for a, b in zip(*self.bounds, strict=True))
        return (self.ground.measure ** (1.0 / self.intrinsic_dim),) * self.intrinsic_dim

    def tangent_frame(self, coords: Tensor) -> Tensor:
        """Return orthonormal tangent vectors at coords (..., d), the columns of (..., d, intrinsic_dim)."""
        eye = torch.eye(self.dim, dtype=coords.dtype, device=coords.device)
        return eye.expand(*coords.shape[:-1], self.dim, self.dim)

    def log_map(self, base: Tensor, coords: Tensor) -> Tensor:
        """Return where coords (..., d) lie as seen from base (..., d): offsets (..., intrinsic_dim) in the tangent frame of
        base, whose length is the distance along the domain (the logarithm map)."""
        return self.wrapped(coords - base)

    def exp_map(self, base: Tensor, offsets: Tensor) -> Tensor:
        """Return the points (..., d) reached from base (..., d) along offsets (..., intrinsic_dim) (the exponential map).

        They may lie outside the domain where it has a border.
        """
        return base + offsets

    def wrapped(self, differences: Tensor) -> Tensor:
        """Return differences of coordinates (..., d), taken the short way around the coordinates that repeat."""
        if not any(self.axis_periods):
            return differences
        periods = torch.as_tensor(self.axis_periods, dtype=differences.dtype, device=differences.device)
        turns = torch.round(differences / torch.where(periods > 0, periods, 1.0))
        return differences - periods * turns

    @abstractmethod
    def to_config(self) -> dict:
        """Return a JSON description that `domain_from_config` reads back."""

    def check_shape(self, coords: Tensor) -> None:
        """Raise unless coords are a tensor (..., d) of floating-point numbers; no value is looked at."""
        if not isinstance(coords, Tensor) or not coords.is_floating_point():
            got = f"a tensor of {coords.dtype}" if isinstance(coords, Tensor) else f"a {type(coords).__name__}"
            raise ShapeMismatch(f"Got {got} as coordinates, expected a floating-point tensor (..., {self.dim}); convert it.")
        if coords.shape[-1:] != (self.dim,):
            raise ShapeMismatch(
                f"Got coordinates of shape {tuple(coords.shape)}, expected (..., {self.dim}) on {self}; "
                f"the last axis holds the {self.dim} coordinates of a point."
            )

    def check(self, coords: Tensor) -> None:
        """Raise unless coords (..., d) are finite points of this domain."""
        self.check_shape(coords)
        if not bool(coords.isfinite().all()):
            bad = int((~coords.isfinite().all(-1)).sum())
            raise NotFinite(f"Got {bad} points with NaN or infinite coordinates, expected finite ones; drop or repair them.")
        outside = ~self.contains(coords)
        if bool(outside.any()):
            first = [round(float(v), 6) for v in coords[outside][0]]
            raise OutsideDomain(
                f"Got {int(outside.sum())} of {outside.numel()} points outside {self}, the first at {first}; "
                "clip or rescale the coordinates, or open the field on a larger domain."
            )


@dataclass(frozen=True)
class Box(Domain):
    """The product of intervals [low_a, high_a].

    >>> Box.centered(2).measure
    4.0
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "low", numbers(self.low, "the low corner of a Box"))
        object.__setattr__(self, "high", numbers(self.high, "the high corner of a Box"))
        fits = len(self.low) == len(self.high) and all(a < b for a, b in zip(self.low, self.high, strict=True))
        if not fits:
            raise ShapeMismatch(f"Got Box corners {self.low} and {self.high}, expected equally many numbers with low < high.")

    @classmethod
    def centered(cls, dim: int, half: float = 1.0) -> Box:
        """Return [-half, half]^dim."""
        return cls((-half,) * dim, (half,) * dim)

    @classmethod
    def unit(cls, dim: int) -> Box:
        """Return [0, 1]^dim."""
        return cls((0.0,) * dim, (1.0,) * dim)

    @property
    def dim(self) -> int:
        return len(self.low)

    intrinsic_dim = dim

    @property
    def size(self) -> tuple[float, ...]:
        """Side lengths."""
        return tuple(b - a for a, b in zip(self.low, self.high, strict=True))

    @property
    def measure(self) -> float:
        return math.prod(self.size)

    @property
    def bounds(self):
        return self.low, self.high

    def contains(self, coords):
        low, high = (torch.as_tensor(v, dtype=coords.dtype, device=coords.device) for v in self.bounds)
        slack = rounding(coords) * (high - low)
        return ((coords >= low - slack) & (coords <= high + slack)).all(-1)

    def from_unit(self, unit):
        low = torch.as_tensor(self.low, dtype=unit.dtype, device=unit.device)
        return low + unit * torch.as_tensor(self.size, dtype=unit.dtype, device=unit.device)

    def to_unit(self, coords):
        low = torch.as_tensor(self.low, dtype=coords.dtype, device=coords.device)
        return ((coords - low) / torch.as_tensor(self.size, dtype=coords.dtype, device=coords.device)).clamp(0, 1)

    def to_config(self):
        return {"type": "box", "low": list(self.low), "high": list(self.high)}


class Derived(Domain):
    """A domain whose points are points of another, `domain`: dimensions, bounds, map from the cube and geometry are its."""

    domain: Domain

    @property
    def dim(self) -> int:
        return self.domain.dim

    @property
    def intrinsic_dim(self) -> int:
        return self.domain.intrinsic_dim

    @property
    def unit_dim(self) -> int:
        return self.domain.unit_dim

    @property
    def bounds(self):
        return self.domain.bounds

    @property
    def is_flat(self) -> bool:
        return self.domain.is_flat

    @property
    def axis_periods(self):
        return self.domain.axis_periods

    @property
    def lengths(self):
        return self.domain.lengths

    def tangent_frame(self, coords):
        return self.domain.tangent_frame(coords)

    def log_map(self, base, coords):
        return self.domain.log_map(base, coords)

    def exp_map(self, base, offsets):
        return self.domain.exp_map(base, offsets)


def rounding(coords: Tensor) -> float:
    """Return how far off, relative to a domain's size, a coordinate of this dtype may be and still count as inside."""
    return max(1e-5, 4 * torch.finfo(coords.dtype).eps) if coords.dtype.is_floating_point else 0.0


def numbers(values: Iterable[float], what: str) -> tuple[float, ...]:
    """Return finite numbers as a tuple of floats, at least one."""
    try:
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        found = ()
    if not found or not all(math.isfinite(v) for v in found):
        raise ShapeMismatch(f"Got {values!r} for {what}, expected a tuple of finite numbers, one for each coordinate.")
    return found
