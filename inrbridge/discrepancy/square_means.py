"""Floor 4: discrepancies as square means over boxes, in closed form for any number of points and dimensions.

D^2 = constant - 2 sum_i w_i prod_a s(x_ia) + sum_ij w_i w_j prod_a p(x_ia, x_ja), the square error of the worst function of a
space of functions with that kernel (Warnock 1972 for "l2"; Hickernell 1998 for the others).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.discrepancy.boxes import checked
from inrbridge.errors import ConfigError, unknown_name

BLOCK = 2**17  # pairs of points at a time


@dataclass(frozen=True)
class Kernel:
    """The three terms along one axis."""

    constant: float
    single: Callable[[Tensor], Tensor]
    pair: Callable[[Tensor, Tensor], Tensor]


KINDS = {
    "l2": Kernel(1 / 3, lambda x: (1 - x**2) / 2, lambda x, y: 1 - torch.maximum(x, y)),
    "centered": Kernel(
        13 / 12,
        lambda x: 1 + (x - 0.5).abs() / 2 - (x - 0.5) ** 2 / 2,
        lambda x, y: 1 + ((x - 0.5).abs() + (y - 0.5).abs() - (x - y).abs()) / 2,
    ),
    "wraparound": Kernel(4 / 3, lambda x: torch.full_like(x, 4 / 3), lambda x, y: 1.5 - (x - y).abs() * (1 - (x - y).abs())),
    "mixture": Kernel(
        19 / 12,
        lambda x: 5 / 3 - (x - 0.5).abs() / 4 - (x - 0.5) ** 2 / 4,
        lambda x, y: 15 / 8 - ((x - 0.5).abs() + (y - 0.5).abs()) / 4 - 0.75 * (x - y).abs() + (x - y) ** 2 / 2,
    ),
    "symmetric": Kernel(4 / 3, lambda x: 1 + 2 * x - 2 * x**2, lambda x, y: 2 - 2 * (x - y).abs()),
}


def square_mean(points: Tensor, weights: Tensor | None = None, kind: str = "centered") -> float:
    """Return a discrepancy D of points (n, d) in the unit cube; not its square, which some authors give.

    Args:
        weights: (n,), of sum one; equal when absent.
        kind: "l2": the mean over boxes at the origin. "centered": boxes at the nearest corner, so that mirrored points are
            as good. "wraparound": boxes that go around, so that shifted points are as good (a torus). "mixture": of both.
            "symmetric": unions of boxes at even corners.
    """
    if kind not in KINDS:
        raise unknown_name("square-mean discrepancy", kind, KINDS, ConfigError)
    points, weights = checked(points, weights)
    kernel, d = KINDS[kind], points.shape[1]
    total = kernel.constant**d - 2 * float(weights @ kernel.single(points).prod(1))
    step = max(1, BLOCK // len(points))
    for first in range(0, len(points), step):
        rows, rest = slice(first, first + step), slice(first + step, None)
        for others, times in ((rows, 1), (rest, 2)):  # pairs of two blocks count twice
            total += times * float(weights[rows] @ _pairs(kernel, points[rows], points[others]) @ weights[others])
    return max(total, 0.0) ** 0.5


def _pairs(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    product = kernel.pair(x[:, None, 0], y[None, :, 0])
    for a in range(1, x.shape[1]):
        product = product * kernel.pair(x[:, None, a], y[None, :, a])
    return product
