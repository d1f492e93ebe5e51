"""Floor 1: neighbours by cell lists, on arrays of float64 points in 1 to 4 dimensions; `neighbours.cpp`.

`inrbridge.stencils.neighbours` finds the same by trees where there is no compiler.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call, room

MAX_DIM = 4
CELLS = 2  # at most, for each point
MANY = 2**13  # queries, from which on the order of visits matters


def available(points: np.ndarray) -> bool:
    """Say whether cell lists of points (n, d) can be made here."""
    n, d = points.shape
    return 0 < n < 2**31 and 1 <= d <= MAX_DIM and library("neighbours") is not None


class CellLists:
    """Points (n, d) sorted into cells.

    Args:
        width: of a cell along each axis (d,); wider where there would be more cells than points.
        periods: lengths (d,) after which an axis closes on itself, 0 where it does not; points then lie in [0, period).
    """

    def __init__(self, points: np.ndarray, width: np.ndarray, periods: np.ndarray):
        self.points = np.ascontiguousarray(points, float)
        n, d = points.shape
        low, high = self.points.min(0), self.points.max(0)
        low, extent = np.where(periods > 0, 0.0, low), np.where(periods > 0, periods, high - low)
        shape = _shape(extent / width, CELLS * n)
        size = np.where(extent > 0, extent, 1.0) / shape
        starts, order, places = np.empty(int(shape.prod()) + 1, np.int64), np.empty(n, np.int64), np.empty((d, n))
        call("neighbours", "build_cells", d, n, low, size, shape, self.points, starts, order, places)
        self._lists = (d, n, low, size, shape, np.ascontiguousarray(periods, float), starts, order, places)

    def inside(self, queries: np.ndarray, low: np.ndarray, high: np.ndarray, ball: bool = False,
               ways: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
        """The points in the box from x + low to x + high around every query x (m, d), or in the ellipsoid in it; no periods.

        Returns:
            offsets (m + 1,): the points of query i stand at offsets[i]:offsets[i + 1]; columns (p,), ascending; the ways (p, d)
            there, if asked for.
        """
        queries = np.ascontiguousarray(queries)
        m, d = queries.shape
        body = (*(np.ascontiguousarray(v, float) for v in (low, high)), int(ball))
        search = (*self._lists, queries, m, self._visits(queries), *body)
        offsets = np.zeros(m + 1, np.int64)
        call("neighbours", "count_inside", *search, offsets)
        np.cumsum(offsets, out=offsets)
        columns = room(offsets[-1], dtype=torch.long)
        found = room(len(columns), d) if ways else None
        call("neighbours", "list_inside", *search, self.points, offsets, columns, found)
        return offsets, columns, found

    def nearest(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The `count` <= n points nearest to every query (m, d), the nearest first, of equally far ones the lower number first.

        Returns:
            The ways there (m, count, d), their lengths (m, count) and the points (m, count).
        """
        m, d = queries.shape
        ways, distances, index = room(m, count, d), room(m, count), room(m, count, dtype=torch.long)
        search = (*self._lists, np.ascontiguousarray(queries), m, count, self._radius(count))
        call("neighbours", "find_nearest", *search, ways, distances, index)
        return ways, distances, index

    def _radius(self, count: int) -> float:
        """Of a ball that holds about as many points."""
        d, n, _, size, _, _, starts, *_ = self._lists
        volume = np.count_nonzero(np.diff(starts)) * float(size.prod())
        ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)
        return 1.1 * (count * volume / (n * ball)) ** (1 / d)

    def _visits(self, queries: np.ndarray) -> np.ndarray | None:
        """An order of many queries in which each looks through much the same cells as the one before."""
        if len(queries) < MANY:
            return None
        d, _, low, size, shape, _, starts, order, _ = self._lists
        if queries is self.points:
            return order
        own = (np.empty_like(starts), np.empty(len(queries), np.int64), np.empty(queries.T.shape))
        call("neighbours", "build_cells", d, len(queries), low, size, shape, queries, *own)
        return own[1]


def _shape(cells: np.ndarray, most: int) -> np.ndarray:
    """Whole cells along each axis, of about `cells` (d,), `most` in all."""
    cells = np.clip(cells, 1, most)
    while cells.prod() > most:
        cells = np.maximum(1, cells * max(0.5, (most / cells.prod()) ** (1 / len(cells)) * 0.999))
    return np.floor(cells).astype(np.int64)
