"""Floor 1: the rows of a sparse matrix in patches of neighbouring points that share what they read.

The local operator reads some 35 distinct neighbours a point, but 16 neighbouring points only some 85 together. A patch lists
those once, its halo, and holds the weights of its points as a small dense matrix, as tensor cores want them. Which points
are neighbours is read off the matrix: they read the same columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import bmat, csgraph, csr_matrix, diags
from torch import Tensor

_LONGEST = 512  # columns of a halo that the blocks of a kernel hold
_SPARSEST = 64  # weights of a patch for each that is not zero: 14 are usual
_LANDMARKS = 6  # distances to so many points place a point of the plane or of space without doubt
# Lengths of a halo: blocks of a kernel are powers of two, and two of them make it up.
_LENGTHS = sorted({2**high + low for high in range(4, 24) for low in (0, *(2**low for low in range(4, high)))})


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of `size` points each: what they write, what they read and by which weights. Places that are not used read
    what another one reads, with weight 0, and write nowhere."""

    points: Tensor  # (g, size), int32; -1 where unused
    halo: Tensor  # (g, h), int32
    weights: Tensor  # (g, k, size, h), divided by `gain`
    gain: float = 1.0

    @property
    def nodes(self) -> int:
        return self.weights.shape[1]

    def to(self, like: Tensor) -> Patches:
        """The same on the device and in the dtype of a tensor."""
        return replace(self, points=self.points.to(like.device), halo=self.halo.to(like.device), weights=self.weights.to(like))

    def halved(self) -> Patches:
        """The same in float16, divided by a power of two: no node sees more than the largest value."""
        most = float(self.weights.abs().sum(-1).max())
        gain = 2.0 ** math.ceil(math.log2(most)) if most > 0 else 1.0
        return replace(self, weights=(self.weights / gain).half(), gain=gain)


def cut_patches(
    point: Tensor, node: Tensor, column: Tensor, weight: Tensor, shape: tuple[int, int, int], size: int
) -> Patches | None:
    """Cut a sparse tensor (m, k, n) into patches of its points.

    Args:
        point, node, column, weight: (e,), its entries in any order, on the CPU.
        shape: (m, k, n).
        size: points of a patch.

    Returns:
        Patches in float32; the halo is as long as costs least in all. None where points have little in common, or read so much
        that blocks of a kernel do not hold it.
    """
    point, node, column = (part.numpy() for part in (point, node, column))
    count, nodes, width = shape
    reads = csr_matrix((np.ones(len(column)), (point, column)), shape=(count, width))
    reads.sum_duplicates()
    reads.data[:] = 1
    if count == 0 or np.diff(reads.indptr).max() > _LONGEST:
        return None
    patch, place = _cluster(reads, size)
    patch, place, length = _split(reads, patch, place)
    groups = int(patch.max(initial=0)) + 1
    if length > _LONGEST or groups * nodes * size * length > _SPARSEST * len(column):
        return None

    together = _together(patch, reads)
    owner, read = np.repeat(np.arange(groups), np.diff(together.indptr)), together.indices
    rank = np.arange(len(read)) - together.indptr[owner]  # place of a column in its halo
    key = owner.astype(np.int64) * width + read
    where = np.searchsorted(key, patch[point].astype(np.int64) * width + column)
    halo = np.zeros((groups, length), np.int32)
    halo[owner] = read[:, None]
    halo[owner, rank] = read
    points = np.full((groups, size), -1, np.int32)
    points[patch, place] = np.arange(count)
    index = ((patch[point] * nodes + node) * size + place[point]) * length + rank[where]
    dense = torch.zeros(groups * nodes * size * length, dtype=torch.float32)
    dense.index_add_(0, torch.from_numpy(index), weight.to(dense.dtype))
    return Patches(torch.from_numpy(points), torch.from_numpy(halo), dense.view(groups, nodes, size, length))


def _cluster(reads: csr_matrix, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Gather points that read the same columns: the patch of each point and its place there.

    Points are halved along the direction in which they spread most, again and again, until `size` are left.
    """
    where = _positions(reads)
    order, bounds = np.arange(len(where)), np.array([0, len(where)])
    while (sizes := np.diff(bounds)).max() > size:
        part = np.repeat(np.arange(len(sizes)), sizes)
        spread = where[order]
        spread = spread - (np.add.reduceat(spread, bounds[:-1]) / sizes[:, None])[part]
        moments = np.add.reduceat(spread[:, :, None] * spread[:, None], bounds[:-1])
        along = (spread * np.linalg.eigh(moments)[1][part, :, -1]).sum(1)
        order = order[np.lexsort((along, part))]
        left = np.minimum((-(-sizes // size) + 1) // 2 * size, sizes)
        bounds = np.unique(np.concatenate([bounds, bounds[:-1] + left]))
    patch, place = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    sizes = np.diff(bounds)
    patch[order] = np.repeat(np.arange(len(sizes)), sizes)
    place[order] = np.arange(len(order)) - np.repeat(bounds[:-1], sizes)
    return patch, place


def _positions(reads: csr_matrix) -> np.ndarray:
    """Coordinates (m, landmarks) in which points are near that read the same columns: steps to some far points, smoothed."""
    count = reads.shape[0]
    graph = bmat([[None, reads], [reads.T, None]], format="csr")
    nearest, at, steps = np.full(count, np.inf), 0, []
    for _ in range(_LANDMARKS):
        away = csgraph.dijkstra(graph, unweighted=True, indices=at)
        longest = away[np.isfinite(away)].max(initial=0)
        away = np.where(np.isfinite(away), away, 2 * longest + 2)  # parts that share nothing lie apart
        steps.append(away)
        nearest = np.minimum(nearest, away[:count])
        at = int(nearest.argmax())
    table = np.stack(steps, 1)
    to_points, to_columns = _mean(reads), _mean(reads.T.tocsr())
    points, columns = table[:count], table[count:]
    for _ in range(3):
        points = to_points @ columns
        columns = to_columns @ points
    return points


def _mean(matrix: csr_matrix) -> csr_matrix:
    return diags(1 / np.maximum(np.diff(matrix.indptr), 1)) @ matrix


def _split(reads: csr_matrix, patch: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Halve the patches of the longest halos where the shorter bound on all saves more than the added patches cost."""
    lengths = np.diff(_together(patch, reads).indptr)
    longest = lengths.max(initial=1)
    bounds = [bound for bound in _LENGTHS if bound >= 0.75 * longest]  # half a patch reads about that share
    bound = min(bounds, key=lambda bound: bound * (len(lengths) + (lengths > bound).sum()))
    while True:
        members, occupied = np.bincount(patch, minlength=len(lengths)), len(lengths)
        crowded = np.flatnonzero((lengths > bound) & (members > 1))
        if not len(crowded):
            return patch, place, next(length for length in _LENGTHS if length >= max(bound, lengths.max()))
        fresh = np.full(occupied, -1)
        fresh[crowded] = occupied + np.arange(len(crowded))
        half = (members[patch] + 1) // 2
        moved = (fresh[patch] >= 0) & (place >= half)
        patch, place = np.where(moved, fresh[patch], patch), np.where(moved, place - half, place)
        lengths = np.diff(_together(patch, reads).indptr)


def _together(patch: np.ndarray, reads: csr_matrix) -> csr_matrix:
    """The columns that each patch reads, ascending."""
    members = csr_matrix((np.ones(len(patch)), (patch, np.arange(len(patch)))), shape=(int(patch.max(initial=0)) + 1, len(patch)))
    together = members @ reads
    together.sort_indices()
    return together
