"""Cameras: axes, rays, orbits of the NeRF codes, and the posed images that people have on disk."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from reference_radiance import pose_spherical

from inrbridge.errors import CannotOpen, ConfigError, ShapeMismatch, UnknownName
from inrbridge.radiance import Camera, Views, focal_length, is_views, look_at, orbit, read_poses, read_views


def test_rays_are_those_of_a_pinhole():
    """x to the right, y up, looking along -z; distances along a ray are depths over the cosine of its angle."""
    rays = Camera(torch.eye(4), 2.0, 2, 4, near=1.0, far=3.0).rays()
    assert len(rays) == 8 and torch.allclose(rays.directions.norm(dim=-1), torch.ones(8))
    first = rays.directions[0] / -rays.directions[0, 2]
    assert torch.allclose(first, torch.tensor([-0.75, 0.25, -1.0]))  # up and to the left
    ends = rays.points(torch.stack([rays.near, rays.far], 1))
    assert torch.allclose(ends[..., 2], torch.tensor([-1.0, -3.0]).expand(8, 2))
    corner = Camera(torch.eye(4), 2.0, 2, 4, offset=0.0).rays().directions[0]
    assert torch.allclose(corner / -corner[2], torch.tensor([-1.0, 0.5, -1.0]))


@pytest.mark.parametrize(("theta", "phi", "radius"), [(-180, -30, 4.0), (0, 0, 1.0), (37, -12, 2.5), (250, 40, 3.0)])
def test_an_orbit_is_that_of_the_nerf_codes(theta, phi, radius):
    ours = orbit(math.radians(theta), math.radians(phi), radius)
    assert torch.allclose(ours, pose_spherical(theta, phi, radius), atol=1e-5)


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_any_axis_can_be_up(up):
    """A level camera has the upward axis as its own, looks at the target, and is right-handed."""
    pose = orbit(0.3, 0.0, 2.0, target=(1.0, 2.0, 3.0), up=up)
    axis, sign = "xyz".index(up[-1]), -1.0 if up[0] == "-" else 1.0
    assert pose[axis, 1] == pytest.approx(sign, abs=1e-6)
    assert torch.allclose(pose[:3, 3] - 2 * pose[:3, 2], torch.tensor([1.0, 2.0, 3.0]), atol=1e-5)
    assert torch.linalg.det(pose) == pytest.approx(1.0, abs=1e-5)
    above = orbit(0.3, -0.5, 2.0, up=up)
    assert sign * above[axis, 3] == pytest.approx(2 * math.sin(0.5), abs=1e-5)


def test_straight_down_is_a_pose_too():
    pose = look_at((0, 0, 5))
    assert torch.allclose(pose[:3, 2], torch.tensor([0.0, 0.0, 1.0])) and torch.linalg.det(pose) == pytest.approx(1.0)


def test_mistakes():
    with pytest.raises(ShapeMismatch, match="no rotation"):
        Camera(2 * torch.eye(4), 1.0, 2, 2)
    with pytest.raises(ShapeMismatch, match=r"expected \(4, 4\)"):
        Camera(torch.eye(3), 1.0, 2, 2)
    with pytest.raises(ConfigError, match="near < far"):
        Camera(torch.eye(4), 1.0, 2, 2, near=3.0, far=2.0)
    with pytest.raises(UnknownName, match="axis"):
        orbit(0, 0, 1, up="w")
    with pytest.raises(ConfigError, match="radius above 0"):
        orbit(0, 0, 0)
    with pytest.raises(ConfigError, match="two different points"):
        look_at((0, 0, 0))
    with pytest.raises(ConfigError, match="angle of view"):
        focal_length(100, 4.0)


def some_views(n=3, h=4, w=6, c=4):
    images = np.random.default_rng(0).integers(0, 256, (n, h, w, c), np.uint8)
    return images, np.stack([orbit(i, -0.5, 4.0).numpy() for i in range(n)])


def test_an_npz_and_a_blender_folder_read_alike(tmp_path):
    images, poses = some_views()
    np.savez(tmp_path / "v.npz", images=images, poses=poses, focal=np.float32(focal_length(6)))
    folder = tmp_path / "scene"
    (folder / "train").mkdir(parents=True)
    frames = []
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "train" / f"r_{i}.png")
        frames.append({"file_path": f"./train/r_{i}", "transform_matrix": poses[i].tolist()})
    (folder / "transforms_train.json").write_text(json.dumps({"camera_angle_x": 0.6911112, "frames": frames}))
    packed, unpacked = read_views(tmp_path / "v.npz"), read_views(folder)
    assert is_views(tmp_path / "v.npz") and is_views(folder) and is_views(folder / "transforms_train.json")
    assert torch.equal(packed.images, unpacked.images) and torch.allclose(packed.poses, unpacked.poses)
    assert packed.focal == pytest.approx(unpacked.focal, rel=1e-6)
    for file in (tmp_path / "v.npz", folder / "transforms_train.json"):
        assert torch.allclose(read_poses(file)[0], packed.poses)
    np.savetxt(tmp_path / "p.txt", poses[1])
    np.save(tmp_path / "p.npy", poses[1])
    for name in ("p.txt", "p.npy"):
        assert torch.allclose(read_poses(tmp_path / name)[0], packed.poses[1:2])


def test_rays_of_views_are_those_of_their_cameras():
    images, poses = some_views()
    views = Views(images, poses, 5.0)
    rays = views.rays(torch.arange(3 * 24), near=2.0, far=6.0)
    for i in range(3):
        own = views.camera(i, near=2.0, far=6.0).rays()
        for name in ("origins", "directions", "near", "far"):
            assert torch.allclose(getattr(own, name), getattr(rays, name)[24 * i : 24 * i + 24])


def test_shrunken_views_see_the_same_light():
    images, poses = some_views()
    views = Views(images, poses, 5.0)
    small = views.shrink(2)
    assert small.images.shape == (3, 2, 3, 4) and small.focal == 2.5
    light = [v.images[..., :3] * v.images[..., 3:] for v in (views, small)]
    assert torch.allclose(light[0].mean((1, 2)), light[1].mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"frames": []}', "lists no frames"),
        ('{"frames": [{}], "camera_angle_x": 1}', "KeyError"),
        ('{"frames": [{"file_path": "../../etc/passwd", "transform_matrix": []}], "camera_angle_x": 1}', "outside"),
        ('{"frames": [{"file_path": "gone", "transform_matrix": []}], "camera_angle_x": 1}', "no image"),
        ('{"frames": [{"file_path": "a.png", "transform_matrix": [[1]]}], "camera_angle_x": 1}', "a pose of shape"),
        ('{"frames": [{"file_path": "a.png", "transform_matrix": [[1]]}]}', "neither camera_angle_x nor fl_x"),
        ('{"frames": [{"file_path": "junk", "transform_matrix": [[1]]}], "camera_angle_x": 1}', "Cannot read"),
        ("[" * 100_000, "RecursionError"),
    ],
)
def test_bad_folders_end_in_one_sentence(tmp_path, text, message):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "junk.png").write_bytes(b"junk")
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises((CannotOpen, ShapeMismatch), match=message):
        read_views(tmp_path)


def test_bad_arrays_end_in_one_sentence(tmp_path):
    images, poses = some_views()
    bad = tmp_path / "bad.npz"
    for arrays, message in (
        ({"images": images}, "no array poses"),
        ({"images": images, "poses": poses}, "neither focal"),
        ({"images": images[0], "poses": poses, "focal": 1}, "Got images of shape"),
        ({"images": images, "poses": poses[:2], "focal": 1}, "one for each image"),
        ({"images": images.astype(float), "poses": poses, "focal": 1}, "outside"),
        ({"images": images, "poses": poses, "focal": 0}, "focal length"),
        ({"images": images, "poses": np.array([{}, {}, {}]), "focal": 1}, "."),
    ):
        np.savez(bad, **arrays)
        with pytest.raises((CannotOpen, ShapeMismatch), match=message):
            read_views(bad)
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(CannotOpen):
        read_views(bad)
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, 4, 4), }}".encode().ljust(117)
        + b"\n"
    )
    (tmp_path / "huge.npy").write_bytes(header)
    with pytest.raises(CannotOpen):
        read_poses(tmp_path / "huge.npy")
    assert not is_views(bad) and not is_views(tmp_path / "gone.npz")
    with pytest.raises(CannotOpen):
        read_poses(bad)
