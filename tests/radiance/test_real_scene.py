"""A NeRF that others trained: our volume rendering gives the pixels of theirs."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from inrbridge import Box, FunctionField, Product, Sphere
from inrbridge.encodings import frequency_encoding
from inrbridge.radiance import Camera, Occupancy, composite, focal_length, orbit, render


@pytest.fixture(scope="module")
def krrish(shared_data):
    folder = shared_data / "checkpoints" / "nerf" / "krrish"
    if not (folder / "render.golden.npz").is_file():
        pytest.skip("needs checkpoints/nerf/krrish in INRBRIDGE_DATA")
    return folder


@pytest.fixture(scope="module")
def lego(krrish):
    """FlexibleNeRF of krrish94/nerf-pytorch, its fine network written down in plain torch."""
    state = torch.load(krrish / "lego_lowres.ckpt", map_location="cpu", weights_only=True)["model_fine_state_dict"]

    def linear(name, x):
        return torch.nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def values(coords):
        places = frequency_encoding(coords[..., :3], 2.0 ** torch.arange(10), order="fsc", raw="first")
        directions = frequency_encoding(coords[..., 3:], 2.0 ** torch.arange(4), order="fsc", raw="first")
        hidden = linear("layer1", places)
        for i in range(sum(name.startswith("layers_xyz.") for name in state) // 2):
            hidden = linear(f"layers_xyz.{i}", hidden).relu()
        features = torch.cat([linear("fc_feat", hidden).relu(), directions], -1)
        colours = linear("fc_rgb", linear("layers_dir.0", features).relu()).sigmoid()
        return torch.cat([colours, linear("fc_alpha", hidden).relu()], -1)

    return FunctionField(values, Product(Box.centered(3, 1.5), Sphere()), 4, ("red", "green", "blue", "density"))


def test_the_sums_of_the_first_codes_pixel_by_pixel(krrish, lego):
    """Samples at the starts of intervals that cover depths 2 to 6, the last one endless; a pixel looks at its corner."""
    golden = np.load(krrish / "render.golden.npz", allow_pickle=False)
    pose = torch.tensor(golden["lego_pose_c2w"]).float()
    assert torch.allclose(pose, orbit(-math.pi, -math.pi / 6, 4.0), atol=1e-6)
    rows = torch.arange(30 * 100, 40 * 100)  # ten rows through the middle
    rays = Camera(pose, focal_length(100, float(golden["camera_angle_x"])), 100, 100, 2.0, 6.0, offset=0.0).rays()[rows]
    starts = torch.linspace(2, 6, int(golden["n_samples"])) * (rays.near / 2)[:, None]
    ends = torch.cat([starts[:, 1:], torch.full_like(starts[:, :1], 1e10)], 1)
    points = rays.points(starts)
    with torch.no_grad():
        values = lego(torch.cat([points, rays.directions[:, None].expand_as(points)], -1))
    found = composite(values[..., :3], values[..., 3], starts, ends, torch.ones(3)).colours
    assert (found - torch.tensor(golden["lego_rgb"]).reshape(-1, 3)[rows]).abs().max() < 1e-3


def test_the_authors_own_frame(krrish, lego):
    """30.6 dB to frame 0 of their moving picture; their golden rendering, of other samples, has 25.97 dB."""
    with Image.open(krrish / "lego-lowres.gif") as moving:
        truth = torch.tensor(np.asarray(moving.convert("RGB"))).float() / 255
    camera = Camera(orbit(-math.pi, -math.pi / 6, 4.0), focal_length(200), 200, 200, 2.0, 6.0, offset=0.0)
    found = render(lego, camera, samples=128, occupancy=Occupancy.of(lego, 48, passes=2)).colours
    assert -10 * math.log10(float((found - truth).square().mean())) > 30
