"""Floor 4: weights that evaluate a sampled function anywhere, exactly for polynomials: moving least squares.

Around a query q the nearest m points are weighted by theta and fitted by polynomials of total degree <= order;
the value of the fit at q is linear in the samples, a = Theta V (V^T Theta V)^-1 e_1 (Levin 1998). The weight
theta(rho) = (1 - rho^2)^2 / rho^2 falls to zero at the last neighbour, so that values change continuously as
neighbours come and go, and is singular at q, so that the reconstruction interpolates: on a sample point it is
that sample. Scattered neighbours can make the fit nearly singular and its weights huge; their absolute sum (the
Lebesgue constant) is watched, the neighbourhood widened, and at last the order lowered.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from inrbridge.compiled import squares
from inrbridge.compiled.calling import room
from inrbridge.domains import Domain
from inrbridge.ops.sparse import SparseRows
from inrbridge.stencils.borders import repeats
from inrbridge.stencils.neighbours import PointSet

LEBESGUE_LIMIT = 6.0  # one-sided quadratic fits in a corner stay below; nearly singular ones explode to 10^2 and more
AT_ONCE = 2**13  # queries that are fitted together: 5 MB of monomials, in the plane
WIDENINGS = 4


def default_neighbors(order: int, dim: int) -> int:
    """Return the neighbours that measured best: about twice the number of polynomial terms."""
    terms = len(monomial_powers(order, dim))
    return {1: terms + 1, 2: 2 * terms}.get(dim, 2 * terms + 4)


@functools.cache
def monomial_powers(order: int, dim: int) -> tuple[tuple[int, ...], ...]:
    """Exponents of all monomials of total degree <= order, the constant first."""
    every = itertools.product(range(order + 1), repeat=dim)
    return tuple(sorted((p for p in every if sum(p) <= order), key=lambda p: (sum(p), p)))


@dataclass(frozen=True, eq=False)
class Samples:
    """Where a function is sampled, ready to be searched.

    Args:
        points: (n, d).
        periods: lengths (d,) after which space repeats, 0 along axes that go on, for periodic flat domains.
        surface: a curved domain on which all lie; polynomials are then those of its tangent plane at the query.
    """

    points: np.ndarray
    periods: np.ndarray | None = None
    surface: Domain | None = None

    @property
    def dim(self) -> int:
        return self.points.shape[1] if self.surface is None else self.surface.intrinsic_dim

    @cached_property
    def set(self) -> PointSet:
        return PointSet(self.points, self.periods) if self.surface is None else PointSet.on(self.surface, self.points)

    def nearest(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The samples nearest to queries (q, d): ways there (q, m, dim), straight distances (q, m), and which they are (q, m)."""
        ways, distances, index = self.set.nearest(queries, count)
        if self.surface is not None:
            ways = self.surface.log_map(torch.from_numpy(queries)[:, None], torch.from_numpy(self.points[index])).numpy()
        return ways, distances, index


def samples_on(domain: Domain, points: np.ndarray, border: str = "zeros") -> Samples:
    """Take points (n, d) of a domain; a "circular" border closes a box on itself."""
    if not domain.is_flat:
        return Samples(points, surface=domain)
    around = repeats(border, domain)
    low, high = (np.asarray(v, float) for v in domain.bounds)
    return Samples(points - low, np.where(around, high - low, 0.0) if around.any() else None)


def reconstruct_at(
    domain: Domain, points: np.ndarray, coords: np.ndarray, order: int, neighbors: int | None, border: str = "zeros"
) -> SparseRows:
    """Return the matrix (q, n) that evaluates a function sampled at points (n, d) of a domain at coords (q, d).

    `neighbors` None takes the measured default; a "circular" border closes a box on itself.
    """
    return reconstruct_from(samples_on(domain, points, border), domain, coords, order, neighbors)[0]


def reconstruct_from(samples: Samples, domain: Domain, coords: np.ndarray, order: int,
                     neighbors: int | None) -> tuple[SparseRows, np.ndarray]:  # fmt: skip
    """The same from samples made before by `samples_on`; with the radius (q,) of what each row depends on."""
    if domain.is_flat:
        coords = coords - np.asarray(domain.bounds[0])
    return moving_least_squares(samples, coords, order, neighbors or default_neighbors(order, domain.intrinsic_dim))


def moving_least_squares(samples: Samples, queries: np.ndarray, order: int, neighbors: int) -> tuple[SparseRows, np.ndarray]:
    """Return the weights that evaluate a function at each query.

    Args:
        samples: where the function is known.
        queries: (q, d), fitted `AT_ONCE` at a time.
        order: polynomials up to this total degree are evaluated exactly, where the points allow it.
        neighbors: samples used for a query, before widening.

    Returns:
        The matrix (q, n), the nearest samples of a row first, and the radius (q,) around each query beyond which no sample can
        have had a part in its row.
    """
    counts, radius = np.zeros(len(queries), np.int64), np.zeros(len(queries))
    # as long as one fit a query fills them; what is never written takes no memory
    columns, weights = room(len(queries) * neighbors, dtype=torch.long), room(len(queries) * neighbors)
    held = 0
    for start in range(0, len(queries), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        pieces = list(_accepted(samples, queries[part], order, neighbors, radius[part]))
        for rows, _, weight in pieces:
            counts[part][rows] = _count_used(weight)
        starts = held + np.cumsum(counts[part]) - counts[part]
        held += int(counts[part].sum())
        if held > len(columns):
            columns, weights = (np.concatenate([a, np.empty(held, a.dtype)]) for a in (columns, weights))
        for rows, index, weight in pieces:
            _place_used(index, weight, starts[rows], columns, weights)
    entries = (torch.from_numpy(a[:held] if 2 * held > len(a) else a[:held].copy()) for a in (columns, weights))
    return SparseRows.from_counts(torch.from_numpy(counts), *entries), radius


def _accepted(samples: Samples, queries: np.ndarray, order: int, neighbors: int,
              radius: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:  # fmt: skip
    """Yield rows (r,) with their samples (r, m) and weights (r, m), 0 for unused ones, until every query is served."""
    n, pending = len(samples.points), np.arange(len(queries))
    for degree in range(order, -1, -1):
        powers = monomial_powers(degree, samples.dim)
        count = max(neighbors if degree == order else 2 * len(powers), len(powers))
        for _ in range(WIDENINGS):
            if len(pending) == 0 or count > n or (count == n and degree > 0 and len(powers) > n):
                break
            # the one beyond the last sets the radius where weights reach zero
            ways, distances, index = samples.nearest(queries[pending], min(count + 1, n))
            weight, size = _fit(ways, distances, powers, 1.2 if count >= n else 1.0)
            radius[pending] = np.maximum(radius[pending], distances[:, -1])
            good = size <= LEBESGUE_LIMIT if degree > 0 else np.ones(len(pending), bool)
            if good.all():
                yield pending, index, weight
                return
            yield pending[good], index[good], weight[good]
            pending = pending[~good]
            count = -(-count * 3 // 2)
    if len(pending):  # fewer points than neighbours asked for: the nearest sample
        _, distances, index = samples.nearest(queries[pending], 1)
        radius[pending] = np.inf
        yield pending, index, np.ones(index.shape)


def _count_used(weight: np.ndarray) -> np.ndarray:
    """How many weights (r, m) of each row are not 0."""
    return squares.count_used(weight) if squares.available() else np.count_nonzero(weight, axis=1)


def _place_used(index: np.ndarray, weight: np.ndarray, starts: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> None:
    """Write the entries (r, m) in use, those of row r from starts[r] on."""
    if squares.available():
        squares.place_used(index, weight, starts, columns, weights)
        return
    used = weight != 0
    held = used.sum(1)
    place = np.arange(held.sum()) + np.repeat(starts - (np.cumsum(held) - held), held)
    columns[place], weights[place] = index[used], weight[used]


def _fit(ways: np.ndarray, distances: np.ndarray, powers: tuple, widen: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (q, m) of fits on samples in ascending distance, and their absolute sums (q,), infinite where a fit fails."""
    fit = squares.fit if squares.available() else fit_in_numpy
    return fit(ways, distances, np.asarray(powers, np.int64), widen)


def fit_in_numpy(ways: np.ndarray, distances: np.ndarray, powers: np.ndarray, widen: float) -> tuple[np.ndarray, np.ndarray]:
    """The same as `compiled.squares.fit`, with the queries along the last axis of every array: they are fitted side by side."""
    radius = (distances[:, -1] * (1.0 + 1e-9) + 1e-300) * widen
    offset = np.ascontiguousarray(ways.T) / radius  # (d, m, q)
    rho2 = (np.ascontiguousarray(distances.T) / radius) ** 2
    theta = np.clip(1 - rho2, 0, None) ** 2 / np.maximum(rho2, 1e-12)
    vander = np.ones((len(powers), *theta.shape))
    for values, power in zip(vander, powers, strict=True):
        for axis in np.repeat(np.arange(len(power)), power):
            values *= offset[axis]
    solution = _first_of_inverse(vander, theta)
    weight = theta * _sum(t * s for t, s in zip(vander, solution, strict=True))
    error = np.max([np.abs(_dot(weight, values) - (t == 0)) for t, values in enumerate(vander)], 0)
    weight, size = weight.T.copy(), _sum(np.abs(weight))
    size[~(error < 1e-6)] = np.inf  # not reproduced: the points lie on a curve, or rounding won
    exact = rho2[0] < 1e-12
    weight[exact], size[exact] = 0.0, 1.0
    weight[exact, 0] = 1.0
    return weight, size


def _first_of_inverse(vander: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """First column (t, q) of the inverse of V^T Theta V, by Cholesky: vander (t, m, q), theta (m, q)."""
    terms = len(vander)
    gram = [[_dot(theta * vander[a], vander[b]) for b in range(a + 1)] for a in range(terms)]
    scale = np.sqrt(np.maximum([gram[a][a] for a in range(terms)], 1e-300))  # equilibrate before judging
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for a in range(terms):
            for b in range(a + 1):
                rest = gram[a][b] / (scale[a] * scale[b]) + 1e-13 * (a == b)
                for c in range(b):
                    rest -= gram[a][c] * gram[b][c]
                gram[a][b] = np.sqrt(rest) if a == b else rest / gram[b][b]
        solution = [1 / scale[0] / gram[0][0]]
        for a in range(1, terms):
            solution.append(-sum(gram[a][c] * solution[c] for c in range(a)) / gram[a][a])
        for a in reversed(range(terms)):
            solution[a] = (solution[a] - sum(gram[c][a] * solution[c] for c in range(a + 1, terms))) / gram[a][a]
    return np.asarray(solution) / scale


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _sum(x * y for x, y in zip(a, b, strict=True))


def _sum(terms: Iterable[np.ndarray]) -> np.ndarray:
    """Their sum, one after the other: numpy's own order depends on how many numbers there are."""
    return functools.reduce(np.add, terms)
