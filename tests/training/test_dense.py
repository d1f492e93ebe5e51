"""Training a net from fields to fields: targets are read at the very points asked for, losses are integrals."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_training import config
from torch import nn

from inrbridge import Box, FunctionField, GridField, fit, sampling, save_field, stack
from inrbridge.data.labelled import LabelledPoints
from inrbridge.data.targets import PointTargets, TargetFields
from inrbridge.errors import ConfigError, InrBridgeError, StoreError
from inrbridge.models.dense import DenseNet
from inrbridge.nn import Activation, Conv, Sampled, Sequential
from inrbridge.training import evaluate, load_model, predict, train
from inrbridge.training.augmenting import Views
from inrbridge.training.config import AugmentConfig, load_config
from inrbridge.training.distributed import World
from inrbridge.training.minibatches import Minibatches
from inrbridge.training.model_folder import Card
from inrbridge.training.seeding import generator
from inrbridge.training.tasks import Batch, Dense, Origin, make_task

BOX = Box.centered(2)
NAMES = [f"disc-{i}" for i in range(12)]
CENTRES = torch.rand(12, 2, generator=torch.Generator().manual_seed(3)) - 0.5


def disc(i: int):
    """The truth of item i at any coordinates: inside a disc or not."""
    return lambda x: ((x - CENTRES[i]).norm(dim=-1, keepdim=True) < 0.45).float()


class Discs:
    """Fields whose values tell the disc, softly and with an offset."""

    domain, channels, ranges, class_names = BOX, ("gray",), {}, []

    def __init__(self, items=range(12)):
        self.items = list(items)
        self.names = [NAMES[i] for i in self.items]
        self.formats = ["formula" if i % 2 else "wave" for i in self.items]

    def __len__(self):
        return len(self.items)

    def stack(self, indices):
        return stack([self.field(self.items[i]) for i in indices])

    def field(self, i):
        return FunctionField(
            lambda x, i=i: 0.3 + 0.5 * torch.sigmoid(20 * (0.45 - (x - CENTRES[i]).norm(dim=-1, keepdim=True))), BOX, 1
        )


class Small(DenseNet):
    name = "small-dense"

    def __init__(self, domain, in_channels, classes, *, skip=False, generator=None):
        super().__init__(domain, in_channels, classes, 64, {"skip": skip}, width=8, head=8, skip=skip, generator=generator)
        self.trunk = Sequential(Conv(in_channels, 8, 3, spacing=2 / 12, generator=generator), Activation("relu"))

    def features(self, sampled):
        return self.trunk(sampled)


SMALL = "test_dense:Small"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The net is named by its module, which pytest imports under a name of its own."""
    monkeypatch.setitem(sys.modules, "test_dense", sys.modules[__name__])


def points_table(m=80, **options) -> LabelledPoints:
    """Scattered points of its own for each item."""
    chance = torch.Generator().manual_seed(1)
    table = {}
    for i, name in enumerate(NAMES):
        coords = torch.rand(m + i, 2, generator=chance) * 2 - 1
        table[name] = (coords, disc(i)(coords)[:, 0].long())
    return LabelledPoints(table, BOX, **options)


def pixels(side=16, **options) -> LabelledPoints:
    """A grid of labels for each item."""
    centres = sampling.grid(BOX, (side, side)).points
    return LabelledPoints({n: disc(i)(centres).long().view(side, side) for i, n in enumerate(NAMES)}, BOX, **options)


class Truth:
    """A dataset of fields made of a function (coords, item)."""

    domain, names = BOX, NAMES

    def __init__(self, function=lambda x, i: disc(i)(x), channels=("inside",)):
        self.function, self.channels = function, channels

    def stack(self, indices):
        return stack([FunctionField(functools.partial(self.function, i=i), BOX, len(self.channels)) for i in indices])


def run(folder, truth, data=None, **sections):
    base = {"model": {"name": SMALL}, "optimizer": {"lr": 0.03, "steps": 40}, "points": {"n": 128, "pool": 4},
            "targets": {"n": 64}}  # fmt: skip
    merged = {k: {**base.get(k, {}), **sections.get(k, {})} for k in {*base, *sections}}
    return train(config(folder, **merged) | {"task": "dense"}, data or Discs(range(8)), eval_dataset=Discs(range(8, 12)),
                 targets=truth)  # fmt: skip


@pytest.mark.parametrize(("targets", "skip"), [(points_table(), False), (pixels(), True)], ids=["points", "pixels, skip"])
def test_it_learns_from_labelled_points(tmp_path, targets, skip):
    summary = run(tmp_path / "run", targets, model={"options": {"skip": skip}})
    figures = summary.metrics
    assert figures["miou"] > 0.8 and figures["accuracy"] > 0.9 and figures["fields"] == 4
    assert set(figures["iou_by_class"]) == {"0", "1"} and set(figures["miou_by_format"]) == {"formula", "wave"}
    every = sum(len(targets._items[name].labels) for name in NAMES[8:])
    assert np.sum(figures["confusion"]) == every  # all of them, whatever a step looks at
    again = evaluate(summary.model, Discs(range(8, 12)), targets=targets)
    assert again["miou"] == figures["miou"]
    other = evaluate(summary.model, Discs(range(8, 12)), targets=targets, sampler="sobol", n=256)
    assert other["miou"] > 0.7


@pytest.mark.parametrize("loss", ["mse", "l1", "bce", "cross_entropy"])
def test_it_learns_a_field_for_a_field(tmp_path, loss):
    def turned(x, i):
        return 1 - Discs().field(i)(x)

    truth = TargetFields(Truth(turned))
    if loss == "cross_entropy":
        truth = TargetFields(Truth(lambda x, i: torch.cat([1 - disc(i)(x), disc(i)(x)], -1), ("out", "in")), are_classes=True)
    easy = {"model": {"options": {"skip": True}}, "optimizer": {"steps": 80, "lr": 0.05}}
    figures = run(tmp_path / "run", truth, targets={"loss": loss, "n": 0}, **easy).metrics
    assert figures["miou"] > 0.8 if loss == "cross_entropy" else figures["mse"] < 0.01  # the best constant: 0.026
    assert loss == "cross_entropy" or figures["mae"] < 0.1


def test_resuming_and_several_shares_change_nothing(tmp_path):
    def go(name, **how):
        settings = config(tmp_path / name, model={"name": SMALL}, targets={"n": 20}, optimizer={"steps": 4}) | {"task": "dense"}
        return train(settings, Discs(), targets=points_table(), **how)

    whole = go("whole")
    go("parts", stop_at=2)
    resumed = go("parts", resume=True)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_shares_of_processes_are_parts_of_one_minibatch():
    settings = load_config({
        "task": "dense", "data": {"batch_size": 6}, "targets": {"n": 20}, "points": {"n": 64}, "run": {"device": "cpu"},
        "augment": {"shift": 0.1, "flip": [0], "brightness": 0.2},
    })  # fmt: skip
    data, model = Discs(), Small(BOX, 1, 2, skip=True)
    for targets in (points_table(), pixels(), TargetFields(Truth())):
        task = Dense(targets, n=20)
        whole, *parts = (
            Minibatches(settings, World(rank, size, torch.device("cpu")), data, task, 2).read(3, model)
            for rank, size in ((0, 1), (0, 2), (1, 2))
        )
        for pick in (lambda b: b.targets.coords.expand(len(b.seen), -1, -1), lambda b: b.targets.values, lambda b: b.seen,
                     lambda b: b.sampled.values):  # fmt: skip
            torch.testing.assert_close(torch.cat([pick(part) for part in parts]), pick(whole), atol=1e-5, rtol=1e-5)


def test_a_net_with_a_skip_sees_its_input_in_the_colours_of_the_trunk():
    """Where the points of the targets are those of the trunk, what the skip sees is what the trunk sees."""
    settings = load_config({"task": "dense", "data": {"batch_size": 4}, "points": {"n": 64}, "run": {"device": "cpu"},
                            "augment": {"shift": 0.1, "scale": 0.1, "brightness": 0.3, "contrast": 0.2}})  # fmt: skip
    data, model = Discs(), Small(BOX, 1, 2, skip=True)
    task = Dense(TargetFields(Truth()))
    batches = Minibatches(settings, World(0, 1, torch.device("cpu")), data, task, 3)
    batch = batches.read(1, model)
    task.n = 64  # other points: read again
    again = batches.read(1, model)
    assert torch.equal(batch.seen, batch.sampled.values) and torch.equal(again.sampled.values, batch.sampled.values)
    plain = data.stack(batches.items(1))(again.targets.coords)
    assert not torch.allclose(again.seen, plain)
    both = torch.cat([batch.seen, again.seen], 1).mean(1)  # the same fields at other points: nearly the same mean
    torch.testing.assert_close(both, batch.seen.mean(1), atol=0.03, rtol=0)


def origin(model, data, indices, **options):
    return Origin(model, data, indices, lambda coords: data.stack(indices)(coords), **options)


def sampled(data, indices, points):
    return Batch(Sampled(points, data.stack(indices)(points.points)), None)


def test_labels_are_read_at_the_points_asked_for():
    """The trap: labels of the nearest pixel, or of the points of the trunk, are other labels."""
    data, model = Discs(), Small(BOX, 1, 2)
    points = sampling.lattice(BOX, 64)
    chances = functools.partial(generator, 0)
    for targets in (points_table(), pixels(), TargetFields(Truth())):
        task = Dense(targets, n=13)
        for options in ({}, {"chances": chances}):
            found = task.complete(sampled(data, [4, 2], points), origin(model, data, [4, 2], **options)).targets
            coords = found.coords.expand(2, -1, -1) if found.coords.ndim == 2 else found.coords
            truth = torch.stack([disc(4)(coords[0]), disc(2)(coords[1])])[..., 0]
            scored = found.weights.expand(2, -1) > 0
            values = found.values[..., 0] if found.values.ndim == 3 else found.values
            assert torch.equal(values[scored].float(), truth[scored])
            assert not options or coords.shape[1] == 13
        trunk = points.points[:13]
        assert not torch.equal(truth, torch.stack([disc(4)(trunk), disc(2)(trunk)])[..., 0])


def test_under_augmentation_labels_move_with_the_field():
    data, model = Discs(), Small(BOX, 1, 2, skip=True)
    augment = AugmentConfig(flip=(0, 1), shift=0.2, scale=0.3, rotate=0.5)
    views = Views.draw(BOX, augment, 2, torch.Generator().manual_seed(0))
    points = sampling.lattice(BOX, 64)
    back = views.back(views.onto(points.points))
    torch.testing.assert_close(back, points.points.expand(2, -1, -1), atol=1e-5, rtol=1e-5)

    def read(coords):
        return data.stack([0, 1])(views.there(coords))

    for targets in (pixels(), points_table(), TargetFields(Truth())):
        batch = Batch(Sampled(points, read(points.points)), None)
        batch = Dense(targets).complete(batch, Origin(model, data, [0, 1], read, views))
        found = batch.targets
        there = views.there(found.coords)
        truth = torch.stack([disc(i)(there[i])[:, 0] for i in range(2)])
        values = found.values[..., 0] if found.values.ndim == 3 else found.values
        scored = found.weights.expand(2, -1) > 0
        clear = torch.stack([((there[i] - CENTRES[i]).norm(dim=-1) - 0.45).abs() > 1e-3 for i in range(2)])
        assert torch.equal(values.float()[scored & clear], truth[scored & clear]) and scored.float().mean() > 0.3
        torch.testing.assert_close(batch.seen, data.stack([0, 1])(there), atol=1e-4, rtol=1e-4)
        unmoved = torch.stack([disc(i)(found.coords.expand(2, -1, -1)[i])[:, 0] for i in range(2)])
        assert not torch.equal(values.float()[scored & clear], unmoved[scored & clear])  # negative control


def test_losses_of_target_fields_are_integrals():
    """Clustered points with their weights give the loss of even ones; without the weights they do not (negative control)."""
    data = Discs([5])

    class Fixed(nn.Module):
        def forward(self, sampled, at, seen=None):
            return at.sum(-1, keepdim=True)[None]

    def loss(points, weighted=True):
        task = Dense(TargetFields(Truth()), "mse")
        batch = task.complete(sampled(data, [0], points), origin(Fixed(), data, [0]))
        if not weighted:
            batch = batch.with_targets(PointTargets(batch.targets.coords, batch.targets.values, torch.ones(1, len(points))), None)
        return float(task.losses(Fixed(), batch)[0])

    truth = loss(sampling.sobol(BOX, 2**14))
    clustered = sampling.shrunk(BOX, 2**12, torch.Generator().manual_seed(0), weights="density")
    assert abs(loss(clustered) - truth) < 0.05 * truth < abs(loss(clustered, weighted=False) - truth)


def test_losses_equal_those_of_torch():
    outputs = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, -1, 1, 0], [2, 2, 0, 1, -1, -1]])
    coords = torch.rand(6, 2, generator=torch.Generator().manual_seed(1))
    weights = (0.5, 1.0, 2.0)

    def losses(**options):
        table = LabelledPoints({f"{i}": (coords, labels[i]) for i in range(2)}, BOX, class_names="abc")
        task = Dense(table, **options)
        found = table.at(["0", "1"], sampling.lattice(BOX, 4))
        batch = Batch(None, None).with_targets(found, None)

        class Given(nn.Module):
            def forward(self, sampled, at, seen=None):
                return outputs

        return task.losses(Given(), batch)[0]

    plain = nn.functional.cross_entropy
    for i, (own, y) in enumerate(zip(outputs, labels, strict=True)):
        torch.testing.assert_close(losses()[i], plain(own, y, ignore_index=-1))
        torch.testing.assert_close(losses(class_weights=weights)[i], plain(own, y, torch.tensor(weights), ignore_index=-1))
        smooth = plain(own, y, ignore_index=-1, label_smoothing=0.1)
        torch.testing.assert_close(losses(label_smoothing=0.1)[i], smooth)
        hot = nn.functional.one_hot(y.clamp(min=0), 3).float()
        bce = nn.functional.binary_cross_entropy_with_logits(own, hot, reduction="none").mean(-1)[y >= 0].mean()
        torch.testing.assert_close(losses(loss="bce")[i], bce)


def test_the_figures_are_those_of_the_whole_split():
    table = LabelledPoints(
        {"a": torch.tensor([[0, 1], [2, 9]]), "b": torch.tensor([[1, 1], [9, 0]])}, BOX, class_names="abcd", ignore=9
    )
    task = Dense(table)
    tally = task.tally(4, ["x", "y"])
    taken = {"a": [0, 1, 1, 3], "b": [1, 0, 2, 0]}
    for place, name in enumerate("ab"):
        batch = Batch(None, None, torch.tensor([place])).with_targets(table.at([name], sampling.lattice(BOX, 4)), None)
        tally.add(torch.zeros(1), nn.functional.one_hot(torch.tensor([taken[name]]), 4).float(), batch)
    figures = tally.result()
    assert figures["confusion"] == [[2, 0, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert figures["iou_by_class"] == pytest.approx({"a": 2 / 3, "b": 2 / 4, "c": 0.0})  # "d" is nowhere
    assert figures["miou"] == pytest.approx((2 / 3 + 1 / 2) / 3) and figures["accuracy"] == pytest.approx(4 / 6)
    assert figures["miou_by_format"] == pytest.approx({"x": (1 + 1 / 2 + 0) / 3, "y": (1 / 2 + 1 / 2) / 2})


def test_predictions_are_fields_with_the_names_of_the_classes(tmp_path):
    targets = pixels(class_names=("outside", "inside"))
    summary = run(tmp_path / "run", targets)
    centres = sampling.grid(BOX, (12, 12)).points
    grid = GridField(Discs().field(9)(centres).view(12, 12, 1), BOX, channel_names=("gray",))
    (answer,) = predict(summary.model, grid)
    field = answer["field"]
    assert field.channel_names == ("outside", "inside") and field.are_classes
    taken = field(centres).argmax(-1)
    assert (taken == disc(9)(centres)[:, 0]).float().mean() > 0.9
    share = float((field(sampling.lattice(BOX, 2048).points).argmax(-1) == 1).float().mean())
    assert abs(answer["shares"]["inside"] - share) < 0.05 and sum(answer["shares"].values()) == pytest.approx(1)
    card = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (card["task"], card["activation"], card["class_names"]) == ("dense", "softmax", ["outside", "inside"])
    loaded = load_model(tmp_path / "run", trusted=["test_dense"])
    assert torch.equal(predict(loaded, grid)[0]["field"](centres), field(centres))


def test_from_files_to_a_model_and_back(tmp_path):
    centres = sampling.grid(BOX, (12, 12)).points
    images = [Discs().field(i)(centres).view(12, 12).numpy() for i in range(12)]
    fit(images, "grid", tmp_path / "store", names=NAMES, splits=["train"] * 8 + ["test"] * 4)
    labels = np.stack([disc(i)(centres).view(12, 12).numpy().astype(np.uint8) for i in range(12)])
    np.savez(tmp_path / "table.npz", labels=labels, names=np.array(NAMES))
    np.savez(tmp_path / "named.npz", **dict(zip(NAMES, labels, strict=True)))
    for i, name in enumerate(NAMES):
        (tmp_path / "folder").mkdir(exist_ok=True)
        np.save(tmp_path / "folder" / f"{name}.npy", labels[i])
        coords = centres.numpy()[: 100 + i]
        (tmp_path / "points").mkdir(exist_ok=True)
        np.savez(tmp_path / "points" / f"{name}.npz", coords=coords, labels=labels[i].ravel()[: 100 + i])
    fit([label.astype(np.float32) for label in labels], "grid", tmp_path / "truth", names=NAMES)
    figures = {}
    for source in ("table.npz", "named.npz", "folder", "points", "truth"):
        settings = config(tmp_path / f"run-{source}", data={"store": str(tmp_path / "store")}, model={"name": SMALL},
                          targets={"source": str(tmp_path / source), "n": 50}, optimizer={"steps": 5})  # fmt: skip
        summary = train(settings | {"task": "dense"})
        figures[source] = summary.metrics
        loaded = load_model(tmp_path / f"run-{source}", trusted=["test_dense"])
        measured = evaluate(loaded, tmp_path / "store", split="test")
        assert {k: measured[k] for k in summary.metrics} == summary.metrics
    assert figures["table.npz"] == figures["named.npz"] == figures["folder"]
    assert figures["points"]["confusion"] != figures["folder"]["confusion"] and "mse" in figures["truth"]


def test_outputs_replace_outputs_and_nothing_else(tmp_path):
    """Neither inputs, wherever they lie, nor files of others."""
    model = Small(BOX, 1, 2, generator=torch.Generator().manual_seed(0)).eval()
    points = {"sampler": "lattice", "n": 64, "seed": 0}
    model.card = Card({**model.config(), "name": SMALL}, "dense", ["gray"], ["a", "b"], points=points)
    for place in ("in", "out"):
        (tmp_path / place).mkdir()
        save_field(GridField(torch.zeros(4, 4, 1), BOX, channel_names=("gray",)), tmp_path / place / "x.safetensors")
    (tmp_path / "out" / "y.safetensors").write_bytes(b"of another kind")
    save_field(GridField(torch.ones(4, 4, 1), BOX, channel_names=("gray",)), tmp_path / "in" / "y.safetensors")
    before = (tmp_path / "out" / "x.safetensors").read_bytes()
    files = [tmp_path / "in" / "x.safetensors", tmp_path / "in" / "y.safetensors", tmp_path / "out" / "x.safetensors"]
    for _ in range(2):
        written = [Path(a["output"]).name for a in predict(model, files, out=tmp_path / "out")]
        assert written == ["x-2.safetensors", "y-2.safetensors", "x-3.safetensors"]
    assert (tmp_path / "out" / "x.safetensors").read_bytes() == before
    assert (tmp_path / "out" / "y.safetensors").read_bytes() == b"of another kind"
    with pytest.raises(ConfigError, match="make it first"):
        predict(model, files, out=tmp_path / "absent")


def test_settings_that_do_not_fit_are_refused(tmp_path):
    data, few = Discs(), LabelledPoints({NAMES[0]: torch.zeros(2, 2).long()}, BOX, class_names="ab")
    with pytest.raises(StoreError, match="11 of 12 fields without targets: disc-1, disc-2"):
        Dense(few).outputs(data)
    with pytest.raises(StoreError, match="one domain"):
        Dense(LabelledPoints(dict.fromkeys(NAMES, torch.zeros(2, 2).long()), Box.unit(2), class_names="ab")).outputs(data)
    with pytest.raises(ConfigError, match="targets that are classes"):
        Dense(few, "mse")
    with pytest.raises(ConfigError, match="3 class weights"):
        Dense(few, class_weights=(1, 2, 3))
    with pytest.raises(ConfigError, match="at least two"):
        Dense(LabelledPoints({"a": torch.zeros(2, 2).long()}, BOX))
    for settings, reason in [
        ({"task": "dense"}, "Got no targets"),
        ({"targets": {"source": "x.npz"}}, 'for the task "classification"'),
        ({"task": "dense", "targets": {"source": str(tmp_path / "none")}}, "There is nothing at"),
        ({"task": "dense", "targets": {"loss": "hinge"}}, "one of cross_entropy"),
    ]:
        with pytest.raises(InrBridgeError, match=reason):
            make_task(load_config(settings), BOX)
    with pytest.raises(ConfigError, match='"convnet", which is for classification'):
        run(tmp_path / "run", pixels(), model={"name": "convnet"})
    with pytest.raises(ConfigError, match="Got no targets"):
        evaluate(Small(BOX, 1, 2), data, task="dense")
