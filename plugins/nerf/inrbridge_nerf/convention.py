"""How coordinates go into the networks of a code base and values come out, where that differs from inrbridge's own fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inrbridge import encodings, errors

_DENSITIES = {"softplus": functional.softplus, "relu": torch.relu, "sigmoid": torch.sigmoid, "none": lambda value: value}
_CHOICES = {"density": tuple(_DENSITIES), "colour": ("sigmoid", "none"), "cosine": ("cosine", "shifted sine")}
_CORNERS, _VECTORS = ("low", "high"), ("low", "high", "shift")


@dataclass(frozen=True)
class Convention:
    """What lies between the coordinates of the domain and the first layer, and between the last layers and the values.

    Attributes:
        normalize: coordinates are mapped from the domain's bounds to [-1, 1] first.
        rotation, scale, shift: else a point p of the domain is the network's scale (rotation p + shift), a direction d its
            rotation d; densities, per unit of the domain's length, are the network's times `scale`.
        low, high: corners of a box of the network's coordinates beyond which density is 0; None: nowhere.
        unit, highest, direction_highest: the angular frequencies are unit 2^e, the exponents e equally spaced from 0 to the
            highest; None: whole numbers.
        even, direction_even: the frequencies themselves are equally spaced instead, between the same ends.
        raw, direction_raw: the coordinates themselves stand before their sines and cosines.
        cosine: "shifted sine" computes cos(v) as sin(v + pi / 2), which rounding makes another number in high frequencies.
        density: "softplus", "relu", "sigmoid" or "none" of the network's output; `density_shift` is added first, `density_scale`
            multiplies the result.
        colour: "sigmoid", or "none": the network's outputs as they are.
    """

    normalize: bool = True
    rotation: tuple[tuple[float, ...], ...] | None = None
    scale: float = 1.0
    shift: tuple[float, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    unit: float = math.pi
    highest: float | None = None
    direction_highest: float | None = None
    even: bool = False
    direction_even: bool = False
    raw: bool = True
    direction_raw: bool = True
    cosine: str = "cosine"
    density: str = "softplus"
    density_shift: float = 0.0
    density_scale: float = 1.0
    colour: str = "sigmoid"

    def __post_init__(self):
        for name in _VECTORS:
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(float(item) for item in value))
        if self.rotation is not None:
            object.__setattr__(self, "rotation", tuple(tuple(float(item) for item in row) for row in self.rotation))
            if any(len(row) != len(self.rotation) for row in self.rotation):
                raise errors.ConfigError(f"Got the rotation {self.rotation}, expected a square matrix.")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise errors.unknown_name(name, getattr(self, name), known)
        if self.normalize and (self.rotation, self.scale, self.shift) != (None, 1.0, None):
            raise errors.ConfigError("Got normalize with a rotation, scale or shift, expected one of the two.")
        if (self.low is None) != (self.high is None):
            raise errors.ConfigError(f"Got the corners {self.low} and {self.high}, expected both or none.")

    def enter(self, points: Tensor, bounds: tuple[Sequence[float], Sequence[float]]) -> Tensor:
        """Map points (..., d) of the domain to the network's coordinates (..., d)."""
        if self.normalize:
            low, high = (points.new_tensor(bound) for bound in bounds)
            return (points - (low + high) / 2) / ((high - low) / 2)
        points = self.turn(points)
        points = points if self.shift is None else points + points.new_tensor(self.shift)
        return points if self.scale == 1 else points * self.scale

    def turn(self, vectors: Tensor) -> Tensor:
        """Turn vectors (..., d) of the domain into those of the network."""
        return vectors if self.rotation is None else vectors @ vectors.new_tensor(self.rotation).mT

    def places(self, entered: Tensor, count: int) -> Tensor:
        """Return the features (..., columns) of the network's coordinates (..., d) at `count` frequencies."""
        return self._encode(entered, count, self.highest, self.even, self.raw)

    def directions(self, directions: Tensor, count: int) -> Tensor:
        """Return the features (..., columns) of unit directions (..., 3) of the domain at `count` frequencies."""
        return self._encode(self.turn(directions), count, self.direction_highest, self.direction_even, self.direction_raw)

    def _encode(self, x: Tensor, count: int, highest: float | None, even: bool, raw: bool) -> Tensor:
        if not count:
            return x
        last = float(count - 1 if highest is None else highest)
        ends = (1.0, 2.0**last) if even else (0.0, last)
        steps = torch.linspace(*ends, count, dtype=x.dtype, device=x.device)
        phase = x if self.unit == 1 else self.unit * x  # first, as the writers do: it decides the rounding
        waves = encodings.frequency_encoding(phase, steps if even else 2**steps, "fsc", shifted=self.cosine == "shifted sine")
        return torch.cat([x, waves], -1) if raw else waves

    def density_of(self, raw: Tensor, entered: Tensor) -> Tensor:
        """Turn the network's outputs (..., 1) at its coordinates (..., 3) into densities per unit of the domain's length."""
        value = raw + self.density_shift if self.density_shift else raw
        value = _DENSITIES[self.density](value)
        factor = self.density_scale * (1.0 if self.normalize else self.scale)
        value = value if factor == 1 else factor * value
        if self.low is None:
            return value
        inside = ((entered >= entered.new_tensor(self.low)) & (entered <= entered.new_tensor(self.high))).all(-1, keepdim=True)
        return torch.where(inside, value, torch.zeros_like(value))

    def colour_of(self, raw: Tensor) -> Tensor:
        """Turn the network's outputs into colours."""
        return torch.sigmoid(raw) if self.colour == "sigmoid" else raw


def columns(dim: int, count: int, raw: bool) -> int:
    """Return how many features `dim` coordinates have at `count` frequencies."""
    return dim * (2 * count + (1 if raw or not count else 0))
