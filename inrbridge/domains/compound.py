"""Floor 2: products of domains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.domains.base import Domain
from inrbridge.errors import ConfigError


@dataclass(frozen=True)
class Product(Domain):
    """All pairs of a point of `a` and a point of `b`, coordinates concatenated; measures multiply.

    The positions and directions of a radiance field: `Product(Box.centered(3), Sphere())`.
    """

    a: Domain
    b: Domain

    def __post_init__(self):
        for part in (self.a, self.b):
            if not isinstance(part, Domain):
                raise ConfigError(f"Got {part!r} as a factor of a Product, expected a Domain such as Box.centered(2).")

    @property
    def dim(self) -> int:
        return self.a.dim + self.b.dim

    @property
    def intrinsic_dim(self) -> int:
        return self.a.intrinsic_dim + self.b.intrinsic_dim

    @property
    def unit_dim(self) -> int:
        return self.a.unit_dim + self.b.unit_dim

    @property
    def measure(self) -> float:
        return self.a.measure * self.b.measure

    @property
    def bounds(self):
        (low_a, high_a), (low_b, high_b) = self.a.bounds, self.b.bounds
        return low_a + low_b, high_a + high_b

    @property
    def envelope(self):
        a, b = self.a.envelope, self.b.envelope
        return self if a is self.a and b is self.b else Product(a, b)

    @property
    def ground(self):
        a, b = self.a.ground, self.b.ground
        return self if a is self.a and b is self.b else Product(a, b)

    def contains(self, coords):
        return self.a.contains(coords[..., : self.a.dim]) & self.b.contains(coords[..., self.a.dim :])

    def from_unit(self, unit):
        first, second = unit[..., : self.a.unit_dim], unit[..., self.a.unit_dim :]
        return torch.cat([self.a.from_unit(first), self.b.from_unit(second)], dim=-1)

    def unit_jacobian(self, unit):
        first, second = unit[..., : self.a.unit_dim], unit[..., self.a.unit_dim :]
        return _product(self.a.unit_jacobian(first), self.b.unit_jacobian(second))

    def weigh(self, coords):
        return _product(self.a.weigh(coords[..., : self.a.dim]), self.b.weigh(coords[..., self.a.dim :]))

    @property
    def is_flat(self) -> bool:
        return self.a.is_flat and self.b.is_flat

    @property
    def axis_periods(self):
        return self.a.axis_periods + self.b.axis_periods

    @property
    def lengths(self):
        return self.a.lengths + self.b.lengths

    def tangent_frame(self, coords):
        a, b = self.a.tangent_frame(coords[..., : self.a.dim]), self.b.tangent_frame(coords[..., self.a.dim :])
        frame = coords.new_zeros(*coords.shape[:-1], self.dim, self.intrinsic_dim)
        frame[..., : self.a.dim, : self.a.intrinsic_dim] = a
        frame[..., self.a.dim :, self.a.intrinsic_dim :] = b
        return frame

    def log_map(self, base, coords):
        split = self.a.dim
        first = self.a.log_map(base[..., :split], coords[..., :split])
        return torch.cat([first, self.b.log_map(base[..., split:], coords[..., split:])], dim=-1)

    def exp_map(self, base, offsets):
        split, tangent = self.a.dim, self.a.intrinsic_dim
        first = self.a.exp_map(base[..., :split], offsets[..., :tangent])
        return torch.cat([first, self.b.exp_map(base[..., split:], offsets[..., tangent:])], dim=-1)

    def to_unit(self, coords):
        return torch.cat([self.a.to_unit(coords[..., : self.a.dim]), self.b.to_unit(coords[..., self.a.dim :])], dim=-1)

    def to_config(self):
        return {"type": "product", "a": self.a.to_config(), "b": self.b.to_config()}


def _product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Multiply two densities, where None is 1 everywhere."""
    if a is None or b is None:
        return b if a is None else a
    return a * b
