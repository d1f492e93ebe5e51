"""Datasets whose fields live on positions, or on positions and directions: what they are seen on, and how that is kept."""

import json

import pytest
import torch
from fake_formats import RippleFormat
from reference_fields import loop

from inrbridge import GridField, plugins
from inrbridge.data import FieldDataset, StoreWriter, align
from inrbridge.data.view import View
from inrbridge.domains import Box, Product, Sphere
from inrbridge.errors import CannotAlign, ConfigError

SPACE, WIDE = Box.centered(3), Box.centered(3, 1.5)


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """A host without strangers' plugins, with the fake format."""
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    plugins.rescan().register(RippleFormat())
    yield
    monkeypatch.undo()
    plugins.rescan()


def radiance(seed, box=WIDE):
    field = RippleFormat().build(Product(box, Sphere()), 4, generator=torch.Generator().manual_seed(seed))
    field.channel_names = ("red", "green", "blue", "density")
    return field


def sdf(seed):
    samples = torch.rand(4, 4, 4, 1, generator=torch.Generator().manual_seed(seed)) - 0.5
    return GridField(samples, SPACE, channel_names=("sdf",))


def write(path, fields):
    with StoreWriter(path) as writer:
        for i, field in enumerate(fields):
            writer.add(field, name=f"f{i}")
    return path


def points(n=20, half=1.0):
    return half * (2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(9)) - 1)


def test_occupancy_of_radiance_and_distance_in_one_stack(tmp_path):
    fields = [sdf(0), radiance(1), sdf(2), radiance(3, SPACE)]
    dataset = FieldDataset(write(tmp_path / "s", fields), channels="occupancy", length=0.3, ramp=0.2)
    assert dataset.domain in (SPACE, WIDE)
    x = points(half=dataset.domain.high[0])
    order = [dataset.names.index(f"f{i}") for i in range(4)]
    expected = loop([align(f, dataset.domain, "occupancy", length=0.3, ramp=0.2) for f in fields], x)
    values = dataset.stack(order)(x)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)
    assert 0 <= float(values.min()) < 0.2 and 0.8 < float(values.max()) <= 1
    with pytest.raises(CannotAlign, match="direction of view"):
        FieldDataset(tmp_path / "s", formats=["ripple"], domain=SPACE)


def test_directions_stay_unless_they_are_taken_off(tmp_path):
    path = write(tmp_path / "s", [radiance(0), radiance(1, SPACE)])
    assert FieldDataset(path).domain in (Product(SPACE, Sphere()), Product(WIDE, Sphere()))
    assert FieldDataset(path, channels=["density"]).domain in (SPACE, WIDE)
    assert FieldDataset(path, directions=4, channels="rgb").domain in (SPACE, WIDE)
    assert FieldDataset(path, channels=["density"], axes=(0, 2)).domain.dim == 2
    mixed = write(tmp_path / "t", [radiance(0), sdf(1)])
    assert FieldDataset(mixed, channels="occupancy", domain=Product(SPACE, Sphere())).stack([0])(
        torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.0, 1.0]])
    ).shape == (1, 1, 1)


def test_a_view_is_kept_as_json(tmp_path):
    path = write(tmp_path / "s", [radiance(0), sdf(1)])
    options = {"crop": {"ripple": ((-1.5, 0.0, 0.0), (1.5, 1.0, 1.0))}, "axes": {"grid": (2, 1, 0), "*": (0, "-1", 2)}}
    dataset = FieldDataset(path, channels="occupancy", domain=SPACE, **options, directions=(0.0, 0.6, 0.8), length=0.2, ramp=0.1)
    kept = json.loads(json.dumps(dataset.view.to_json()))
    again = FieldDataset(path, channels="occupancy", domain=SPACE, **kept)
    torch.testing.assert_close(again.stack([0, 1])(points()), dataset.stack([0, 1])(points()))
    view = View.from_json(kept)
    assert view.of("grid")["axes"] == [2, 1, 0] and view.of("ripple")["axes"] == [0, "-1", 2] == view.of(None)["axes"]
    assert view.of("grid")["crop"] is None and view.of("ripple")["crop"] == [[-1.5, 0.0, 0.0], [1.5, 1.0, 1.0]]
    assert View.from_json({}) == View() and View(axes=("x", "y")).of("any")["axes"] == ("x", "y")
    with pytest.raises(ConfigError, match="tilt as ways to see a field"):
        View.from_json({"tilt": 3})
