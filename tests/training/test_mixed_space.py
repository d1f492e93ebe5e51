"""One network learns from shapes in space that come as signed distance and as radiance, in whatever formats there are."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

import inrbridge
from inrbridge import Box, FieldDataset, FunctionField, Product, Sphere, build_field, fit, open_field, predict, save_field
from inrbridge.data import align
from inrbridge.errors import CannotAlign, ConfigError, InrBridgeError
from inrbridge.plugins import registry
from inrbridge.training.config import load_config
from inrbridge.training.model_folder import load_model, read_card

SPACE = Box.centered(3)
WIDE = Box.centered(3, 1.5)  # where the radiance lives
RADIANCE = ("red", "green", "blue", "density")
SMALL = {"width": 16, "layers": 2, "resolution": 12, "log2_table": 8, "shape": 12, "steps": 20}


def distance(shape, size, x):
    """Signed distance of a ball or of a cube (that of the largest coordinate, inside and beside its faces)."""
    return x.norm(dim=-1, keepdim=True) - size if shape == "ball" else x.abs().amax(-1, keepdim=True) - size


def as_distance(shape, size):
    return FunctionField(lambda x: distance(shape, size, x), SPACE, 1, ("sdf",))


def as_radiance(shape, size):
    """The same shape, on a box of 3/2 the side: density 40 inside, in a colour that changes with the direction of view."""

    def field(x):
        inside = (distance(shape, 1.5 * size, x[..., :3]) < 0).to(x.dtype)
        return torch.cat([0.5 + 0.4 * x[..., 3:], 40 * inside], dim=-1)

    return FunctionField(field, Product(WIDE, Sphere()), 4, RADIANCE)


def radiance_formats():
    found = []
    for format in registry().all():
        options = {
            name: value for name, value in SMALL.items() if "build" in format.abilities() and name in format.options("build")
        }
        try:
            field = build_field(format.name, Product(WIDE, Sphere()), 4, **options)
        except InrBridgeError:
            continue
        if getattr(field, "channel_names", None) == RADIANCE:
            found.append(format.name)
    return found


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A store of balls and cubes in all installed formats: radiance in those made for it, distance in the others."""
    radiance = radiance_formats()
    fitted = [f.name for f in registry().all() if "build" in f.abilities() and not f.required("build")]
    formats = fitted * 4
    order = torch.randperm(len(formats), generator=torch.Generator().manual_seed(0)).tolist()
    kinds = ["ball" if i % 2 else "cube" for i in range(len(formats))]
    signals = [
        (as_radiance if formats[row] in radiance else as_distance)(kind, 0.4 + 0.01 * i)
        for i, (row, kind) in enumerate(zip(order, kinds, strict=True))
    ]
    chosen = [formats[row] for row in order]
    options = {
        name: {k: v for k, v in SMALL.items() if k in registry().get(name).options("build") or (k == "steps" and name != "grid")}
        for name in set(chosen)
    }
    path = tmp_path_factory.mktemp("shapes") / "store"
    fit(signals, chosen, path, names=[f"s{i}" for i in range(len(signals))], labels=kinds,
        splits=["train" if i % 4 < 2 else "test" for i in range(len(signals))], format_options=options)  # fmt: skip
    return path


def settings(store, out, **data):
    return {
        "data": {
            "store": str(store), "domain": SPACE.to_config(), "channels": ["occupancy"], "batch_size": 6, "ramp": 0.05, **data,
        },
        "points": {"n": 64, "eval_n": 64},
        "model": {"name": "convnet", "options": {"widths": [4], "resolution": 6}},
        "optimizer": {"steps": 3},
        "run": {"out": str(out), "device": "cpu", "threads": 1},
    }  # fmt: skip


def test_shapes_of_all_formats_train_together(shapes, tmp_path):
    summary = inrbridge.train(settings(shapes, tmp_path / "run", length=0.2, axes={"*": ["x", "y", "z"]}))
    assert summary.steps == 3
    view = read_card(tmp_path / "run").view
    assert (view["length"], view["ramp"], view["axes"], view["directions"]) == (0.2, 0.05, {"*": ["x", "y", "z"]}, None)
    first = inrbridge.evaluate(tmp_path / "run", shapes, split="test")
    assert first["fields"] == sum(item.split == "test" for item in inrbridge.Store(shapes).items)
    assert first["accuracy"] == pytest.approx(json.loads((tmp_path / "run" / "config.json").read_text())["metrics"]["accuracy"])


def test_new_fields_are_seen_as_those_of_training_were(shapes, tmp_path):
    crop = {"*": [[-0.75, -0.75, -0.75], [0.75, 0.75, 0.75]]}
    inrbridge.train(settings(shapes, tmp_path / "run", crop=crop, axes={"*": [2, "-0", 1]}, length=0.3))
    dataset = FieldDataset(shapes, domain=SPACE, channels="occupancy", crop=crop, axes=(2, "-0", 1), length=0.3, ramp=0.05)
    model = load_model(tmp_path / "run")
    store, answers, expected = inrbridge.Store(shapes), [], []
    for i, name in enumerate(dataset.names[:6]):
        save_field(store.field(store.names.index(name)), tmp_path / f"{name}.safetensors")
        answers += predict(model, tmp_path / f"{name}.safetensors")
        field = open_field(tmp_path / f"{name}.safetensors")
        seen = align(field, SPACE, "occupancy", crop=crop["*"], axes=(2, "-0", 1), length=0.3, ramp=0.05)
        x = SPACE.from_unit(torch.rand(50, 3, generator=torch.Generator().manual_seed(i)))
        torch.testing.assert_close(dataset.field(i)(x), seen(x), rtol=1e-5, atol=1e-5)
        expected += predict(_bare(model), dataset.field(i))
    assert [a["probabilities"] for a in answers] == [pytest.approx(e["probabilities"], abs=1e-5) for e in expected]


def _bare(model):
    """The same model for fields that are aligned already."""
    bare = deepcopy(model)
    bare.card = replace(model.card, view={})
    return bare


def test_nothing_of_the_format_is_left_in_the_values(tmp_path):
    """Of one shape exactly known in two units and as two kinds of field, the network sees one occupancy."""
    x = SPACE.from_unit(torch.rand(200, 3, generator=torch.Generator().manual_seed(3)))
    seen = [align(f("ball", 0.5), SPACE, "occupancy", length=0.5) for f in (as_distance, as_radiance)]
    torch.testing.assert_close(seen[0](x), seen[1](x), atol=1e-6, rtol=0)


def test_what_a_configuration_cannot_mean_is_refused(shapes, tmp_path):
    for key, value in (("directions", -1), ("directions", [0, 0]), ("directions", [0, 0, 0]), ("length", -1.0), ("ramp", -0.1)):
        with pytest.raises(ConfigError, match=f"data.{key}"):
            load_config({"data": {key: value}})
    with pytest.raises(CannotAlign, match=r"crop=.*expected a part of its Box"):
        inrbridge.train(settings(shapes, tmp_path / "a", crop={"*": [[-9, -9, -9], [9, 9, 9]]}))
    if radiance_formats():
        with pytest.raises(CannotAlign, match="direction of view"):
            FieldDataset(shapes, formats=radiance_formats(), domain=SPACE, channels="rgb")
        with pytest.raises(CannotAlign, match='"red" cannot be made'):
            FieldDataset(shapes, domain=SPACE, channels="rgb", directions=4)
        lit = FieldDataset(shapes, formats=radiance_formats(), channels=["rgb", "alpha"], directions=4)
        assert lit.domain == WIDE and lit.stack([0])(torch.zeros(1, 3)).shape == (1, 1, 4)
    assert FieldDataset(shapes, channels="occupancy").domain in (SPACE, WIDE)
