"""Floor 4: from pairs of points to the entries of P: basis functions at the pairs, and the bins of their offsets."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from inrbridge.compiled import entries as compiled
from inrbridge.ops.sparse import SparseRows
from inrbridge.stencils.bases import Basis, Radial
from inrbridge.stencils.geometry import PairLists


def basis_entries(basis: Basis, found: PairLists, weights: np.ndarray) -> SparseRows:
    """Return the matrix (m * k, n) of entries w_j B_k(way from i to j), row i * k + node, with weights w (n,)."""
    pieces, k = basis.pieces(), basis.count
    if pieces is not None and compiled.available():
        ways = np.linalg.norm(found.ways, axis=1)[:, None] if isinstance(basis, Radial) else found.ways
        columns, values = compiled.multiply_pieces(found.offsets, found.index, ways, weights, *pieces)
    else:
        columns, values = _rows(found, k, basis.evaluate(found.ways) * weights[found.index, None])
    counts = torch.from_numpy(np.diff(found.offsets)).repeat_interleave(k)
    return SparseRows.from_counts(counts, torch.from_numpy(columns), torch.from_numpy(values))


def _rows(found: PairLists, k: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values (k * p,) row after row, from the values (p, k) of the pairs."""
    starts, counts = found.offsets[:-1], np.diff(found.offsets)
    place = np.arange(len(found.index)) + np.repeat((k - 1) * starts, counts)  # of node 0
    held = np.repeat(counts, counts)
    columns, rows = np.empty(k * len(place), np.int64), np.empty(k * len(place))
    for node in range(k):
        columns[place], rows[place] = found.index, values[:, node]
        place += held
    return columns, rows


def nearest_seed(ways: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return which of the seeds (s, d) is nearest to each way (p, d): (p,)."""
    if compiled.available():
        return compiled.nearest_seed(ways, seeds)
    return cKDTree(seeds).query(ways)[1]
