"""Floor 5: a field read from whatever points it was sampled on, onto points that the net has for its own."""

from __future__ import annotations

from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.errors import ShapeMismatch
from inrbridge.nn.sampled import Sampled
from inrbridge.stencils import Reconstruct, build_stencil


class Resample(nn.Module):
    """Reconstruct the values on other points by moving least squares, exact for polynomials up to `order`.

    As the first layer of a net it makes all that follows independent of the points of the input: number, sampler and
    quadrature weights enter through the error of the reconstruction alone, which is O(spacing^(order + 1)) for a smooth
    field. A point of the input that is also a target keeps its value. Maps values (b, n, c) to (b, len(points), c).

    Args:
        points: the target, on the domain of the input.
        order, neighbors: of the reconstruction, as in `Conv`.

    Raises:
        ShapeMismatch: the input lies on another domain.
    """

    def __init__(self, points: Discretization, order: int = 2, neighbors: int | None = None):
        super().__init__()
        self.points, self.order, self.neighbors = points, order, neighbors

    def forward(self, sampled: Sampled) -> Sampled:
        source = sampled.discretization
        if source.domain != self.points.domain:
            raise ShapeMismatch(
                f"Got values on {source.domain} in Resample, expected {self.points.domain}, where its own points lie; "
                "align the fields first, or build the layer with points of their domain."
            )
        target = self.points.to(source.points)
        if source is target:
            return sampled
        dim = source.domain.intrinsic_dim
        rule = Reconstruct(((0.0,) * dim,), (source.spacing,) * dim, self.order, self.neighbors)
        return Sampled(target, build_stencil(rule, source, target).interpolate(sampled.values))

    def extra_repr(self):
        return f"{len(self.points)} {self.points.sampler} points, order={self.order}, neighbors={self.neighbors}"
