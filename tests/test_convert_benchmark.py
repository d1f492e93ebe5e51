"""The benchmark of conversion runs from one end to the other on made-up images and random weights."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from discrete.cifar_resnet import FILES, CifarResNet
from discrete.espnet import FILE, ESPNet
from PIL import Image


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module("convert")
    for name in {"convert", "convert_tasks", "cifar_fields"} & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise for images, networks of random weights, whose batch norms have seen the images."""
    out, rng = tmp_path_factory.mktemp("shared"), np.random.default_rng(0)
    data = out / "data"
    (data / "pretrained").mkdir(parents=True)
    images = rng.integers(0, 255, (24, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    np.savez(data / "cifar10.npz", x_test=images, y_test=rng.integers(0, 10, 24), x_train=images, y_train=rng.integers(0, 10, 24))
    large = rng.integers(0, 255, (2, 10, 13, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)  # 80 x 104 pixels
    small = large[:, :32, :40]
    labels = {"y_val": rng.integers(0, 12, (2, 32, 40)), "y_val_360x480": rng.integers(0, 12, (2, 80, 104))}
    np.savez(data / "camvid.npz", x_val=small, x_val_360x480=large, x_train=small, **labels)
    torch.manual_seed(0)
    resnet, espnet = CifarResNet(20), ESPNet()
    with torch.no_grad():
        for net, seen in ((resnet, images), (espnet, small)):
            net.train()(torch.from_numpy(seen).permute(0, 3, 1, 2) / 128 - 1)
    state = {f"module.{name}": value for name, value in resnet.state_dict().items()}
    torch.save({"state_dict": state}, data / "pretrained" / FILES[20])
    torch.save(espnet.state_dict(), data / "pretrained" / FILE)
    return out


def lines(benchmark, capsys, folder, *options) -> list[dict]:
    benchmark.main([str(a) for a in ("--json", "--folder", folder, *options)])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_classifier_under_both_rules(benchmark, capsys, folder):
    options = ("--images", 8, "--points", 256, "--stage", "discrete", "grid", "uncalibrated")
    found = lines(benchmark, capsys, folder, *options)
    cells = {(x["stage"], x["rule"], x["sampler"]): x for x in found}
    first = cells["discrete", "pixels", "grid"]
    for x in found:
        assert x["discrete_accuracy"] == first["accuracy"] and x["net"] == "resnet20" and x["images"] == 8
        assert (x["points"] == 256) == (x["sampler"] != "grid") and x["seconds"] >= 0
    for rule in ("reconstruct", "spline"):
        exact = cells["grid", rule, "grid"]
        assert exact["accuracy"] == first["accuracy"] and exact["agreement"] == 100
    assert len(found) == 1 + 2 * (1 + 2)


def test_a_classifier_after_adapting(benchmark, capsys, folder):
    options = ("--images", 4, "--points", 256, "--training", 16, "--learned", 16, "--steps", 1, "--sampler", "sobol")
    stages = ("uncalibrated", "statistics", "finetuned")
    found = lines(benchmark, capsys, folder, *options, "--rule", "reconstruct", "--stage", *stages)
    assert [x["stage"] for x in found] == list(stages)
    assert [x["adapting"] > 0.05 for x in found] == [False, True, True]


@pytest.mark.parametrize("resolution", ["32x40", "64x80"])
def test_a_segmentation_net(benchmark, capsys, folder, resolution, monkeypatch):
    monkeypatch.setattr(sys.modules["convert_tasks"], "SMALL", (32, 40))
    asked = "--net espnet --rule reconstruct --sampler lattice --levels inner-grids --stage discrete grid uncalibrated"
    options = (*asked.split(), "--resolution", resolution)
    found = {x["stage"]: x for x in lines(benchmark, capsys, folder, *options)}
    assert list(found) == ["discrete", "grid", "uncalibrated"]
    for x in found.values():
        assert x["discrete_miou"] == found["discrete"]["miou"] and x["points"] == math.prod(map(int, resolution.split("x")))
    assert found["grid"]["agreement"] == 100 and found["uncalibrated"]["agreement"] > 50


def test_overlap_of_known_decisions(benchmark, folder, monkeypatch):
    monkeypatch.setattr(sys.modules["convert_tasks"], "SMALL", (32, 40))
    task = sys.modules["convert_tasks"].Segmentation(folder, "32x40", 2)
    assert task.scores(task.labels) == {"miou": 100.0, "accuracy": 100.0}
    task.labels = torch.tensor([[0, 0, 1, 1, 11, 11]])  # the last two have no label
    found = task.scores(torch.tensor([[0, 1, 1, 1, 0, 1]]))
    assert found == {"miou": pytest.approx(100 * (1 / 2 + 2 / 3) / 2, abs=0.01), "accuracy": 75.0}
    assert task.scores(torch.tensor([[0, 0, 1, 11, 0, 0]]))["miou"] == pytest.approx(100 * (1 + 1 / 2) / 2, abs=0.01)


def test_times_and_a_picture(benchmark, capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["convert_tasks"], "SMALL", (32, 40))
    found = lines(benchmark, capsys, folder, "--time", "--points", 256, "--repeats", 1, "--images", 2, "--rule", "reconstruct")
    assert [(x["sampler"], x["oversampling"], x["levels"]) for x in found] == [
        (sampler, *setting)
        for sampler in ("lattice", "sobol")
        for setting in ((1.0, "points"), (4.0, "points"), (4.0, "inner-grids"), (4.0, "grids"))
    ]
    assert all(x["ratio_points"] > 0 and x["seconds_discrete"] > 0 for x in found)
    path = tmp_path / "scene.png"
    assert lines(benchmark, capsys, folder, "--picture", path, "--resolution", "32x40", "--levels", "inner-grids") == []
    with Image.open(path) as picture:
        assert len(picture.getcolors(10**6)) > 5
