"""Floor 4: the distinct rows among many, up to rounding: on grids and lattices all points see the same few offsets."""

from __future__ import annotations

import numpy as np

_REPEATS = 2  # times that a row must occur on average for the rows to count as repeated


def distinct_rows(rows: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (u, d), and for each of the given rows (p, d) which of these it is (p,).

    Rows that agree up to the tolerance are one, in most cases; where hardly any do, all stay as they are.
    """
    number = np.zeros(len(rows), np.int64)
    for column in np.round(rows / tolerance).astype(np.int64).T:
        _, place = np.unique(column, return_inverse=True)
        _, number = np.unique(number * (place.max(initial=0) + 1) + place, return_inverse=True)
    count = number.max(initial=-1) + 1
    if count * _REPEATS > len(rows):
        return rows, np.arange(len(rows))
    first = np.zeros(count, np.int64)
    first[number[::-1]] = np.arange(len(rows))[::-1]
    return rows[first], number
