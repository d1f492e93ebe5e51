"""Slow twins, in loops over levels and corners, and in tiny-cuda-nn's padded matrices; written from its documentation."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from inrbridge_ngp import NgpFormat

from inrbridge import Probe, errors
from inrbridge.testing import damaged

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)


def grid(u, table, *, levels, features, log2_table, base, growth, kind="hash", interpolation="linear", primes=PRIMES):
    """tiny-cuda-nn's grid: u (n, d), table flat -> (n, levels features)."""
    n, dim = u.shape
    out = np.zeros((n, levels * features))
    first = 0
    for level in range(levels):
        scale = np.float32(np.float32(2.0 ** np.float64(np.float32(level) * np.float32(math.log2(np.float32(growth))))) * base)
        scale = np.float32(scale - np.float32(1))
        resolution = math.ceil(scale) + 1
        rows = -(-(resolution**dim) // 8) * 8
        rows = {"hash": min(rows, 2**log2_table), "tiled": min(rows, base**dim), "dense": rows}[kind]
        for i in range(n):
            out[i, level * features : (level + 1) * features] = corners(
                u[i], table[first * features :], float(scale), 0.5, resolution, rows, features, kind, interpolation, primes
            )
        first += rows
    return out


def corners(u, table, scale, shift, stride, rows, features, kind, interpolation="linear", primes=PRIMES, hashed=None):
    """Weighted sum over the corners of one cell."""
    dim = len(u)
    position = np.float32(np.float64(np.float32(scale)) * np.float64(u)) if shift == 0 else (scale * np.float64(u) + shift)
    position = np.asarray(position, u.dtype)
    floor = np.floor(position)
    w = (position - floor).astype(np.float64)
    w = w * w * (3 - 2 * w) if interpolation == "smoothstep" else w
    hashed = (kind == "hash" and stride**dim > rows) if hashed is None else hashed
    total = np.zeros(features)
    for corner in range(2**dim if interpolation != "nearest" else 1):
        weight, index = 1.0, 0
        for d in range(dim):
            bit = corner >> d & 1
            q = (int(floor[d]) + bit) % 2**32
            if interpolation != "nearest":
                weight *= w[d] if bit else 1 - w[d]
            index = index ^ (q * primes[d] % 2**32) if hashed else (index + q * stride**d) % 2**32
        row = index % rows
        total += weight * table[row * features : (row + 1) * features]
    return total


def network(x, vector, width, layers, outputs, padding, activation=lambda h: np.maximum(h, 0)):
    """tiny-cuda-nn's network from its padded matrices."""
    inputs = -(-x.shape[1] // 16) * 16
    h = np.concatenate([x, np.full((len(x), inputs - x.shape[1]), padding)], 1)
    start = 0
    shapes = [(width, inputs), *[(width, width)] * (layers - 1), (-(-outputs // 16) * 16, width)]
    for i, (rows, columns) in enumerate(shapes):
        h = activation(h) if i else h
        h = h @ np.asarray(vector[start : start + rows * columns], np.float64).reshape(rows, columns).T
        start += rows * columns
    assert start == len(vector)
    return h[:, :outputs]


def harmonics(d):
    """The first 16 real spherical harmonics with the signs of Condon and Shortley."""
    x, y, z = d.T
    return np.stack([
        np.full_like(x, 0.28209479), -0.48860251 * y, 0.48860251 * z, -0.48860251 * x, 1.09254843 * x * y, -1.09254843 * y * z,
        0.94617470 * z * z - 0.31539157, -1.09254843 * x * z, 0.54627422 * (x * x - y * y),
        -0.59004359 * y * (3 * x * x - y * y), 2.89061144 * x * y * z, -0.45704580 * y * (5 * z * z - 1),
        0.37317633 * z * (5 * z * z - 3), -0.45704580 * x * (5 * z * z - 1), 1.44530572 * z * (x * x - y * y),
        -0.59004359 * x * (x * x - 3 * y * y),
    ], 1)  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hashed_levels(u, tables, resolutions, upper=np.ceil):
    """Levels that are all hashed, without half a step: u (n, 3), tables (rows, features) -> (n, levels features)."""
    out = []
    for table, resolution in zip(tables, resolutions, strict=True):
        position = u.astype(np.float32) * np.float32(resolution)
        floor = np.floor(position)
        ends, w = (floor, upper(position) if upper is np.ceil else floor + 1), (position - floor).astype(np.float64)
        total = np.zeros((len(u), table.shape[1]))
        for corner in range(8):
            bits = [corner >> d & 1 for d in range(3)]
            weight = np.prod([w[:, d] if bit else 1 - w[:, d] for d, bit in enumerate(bits)], 0)
            index = np.bitwise_xor.reduce([ends[bit][:, d].astype(np.int64) * PRIMES[d] for d, bit in enumerate(bits)])
            total += weight[:, None] * table[index % len(table)]
        out.append(total)
    return np.concatenate(out, 1)


def perceptron(x, layers, activation=lambda h: np.maximum(h, 0)):
    """Linear layers (weight, bias or None) with an activation between them."""
    for i, (weight, bias) in enumerate(layers):
        x = (activation(x) if i else x) @ np.asarray(weight, np.float64).T + (0 if bias is None else np.asarray(bias, np.float64))
    return x


def rows_of(dim, levels, log2_table, base, growth, kind="hash"):
    """Rows of all levels of tiny-cuda-nn's grid."""
    total = 0
    for level in range(levels):
        power = np.float32(2.0 ** np.float64(np.float32(level) * np.float32(math.log2(np.float32(growth)))))
        rows = -(-((math.ceil(np.float32(power * np.float32(base) - np.float32(1))) + 1) ** dim) // 8) * 8
        total += {"hash": min(rows, 2**log2_table), "tiled": min(rows, base**dim), "dense": rows}[kind]
    return total


def count(inputs, outputs, width, layers):
    """Parameters of tiny-cuda-nn's network."""
    return width * (-(-inputs // 16) * 16) + (layers - 1) * width**2 + -(-outputs // 16) * 16 * width


def numbers(size, seed, spread=1.0):
    """Numbers that half precision holds exactly, float32."""
    return (spread * np.random.default_rng(seed).standard_normal(size)).astype(np.float16).astype(np.float32)


def places(n, low, high, seed=1):
    """Points (n, 3) and directions (n, 3), float32."""
    chance = np.random.default_rng(seed)
    d = chance.standard_normal((n, 3))
    return chance.uniform(low, high, (n, 3)).astype(np.float32), (d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def survives(tmp_path):
    """Open damaged variants of a file: each gives a field, or one CannotOpen; returns how many were refused."""

    def check(path, count=16):
        refused = 0
        for what, variant in damaged(path, tmp_path / "damaged", seed=1, count=count):
            try:
                NgpFormat().recognizes(Probe(variant))
                NgpFormat().open(variant)
            except errors.CannotOpen:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{path.name}, {what}: {type(error).__name__}: {error}") from error
        return refused

    return check


@pytest.fixture
def slow():
    return SimpleNamespace(
        grid=grid, corners=corners, network=network, harmonics=harmonics, sigmoid=sigmoid, hashed_levels=hashed_levels,
        perceptron=perceptron, rows_of=rows_of, count=count, numbers=numbers, places=places,
    )  # fmt: skip
