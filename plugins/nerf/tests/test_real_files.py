"""Files that other code bases wrote: their values, and their scenes through inrbridge's cameras and importance points."""

import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_nerf import NerfFormat
from PIL import Image

from inrbridge import Box, Probe, Product, Sphere
from inrbridge.radiance import Camera, Occupancy, OccupancySampler, composite, focal_length, orbit, render

DATA = os.environ.get("INRBRIDGE_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")
FOLDER = Path(DATA or "", "checkpoints", "nerf", "krrish")


RAW = {"density": "none", "colour": "none"}

# file, golden values, their arrays, options that undo what the golden values are before, dialect, largest relative difference
REAL = [
    ("nerf/krrish/lego_lowres.ckpt", "nerf/krrish/lego_lowres.golden.npz", ("fine_raw",), RAW, "krrish"),
    ("nerf/krrish/lego_lowres.ckpt", "nerf/krrish/lego_lowres.golden.npz", ("coarse_raw",),
     RAW | {"network": "coarse"}, "krrish"),
    ("nerf/yenchenlin_minted/000400.tar", "nerf/yenchenlin_minted/000400.golden.npz", ("fine_raw",), RAW, "yenchenlin"),
    ("nerf/yenchenlin_minted/000400.tar", "nerf/yenchenlin_minted/000400.golden.npz", ("coarse_raw",),
     RAW | {"network": "coarse"}, "yenchenlin"),
    ("nerf/bmild_minted/model_000010.npy", "nerf/bmild_minted/model_000010.golden.npz", ("raw",), RAW, "bmild"),
    ("nerf/nerf_pl_minted/epoch=1.ckpt", "nerf/nerf_pl_minted/epoch=1.ckpt.golden.npz", ("fine_rgb_sigmaraw",),
     {"density": "none"}, "nerf-pl"),
    ("nerf/nerfacc_minted/mlp_nerf_50000", "nerf/nerfacc_minted/mlp_nerf_50000.golden.npz", ("rgb", "sigma"), {}, "nerfacc"),
    ("nerf/jiayipan/lego_200.pt", "nerf/jiayipan/lego_200.golden.npz", ("rgb_sigmaraw",), {"density": "none"}, "jiayi-pan"),
    ("nerfstudio/minted_vanilla_step-000000100.ckpt", "nerfstudio/minted_vanilla_step-000000100.golden.npz", ("rgb", "density"),
     {}, "nerfstudio"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "golden", "arrays", "options", "dialect"), REAL, ids=[f"{r[0]}-{r[2][0]}" for r in REAL])
def test_files_have_the_values_of_the_code_that_wrote_them(file, golden, arrays, options, dialect):
    path = Path(DATA, "checkpoints", file)
    assert NerfFormat().recognizes(Probe(path))
    field = NerfFormat().open(path, **options)
    with np.load(Path(DATA, "checkpoints", golden), allow_pickle=False) as held:
        coords = torch.tensor(np.concatenate([held["points"], held["dirs"]], 1))
        truth = np.concatenate([held[name] for name in arrays], 1)
    with torch.no_grad():
        found = field(coords).numpy()
    limit = 1e-14 if coords.dtype == torch.float64 else 2e-6
    assert found.dtype == truth.dtype
    assert (np.abs(found - truth).max(0) <= limit * np.abs(truth).max(0)).all()
    assert field.assumed[0].startswith(f"dialect = {dialect} (by the ")


def test_what_is_told_of_a_file_whose_configuration_lies():
    field = NerfFormat().open(Path(DATA, "checkpoints/nerf/krrish/lego_lowres.ckpt"))
    assert "num_layers = 4 (by the shapes; lego_lowres.config.yml says 8)" in field.assumed
    assert field.domain == Product(Box.centered(3, 1.5), Sphere()) and "network = fine" in field.assumed


def test_the_list_without_golden_values_against_a_slow_twin():
    path = Path(DATA, "checkpoints/nerf/bmild_minted/noview_model_000010.npy")
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        arrays = [torch.tensor(array).double() for array in pickle.load(file)]  # our own copy of a file that we know
    field, x = (
        NerfFormat().open(path),
        3 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1.5,
    )
    encoded = torch.cat([x, *(wave(2.0**k * x) for k in range(10) for wave in (torch.sin, torch.cos))], -1)
    h = encoded
    for i in range(8):
        h = torch.relu((torch.cat([encoded, h], -1) if i == 5 else h) @ arrays[2 * i] + arrays[2 * i + 1])
    out = h @ arrays[16] + arrays[17]
    truth = torch.cat([out[:, :3].sigmoid(), torch.relu(out[:, 3:4])], -1)
    assert field.domain == Box.centered(3, 1.5) and (field(x) - truth).abs().max() < 1e-9


@pytest.fixture(scope="module")
def lego():
    return NerfFormat().open(FOLDER / "lego_lowres.ckpt")


@pytest.fixture(scope="module")
def occupancy(lego):
    return Occupancy.of(lego, 48, margin=False, passes=2)


def test_the_pixels_of_the_code_that_trained_it(lego):
    """Samples at the starts of intervals of depths 2 to 6, the last endless; a pixel looks at its corner: as that code does."""
    with np.load(FOLDER / "render.golden.npz", allow_pickle=False) as golden:
        pose, truth = torch.tensor(golden["lego_pose_c2w"]).float(), torch.tensor(golden["lego_rgb"]).reshape(-1, 3)
        angle, samples = float(golden["camera_angle_x"]), int(golden["n_samples"])
    rows = torch.arange(40 * 100, 46 * 100)
    rays = Camera(pose, focal_length(100, angle), 100, 100, 2.0, 6.0, offset=0.0).rays()[rows]
    starts = torch.linspace(2, 6, samples) * (rays.near / 2)[:, None]
    ends = torch.cat([starts[:, 1:], torch.full_like(starts[:, :1], 1e10)], 1)
    points = rays.points(starts)
    with torch.no_grad():
        values = lego(torch.cat([points, rays.directions[:, None].expand_as(points)], -1))
    found = composite(values[..., :3], values[..., 3], starts, ends, torch.ones(3)).colours
    assert (found - truth[rows]).abs().max() < 5e-4


def test_the_authors_own_frame(lego, occupancy):
    """30.6 dB at 200 x 200 by our marching; here every fourth pixel of every fourth row."""
    with Image.open(FOLDER / "lego-lowres.gif") as moving:
        truth = torch.tensor(np.asarray(moving.convert("RGB"))).float()[::4, ::4] / 255
    camera = Camera(orbit(-math.pi, -math.pi / 6, 4.0), focal_length(50), 50, 50, 2.0, 6.0, offset=0.0)
    found = render(lego, camera, samples=128, occupancy=Occupancy.of(lego, 48, passes=2)).colours
    assert -10 * math.log10(float((found - truth).square().mean())) > 27


def test_importance_points_integrate_its_density(lego, occupancy):
    """They agree with one random point in each cell of a grid; the middles of cells alias its finest waves, by up to 25 %."""
    cells = torch.cartesian_prod(*[torch.arange(50.0)] * 3)
    places = (cells + torch.rand(cells.shape, generator=torch.Generator().manual_seed(0))) / 50 * 3 - 1.5
    with torch.no_grad():
        truth = float(lego(torch.cat([places, torch.tensor([0.0, 0, 1]).expand_as(places)], 1))[:, 3].double().mean()) * 27
        found = OccupancySampler(occupancy)(lego.domain, 2**15, torch.Generator().manual_seed(0))
        values = lego(found.points)[:, 3].double()
    assert float((found.weights.double() * values).sum()) / (4 * math.pi) == pytest.approx(truth, rel=0.05)
