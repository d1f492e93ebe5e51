"""A run that goes on from a model folder: a converted network is fine-tuned, and another kind of model is refused."""

import json

import numpy as np
import pytest
import torch
from fake_training import MemoryDataset
from torch import nn

from inrbridge import Box, convert, evaluate, fit, train
from inrbridge.cli.main import main
from inrbridge.errors import ConfigError, MissingFile
from inrbridge.training import load_config, load_model, save_model
from inrbridge.training.model_folder import Card

NAMES = ["across", "down"]


def discrete(classes: int = 2, channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))  # fmt: skip


def saved(folder, module, class_names, **options):
    net = convert(module, Box.centered(2), 12, **options)
    save_model(folder, net, Card.of(net, channels=["gray"] if net.in_channels == 1 else None, class_names=class_names))
    return folder


@pytest.fixture
def start(tmp_path):
    return saved(tmp_path / "start", discrete(), NAMES)


def settings(start, out, **more):
    return {"model": {"init": str(start)}, "points": {"n": 144, "pool": 2}, "data": {"batch_size": 12},
            "optimizer": {"steps": 12, "lr": 0.02}, **more,
            "run": {"out": str(out), "device": "cpu", "log_every": 1, "eval_every": 0, "checkpoint_every": 5}}  # fmt: skip


def test_a_converted_net_is_fine_tuned(start, tmp_path):
    data = MemoryDataset()
    summary = train(settings(start, tmp_path / "run", optimizer={"steps": 40, "lr": 0.03}), data, eval_dataset=data)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"] and summary.metrics["accuracy"] >= 0.75
    tuned, before = load_model(tmp_path / "run"), load_model(start)
    assert tuned.card.model["name"] == "converted" and tuned.card.training["model"]["init"] == str(start)
    assert not torch.equal(tuned.network.get_submodule("0").weight, before.network.get_submodule("0").weight)
    x = torch.rand(2, 1, 12, 12)
    assert tuned(x).shape == (2, 2) and not torch.allclose(tuned(x), before(x), atol=1e-3)


def test_its_first_step_sees_the_weights_of_the_folder(start, tmp_path):
    data = MemoryDataset(12)
    config = settings(start, tmp_path / "run", points={"n": 144, "pool": 1}, optimizer={"steps": 1, "lr": 1e-9})
    first = train(config, data).loss
    from inrbridge.training.points import PointSource

    points = PointSource(data.domain, load_config(config).points, 0).draw(0).discretization
    net = load_model(start).train()  # normalization by the batch, as in the step
    stack, labels = data.batch(range(12))
    assert first == pytest.approx(float(nn.functional.cross_entropy(net(stack, points), labels).detach()), rel=1e-4)


def test_it_resumes(start, tmp_path):
    whole = train(settings(start, tmp_path / "a"), MemoryDataset())
    train(settings(start, tmp_path / "b"), MemoryDataset(), stop_at=5)
    again = train(settings(start, tmp_path / "b"), MemoryDataset(), resume=True)
    pairs = zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_trained_model_of_ours_is_a_start_too(tmp_path):
    first = settings("", tmp_path / "first", model={"options": {"widths": [4, 4], "resolution": 12}})
    train(first, MemoryDataset())
    summary = train(settings(tmp_path / "first", tmp_path / "second"), MemoryDataset())
    assert summary.model.name == "convnet" and load_model(tmp_path / "second").card.model["name"] == "convnet"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"model": {"init": "START", "options": {"widths": [4]}}}, ConfigError, "one of them"),
        ({"model": {"init": "nowhere"}}, MissingFile, "nowhere"),
        ({"task": "dense"}, ConfigError, "targets"),
        ({"task": "generation"}, ConfigError, "for classification"),
    ],
)
def test_what_does_not_fit_is_told(start, tmp_path, change, error, said):
    config = {**settings(start, tmp_path / "run"), **change}
    if config["model"]["init"] == "START":
        config["model"] = {**config["model"], "init": str(start)}
    with pytest.raises(error, match=said):
        train(config, MemoryDataset())
    assert not (tmp_path / "run").exists()


def test_other_classes_channels_and_outputs_are_refused(tmp_path):
    for i, (module, names, said) in enumerate(
        [
            (discrete(), ["down", "across"], "same order"),
            (discrete(3), None, "3 outputs"),
            (discrete(channels=2), NAMES, "2 channels"),
        ]
    ):
        with pytest.raises(ConfigError, match=said):
            train(settings(saved(tmp_path / f"start{i}", module, names), tmp_path / "run"), MemoryDataset())


def test_the_verbs_take_domain_channels_and_classes_of_the_folder(start, tmp_path, capsys):
    from fake_training import striped_grid

    from inrbridge import pack, save_field

    for i in range(8):
        place = tmp_path / "fields" / ("down" if i % 2 else "across")
        place.mkdir(parents=True, exist_ok=True)
        save_field(striped_grid(bool(i % 2), i * 0.1), place / f"{i}.safetensors")
    pack(tmp_path / "fields", tmp_path / "store")
    words = ["--set", f"model.init={start}", "--set", f"data.store={tmp_path / 'store'}", "--set", 'data.train_split=""',
             "--set", 'data.eval_split=""', "--set", "optimizer.steps=2", "--set", "points.n=144",
             "--set", "run.device=cpu"]  # fmt: skip
    assert main(["config", "check", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"].startswith("converted, ")
    assert main(["train", *words, "--set", f"run.out={tmp_path / 'run'}"]) == 0
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--sampler", "lattice", "grid", "--n", "144", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [r["n"] for r in results] == [144, 144] and results[0]["classes"] == NAMES


def test_a_converted_net_of_maps_is_fine_tuned_on_labels(tmp_path):
    """Bright pixels are to be told from dark ones: the net begins with weights that know nothing of it."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    start = saved(tmp_path / "start", module, ["dark", "bright"])
    chance = np.random.default_rng(0)
    pictures = [chance.random((12, 12)).astype(np.float32) for _ in range(8)]
    fit(pictures, "grid", tmp_path / "store", names=[str(i) for i in range(8)])
    (tmp_path / "labels").mkdir()
    for i, picture in enumerate(pictures):
        np.save(tmp_path / "labels" / f"{i}.npy", (picture > 0.5).astype(np.int64))
    config = {
        **settings(start, tmp_path / "run", optimizer={"steps": 60, "lr": 0.05}), "task": "dense",
        "data": {"store": str(tmp_path / "store"), "train_split": "", "eval_split": "", "batch_size": 4},
        "targets": {"source": str(tmp_path / "labels"), "n": 0, "class_names": ["dark", "bright"]},
        "points": {"n": 144, "sampler": "grid", "eval_sampler": "grid"},
    }  # fmt: skip
    before = evaluate(start, tmp_path / "store", targets=str(tmp_path / "labels"), sampler="grid", n=144)["accuracy"]
    train(config)
    tuned = load_model(tmp_path / "run")
    after = evaluate(tuned, tmp_path / "store", targets=str(tmp_path / "labels"))["accuracy"]
    assert tuned.card.task == "dense" and tuned.card.model["name"] == "converted-dense" and tuned.card.activation == "softmax"
    assert after > 0.9 > before
