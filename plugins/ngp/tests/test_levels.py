"""The grid: equality with a slow twin and with NVIDIA's kernels, its gradients, and what it refuses."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_ngp.field import octaves
from inrbridge_ngp.levels import GRIDS, HASHES, GridSpec, growth_between
from inrbridge_ngp.networks import growing_exp

from inrbridge import encodings, errors
from inrbridge.batched import weighted_rows

DATA = os.environ.get("INRBRIDGE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")


def rand(*shape, dtype=torch.float32, seed=0):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def features(spec, table, u):
    rows, weights = spec.cells(u)
    found = weighted_rows(table, rows.flatten(0, 1), weights.flatten(0, 1))
    return found.reshape(spec.levels, len(u), -1).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep", "nearest"])
def test_it_equals_the_slow_twin(dim, kind, interpolation, slow):
    spec = GridSpec(dim, 5, 2, 8, 3, 1.7, kind, interpolation=interpolation)
    table = rand(spec.rows, 2) - 0.5
    u = 1.2 * rand(12, dim, seed=1) - 0.1  # also beyond the cube, where it wraps
    truth = slow.grid(u.numpy(), table.flatten().numpy(), levels=5, features=2, log2_table=8, base=3, growth=1.7, kind=kind,
                      interpolation=interpolation)  # fmt: skip
    assert np.abs(features(spec, table, u).numpy() - truth).max() < 1e-6


@pytest.mark.parametrize("name", list(HASHES))
def test_hashes(name, slow):
    spec = GridSpec(3, 3, 2, 6, 16, 2.0, hash=name)
    table, u = rand(spec.rows, 2), rand(10, 3, seed=1)
    truth = slow.grid(u.numpy(), table.flatten().numpy(), levels=3, features=2, log2_table=6, base=16, growth=2.0,
                      primes=HASHES[name])  # fmt: skip
    assert np.abs(features(spec, table, u).numpy() - truth).max() < 1e-6


def test_the_known_number_of_parameters():
    """The grid of NeRF in the paper's code: 12 196 240 of 12 206 480 parameters."""
    assert 2 * GridSpec(3, 16, 2, 19, 16, growth_between(16, 2048, 16)).rows == 12_196_240


def test_a_level_too_fine_for_32_bits_is_hashed():
    spec = GridSpec(3, 1, 2, 30, 1700, 1.0)
    assert spec.rows == 2**30 and spec._strides == [None]


KERNELS = ["hash3_F2_L16", "hash3_F4_L8", "hash2_F2_L12", "smooth3", "nearest3", "dense3", "tiled3"]


@needs_data
@pytest.mark.parametrize("name", KERNELS)
def test_nvidias_kernels(name):
    truth = np.load(Path(DATA, "checkpoints/instant_ngp/tcnn_kernels.golden.npz"), allow_pickle=False)
    dim, width, levels, log2_table, base, kind, interpolation = (int(v) for v in truth[f"{name}/config"])
    spec = GridSpec(dim, levels, width, log2_table, base, float(truth[f"{name}/per_level_scale"]), GRIDS[kind],
                    interpolation=("nearest", "linear", "smoothstep")[interpolation])  # fmt: skip
    assert spec.offsets == truth[f"{name}/offsets"].tolist()
    assert np.array_equal(np.stack([spec.scales, spec.resolutions], 1), truth[f"{name}/scale_res"])
    table = torch.tensor(truth[f"{name}/params_f16"]).float().reshape(-1, width)
    found = features(spec, table, torch.tensor(truth[f"{name}/x"])).numpy()
    assert np.abs(found - truth[f"{name}/out"]).max() < 1e-6


@needs_data
def test_nvidias_other_encodings():
    truth = np.load(Path(DATA, "checkpoints/instant_ngp/tcnn_kernels.golden.npz"), allow_pickle=False)
    directions = 2 * torch.tensor(truth["sh/dir01"]) - 1
    for degree in (1, 2, 3, 4, 5, 8):
        found = encodings.spherical_harmonics(directions, degree).numpy()
        assert np.abs(found - truth[f"sh{degree}/out"]).max() < 5e-6
    found, expected = octaves(torch.tensor(truth["freq6_pad4/x"]), 6).numpy(), truth["freq6_pad4/out"]
    assert np.abs(found - expected[:, :36]).max() < 1e-6 and (expected[:, 36:] == 1).all()
    expected = truth["identity_pad5/out"]
    assert np.array_equal(expected[:, :3], truth["freq6_pad4/x"]) and (expected[:, 3:] == 1).all()


@pytest.mark.parametrize("layout", ["tcnn", "torch-ngp", "nerfstudio", "hashnerf"])
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
def test_first_and_second_derivatives(layout, interpolation):
    spec = GridSpec(2, 2, 2, 3, 3, 1.7, interpolation=interpolation, layout=layout)
    table = rand(spec.rows, 2, dtype=torch.float64).requires_grad_()
    u = (0.05 + 0.9 * rand(4, 2, dtype=torch.float64, seed=3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, x: features(spec, t, x), (table, u))
    assert torch.autograd.gradgradcheck(lambda t, x: features(spec, t, x), (table, u))


def test_a_double_point_reads_a_single_table():
    spec = GridSpec(2, 3, 2, 5, 3, 1.7)
    table, u = rand(spec.rows, 2), rand(5, 2, dtype=torch.float64)
    found = features(spec, table, u)
    assert found.dtype == torch.float64 and torch.allclose(found, features(spec, table.double(), u))


def test_the_slope_of_density_grows_no_more_beyond_15():
    x = torch.tensor([1.0, 20.0], dtype=torch.float64, requires_grad=True)
    y = growing_exp(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(y, x.exp()) and torch.allclose(slope, torch.tensor([1.0, 15.0], dtype=torch.float64).exp())
    near = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(growing_exp, near)


@pytest.mark.parametrize(
    "options",
    [{"levels": 0}, {"levels": 1000}, {"base": 0}, {"growth": 0.0}, {"growth": float("nan")}, {"log2_table": 40}, {"dim": 9},
     {"grid": "octree"}, {"hash": "rng"}, {"interpolation": "cubic"}, {"layout": "wisp"}, {"growth": 1e6}],
)  # fmt: skip
def test_impossible_grids_are_refused(options):
    known = {"dim": 2, "levels": 8, "features": 2, "log2_table": 10, "base": 4, "growth": 2.0}
    with pytest.raises(errors.InrBridgeError, match=r"expected|There is no"):
        GridSpec(**{**known, **options}).scales  # noqa: B018
