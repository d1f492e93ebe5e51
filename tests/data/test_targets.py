"""Targets on disk: every layout of labels gives the same points, what is drawn of them, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from inrbridge import Box, GridField, LabelledPoints, pack, sampling, save_field
from inrbridge.data.targets import TargetFields, open_targets
from inrbridge.errors import ConfigError, InrBridgeError, MissingFile, StoreError

BOX, NAMES = Box.centered(2), ("train/a", "b")
LABELS = {"train/a": torch.tensor([[0, 1, 2], [2, 2, 9]]), "b": torch.tensor([[1, 1, 0], [9, 0, 2]])}
POINTS = sampling.lattice(BOX, 8)


def table():
    return LabelledPoints(LABELS, BOX, class_names="xyz", ignore=9)


def write(kind, folder):
    """Write LABELS in one of the layouts; return where."""
    centres = sampling.grid(BOX, (2, 3)).points
    stacked = torch.stack([LABELS[name] for name in NAMES])
    if kind == "table":
        np.savez(folder / "t.npz", labels=stacked.numpy(), names=np.array(NAMES))
    elif kind == "table with shared points":
        np.savez(folder / "t.npz", labels=stacked.flatten(1).numpy(), coords=centres.numpy(), names=np.array(NAMES))
    elif kind == "table with points of its own":
        coords = centres.expand(2, -1, -1).numpy()
        np.savez(folder / "t.npz", labels=stacked.flatten(1).numpy(), coords=coords, names=np.array(NAMES))
    elif kind == "names in npz":
        np.savez(folder / "t.npz", **{name: labels.numpy() for name, labels in LABELS.items()})
    elif kind == "names in safetensors":
        parts = {f"{name}.labels": labels.flatten() for name, labels in LABELS.items()}
        save_file({**parts, **{f"{name}.coords": centres.clone() for name in NAMES}}, folder / "t.safetensors")
        return folder / "t.safetensors"
    else:
        place = folder / "t"
        for name, labels in LABELS.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            if kind == "folder of png":
                Image.fromarray(labels.numpy().astype(np.uint8)).save(place / f"{name}.png")
            else:
                np.savez(place / f"{name}.npz", labels=labels.flatten().numpy(), coords=centres.numpy())
        return place
    return folder / "t.npz"


LAYOUTS = ["table", "table with shared points", "table with points of its own", "names in npz", "names in safetensors",
           "folder of png", "folder of npz"]  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_gives_the_same_points(tmp_path, kind):
    found = open_targets(write(kind, tmp_path), BOX, class_names="xyz", ignore=9)
    assert isinstance(found, LabelledPoints) and found.names == ("x", "y", "z") and found.are_classes
    assert found.missing(["b", "c", "train/a"]) == ["c"]
    truth, own = table().at(NAMES, POINTS), found.at(NAMES, POINTS)
    coords = own.coords if own.coords.ndim == 2 else own.coords[0]
    torch.testing.assert_close(coords, truth.coords)
    assert torch.equal(own.values, truth.values) and torch.equal(own.weights, truth.weights)
    assert truth.weights.sum() == 10  # two points are not scored


def test_points_of_other_numbers_are_padded_at_no_weight_and_weights_are_the_items_own():
    weighted = (torch.zeros(2, 2), torch.tensor([1, 0]), torch.tensor([2.0, 0.5]))
    found = LabelledPoints({"a": weighted, "b": (torch.ones(3, 2), torch.tensor([0, 1, 1]))}, BOX).at(["a", "b"], POINTS)
    assert found.coords.shape == (2, 3, 2)
    assert found.weights.tolist() == [[2.0, 0.5, 0.0], [1.0, 1.0, 1.0]] and found.values[0, :2].tolist() == [1, 0]


def test_real_labels_keep_their_channels():
    values = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    found = LabelledPoints({"a": values}, BOX, class_names=("depth", "height"))
    assert not found.are_classes and found.names == ("depth", "height")
    assert torch.equal(found.at(["a"], POINTS).values[0], values.view(6, 2))
    alone = LabelledPoints({"a": (torch.zeros(4, 2), torch.arange(4.0))}, BOX)
    assert alone.names == ("0",) and alone.at(["a"], POINTS).values.shape == (1, 4, 1)


def test_drawn_points_are_some_of_all_and_follow_from_the_chance():
    def chances(*what):
        return torch.Generator().manual_seed(len(str(what)))

    whole, some = table().at(NAMES, POINTS), table().at(NAMES, POINTS, 4, chances)
    assert some.values.shape == (2, 4) and torch.equal(table().at(NAMES, POINTS, 4, chances).values, some.values)
    for place, values in zip(some.coords, some.values.T, strict=True):
        (row,) = (whole.coords == place).all(1).nonzero()[:, 0].tolist()
        assert torch.equal(whole.values[:, row], values)
    assert table().at(NAMES, POINTS, 4).values.shape == (2, 6)  # an evaluation takes all


def test_target_fields_are_read_at_any_points(tmp_path):
    fields = {"a": GridField(torch.rand(4, 4, 1), Box.unit(2)), "b": GridField(torch.rand(4, 4, 1), Box.unit(2))}
    (tmp_path / "in").mkdir()
    for name, field in fields.items():
        save_field(field, tmp_path / "in" / f"{name}.safetensors")
    pack(tmp_path / "in", tmp_path / "store")
    for place in ("in", "store"):
        found = open_targets(tmp_path / place, BOX)  # seen on the domain of the dataset
        assert isinstance(found, TargetFields) and found.missing(["b", "z"]) == ["z"]
        at = found.at(["b", "a"], POINTS)
        truth = torch.stack([fields[name]((POINTS.points + 1) / 2) for name in ("b", "a")])
        torch.testing.assert_close(at.values, truth)
        assert at.coords is POINTS.points and torch.equal(at.weights[0], POINTS.weights)
        drawn = found.at(["a"], POINTS, 16, lambda *what: torch.Generator().manual_seed(1))
        torch.testing.assert_close(drawn.values[0], fields["a"]((drawn.coords + 1) / 2))
        assert drawn.coords.shape == (16, 2) and not torch.equal(drawn.coords[:8], POINTS.points)


def test_what_is_no_target_is_refused(tmp_path):
    with pytest.raises(MissingFile, match="There is nothing at"):
        open_targets(tmp_path / "none", BOX)
    (tmp_path / "x.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match=r"\.npz, \.safetensors"):
        open_targets(tmp_path / "x.json", BOX)
    np.savez(tmp_path / "nameless.npz", labels=np.zeros((2, 3, 3), int))
    with pytest.raises(StoreError, match='2 rows of "labels" and 0 "names"'):
        open_targets(tmp_path / "nameless.npz", BOX)
    np.savez(tmp_path / "half.npz", **{"a.coords": np.zeros((2, 2))})
    with pytest.raises(StoreError, match=r'"a\.labels" too'):
        open_targets(tmp_path / "half.npz", BOX)
    (tmp_path / "colours").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "colours" / "a.png")
    with pytest.raises(ConfigError, match="a class for each pixel"):
        open_targets(tmp_path / "colours", BOX)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_bytes(b"\x89PNG\r\n broken")
    with pytest.raises(InrBridgeError, match=r"a\.png"):
        open_targets(tmp_path / "damaged", BOX)
    np.savez(tmp_path / "classes.npz", a=np.array([[0, 7]]))
    with pytest.raises(StoreError, match=r'classes\.npz do not fit\. Got the class 7 at 1 points of "a"'):
        open_targets(tmp_path / "classes.npz", BOX, class_names="xy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFile):
        open_targets(tmp_path / "empty", BOX)


@pytest.mark.parametrize(
    ("labels", "options", "reason"),
    [
        ({"a": torch.tensor([[0, 5]])}, {"class_names": "xy"}, 'class 5 at 1 points of "a"'),
        ({"a": torch.tensor([[0, -1], [255, 1]])}, {"class_names": "xy"}, "class 255"),
        ({"a": (torch.tensor([[0.0, 3.0]]), torch.tensor([1]))}, {}, 'labels of "a" do not fit. Got 1 of 1 points outside'),
        ({"a": (torch.zeros(2, 3), torch.tensor([1, 0]))}, {}, r"expected \(m, 2\)"),
        ({"a": (torch.zeros(2, 2), torch.tensor([1]))}, {}, r"\(m,\) or \(m, k\)"),
        ({"a": torch.zeros(3)}, {}, "expected a grid of 2 axes"),
        ({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2, 3)}, {}, "several kinds"),
        ({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2).long()}, {}, "several kinds"),
        ({"a": torch.full((2, 2), float("nan"))}, {}, "NaN"),
        ({"a": torch.zeros(2, 2, 3)}, {"class_names": "xy"}, "3 numbers at each point and 2 names"),
        ({"a": (torch.zeros(2, 2), torch.zeros(2), -torch.ones(2))}, {}, "weights"),
        ({}, {}, "no labelled points"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, options, reason):
    with pytest.raises(InrBridgeError, match=reason):
        LabelledPoints(labels, BOX, **options)
