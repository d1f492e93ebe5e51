"""Floor 1: from pairs of points to the entries of a stencil, compiled; callers have the same in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call, room


def available() -> bool:
    """Say whether these functions are compiled."""
    return library("entries") is not None


class Piecewise(NamedTuple):
    """Functions of one coordinate, polynomials on pieces of equal width; those outside go on as the outermost ones."""

    start: float
    width: float
    coefficients: np.ndarray  # (pieces, functions, degree + 1) in the part of a piece, highest power first


def multiply_pieces(offsets: np.ndarray, index: np.ndarray, ways: np.ndarray, weights: np.ndarray, axes: Sequence[Piecewise],
                    picks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return columns and values of the entries P[i, k, j] = w_j prod_a f_a,picks[k, a](way_a), row i * nodes + k after row.

    Args:
        offsets, index, ways: of the pairs, (m + 1,), (p,), (p, d).
        weights: w (n,).
        axes: the functions f_a of each coordinate.
        picks: (nodes, d) which of them a node multiplies.
    """
    k, d = picks.shape
    pieces, most, powers = (max(axis.coefficients.shape[side] for axis in axes) for side in range(3))
    tables = np.zeros((d, pieces, powers, most))
    for table, axis in zip(tables, axes, strict=True):
        have = axis.coefficients.transpose(0, 2, 1)
        table[: have.shape[0], powers - have.shape[1] :, : have.shape[2]] = have
    start, width = (np.array([getattr(axis, name) for axis in axes], float) for name in ("start", "width"))
    counts = np.array([len(axis.coefficients) for axis in axes], np.int64)
    columns, values = room(k * len(index), dtype=torch.long), room(k * len(index))
    call("entries", "multiply_pieces", len(offsets) - 1, d, k, offsets, index, ways, weights, start, width, counts, powers - 1,
         most, tables, pieces * powers * most, np.ascontiguousarray(picks, np.int64), columns, values)  # fmt: skip
    return columns, values


def nearest_seed(ways: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return which of the seeds (s, d) is nearest to each way (p, d): (p,), the lower one of two equally near."""
    found = room(len(ways), dtype=torch.long)
    call("entries", "nearest_seed", *ways.shape, np.ascontiguousarray(ways), len(seeds), np.ascontiguousarray(seeds.T), found)
    return found


def order_by_key(keys: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the entries of keys 0 to count - 1 begin (count + 1,), and the entries in the order of their keys (e,)."""
    offsets, order = room(count + 1, dtype=torch.long), room(len(keys), dtype=torch.long)
    call("entries", "order_by_key", len(keys), count, np.ascontiguousarray(keys), offsets, order)
    return offsets, order


def shift_rows(starts: np.ndarray, natural: np.ndarray, steps: np.ndarray, point: np.ndarray, values: np.ndarray,
               columns_out: np.ndarray, values_out: np.ndarray) -> None:  # fmt: skip
    """Write the entries of points that see the same, t each, into columns (e,) and values (e,) or (e, w).

    Args:
        starts: where those of each point begin (m,).
        natural: its number in natural order (m,).
        steps: from there to the columns (t,), between -n and n; natural order closes after n.
        point: which point has a natural number (n,).
        values: of the entries, the same for all points, (t,) or (t, w).
    """
    given = (np.ascontiguousarray(a) for a in (starts, natural))
    width = values_out[:1].size if len(values_out) else 1
    call("entries", "shift_rows", len(starts), *given, len(steps), np.ascontiguousarray(steps), len(point), point, width,
         np.ascontiguousarray(values), columns_out, values_out)  # fmt: skip


def exchange(nodes: int, n: int, edges: np.ndarray, columns: np.ndarray,
             weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Return edges, columns and weights of a stencil (m * nodes, n), given by the same, with inputs and outputs exchanged: of the
    entries (j * nodes + k, i) for each (i * nodes + k, j), columns ascending."""
    out = (room(n * nodes + 1, dtype=torch.long), room(len(columns), dtype=torch.long), room(len(columns)))
    call("entries", "exchange", (len(edges) - 1) // nodes, nodes, n, edges, columns, weights, *out)
    return out
