"""The benchmark of robustness runs from one end to the other on a handful of images, and goes on where it was stopped."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parent / "benchmarks" / "robustness.py"
    spec = importlib.util.spec_from_file_location("robustness", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def folder(tmp_path):
    """Images of discs (class 0) and bars (class 1), 28x28 grey."""
    rng, y = np.random.default_rng(0), np.tile([0, 1], 40)
    i, j = np.mgrid[-1:1:28j, -1:1:28j]
    shapes = np.stack([np.hypot(i, j) < 0.6, np.abs(i) < 0.2])
    x = np.uint8(200 * shapes[y] + rng.integers(0, 40, (80, 28, 28)))
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "fashion_mnist.npz", x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
    return tmp_path


def lines(benchmark, capsys, folder, *options):
    arguments = ["--folder", folder, "--out", folder / "runs", "--pool", "4", "--batch", "16", "--epochs", "6", *options]
    benchmark.main([str(a) for a in arguments])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_from_images_to_differences(benchmark, capsys, folder):
    first = lines(benchmark, capsys, folder, "--nets", "own", "--part", "points")
    cells, differences = [x for x in first if "accuracy" in x], [x for x in first if "part" in x]
    assert {(x["sampler"], x["n"]) for x in cells} == {(s, n) for s in benchmark.SAMPLERS for n in benchmark.TESTED_ON}
    assert np.mean([x["accuracy"] for x in cells]) > 90  # discs and bars are easily told apart
    accuracy = {(x["sampler"], x["n"]): x["accuracy"] for x in cells}
    for x in differences:
        a, b = ((s, int(n)) for s, n in (side.split() for side in x["difference"].split(" - ")))
        assert x["points"] == pytest.approx(accuracy[a] - accuracy[b], abs=0.01) and x["error"] >= 0
    assert lines(benchmark, capsys, folder, "--nets", "own", "--part", "points") == first  # what was measured is kept


@pytest.mark.parametrize("net", ["given", "pixels"])
def test_other_nets(benchmark, capsys, folder, monkeypatch, net):
    monkeypatch.setattr(benchmark, "TESTED_ON", (1024,))
    found = lines(benchmark, capsys, folder, "--nets", net, "--part", "depth", "--train", "32", "--epochs", "1")
    assert [x["difference"] for x in found if "part" in x] == ["4 layers - 2 layers", "8 layers - 4 layers"]
