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
from scipy.spatial import cKDTree

LENGTH = 4.0  # of the correlation, in pixels
NOISE = 5e-4  # the variance of what the model leaves out, relative to that of a pixel: both measured best on natural images
REACH = 5  # pixels along an axis, beyond which a point is left out
MAX_DIM = 2  # windows of pixels grow too large beyond
AT_ONCE = 2**23  # entries of the largest array: 64 MB


@dataclass(frozen=True)
class Pixels:
    """P[i, 0, :] recovers pixel i of a grid: index j lies at start + spacing * j along each axis.

    Args:
        neighbors: points used for a pixel; None: the measured default.
    """

    shape: tuple[int, ...]
    start: tuple[float, ...]
    spacing: tuple[float, ...]
    neighbors: int | None = None


def pixel_weights(rule: Pixels, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points and weights (pixels, m) that recover the pixels, row by row, from values at points (n, d)."""
    places = (points - np.asarray(rule.start)) / np.asarray(rule.spacing)  # in pixels
    pixels = np.stack(np.meshgrid(*map(np.arange, rule.shape), indexing="ij"), -1).reshape(-1, len(rule.shape))
    count = min(rule.neighbors or (32 if len(rule.shape) == 2 else 12), len(points))
    distance, index = cKDTree(places).query(pixels.astype(float), count)
    distance, index = distance.reshape(len(pixels), count), index.reshape(len(pixels), count)
    weight = np.zeros(index.shape)
    window = (2 * REACH + 5) ** len(rule.shape)
    part = max(1, AT_ONCE // (count * window))
    for start in range(0, len(pixels), part):
        rows = slice(start, start + part)
        weight[rows] = _krige(places[index[rows]], pixels[rows], rule.shape)
    exact = distance[:, 0] < 1e-6
    weight[exact] = 0.0
    weight[exact, 0] = 1.0
    return index, weight


def _krige(places: np.ndarray, pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Weights (q, m) of samples at places (q, m, d), in pixels, that predict each of the pixels (q, d)."""
    q, m, d = places.shape
    near = (np.abs(places - pixels[:, None]) <= REACH).all(2)
    near[:, 0] = True  # where no point is, the nearest has to do
    samples = functools.reduce(_outer, (_taps(places[:, :, a], pixels[:, a], shape[a]) for a in range(d)))  # (q, m, w^d)
    samples *= near[:, :, None]
    covariance = samples.reshape(q * m, -1) @ _prior(d)
    centre = covariance.shape[1] // 2
    covariance = covariance.reshape(q, m, -1)
    system = np.zeros((q, m + 1, m + 1))
    system[:, :m, :m] = covariance @ samples.transpose(0, 2, 1)
    system[:, np.arange(m), np.arange(m)] += np.where(near, NOISE, 1.0)
    system[:, :m, m] = system[:, m, :m] = near
    right = np.ones((q, m + 1, 1))
    right[:, :m, 0] = covariance[:, :, centre]
    return np.linalg.solve(system, right)[:, :m, 0]


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a[:, :, :, None] * b[:, :, None, :]).reshape(*a.shape[:2], -1)


def _taps(place: np.ndarray, pixel: np.ndarray, size: int) -> np.ndarray:
    """Cubic convolution along one axis: the weight (q, m, w) of each pixel of the window around `pixel` (q,) in the value at
    place (q, m). Beyond the edge the outermost pixels go on."""
    width = 2 * REACH + 5
    first = np.floor(place)
    t = place - first
    weights = (t * (t * (1 - t / 2) - 0.5), t * t * (1.5 * t - 2.5) + 1, t * (t * (2 - 1.5 * t) + 0.5), t * t * (t - 1) / 2)
    out = np.zeros((*place.shape, width))
    rows = np.ogrid[: place.shape[0], : place.shape[1]]
    for k, weight in enumerate(weights):
        at = np.clip(first + k - 1, 0, size - 1) - pixel[:, None] + REACH + 2
        inside = (at >= 0) & (at < width)
        np.add.at(out, (*rows, np.where(inside, at, 0).astype(int)), np.where(inside, weight, 0.0))
    return out


@functools.cache
def _prior(dim: int) -> np.ndarray:
    """Covariance of the pixels of a window, Matern 3/2."""
    axis = np.arange(2 * REACH + 5)
    grid = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)
    r = np.sqrt(3.0) / LENGTH * np.linalg.norm(grid[:, None] - grid[None], axis=-1)
    return (1 + r) * np.exp(-r)
