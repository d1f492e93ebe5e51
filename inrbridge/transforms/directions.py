"""Floor 4: fields of positions and directions seen on the positions alone, and the other way round.

A radiance field lives on `Product(positions, Sphere())`: its colours depend on the direction in which light is looked along.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from inrbridge import sampling
from inrbridge.domains import Domain, Product, Sphere
from inrbridge.errors import CannotAlign, ConfigError
from inrbridge.field import Field
from inrbridge.transforms.base import Transform


def has_directions(domain: Domain) -> bool:
    """Say whether a domain is a product of positions with a sphere of directions."""
    return isinstance(domain, Product) and isinstance(domain.b, Sphere)


class FixedDirection(Transform):
    """A field of positions and directions seen along one direction: g(x) = f(x, d).

    Args:
        direction: three numbers, of any length but 0.
    """

    def __init__(self, inner: Field, direction: Sequence[float]):
        domain = _product_of(inner)
        try:
            vector = tuple(float(v) for v in direction)
        except (TypeError, ValueError):
            vector = ()
        length = math.hypot(*vector)
        if len(vector) != 3 or not math.isfinite(length) or length == 0:
            raise ConfigError(f"Got the direction {direction!r}, expected three finite numbers, not all 0, such as (0, 0, 1).")
        super().__init__(inner, domain.a)
        self.direction = tuple(v / length for v in vector)
        self._point = tuple(c + domain.b.radius * v for c, v in zip(domain.b.center, self.direction, strict=True))

    @property
    def signature(self):
        return "direction", self._point

    def around(self, inner):
        return FixedDirection(inner, self.direction)

    def map_coords(self, coords):
        point = coords.new_tensor(self._point)
        return torch.cat([coords, point.expand(*coords.shape[:-1], 3)], dim=-1)


class MeanOverDirections(Transform):
    """A field of positions and directions averaged over the sphere: g(x) = mean of f(x, d) over all d.

    The mean is a quadrature on `count` points of the rank-1 lattice, the same in every call: with 16 points the harmonics of
    the first two degrees are off by at most 0.044 of their size, with 32 by 0.008. The field is asked `count` times as often.
    """

    def __init__(self, inner: Field, count: int):
        domain = _product_of(inner)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"Got {count!r} directions to average over, expected a whole number of at least 1, such as 16.")
        super().__init__(inner, domain.a)
        self.expansion = self.count = count
        chosen = sampling.lattice(domain.b, count, dtype=torch.float64)
        self._directions = chosen.points.tolist()
        self._weights = (chosen.weights / domain.b.measure).tolist()

    @property
    def signature(self):
        return "mean over directions", self.count

    def around(self, inner):
        return MeanOverDirections(inner, self.count)

    def map_coords(self, coords):
        directions = coords.new_tensor(self._directions)
        *batch, n, d = coords.shape
        shape = (*batch, n, self.count)
        pairs = torch.cat([coords[..., None, :].expand(*shape, d), directions.expand(*shape, 3)], dim=-1)
        return pairs.flatten(-3, -2)

    def map_values(self, values):
        weights = values.new_tensor(self._weights)
        return (values.unflatten(-2, (values.shape[-2] // self.count, self.count)) * weights[:, None]).sum(-2)


class IgnoreDirections(Transform):
    """A field of positions seen on positions and directions: g(x, d) = f(x).

    Args:
        directions: the sphere that the directions lie on.
    """

    def __init__(self, inner: Field, directions: Sphere | None = None):
        self.directions = directions or Sphere()
        super().__init__(inner, Product(inner.domain, self.directions))

    @property
    def signature(self):
        return "ignore directions", self.directions

    def around(self, inner):
        return IgnoreDirections(inner, self.directions)

    def map_coords(self, coords):
        return coords[..., :-3]


def _product_of(field: Field) -> Product:
    if not has_directions(field.domain):
        raise CannotAlign(f"Got a field on {field.domain}, expected one on positions and directions: Product(..., Sphere()).")
    return field.domain
