"""Floor 4: how evenly the points of a discretization lie (Wang & Golland 2023, equations 8 to 14).

The error of an integral is at most the variation of the integrand times a discrepancy of the points. `of` pulls the points of
a discretization back to the unit cube, where the other functions measure points (n, d) with weights (n,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inrbridge.discrepancy.boxes import extreme, star, star_bounds
from inrbridge.discrepancy.charts import worst_chart
from inrbridge.discrepancy.square_means import KINDS, square_mean
from inrbridge.discretization import Discretization
from inrbridge.domains import Domain, Manifold
from inrbridge.errors import ConfigError, unknown_name

__all__ = ["extreme", "kinds", "of", "piecewise", "square_mean", "star", "star_bounds"]

REFERENCE = 2**18  # points that stand for the measure of a region or of a density

_BOXES: dict[str, Callable[..., float]] = {"star": star, "extreme": extreme}


def kinds() -> list[str]:
    """Return the kinds of discrepancy that `of` knows."""
    return [*_BOXES, *KINDS]


def of(discretization: Discretization, kind: str = "star") -> float:
    """Return the discrepancy of points and weights from the measure of their domain.

    The points are pulled back to the unit cube by the domain's map, so that boxes there are what equation 14 calls the
    intervals of a chart; on a `Manifold`, the worst of all charts counts. Of a `Region`, boxes are those of its envelope, whose
    measure is taken as one (equation 12 without its factor). The measure of a region, density or chart inside a box is counted
    on a grid of up to 2^18 points: to about 2^(-18/d) times the area of the region's border.

    Args:
        kind: "star": the worst box at the origin (equation 10). "extreme": the worst of all boxes. The rest are square means
            over boxes in closed form: "l2" (at the origin), "centered", "wraparound", "mixture" and "symmetric".

    Raises:
        ConfigError: the domain has no map back to the cube, or the exact answer would take too long.

    >>> from inrbridge.domains import Box; from inrbridge.sampling import grid
    >>> of(grid(Box.centered(1), 8))
    0.0625
    """
    if kind not in kinds():
        raise unknown_name("discrepancy", kind, kinds(), ConfigError)
    domain = discretization.domain
    if kind in _BOXES and isinstance(domain, Manifold):
        return worst_chart(discretization, _BOXES[kind], REFERENCE // 4)
    unit = _unit(discretization.points, domain)
    weights = discretization.weights.double() / _whole(domain)
    if kind in _BOXES:
        return _BOXES[kind](unit, weights, _reference(domain))
    if _reference(domain) is not None:
        raise ConfigError(
            f'Got the discrepancy "{kind}" on {domain}, expected the whole of a uniform domain; use "star" or "extreme".'
        )
    return square_mean(unit, weights, kind)


def piecewise(discretization: Discretization, region: Domain | None = None) -> float:
    """Return the discrepancy of equation 12: 2^d times the largest |weights in Omega and I - measure of Omega and I|, I a box.

    Args:
        region: Omega; the points lie on the whole of its envelope. When absent, the domain of the points is Omega.
    """
    domain = discretization.domain if region is None else region
    inside = domain.contains(discretization.points)
    unit = _unit(discretization.points[inside], domain)
    weights = discretization.weights[inside].double() / _whole(domain)
    return 2.0**domain.unit_dim * extreme(unit, weights, _reference(domain))


def _unit(points: Tensor, domain: Domain) -> Tensor:
    return domain.envelope.to_unit(points.double())


def _whole(domain: Domain) -> float:
    """The measure that counts as one."""
    return domain.envelope.measure


def _reference(domain: Domain) -> tuple[Tensor, Tensor] | None:
    """Points of a grid on the unit cube, and how much of the domain each stands for; None where it is the volume of the cube."""
    envelope = domain.envelope
    side = max(2, round(REFERENCE ** (1 / envelope.unit_dim)))
    middles = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    unit = torch.cartesian_prod(*[middles] * envelope.unit_dim).reshape(-1, envelope.unit_dim)
    jacobian = envelope.unit_jacobian(unit[:1])
    if domain is envelope and jacobian is None and domain.weigh(envelope.from_unit(unit[:1])) is None:
        return None
    points = envelope.from_unit(unit)
    rows = domain.contains(points).nonzero()[:, 0]
    unit, points = unit[rows], points[rows]
    weights = torch.full((len(rows),), side**-envelope.unit_dim * envelope.ground.measure / _whole(domain), dtype=torch.float64)
    for factor in (envelope.unit_jacobian(unit), domain.weigh(points)):
        weights = weights if factor is None else weights * factor.to(weights)
    return unit, weights
