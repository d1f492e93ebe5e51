"""Pictures: a PNG for every dimension and kind of channels, transparent outside the domain, clear errors."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from inrbridge import Box, Format, FunctionField, plugins, preview, rendering
from inrbridge.domains import Ball, Product, Region, Sphere, Torus
from inrbridge.errors import CannotSave, ConfigError, MissingDependency, NotFinite
from inrbridge.rendering import _Chart, _class_colours, _pictures


class CameraFormat(Format):
    """Draws its fields itself."""

    api, name = 1, "camera"

    def recognizes(self, probe):
        return False

    def open(self, path):
        raise OSError(path)

    def preview(self, field):
        image = np.zeros((20, 30, 3))
        image[..., 1] = 1.0
        return image


@pytest.fixture(autouse=True)
def host(monkeypatch):
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    plugins.rescan().register(CameraFormat())
    yield
    monkeypatch.undo()
    plugins.rescan()


def field(domain, channels, names=None):
    """A field that asks for points of its domain only."""

    def values(x):
        assert bool(domain.contains(x).all())
        return torch.sin(3 * x.sum(-1, keepdim=True) + torch.arange(channels))

    return FunctionField(values, domain, channels, names)


half = Region(Box.centered(2), lambda x: x[..., 0] > 0)


@pytest.mark.parametrize(
    ("domain", "channels", "names"),
    [
        (Box.unit(1), 1, None),
        (Box.unit(1), 3, ("red", "green", "blue")),
        (Box.centered(2), 1, ("gray",)),
        (Box.centered(2), 1, ("sdf",)),
        (Box((0, 0), (1, 20)), 2, None),
        (Box.centered(2), 3, None),
        (Box.centered(2), 12, None),
        (Ball((0.0, 1.0), 2.0), 3, ("red", "green", "blue")),
        (Torus((1.0, 2.0)), 1, ("density",)),
        (half, 1, None),
        (Box.centered(3), 4, ("red", "green", "blue", "density")),
        (Ball((0.0, 0.0, 0.0)), 1, ("sdf",)),
        (Sphere(), 1, None),
        (Product(Box.centered(3), Sphere()), 1, None),
        (Box.centered(6), 1, None),
    ],
)
def test_every_kind_of_field_has_a_picture(tmp_path, domain, channels, names):
    path = preview(field(domain, channels, names), tmp_path / "x.png", resolution=16, title="a field")
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 200
        assert np.asarray(image.convert("L")).std() > 1  # something is drawn


def test_without_a_path_the_picture_comes_back():
    picture = preview(field(Box.unit(2), 1), resolution=8)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def test_rows_are_coordinate_zero():
    """Red in the upper right corner: coordinate 0 small, coordinate 1 large."""

    def corner(x):
        red = ((x[..., :1] < 0.5) & (x[..., 1:] > 0.5)).float()
        return torch.cat([red, 0 * red, 0 * red], -1)

    picture = preview(FunctionField(corner, Box.unit(2), 3, ("red", "green", "blue")), resolution=32).astype(int)
    rows, columns = np.nonzero((picture[..., 0] > 200) & (picture[..., 1] < 50))
    black = np.nonzero(picture.sum(-1) < 30)
    assert rows.mean() < black[0].mean() and columns.mean() > black[1].mean()


def test_stated_axes_and_ranges_are_drawn_as_a_picture():
    """A field of (x, y) with values in 0..255 looks as one of (row, column) with values in [0, 1]."""

    def colours(x):
        return torch.cat([x[..., :1], x[..., 1:], 0 * x[..., :1]], -1)

    names = ("red", "green", "blue")
    truth = FunctionField(colours, Box.unit(2), 3, names)
    other = FunctionField(lambda x: 255 * colours(x.flip(-1)), Box.unit(2), 3, names)
    other.axes, other.channel_ranges = ("x", "y"), ((0, 255),) * 3
    inner = (slice(40, -60), slice(60, -20))  # without the labels of the axes
    pictures = [preview(field, resolution=16)[inner].astype(int) for field in (truth, other)]
    assert pictures[0].std() > 20 and np.abs(pictures[0] - pictures[1]).max() <= 1


def test_points_outside_the_domain_are_never_asked_and_stay_transparent():
    chart = _Chart.of(half)
    values = chart.values(field(half, 1), torch.tensor([[0.5, 0.0], [-0.5, 0.0]]))
    assert np.isfinite(values[0]).all() and np.isnan(values[1]).all()


def test_chosen_axes_and_values(tmp_path):
    box = Box.centered(4)
    for axes in ((2,), (0, 3)):
        preview(field(box, 1), tmp_path / "x.png", resolution=8, axes=axes, at={1: 0.5})
    for wrong in ({"axes": (0, 0)}, {"axes": (4,)}, {"axes": (0, 1, 2)}, {"axes": ()}, {"at": {1: 3.0}}, {"at": {7: 0.0}}):
        with pytest.raises(ConfigError, match="expected"):
            preview(field(box, 1), **wrong)


def test_channels_become_pictures():
    assert _pictures(("a", "b")) == [("a", [0]), ("b", [1])]
    assert _pictures(("0", "1", "2")) == [("colour", [0, 1, 2])]
    assert _pictures(("x", "y", "z")) == [("x", [0]), ("y", [1]), ("z", [2])]
    assert _pictures(("density", "blue", "green", "red")) == [("colour", [3, 2, 1]), ("density", [0])]
    assert len(_pictures([f"f{i}" for i in range(50)])) == rendering.MOST_PICTURES


def test_a_format_may_draw_its_own_fields():
    own = field(Box.centered(3), 1)
    own.format = "camera"
    picture = preview(own)
    assert tuple(picture[picture.shape[0] // 2, picture.shape[1] // 2]) == (0, 255, 0)
    assert preview(own, axes=(0, 1), resolution=8).std() > 0  # asked for a slice, it is drawn as any field
    own.format = "unheard of"
    assert preview(own, resolution=8).std() > 0


def test_mistakes(tmp_path, monkeypatch):
    flat = field(Box.unit(2), 1)
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        preview(flat, tmp_path / "x.jpg")
    with pytest.raises(ConfigError, match="resolution=1"):
        preview(flat, resolution=1)
    with pytest.raises(CannotSave, match="Cannot write"):
        preview(flat, tmp_path / "nowhere" / "x.png", resolution=4)
    with pytest.raises(NotFinite):
        preview(FunctionField(lambda x: x[..., :1] / 0, Box.unit(2), 1), resolution=4)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r'pip install "inrbridge\[plot\]"'):
        preview(flat)


def test_no_global_state_of_pyplot_is_touched():
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_shares_of_classes_are_drawn_as_a_map_of_classes(tmp_path):
    def shares(x):
        left = (x[..., 1:] < 0).float()
        return torch.cat([0.9 * left, 0.1 * torch.ones_like(left), 0.9 * (1 - left)], -1)

    field = FunctionField(shares, Box.centered(2), 3, ("sky", "road", "car"))
    plain = preview(field, resolution=32)
    field.are_classes = True
    drawn = preview(field, resolution=32)
    assert drawn.shape != plain.shape  # one panel and a legend
    sure = 0.25 + 0.75 * (0.9 - 1 / 3) / (2 / 3)
    for place in (0, 2):  # "road" is nowhere the largest
        wanted = 255 * (1 + (_class_colours(3)[place] - 1) * sure)
        assert (np.abs(drawn - wanted).max(-1) <= 1).mean() > 0.1
    even = FunctionField(lambda x: torch.full((*x.shape[:-1], 40), 1 / 40), Box.centered(3), 40)
    even.are_classes = True
    assert preview(even, tmp_path / "even.png", resolution=8).exists()
