"""Floor 4: weights that evaluate a sampled function anywhere, exactly for polynomials: moving least squares.

Around a query q the nearest m points are weighted by theta and fitted by polynomials of total degree <= order;
the value of the fit at q is linear in the samples, a = Theta V (V^T Theta V)^-1 e_1 (Levin 1998). The weight
theta(rho) = (1 - rho^2)^2 / rho^2 falls to zero at the last neighbour, so that values change continuously as
neighbours come and go, and is singular at q, so that the reconstruction interpolates: on a sample point it is
that sample. Scattered neighbours can make the fit nearly singular and its weights huge; their absolute sum (the
Lebesgue constant) is watched, the neighbourhood widened, and at last the order lowered.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import cKDTree

from inrbridge.domains import Domain
from inrbridge.stencils.borders import periods as border_periods
from inrbridge.stencils.geometry import chord_tree

LEBESGUE_LIMIT = 6.0  # one-sided quadratic fits in a corner stay below; nearly singular ones explode to 10^2 and more
AT_ONCE = 2**15  # queries that are fitted together: 150 MB of monomials for each, in the plane


def default_neighbors(order: int, dim: int) -> int:
    """Return the neighbours that measured best: about twice the number of polynomial terms."""
    terms = len(monomial_powers(order, dim))
    return {1: terms + 1, 2: 2 * terms}.get(dim, 2 * terms + 4)


def monomial_powers(order: int, dim: int) -> list[tuple[int, ...]]:
    """Exponents of all monomials of total degree <= order, the constant first."""
    every = itertools.product(range(order + 1), repeat=dim)
    return sorted((p for p in every if sum(p) <= order), key=lambda p: (sum(p), p))


@dataclass(frozen=True)
class Samples:
    """Where a function is sampled, ready to be searched.

    Args:
        points: (n, d).
        periods: lengths (d,) after which space repeats, for periodic flat domains.
        surface: a curved domain on which all lie; polynomials are then those of its tangent plane at the query.
    """

    points: np.ndarray
    periods: np.ndarray | None = None
    surface: Domain | None = None

    @property
    def dim(self) -> int:
        return self.points.shape[1] if self.surface is None else self.surface.intrinsic_dim

    @cached_property
    def tree(self) -> cKDTree:
        if self.surface is not None:
            return chord_tree(self.points, self.surface)
        if self.periods is None:
            return cKDTree(self.points)
        return cKDTree(np.mod(self.points, self.periods), boxsize=np.asarray(self.periods, float))

    def folded(self, queries: np.ndarray) -> np.ndarray:
        """Bring places (q, d) to where the tree knows them."""
        return queries if self.periods is None or self.surface is not None else np.mod(queries, self.periods)

    def offsets(self, queries: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The samples index (q, m) as seen from the queries, (q, m, d)."""
        if self.surface is not None:
            return self.surface.log_map(torch.from_numpy(queries)[:, None], torch.from_numpy(self.points[index])).numpy()
        offset = self.points[index] - queries[:, None]
        if self.periods is not None:
            offset -= self.periods * np.round(offset / self.periods)
        return offset


def reconstruct_at(
    domain: Domain, points: np.ndarray, coords: np.ndarray, order: int, neighbors: int | None, border: str = "zeros"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sparse matrix (q, n) that evaluates a function sampled at points (n, d) of a domain at coords (q, d).

    `neighbors` None takes the measured default; a "circular" border closes a box on itself.

    Returns:
        Its entries by rows: row (e,) ascending, column (e,), weight (e,).
    """
    neighbors = neighbors or default_neighbors(order, domain.intrinsic_dim)
    if domain.is_flat:
        low = np.asarray(domain.bounds[0])
        coords, samples = coords - low, Samples(points - low, border_periods(border, domain))
    else:
        samples = Samples(points, surface=domain)
    entries = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for start in range(0, len(coords), AT_ONCE):
        index, weight = moving_least_squares(samples, coords[start : start + AT_ONCE], order, neighbors)
        row, place = np.nonzero(weight)
        entries.append((row + start, index[row, place], weight[row, place]))
    row, column, weight = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    return row, column, weight


def moving_least_squares(samples: Samples, queries: np.ndarray, order: int, neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples and weights that evaluate a function at each query.

    Args:
        samples: where the function is known.
        queries: (q, d), fitted all at once.
        order: polynomials up to this total degree are evaluated exactly, where the points allow it.
        neighbors: samples used for a query, before widening.

    Returns:
        index (q, m) and weight (q, m); weight 0 marks unused places.
    """
    n, queries = len(samples.points), samples.folded(queries)
    pending = np.arange(len(queries))
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for degree in range(order, -1, -1):
        terms = len(monomial_powers(degree, samples.dim))
        count = max(neighbors if degree == order else 2 * terms, terms)
        for _ in range(4):
            if len(pending) == 0 or count > n or (count == n and degree > 0 and terms > n):
                break
            index, weight = _fit(samples, queries[pending], degree, count)
            good = np.abs(weight).sum(1) <= LEBESGUE_LIMIT if degree > 0 else np.ones(len(pending), bool)
            pieces.append((pending[good], index[good], weight[good]))
            pending = pending[~good]
            count = -(-count * 3 // 2)
    if len(pending):  # fewer points than neighbours asked for: the nearest sample
        index = samples.tree.query(queries[pending], 1)[1].reshape(-1, 1)
        pieces.append((pending, index, np.ones(index.shape)))
    width = max(piece.shape[1] for _, piece, _ in pieces)
    all_index, all_weight = np.zeros((len(queries), width), np.int64), np.zeros((len(queries), width))
    for rows, index, weight in pieces:
        all_index[rows, : index.shape[1]], all_weight[rows, : index.shape[1]] = index, weight
    return all_index, all_weight


def _fit(samples: Samples, queries: np.ndarray, degree: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One moving-least-squares fit of a degree on `count` neighbours for every query (q, d)."""
    n = len(samples.points)
    asked = min(count + 1, n)  # the one beyond the last sets the radius where weights reach zero
    distance, index = samples.tree.query(queries, asked)
    distance, index = distance.reshape(len(queries), asked), index.reshape(len(queries), asked)
    radius = distance[:, -1:] * (1.0 + 1e-9) + 1e-300
    if asked == n and count >= n:
        radius = radius * 1.2
    offset = samples.offsets(queries, index)
    offset /= radius[:, :, None]
    rho2 = (distance / radius) ** 2
    exact = rho2[:, 0] < 1e-12
    theta = np.clip(1 - rho2, 0, None) ** 2 / np.maximum(rho2, 1e-12)
    powers = monomial_powers(degree, offset.shape[2])
    vander = np.empty((*offset.shape[:2], len(powers)))
    for k, power in enumerate(powers):
        vander[:, :, k] = np.prod([offset[:, :, a] ** p for a, p in enumerate(power) if p], axis=0)
    gram = (vander * theta[:, :, None]).transpose(0, 2, 1) @ vander
    first = np.zeros((len(queries), len(powers), 1))
    first[:, 0] = 1.0
    scale = np.sqrt(np.maximum(np.einsum("qii->qi", gram), 1e-300))  # equilibrate before judging
    gram /= scale[:, :, None] * scale[:, None, :]
    gram[:, np.arange(len(powers)), np.arange(len(powers))] += 1e-13
    solution = _solve(gram, first / scale[:, :, None])[:, :, 0] / scale
    weight = theta * (vander @ solution[:, :, None])[:, :, 0]
    error = np.abs((weight[:, None] @ vander)[:, 0] - first[:, :, 0]).max(1)
    weight[~(error < 1e-6)] = np.inf  # not reproduced: the points lie on a curve, or rounding won
    weight[exact] = 0.0
    weight[exact, 0] = 1.0
    return index, weight


def _solve(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(matrices, right)
    except np.linalg.LinAlgError:
        return np.linalg.pinv(matrices, hermitian=True) @ right
