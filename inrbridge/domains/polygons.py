"""Floor 2: polygons of several rings as the indicator of a region of the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrbridge.domains.base import Box, Domain, numbers
from inrbridge.errors import ConfigError, ShapeMismatch

BLOCK = 2**22  # pairs of a point and an edge looked at together
MOST_EDGES = 4096  # every edge is compared with every other once


@dataclass(frozen=True)
class Polygon:
    """The points of the plane that rings of straight edges wind around, even-odd: a ring inside another is a hole.

    Args:
        rings: one or more sequences of at least three vertices (x, y), closed by themselves, in any direction. Rings may
            touch at a vertex, but neither cross themselves nor each other.

    Raises:
        ShapeMismatch: vertices that are no pairs of numbers. ConfigError: rings that cross, or no area.
    """

    rings: tuple[tuple[tuple[float, float], ...], ...]

    def __post_init__(self):
        object.__setattr__(self, "rings", tuple(_ring(ring) for ring in self.rings))
        if not self.rings:
            raise ShapeMismatch("Got a polygon without rings, expected at least one sequence of vertices (x, y).")
        starts = torch.tensor([v for ring in self.rings for v in ring], dtype=torch.float64)
        ends = torch.tensor([v for ring in self.rings for v in (*ring[1:], ring[0])], dtype=torch.float64)
        object.__setattr__(self, "_edges", (starts, ends))
        _check_crossings(starts, ends)
        if not self.measure > 0:
            raise ConfigError(
                f"Got a polygon of area 0, an empty region: {self.rings[0][:4]} ..., expected vertices that enclose an area; "
                "correct them."
            )

    @property
    def measure(self) -> float:
        """Exact area: rings count positive or negative by the number of other rings around them."""
        total = 0.0
        for k, ring in enumerate(self.rings):
            others = tuple(other for j, other in enumerate(self.rings) if j != k)
            middle = torch.tensor(ring[:2], dtype=torch.float64).mean(0)  # an edge's middle lies on no other ring
            depth = sum(bool(_winds(other, middle[None])[0]) for other in others)
            x, y = np.asarray(ring).T
            total += (-1) ** depth * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
        return total

    @property
    def bounds(self) -> Box:
        """The smallest box around it."""
        starts = self._edges[0]
        return Box(tuple(starts.amin(0).tolist()), tuple(starts.amax(0).tolist()))

    def __call__(self, coords: Tensor) -> Tensor:
        """Say for coords (..., 2) which lie inside: an odd number of edges is to their right."""
        if coords.shape[-1] != 2:
            raise ShapeMismatch(f"Got coordinates of shape {tuple(coords.shape)} in a polygon, expected (..., 2).")
        flat = coords.reshape(-1, 2)
        starts, ends = (edges.to(coords) for edges in self._edges)
        block = max(1, BLOCK // len(starts))
        inside = [_odd_crossings(part, starts, ends) for part in flat.split(block)]
        return torch.cat(inside).reshape(coords.shape[:-1]) if inside else flat.new_zeros(coords.shape[:-1], dtype=torch.bool)

    def check_inside(self, domain: Domain) -> None:
        """Raise unless the polygon lies in a Box of two dimensions."""
        low, high = self.bounds.bounds
        fits = isinstance(domain, Box) and domain.dim == 2
        slack = 1e-9 * max(domain.size) if fits else 0.0
        if not fits or any(a < b - slack for a, b in zip(low, domain.low, strict=True)) or any(
            a > b + slack for a, b in zip(high, domain.high, strict=True)
        ):  # fmt: skip
            raise ConfigError(
                f"Got a polygon between {low} and {high} on {domain}, expected a Box of two dimensions around it; "
                "leave the domain out, or enlarge it."
            )

    def to_config(self) -> list:
        """Return the rings as lists of pairs."""
        return [[list(vertex) for vertex in ring] for ring in self.rings]


def _ring(ring: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    try:
        vertices = tuple(numbers(vertex, "a vertex of a polygon") for vertex in ring)
    except (TypeError, ShapeMismatch):
        vertices = ()
    if vertices and vertices[0] == vertices[-1] and len(vertices) > 1:
        vertices = vertices[:-1]  # written closed, as GeoJSON does
    if len(vertices) < 3 or any(len(vertex) != 2 for vertex in vertices):
        raise ShapeMismatch(
            f"Got {ring!r:.120} as a ring of a polygon, expected at least three vertices (x, y) of finite numbers; pass each "
            "ring by itself."
        )
    return vertices


def _odd_crossings(points: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Whether a ray from each point (n, 2) towards larger x crosses an odd number of edges; vertices count once."""
    x, y = points[:, :1], points[:, 1:]
    (x0, y0), (x1, y1) = starts.T, ends.T
    spans = (y0 > y) != (y1 > y)
    rise = torch.where(y1 == y0, 1.0, y1 - y0)
    crossed = spans & (x < x0 + (y - y0) / rise * (x1 - x0))
    return crossed.sum(1) % 2 == 1


def _winds(ring: tuple[tuple[float, float], ...], points: Tensor) -> Tensor:
    starts = torch.tensor(ring, dtype=torch.float64)
    return _odd_crossings(points, starts, starts.roll(-1, 0))


def _check_crossings(starts: Tensor, ends: Tensor) -> None:
    """Raise if two edges cross in their insides: the area of crossing rings is not the sum of theirs."""
    count = len(starts)
    if count > MOST_EDGES:
        raise ConfigError(f"Got a polygon of {count} edges, expected at most {MOST_EDGES}; simplify it, or pass a mask.")

    def side(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
        """Twice the signed area of the triangle a, b, p."""
        return (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])

    a, b = starts[:, None], ends[:, None]
    c, d = starts[None], ends[None]
    crossing = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    if bool(crossing.any()):
        i = int(crossing.any(1).nonzero()[0])
        raise ConfigError(
            f"Got a polygon whose edge from {starts[i].tolist()} to {ends[i].tolist()} crosses another, expected rings that "
            "cross neither themselves nor each other; reorder the vertices or split the ring."
        )
