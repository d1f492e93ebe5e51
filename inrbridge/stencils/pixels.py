"""Floor 4: weights that recover the pixels of an image from its values at scattered points.

Between its pixels an image field goes on as some smooth interpolation; that of a fitted network hardly differs from the cubic
one. So the values at points x_i are modelled as f(x_i) = sum_p s_p(x_i) v_p + noise, s the weights of cubic convolution (Keys
1981) and v a stationary Gaussian process on the pixels, and v_q is predicted from the nearest points (universal kriging:
constants are exact). Where a local polynomial blurs what changes from pixel to pixel, this inverts the interpolation; it knows
the grid, which moving least squares do not. On a pixel's own centre it returns that value.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from inrbridge.ops.sparse import SparseRows
from inrbridge.stencils.neighbours import PointSet

LENGTH = 4.0  # of the correlation, in pixels: measured best on natural images
REACH = 5  # pixels along an axis, beyond which a point is left out
MAX_DIM = 2  # windows of pixels grow too large beyond
AT_ONCE = 2**23  # entries of the largest array: 64 MB


@dataclass(frozen=True)
class Pixels:
    """The pixels of an image: index j lies at start + step * j along each axis.

    `noise` is the variance of what the model leaves out, relative to that of a pixel; 5e-4 suits fields that were interpolated or
    fitted in any way.
    """

    shape: tuple[int, ...]
    start: tuple[float, ...]
    step: tuple[float, ...]
    noise: float = 5e-4


def pixels_at(pixels: Pixels, points: np.ndarray, coords: np.ndarray, neighbors: int | None = None) -> SparseRows:
    """Return the matrix (q, n) that evaluates an image known at points (n, d) at coords (q, d).

    `neighbors` None takes the measured default.
    """
    places, queries = ((x - np.asarray(pixels.start)) / np.asarray(pixels.step) for x in (points, coords))  # in pixels
    count = min(neighbors or default_neighbors(len(pixels.shape)), len(points))
    _, distance, index = PointSet(places).nearest(queries, count)
    weight = np.zeros(index.shape)
    reach = _reaches(places[index], queries)
    for r in np.unique(reach).tolist():  # a window as small as it can be: the work goes with the fourth power of its width
        alike = np.flatnonzero(reach == r)
        part = max(1, AT_ONCE // (count * (2 * r + 5) ** len(pixels.shape)))
        for start in range(0, len(alike), part):
            rows = alike[start : start + part]
            weight[rows] = _krige(places[index[rows]], queries[rows], pixels, r)
    exact = distance[:, 0] < 1e-6
    weight[exact] = 0.0
    weight[exact, 0] = 1.0
    used = weight != 0
    return SparseRows.from_counts(*map(torch.from_numpy, (used.sum(1), index[used], weight[used])))


def default_neighbors(dim: int) -> int:
    """Return the points for one evaluation that measured well."""
    return {1: 12}.get(dim, 32)


def _reaches(places: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Whole pixels from the middle of its window to the furthest of the samples that each query uses, (q,)."""
    far = np.abs(places - np.rint(queries)[:, None]).max(2)
    return np.where(far <= REACH, far, np.where(far[:, :1] <= REACH, 0.0, REACH)).max(1).astype(int)


def _krige(places: np.ndarray, queries: np.ndarray, pixels: Pixels, reach: int) -> np.ndarray:
    """Weights (q, m) of samples at places (q, m, d) that predict the image at queries (q, d), all in pixels; of `_reaches`."""
    q, m, d = places.shape
    middle = np.rint(queries)  # the pixel in the middle of each window
    near = (np.abs(places - middle[:, None]) <= REACH).all(2)
    near[:, 0] = True  # where no point is, the nearest has to do
    everything = np.concatenate([queries[:, None], places], 1)
    axes = (_taps(everything[:, :, a], middle[:, a], pixels.shape[a], reach) for a in range(d))
    taps = functools.reduce(_outer, axes)  # (q, 1 + m, w^d)
    samples = taps[:, 1:] * near[:, :, None]
    covariance = (samples.reshape(q * m, -1) @ _prior(d, reach)).reshape(q, m, -1)
    system = np.zeros((q, m + 1, m + 1))
    system[:, :m, :m] = covariance @ samples.transpose(0, 2, 1)
    system[:, np.arange(m), np.arange(m)] += np.where(near, pixels.noise, 1.0)
    system[:, :m, m] = system[:, m, :m] = near
    right = np.ones((q, m + 1, 1))
    right[:, :m] = covariance @ taps[:, 0, :, None]
    return np.linalg.solve(system, right)[:, :m, 0]


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a[:, :, :, None] * b[:, :, None, :]).reshape(*a.shape[:2], -1)


def _taps(place: np.ndarray, middle: np.ndarray, size: int, reach: int) -> np.ndarray:
    """Cubic convolution along one axis: the weight (q, m, w) of each pixel of the window around `middle` (q,) in the value at
    place (q, m). Beyond the edge the outermost pixels go on."""
    width = 2 * reach + 5
    first = np.floor(place)
    t = place - first
    weights = (t * (t * (1 - t / 2) - 0.5), t * t * (1.5 * t - 2.5) + 1, t * (t * (2 - 1.5 * t) + 0.5), t * t * (t - 1) / 2)
    out = np.zeros((*place.shape, width))
    rows = np.ogrid[: place.shape[0], : place.shape[1]]
    for k, weight in enumerate(weights):
        at = np.clip(first + k - 1, 0, size - 1) - middle[:, None] + reach + 2
        inside = (at >= 0) & (at < width)
        np.add.at(out, (*rows, np.where(inside, at, 0).astype(int)), np.where(inside, weight, 0.0))
    return out


@functools.cache
def _prior(dim: int, reach: int) -> np.ndarray:
    """Covariance of the pixels of a window, Matern 3/2."""
    axis = np.arange(2 * reach + 5)
    grid = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)
    r = np.sqrt(3.0) / LENGTH * np.linalg.norm(grid[:, None] - grid[None], axis=-1)
    return (1 + r) * np.exp(-r)
