"""Slow twins: exact star discrepancies, on the unit interval and, by brute force, on the unit square.

D*(X) = sup over boxes [0, y) of |#(X in box) / N - measure(box)| (Niederreiter 1992, chapter 2).
"""

import torch
from torch import Tensor


def star_discrepancy_1d(points: Tensor) -> float:
    """Niederreiter 1992, theorem 2.6: D* = 1/(2N) + max_i |x_(i) - (2i - 1)/(2N)|, for points (N,) in [0, 1]."""
    n = len(points)
    middles = (2 * torch.arange(1, n + 1, dtype=torch.float64) - 1) / (2 * n)
    return 1 / (2 * n) + float((points.double().sort().values - middles).abs().max())


def star_discrepancy_2d(points: Tensor) -> float:
    """Brute force for points (N, 2) in [0, 1]^2: the supremum is reached at corners made of the points' coordinates.

    At each corner both limits count: the closed box (points on its upper sides inside) and the open one.
    """
    points = points.double()
    xs, ys = (torch.cat([points[:, a], torch.ones(1, dtype=torch.float64)]).unique() for a in range(2))
    worst = 0.0
    for x in xs:
        for y in ys:
            area = float(x * y)
            closed = float(((points[:, 0] <= x) & (points[:, 1] <= y)).double().mean())
            opened = float(((points[:, 0] < x) & (points[:, 1] < y)).double().mean())
            worst = max(worst, closed - area, area - opened)
    return worst
