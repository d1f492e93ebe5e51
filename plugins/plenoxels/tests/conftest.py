"""Slow twins, in loops over points and corners, written from descriptions of the files; tiny files of other code bases."""

import math
from types import SimpleNamespace

import numpy as np
import pytest


def harmonics(d):
    """The first 16 real spherical harmonics with the signs of Condon and Shortley: d (3,) -> (16,)."""
    x, y, z = d
    return np.array([
        0.28209479, -0.48860251 * y, 0.48860251 * z, -0.48860251 * x, 1.09254843 * x * y, -1.09254843 * y * z,
        0.31539157 * (2 * z * z - x * x - y * y), -1.09254843 * x * z, 0.54627422 * (x * x - y * y),
        -0.59004359 * y * (3 * x * x - y * y), 2.89061144 * x * y * z, -0.45704580 * y * (4 * z * z - x * x - y * y),
        0.37317633 * z * (2 * z * z - 3 * x * x - 3 * y * y), -0.45704580 * x * (4 * z * z - x * x - y * y),
        1.44530572 * z * (x * x - y * y), -0.59004359 * x * (x * x - 3 * y * y),
    ])  # fmt: skip


def trilinear(point, low, high, table, shape, links=None):
    """A row of a lattice: corner by corner, those without a row are 0."""
    total = np.zeros(table.shape[1])
    g = [(p - a) / (b - a) * n - 0.5 for p, a, b, n in zip(point, low, high, shape, strict=True)]
    g = [min(max(v, 0), n - 1) for v, n in zip(g, shape, strict=True)]
    base = [max(min(math.floor(v), n - 2), 0) for v, n in zip(g, shape, strict=True)]
    for corner in range(2 ** len(shape)):
        weight, cell = 1.0, []
        for axis, (v, low_cell, n) in enumerate(zip(g, base, shape, strict=True)):
            bit = corner >> axis & 1
            weight *= v - low_cell if bit else 1 - (v - low_cell)
            cell.append(min(low_cell + bit, n - 1))
        row = np.ravel_multi_index(cell, shape) if links is None else links[tuple(cell)]
        if row >= 0:
            total += weight * table[row]
    return total


def leaf(t, child):
    """Node and cell (i, x, y, z) of the leaf that t in the unit cube lies in."""
    node, n, t = 0, child.shape[1], [min(max(float(v), 0.0), 1 - 1e-10) for v in t]
    while True:
        t = [v * n for v in t]
        k = [int(v) for v in t]
        t = [v - i for v, i in zip(t, k, strict=True)]
        step = child[(node, *k)]
        if step == 0:
            return (node, *k)
        node += step


def network(d, arrays, octaves):
    """svox2's network of the direction: sines frequency by frequency, then the sines a quarter turn on."""
    phases = np.concatenate([2.0**j * d for j in range(octaves)])
    h = np.concatenate([d, np.sin(phases), np.sin(phases + math.pi / 2)])
    for layer in (0, 2, 4, 6):
        h = np.maximum(h, 0) if layer else h
        h = arrays[f"pt__basis_mlp__{layer}__weight"] @ h + arrays[f"pt__basis_mlp__{layer}__bias"]
    return sigmoid(h)


def sigmoid(x):
    return 0.5 + 0.5 * np.tanh(np.asarray(x) / 2)


@pytest.fixture
def slow():
    return SimpleNamespace(harmonics=harmonics, trilinear=trilinear, leaf=leaf, network=network, sigmoid=sigmoid)


def svox2_arrays(kind=1, functions=4, shape=(5, 4, 3), seed=0, full=False):
    """What svox2 writes: a sparse lattice whose empty links are the distances that its acceleration leaves there."""
    rng = np.random.default_rng(seed)
    links = np.arange(math.prod(shape), dtype=np.int32)
    if not full:
        empty = rng.random(len(links)) < 0.3
        links = np.where(empty, -rng.integers(1, 5, len(links)), np.cumsum(~empty) - 1).astype(np.int32)
    rows = int(links.max()) + 1
    arrays = {
        "radius": np.array([1.2, 1.0, 0.8], np.float32), "center": np.array([0.1, -0.2, 0.3], np.float32),
        "links": links.reshape(shape), "density_data": rng.normal(size=(rows, 1)).astype(np.float32),
        "sh_data": rng.normal(size=(rows, 3 * functions)).astype(np.float16), "basis_type": np.array(kind),
    }  # fmt: skip
    if kind == 4:
        arrays["basis_data"] = rng.normal(size=(6, 6, 6, functions)).astype(np.float32)
    if kind == 255:
        arrays |= {"mlp_posenc_size": np.array(2, np.int32), "mlp_width": np.array(8, np.int32)}
        for layer, (a, b) in zip((0, 2, 4, 6), ((15, 8), (8, 8), (8, 8), (8, functions)), strict=True):
            arrays[f"pt__basis_mlp__{layer}__weight"] = rng.normal(size=(b, a)).astype(np.float32)
            arrays[f"pt__basis_mlp__{layer}__bias"] = rng.normal(size=b).astype(np.float32)
    return arrays


def svox_arrays(data_format="SH4", branching=2, seed=0):
    """What svox writes: a tree of 1 + 3 nodes, two of them below the root, one below those, one not used."""
    rng, n = np.random.default_rng(seed), branching
    functions = int("".join(c for c in data_format if c.isdigit()) or 1)
    child = np.zeros((5, n, n, n), np.int32)
    child[0, 0, 1, 1], child[0, 1, 0, 0], child[1, 1, 1, 0] = 1, 2, 2
    columns = 1 + 3 * functions
    arrays = {
        "data_dim": np.array(columns), "child": child, "invradius3": np.array([0.4, 0.5, 0.55], np.float32),
        "offset": np.array([0.46, 0.5, 0.61], np.float32), "data_format": np.array(data_format), "n_internal": np.array(4),
        "data": rng.normal(size=(5, n, n, n, columns)).astype(np.float16),
    }  # fmt: skip
    if data_format.startswith(("SG", "ASG")):
        arrays["extra_data"] = rng.normal(size=(functions, 4 if data_format[0] == "S" else 11)).astype(np.float32)
    return arrays


@pytest.fixture
def write(tmp_path):
    """Write a file of another code base: write.svox2(), write.svox(), or of given arrays: write(arrays)."""

    def save(arrays, name="ckpt.npz"):
        np.savez_compressed(tmp_path / name, **arrays)
        return tmp_path / name

    save.svox2 = lambda **options: save(svox2_arrays(**options))
    save.svox = lambda **options: save(svox_arrays(**options))
    save.svox2_arrays, save.svox_arrays = svox2_arrays, svox_arrays
    return save
