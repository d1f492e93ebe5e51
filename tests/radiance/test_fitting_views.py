"""Posed images become a radiance field: from Python, from the command line, and seen again in pictures."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from reference_radiance import VoxelFormat, ball

from inrbridge import Box, Format, FunctionField, Product, Sphere, open_field, plugins, preview
from inrbridge.cli.main import main
from inrbridge.data import Store
from inrbridge.errors import ConfigError, NotFinite, PluginError
from inrbridge.fitting.views import fit_views, scene_box, view_psnr
from inrbridge.radiance import Camera, Views, default_camera, focal_length, orbit, render, turntable
from inrbridge.radiance.pictures import contact_sheet

SIZE = 16


class FrozenFormat(Format):
    """Builds fields without parameters."""

    api, name = 1, "frozen"

    def recognizes(self, probe):
        return False

    def open(self, path):
        raise OSError(path)

    def build(self, domain, channels, *, generator=None):
        return ball()


class DamagedFormat(VoxelFormat):
    """Builds fields of NaN."""

    name = "damaged"

    def build(self, domain, channels, *, generator=None):
        field = super().build(domain, channels, generator=generator)
        torch.nn.init.constant_(field.grid, math.nan)
        return field


@pytest.fixture(autouse=True)
def host(monkeypatch, tmp_path):
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    monkeypatch.delenv("INRBRIDGE_STRICT", raising=False)
    monkeypatch.chdir(tmp_path)
    registry = plugins.rescan()
    registry.register(VoxelFormat())
    registry.register(FrozenFormat())
    registry.register(DamagedFormat())
    yield
    monkeypatch.undo()
    plugins.rescan()


@pytest.fixture(scope="module")
def views():
    """A ball, half red and half blue, seen from 20 places; straight alpha."""

    def values(x):
        one = torch.ones_like(x[..., :1])
        colour = torch.where(x[..., :1] > 0, torch.tensor([0.9, 0.2, 0.1]), torch.tensor([0.1, 0.2, 0.9]))
        return torch.cat([colour, 30 * one * (x[..., :3].norm(dim=-1, keepdim=True) < 0.8)], -1)

    field = FunctionField(values, Product(Box.centered(3, 1.5), Sphere()), 4, ("red", "green", "blue", "density"))
    poses, images = [], []
    for i in range(20):
        pose = orbit(2.4 * i, -1.2 + 0.12 * i, 4.0)
        seen = render(field, Camera(pose, focal_length(SIZE), SIZE, SIZE), background="black")
        straight = seen.colours / seen.opacities.clamp(min=1e-6)[..., None]
        images.append(torch.cat([straight, seen.opacities[..., None]], -1).clamp(0, 1))
        poses.append(pose)
    return Views((torch.stack(images) * 255).round().byte(), torch.stack(poses), focal_length(SIZE))


def test_a_scene_is_learnt_and_held_out_views_are_met(views):
    state = torch.get_rng_state()
    told = []
    arguments = {"steps": 60, "lr": 0.1, "rays": 512, "samples": 32, "size": 16}
    field = fit_views("voxel", views.images, views.poses, views.focal, progress=lambda *a: told.append(a), **arguments)
    assert field.psnr > 22 and told[-1][:2] == (60, 60) and told[-1][2]["psnr"] == field.psnr
    assert field.domain == Product(Box.centered(3, 1.5), Sphere()) and torch.equal(state, torch.get_rng_state())
    again = fit_views("voxel", views.images, views.poses, views.focal, **arguments)
    assert again.psnr == field.psnr and torch.equal(again.grid, field.grid)
    on_black = view_psnr(field, views[[0, 8]], background="black", samples=64)
    assert on_black == pytest.approx(field.psnr, abs=3)
    fresh = fit_views("voxel", views.images, views.poses, views.focal, steps=0, held_out=[3])
    assert fresh.psnr < field.psnr - 5
    opaque = views.images[..., :3] * views.images[..., 3:]
    rgb = fit_views("voxel", opaque, views.poses, views.focal, background="black", held_out=0, **arguments)
    assert rgb.psnr is None and view_psnr(rgb, views[[0, 8]], background="black") > 20


def test_the_default_box_lies_where_cameras_look():
    poses = torch.stack([orbit(i, -0.3 * i, 8.0, target=(1.0, 2.0, -3.0)) for i in range(5)])
    box = scene_box(poses)
    assert np.allclose(box.low, (-2, -1, -6), atol=2e-3) and np.allclose(box.high, (4, 5, 0), atol=2e-3)


def test_mistakes(views):
    scene = (views.images, views.poses, views.focal)
    for options, message in (
        ({"steps": -1}, "steps=-1"),
        ({"lr": 0.0}, "lr=0"),
        ({"held_out": list(range(20))}, "0 images to learn from"),
        ({"held_out": [99]}, "from 0 to 19"),
        ({"sise": 3}, "did you mean|Did you mean"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit_views("voxel", *scene, **options)
    with pytest.raises(ConfigError, match="without alpha"):
        fit_views("voxel", views.images[..., :3], views.poses, views.focal, background="random")
    with pytest.raises(PluginError, match="to train"):
        fit_views("frozen", *scene)
    with pytest.raises(NotFinite, match="diverged"):
        fit_views("damaged", *scene, steps=20)


def run(capsys, *words):
    """Return exit code, standard output and standard error of a command line."""
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_from_views_to_pictures_by_the_command_line(capsys, views):
    np.savez("v.npz", images=(views.images * 255).byte().numpy(), poses=views.poses.numpy(), focal=np.float32(views.focal))
    words = ["fit", "v.npz", "--format", "voxel", "--set", "size=12", "--steps", "30", "--points", "256"]
    code, out, _ = run(capsys, *words, "-o", "scene.safetensors", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["views"] == 20 and facts["psnr_held_out"] > 15
    assert open_field("scene.safetensors").architecture == {"size": 12}
    code, out, _ = run(capsys, *words, "-o", "store", "--shrink", "2")
    assert code == 0 and "next: inrbridge preview store --item 0" in out and Store("store").items[0].psnr > 10
    code, out, error = run(capsys, *words, "-o", "store")
    assert code == 2 and "is there already" in error
    assert run(capsys, *words, "-o", "x", "--labels", "l.txt")[0] == 2
    Image.new("L", (4, 4)).save("one.png")
    assert "no images with poses" in run(capsys, "fit", "one.png", "-o", "x", "--format", "grid", "--shrink", "2")[2]

    shown = ["preview", "scene.safetensors", "--resolution", "20"]
    assert run(capsys, *shown, "--camera", "-180,-30,4", "--near", "2", "--far", "6", "-o", "a.png")[0] == 0
    with Image.open("a.png") as picture:
        assert picture.size == (20, 20) and np.asarray(picture).std() > 20
    assert run(capsys, *shown, "--turntable", "3", "--camera", "0,-20", "-o", "turn.gif")[0] == 0
    with Image.open("turn.gif") as moving:
        assert moving.n_frames == 3 and moving.size == (20, 20)
    assert run(capsys, *shown, "--turntable", "5", "--samples", "16", "--background", "0,0,1", "-o", "b.png")[0] == 0
    with Image.open("b.png") as sheet:
        assert sheet.size == (60, 40) and sheet.getpixel((0, 0))[2] > 250
    assert run(capsys, *shown, "--pose", "v.npz", "-o", "c.png")[0] == 0
    with Image.open("c.png") as sheet:
        assert sheet.size == (100, 80)
    assert run(capsys, *shown, "-o", "d.png")[0] == 0  # a camera of its own, and slices
    for words, text in (
        (["--camera", "1,2,3,4"], "2 or 3 numbers"),
        (["--camera", "a,b"], "expected numbers"),
        (["--turntable", "0"], "1 to 1000"),
        (["--pose", "v.npz", "--turntable", "3"], "one way"),
        (["--camera", "0,0,4", "--axes", "0,1"], "one of them"),
        (["--turntable", "2", "-o", "x.jpg"], r".gif"),
        (["--camera", "0,0,4", "--up", "w"], "axis"),
    ):
        code, _, error = run(capsys, *shown, *words)
        assert code == 2 and text in error and "Traceback" not in error


def test_the_default_camera_sees_all_matter_and_little_else():
    field = ball(radius=0.2)
    for camera in (default_camera(field, 32), *turntable(field, 3, 32, up="y")):
        opacity = render(field, camera).opacities
        assert opacity[16, 16] > 0.5 and opacity[[0, -1]].max() == 0 and opacity[:, [0, -1]].max() == 0
        assert (opacity > 0.01).float().mean() > 0.1


def test_a_field_may_say_which_way_is_up():
    field = ball()
    field.up = "y"
    options = {"radius": 3.0, "target": (0.0, 0.0, 0.0)}
    assert torch.equal(default_camera(field, 8, **options).pose, default_camera(ball(), 8, up="y", **options).pose)
    assert torch.equal(default_camera(field, 8, up="z", **options).pose, default_camera(ball(), 8, **options).pose)


def test_pictures_of_radiance_fields():
    lone = preview(ball(), resolution=16)
    assert (
        lone.shape[0] > 500 and (np.abs(lone.astype(int) - (230, 102, 26)).sum(-1) < 120).any()
    )  # the ball's own colour is seen
    sheet = contact_sheet(np.zeros((3, 4, 5, 3), np.uint8))
    assert sheet.shape == (8, 10, 3) and sheet[4:, 5:].min() == 255 and sheet[:4].max() == 0
    camera = Camera(orbit(0.0, -0.5, 4.0), 30.0, 12, 20)
    assert preview(ball(), camera=camera).shape == (12, 20, 3)
    assert preview(ball(), camera=camera, title="a ball").shape[0] > 100
    assert math.isclose(preview(ball(radius=0.01), camera=camera, background="black").mean(), 0, abs_tol=1)
