"""Floor 1: the weights of moving least squares, compiled; `inrbridge.stencils.reconstruct` has the same in numpy."""

from __future__ import annotations

import numpy as np

from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call, room


def available() -> bool:
    """Say whether there is a compiled fit."""
    return library("squares") is not None


def fit(ways: np.ndarray, distances: np.ndarray, powers: np.ndarray, widen: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (m, count) of samples in the values of their fits at m queries, and the sums of their sizes (m,).

    Args:
        ways: to the samples (m, count, d).
        distances: their lengths (m, count), ascending; weights fall to 0 at the last, times `widen`.
        powers: exponents (terms, d) of the monomials, the constant first.
    """
    m, count, d = ways.shape
    weights, sizes = room(m, count), np.empty(m)
    given = (np.ascontiguousarray(a) for a in (ways, distances))
    call("squares", "fit_squares", m, count, d, *given, float(widen), np.ascontiguousarray(powers, np.int64), len(powers),
         weights, sizes)  # fmt: skip
    return weights, sizes


def count_used(weights: np.ndarray) -> np.ndarray:
    """Return how many weights (m, count) of each row are not 0, (m,)."""
    counts = np.empty(len(weights), np.int64)
    call("squares", "count_used", *weights.shape, weights, counts)
    return counts


def place_used(index: np.ndarray, weights: np.ndarray, starts: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Write those of the entries (m, count) whose weight is not 0 into columns and values, row q from starts[q] on."""
    call("squares", "place_used", *weights.shape, index, weights, starts, columns, values)
