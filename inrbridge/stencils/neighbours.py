"""Floor 4: which points are near a place: by compiled cell lists, or by trees, which find the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from inrbridge.compiled import neighbours as compiled
from inrbridge.compiled.neighbours import CellLists
from inrbridge.domains import Domain

SLACK = 1e-9  # of a support's width: a point on its edge belongs to it, whatever rounding did


@dataclass(frozen=True, eq=False)
class PointSet:
    """Points (n, d) ready to be searched by straight distance.

    Args:
        periods: lengths (d,) after which axes repeat, 0 for those that do not; None: none does.
    """

    points: np.ndarray
    periods: np.ndarray | None = None
    _made: dict = field(default_factory=dict, repr=False)

    @classmethod
    def on(cls, domain: Domain, points: np.ndarray) -> PointSet:
        """Take points of a domain, the short way around the coordinates that repeat."""
        periods = np.asarray(domain.axis_periods, float)
        return cls(points, periods if periods.any() else None)

    def inside(self, queries: np.ndarray, low: np.ndarray, high: np.ndarray, ball: bool = False,
               ways: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
        """All points in the box from x + low to x + high around each query x (m, d), or in the ellipsoid in it; no periods.

        Returns:
            offsets (m + 1,): the points of query i stand at offsets[i]:offsets[i + 1]; columns (p,), ascending; the ways (p, d)
            there, if asked for.
        """
        middle, half = (high + low) / 2, (high - low) / 2 * (1 + SLACK)
        if compiled.available(self.points) and len(queries):
            return self._cells(2 * half / 3).inside(queries, middle - half, middle + half, ball, ways)
        norm = 2.0 if ball else np.inf
        same = queries is self.points and not middle.any()
        offsets, columns = _pairs(self.points / half, (queries + middle) / half, norm, same)
        rows = np.repeat(np.arange(len(queries)), np.diff(offsets)) if ways else None
        return offsets, columns, self.points[columns] - queries[rows] if ways else None

    def within(self, queries: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """All points no further than `radius` from each query (m, d): offsets (m + 1,) and columns (p,), ascending."""
        if self.periods is None:
            across = np.full(self.points.shape[1], radius / (1 + SLACK))
            return self.inside(queries, -across, across, ball=True, ways=False)[:2]
        found = cKDTree(self._folded(queries), boxsize=self.periods).sparse_distance_matrix(
            self._tree, radius, output_type="ndarray"
        )
        return _rows(found["i"], found["j"], len(queries))

    def nearest(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The `count` <= n points nearest to each query (m, d), the nearest first.

        Returns:
            The ways there (m, count, d), their lengths (m, count) and the points (m, count).
        """
        queries = self._folded(queries)
        if compiled.available(self.points) and len(queries):
            return self._cells(self._spacing).nearest(queries, count)
        distances, index = self._tree.query(queries, count)
        distances, index = (a.reshape(len(queries), count) for a in (distances, index))
        ways = self._folded(self.points)[index] - queries[:, None]
        if self.periods is not None:
            period = np.where(self.periods > 0, self.periods, np.inf)
            ways -= np.where(self.periods > 0, self.periods, 0.0) * np.round(ways / period)
        return ways, distances, index

    @property
    def _spacing(self) -> np.ndarray:
        extent = np.ptp(self.points, axis=0)
        extent = np.where(extent > 0, extent, 1.0)
        return np.full(len(extent), 1.5 * (extent.prod() / len(self.points)) ** (1 / len(extent)))

    @property
    def _tree(self) -> cKDTree:
        if "tree" not in self._made:
            self._made["tree"] = cKDTree(self._folded(self.points), boxsize=self.periods)
        return self._made["tree"]

    def _cells(self, width: np.ndarray) -> CellLists:
        key = tuple(width.tolist())
        if key not in self._made:
            periods = np.zeros(len(width)) if self.periods is None else self.periods
            self._made[key] = CellLists(self._folded(self.points), width, periods)
        return self._made[key]

    def _folded(self, places: np.ndarray) -> np.ndarray:
        """Bring places (q, d) to where they are searched, [0, period) along axes that repeat."""
        if self.periods is None:
            return places
        folded = np.mod(places, np.where(self.periods > 0, self.periods, 1.0))
        folded = np.where(folded < self.periods, folded, 0.0)  # a tiny negative number folds onto the period itself
        return np.where(self.periods > 0, folded, places)


def _pairs(points: np.ndarray, queries: np.ndarray, norm: float, same: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points no further than 1 from queries, as offsets and columns; `same`: each is found from the other."""
    tree = cKDTree(points)
    if same:
        i, j = tree.query_pairs(1.0, p=norm, output_type="ndarray").T
        own = np.arange(len(points))
        i, j = np.concatenate([i, j, own]), np.concatenate([j, i, own])
    else:
        found = cKDTree(queries).sparse_distance_matrix(tree, 1.0, p=norm, output_type="ndarray")
        i, j = found["i"], found["j"]
    return _rows(i, j, len(queries))


def _rows(i: np.ndarray, j: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Different pairs (i, j), i < count, as offsets and ascending columns."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=count))])
    pairs = np.sort((i << 32) | j)  # as one number each: sorting numbers is what numpy does fastest
    return offsets, pairs & 0xFFFFFFFF
