"""A stranger's walk with a dense net: images and label maps to fields, a run, its figures, outputs as files, a detached copy."""

import json
import shutil

import numpy as np
import pytest

from inrbridge import open_field
from inrbridge.cli.main import main

SMALL = ["--set", 'task="dense"', "--set", 'model.name="unet"', "--set", "model.options={widths=[6, 8], convs=1, resolution=12}",
         "--set", "points.n=144", "--set", "points.pool=2", "--set", "optimizer.steps=24", "--set", "optimizer.lr=0.03",
         "--set", "data.batch_size=8", "--set", "run.device=cpu", "--set", 'targets.class_names=["ground", "disc"]']  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of a bright disc in noise, 12x12, and their label maps; some with a border of unknown pixels."""
    folder, chance = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    down, across = np.mgrid[-1:1:12j, -1:1:12j]
    for i in range(16):
        split = "test" if i >= 12 else "train"
        centre = chance.uniform(-0.4, 0.4, 2)
        inside = np.hypot(down - centre[0], across - centre[1]) < 0.5
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        np.save(folder / "images" / split / f"{i:02d}.npy", np.float32(0.6 * inside + 0.2 * chance.random((12, 12))))
        labels = inside.astype(np.int64)
        labels[0] = -1
        np.save(folder / "labels" / split / f"{i:02d}.npy", labels)
    assert main(["fit", str(folder / "images"), "-o", str(folder / "store"), "--format", "grid"]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(place):
    targets = ["--set", f"targets.source={place / 'labels'}", "--set", f"data.store={place / 'store'}"]
    assert main(["train", *targets, "--set", f"run.out={place / 'run'}", *SMALL]) == 0
    return place / "run"


def test_a_whole_session(place, tmp_path, capsys):
    config, run = tmp_path / "c.toml", tmp_path / "run"
    targets = ["--set", f"targets.source={place / 'labels'}", "--set", f"data.store={place / 'store'}"]
    assert main(["config", "init", str(config), *targets, "--set", f"run.out={run}", *SMALL]) == 0
    assert main(["config", "check", str(config), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["task"] == "dense, 2 outputs" and facts["training fields"] == 12
    assert main(["train", str(config), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["miou"] > 0.6 and np.sum(metrics["confusion"]) == 4 * 11 * 12  # the border is not scored
    assert main(["eval", str(run), "--sampler", "lattice", "sobol", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["miou"] == metrics["miou"] and results[1]["sampler"] == "sobol"
    assert main(["eval", str(run), str(place / "store"), "--split", "train", "--targets", str(place / "labels")]) == 0
    assert "miou" in (told := capsys.readouterr().out) and "12 fields" in told


def test_outputs_are_files_that_stand_alone(place, trained, tmp_path, capsys):
    files = sorted((place / "images" / "test").glob("*.npy"))[:2]
    assert main(["fit", *map(str, files), "-o", str(tmp_path / "new"), "--format", "grid"]) == 0
    from inrbridge import Store, save_field

    store = Store(tmp_path / "new")
    (tmp_path / "fields").mkdir()
    for i, name in enumerate(store.names):
        save_field(store.field(i), tmp_path / "fields" / f"{name.replace('/', '-')}.safetensors")
    capsys.readouterr()
    assert main(["predict", str(trained), str(tmp_path / "fields"), "-o", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "ground" in told and "%" in told
    answers = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(answers) == 2 and sum(answers[0]["shares"].values()) == pytest.approx(1)
    moved = tmp_path / "elsewhere.safetensors"
    shutil.move(answers[0]["output"], moved)
    shutil.rmtree(tmp_path / "fields")  # neither the input nor the run is needed
    assert main(["info", str(moved)]) == 0
    told = capsys.readouterr().out
    assert "output (inrbridge" in told and "ground, disc" in told
    assert main(["preview", str(moved), "-o", str(tmp_path / "p.png"), "--resolution", "24"]) == 0
    assert (tmp_path / "p.png").stat().st_size > 2000
    capsys.readouterr()
    assert (
        main(["distill", str(moved), "-o", str(tmp_path / "own.safetensors"), "--format", "grid", "--set", "shape=24", "--json"])
        == 0
    )
    (row,) = json.loads(capsys.readouterr().out)
    assert row["rms"] < 0.05 and open_field(tmp_path / "own.safetensors").channel_names == ("ground", "disc")


def test_errors_and_exit_codes(place, trained, tmp_path, capsys):
    field = tmp_path / "rgb.safetensors"
    store, labels = str(place / "store"), str(place / "labels")
    few = tmp_path / "few"
    (few / "train").mkdir(parents=True)
    shutil.copy(place / "labels" / "train" / "00.npy", few / "train")
    both = ["--set", f"data.store={store}", "--set", f"run.out={tmp_path / 'run'}"]
    for words, code, said in [
        (["predict", str(trained), str(field)], 2, "-o DIR"),
        (["predict", str(trained), str(field), "-o", str(tmp_path / "out")], 1, "rgb.safetensors"),
        (["eval", str(trained), "--targets", str(tmp_path / "none")], 1, "There is nothing at"),
        (["train", *both, *SMALL], 2, "targets.source"),
        (["train", *both, *SMALL, "--set", f"targets.source={few}"], 1, "4 of 4 fields without targets: test/12"),
        (["train", *both, *SMALL, "--set", f"targets.source={labels}", "--set", 'targets.class_names=["only"]'], 1, "class 1"),
        (["train", *both, *SMALL, "--set", f"targets.source={labels}", "--set", "targets.los=l1"], 2, '"targets.loss"'),
        (["train", *both, "--set", f"targets.source={labels}"], 2, 'for the task "classification"'),
    ]:
        assert main(words) == code, words
        captured = capsys.readouterr()
        assert said in captured.err and "Traceback" not in captured.err and not (tmp_path / "run").exists()


def test_help_ends_with_two_examples(capsys):
    assert main(["distill", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.count("  inrbridge distill ") == 2 and "--json" in out
