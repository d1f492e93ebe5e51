"""Every architecture is trained by `inrbridge train` from a store on disk, and comes back from the folder of its run."""

import json
from pathlib import Path

import pytest
import torch
from fake_training import striped_grid
from small_models import CLASSIFIERS, DENSE, SMALL

from inrbridge import pack, save_field
from inrbridge.cli.main import main
from inrbridge.models import build_model
from inrbridge.training.model_folder import load_model
from inrbridge.training.seeding import generator


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """12 fields of stripes across or down, in two splits."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(12):
        place = folder / "fields" / ("test" if i >= 8 else "train") / ("down" if i % 2 else "across")
        place.mkdir(parents=True, exist_ok=True)
        save_field(striped_grid(bool(i % 2), i * 0.1, side=8), place / f"{i:02d}.safetensors")
    pack(folder / "fields", folder / "store")
    return folder / "store"


@pytest.mark.parametrize("name", SMALL)
def test_trained_from_the_command_line(name, store, tmp_path, capsys):
    task = ["--set", "task=dense", "--set", f"targets.source={store}"] if name in DENSE else []
    options = [part for key, value in SMALL[name].items() for part in ("--set", f"model.options.{key}={json.dumps(value)}")]
    command = ["train", "--set", f"data.store={store}", "--set", f"run.out={tmp_path / 'run'}", "--set", f"model.name={name}",
               "--set", "points.n=64", "--set", "optimizer.steps=3", "--set", "optimizer.lr=0.01", "--set", "data.batch_size=4",
               "--set", "run.device=cpu", *task, *options, "--json"]  # fmt: skip
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["steps"] == 3 and ("mse" if name in DENSE else "accuracy") in summary["metrics"]
    net = load_model(tmp_path / "run")
    assert net.card.task == ("dense" if name in DENSE else "classification") and net.config()["name"] == name
    first = build_model(name, net.domain, net.in_channels, net.classes, generator=generator(0, "weights"), **SMALL[name])
    still = [key for (key, p), q in zip(first.named_parameters(), net.parameters(), strict=True) if torch.equal(p, q)]
    # what is added to all keys changes nothing, and decays from zero to zero
    assert all(key.endswith("key.bias") for key in still), still


def test_all_names_are_tried():
    assert set(CLASSIFIERS) | set(DENSE) == set(SMALL)
