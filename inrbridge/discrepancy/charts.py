"""Floor 4: discrepancy on a manifold: the intervals of every chart (Wang & Golland 2023, equation 14)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inrbridge.discrepancy.boxes import Reference
from inrbridge.discretization import Discretization
from inrbridge.domains import Chart, Manifold

ON_CHART = 1e-5  # of the size of the manifold: how far rounding may take a point off it


def worst_chart(discretization: Discretization, measure: Callable[[Tensor, Tensor, Reference], float], reference: int) -> float:
    """Return the largest discrepancy over the charts: of the points on each, from the volume that the chart makes of boxes.

    Args:
        measure: of points and weights in the cube from reference points and weights there.
        reference: how many of them.
    """
    manifold: Manifold = discretization.domain
    points = discretization.points.to("cpu", torch.float64)
    weights = discretization.weights.to(points) / manifold.measure
    worst = 0.0
    for chart in manifold.charts:
        unit, rows = _places(chart, manifold, points)
        worst = max(worst, measure(unit[rows], weights[rows], _volumes(chart, manifold, reference)) if bool(rows.any()) else 0.0)
    return worst


def _places(chart: Chart, manifold: Manifold, points: Tensor) -> tuple[Tensor, Tensor]:
    """Where points lie on a chart (n, d), and which of them do."""
    unit = torch.nan_to_num(chart.inverse(points).detach(), nan=-1.0, posinf=-1.0, neginf=-1.0)
    inside = ((unit > -1e-6) & (unit < 1 + 1e-6)).all(-1)
    unit = unit.clamp(0, 1)
    low, high = manifold.bounds
    off = manifold.wrapped(chart(unit).detach() - points).norm(dim=-1)
    return unit, inside & (off <= ON_CHART * max(b - a for a, b in zip(low, high, strict=True)))


def _volumes(chart: Chart, manifold: Manifold, count: int) -> Reference:
    """Middles of a grid on the cube, and the share of the manifold that the chart makes of each cell."""
    side = max(2, round(count ** (1 / chart.dim)))
    middles = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    unit = torch.cartesian_prod(*[middles] * chart.dim).reshape(-1, chart.dim)
    return unit, chart.stretch(unit).detach() / (manifold.measure * len(unit))
