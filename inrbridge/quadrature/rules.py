"""Floor 4: embedded quadrature rules on the cube [-1, 1]^d, for adaptive integration.

One dimension: Gauss-Kronrod, 10 in 21 points (Kronrod 1965; Wang & Golland 2023, footnote 4). More: Genz & Malik 1980,
degree 5 in 7. To both, points next to the corners are added, without weight in the rule: a jump that a box hides from the
points inside, beyond the last of them, shows there.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

CORNER = 1 - 2.0**-20  # not 1: a jump on the very border of a box belongs to none of its sides


@dataclass(frozen=True, eq=False)
class Rule:
    """Linear functionals of the values at m nodes of a box.

    `mean` integrates polynomials up to `degree`, `lesser` those up to a smaller one. The rows of `fine` and of `coarse` are
    orthonormal and vanish on polynomials up to two smaller degrees: their norms say how far the values are from such a
    polynomial, at all the nodes and not in one lucky difference. Each row of `curvature` is a fourth difference along an axis.
    """

    nodes: Tensor  # (m, d)
    mean: Tensor  # (m,), sums to one
    lesser: Tensor  # (m,), sums to one
    fine: Tensor  # (q, m)
    coarse: Tensor  # (p, m)
    curvature: Tensor  # (d, m)
    degree: int


@functools.cache
def rule_of(d: int) -> Rule:
    """Return the rule of a dimension."""
    return _kronrod_rule() if d == 1 else _genz_malik_rule(d)


def gauss_kronrod(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the 2n + 1 Kronrod nodes in ascending order, their weights, and the weights of Gauss at every second of them.

    The nodes added to Gauss' are the roots of Stieltjes' polynomial E: P_n E is orthogonal to all powers up to n.
    """
    gauss, _ = legendre.leggauss(n)
    exact, weight = legendre.leggauss(2 * n + 2)
    values = legendre.legvander(exact, n + 1)  # P_j at points where products of three integrate exactly
    gram = np.einsum("p,p,pk,pj->kj", weight, values[:, n], values[:, : n + 1], values)
    stieltjes, *_ = np.linalg.lstsq(gram[:, :-1], -gram[:, -1], rcond=None)
    added = legendre.legroots(np.append(stieltjes, 1.0)).real
    polynomial = np.append(stieltjes, 1.0)
    for _ in range(2):  # the roots come from eigenvalues: polish them
        added = added - legendre.legval(added, polynomial) / legendre.legval(added, legendre.legder(polynomial))
    nodes = np.sort(np.concatenate([gauss, added]))
    nodes = (nodes - nodes[::-1]) / 2  # exactly symmetric
    return nodes, interpolatory_weights(nodes), legendre.leggauss(n)[1]


def interpolatory_weights(nodes: np.ndarray) -> np.ndarray:
    """Weights (m,) that integrate the polynomials of degree m - 1 over [-1, 1] exactly."""
    moments = np.zeros(len(nodes))
    moments[0] = 2.0
    weights = np.linalg.solve(legendre.legvander(nodes, len(nodes) - 1).T, moments)
    return (weights + weights[::-1]) / 2


def _kronrod_rule() -> Rule:
    nodes, kronrod, gauss = gauss_kronrod(10)
    lesser = np.zeros(len(nodes))
    lesser[1::2] = gauss
    ends = np.concatenate([[-CORNER], nodes, [CORNER]])[:, None]
    parts = (
        ends,
        np.pad(kronrod, 1) / 2,
        np.pad(lesser, 1) / 2,
        _remainder(ends, 15),
        _remainder(ends, 7),
        np.zeros((1, len(ends))),
    )
    return Rule(*map(_tensor, parts), degree=31)


def _genz_malik_rule(d: int) -> Rule:
    inner, outer, corner = math.sqrt(9 / 70), math.sqrt(9 / 10), math.sqrt(9 / 19)
    orbits = [
        np.zeros((1, d)),
        _on_axes(d, inner),
        _on_axes(d, outer),
        _on_pairs(d, outer),
        _on_corners(d, corner),
        _on_corners(d, CORNER),
    ]
    nodes = np.concatenate(orbits)
    seven = [(12824 - 9120 * d + 400 * d * d) / 19683, 980 / 6561, (1820 - 400 * d) / 19683, 200 / 19683, 6859 / 19683 / 2**d, 0]
    five = [(729 - 950 * d + 50 * d * d) / 729, 245 / 486, (265 - 100 * d) / 1458, 25 / 729, 0, 0]
    mean, lesser = (np.repeat(weights, [len(orbit) for orbit in orbits]) for weights in (seven, five))
    parts = (nodes, mean, lesser, _remainder(nodes, 5), _remainder(nodes, 3), _fourth_differences(d, inner, outer, len(nodes)))
    return Rule(*map(_tensor, parts), degree=7)


def _remainder(nodes: np.ndarray, degree: int) -> np.ndarray:
    """Orthonormal rows (q, m) that vanish on all polynomials up to a total degree at the nodes (m, d)."""
    exponents = [e for e in itertools.product(range(degree + 1), repeat=nodes.shape[1]) if sum(e) <= degree]
    one = legendre.legvander(nodes, degree)  # (m, d, degree + 1), well conditioned
    values = np.stack([np.prod([one[:, a, k] for a, k in enumerate(e)], axis=0) for e in exponents], axis=1)
    left, sizes, _ = np.linalg.svd(values)
    rank = int((sizes > 1e-10 * sizes[0]).sum())
    return left[:, rank:].T


def _on_axes(d: int, at: float) -> np.ndarray:
    return np.concatenate([at * np.eye(d), -at * np.eye(d)])


def _on_pairs(d: int, at: float) -> np.ndarray:
    signs = list(itertools.product((at, -at), repeat=2))
    points = []
    for a, b in itertools.combinations(range(d), 2):
        for first, second in signs:
            point = np.zeros(d)
            point[a], point[b] = first, second
            points.append(point)
    return np.stack(points)


def _on_corners(d: int, at: float) -> np.ndarray:
    return np.array(list(itertools.product((at, -at), repeat=d)))


def _fourth_differences(d: int, inner: float, outer: float, m: int) -> np.ndarray:
    """f(inner) + f(-inner) - 2 f(0) minus what a parabola through the outer points says of it, along each axis."""
    ratio = (inner / outer) ** 2
    rows = np.zeros((d, m))
    for a in range(d):
        rows[a, 0] = -2 * (1 - ratio)
        rows[a, [1 + a, 1 + d + a]] = 1
        rows[a, [1 + 2 * d + a, 1 + 3 * d + a]] = -ratio
    return rows


def _tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64)
