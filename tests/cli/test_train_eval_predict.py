"""The verbs train, eval, predict and config, from a store on disk to labels on standard output."""

import json
from pathlib import Path

import pytest
from fake_training import striped_grid

from inrbridge import pack, save_field
from inrbridge.cli.main import main

SMALL = ["--set", "model.options.widths=[8, 8]", "--set", "model.options.resolution=12", "--set", "points.n=64",
         "--set", "optimizer.steps=20", "--set", "optimizer.lr=0.02", "--set", "data.batch_size=8",
         "--set", "run.device=cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """32 fields of stripes across or down, on grids of two sizes, in two splits."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(32):
        place = folder / "fields" / ("test" if i % 16 >= 12 else "train") / ("down" if i // 2 % 2 else "across")
        place.mkdir(parents=True, exist_ok=True)
        save_field(striped_grid(bool(i // 2 % 2), i * 0.1, side=10 + i % 3), place / f"{i:02d}.safetensors")
    pack(folder / "fields", folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def trained(store) -> Path:
    run = store.parent / "run"
    assert main(["train", "--set", f"data.store={store}", "--set", f"run.out={run}", *SMALL]) == 0
    return run


def test_a_whole_session(store, tmp_path, capsys):
    config, run = tmp_path / "c.toml", tmp_path / "run"
    assert main(["config", "init", str(config), "--set", f"data.store={store}", "--set", f"run.out={run}", *SMALL]) == 0
    assert main(["config", "check", str(config), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["training fields"], facts["evaluation fields"], facts["steps"]) == (24, 8, 20)
    assert main(["train", str(config), "--json"]) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["steps"] == 20 and summary["metrics"]["accuracy"] >= 0.75 and "train: 20/20" in captured.err
    assert main(["train", str(config), "--resume"]) == 0  # nothing left to do
    assert "20" in capsys.readouterr().out

    assert main(["eval", str(run), "--sampler", "lattice", "sobol", "--n", "64", "256", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [(r["sampler"], r["n"]) for r in results] == [("lattice", 64), ("lattice", 256), ("sobol", 64), ("sobol", 256)]
    assert results[0]["accuracy"] == summary["metrics"]["accuracy"] and results[0]["confusion"] == summary["metrics"]["confusion"]

    fields = sorted(map(str, (store.parent / "fields" / "test").rglob("*.safetensors")))
    assert main(["predict", str(run), *fields, "--json", "-o", str(tmp_path / "out")]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers == json.loads((tmp_path / "out" / "predictions.json").read_text())
    hits = sum(answer["label"] == Path(answer["path"]).parent.name for answer in answers)
    assert hits / len(fields) == summary["metrics"]["accuracy"]


def test_a_folder_of_files_is_as_good_as_a_store(trained, store, tmp_path, capsys):
    fields, run = store.parent / "fields", tmp_path / "run"
    assert main(["train", "--set", f"data.store={fields}", "--set", f"run.out={run}", *SMALL]) == 0
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    capsys.readouterr()
    results = []
    for words in ([run], [run, fields, "--split", "test"], [trained, store, "--split", "test"]):
        assert main(["eval", *map(str, words), "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out)["results"][0] | {"seconds": 0})
    assert results[0] == results[1] == results[2]
    files = sorted(map(str, (fields / "test").rglob("*.safetensors")))
    (fields / "test" / "notes.txt").write_text("of another kind")
    for words in (files, [str(fields / "test")]):
        assert main(["predict", str(run), *words, "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[3] == results[4] and [answer["path"] for answer in results[4]] == files


def test_plain_output(trained, store, capsys):
    assert main(["eval", str(trained), str(store), "--split", ""]) == 0
    out = capsys.readouterr().out
    assert "32 fields" in out and "accuracy" in out and "lattice" in out
    field = next((store.parent / "fields").rglob("*.safetensors"))
    assert main(["predict", str(trained), str(field), str(store.parent / "absent.pth")]) == 1
    captured = capsys.readouterr()
    assert field.name in captured.out and "absent.pth" in captured.err
    assert main(["config", "show", str(trained / "config.toml")]) == 0
    assert capsys.readouterr().out == (trained / "config.toml").read_text()


def test_the_card_repeats_the_command(trained):
    card = (trained / "README.md").read_text()
    assert "inrbridge train --set" in card and "grid (inrbridge " in card and "accuracy on grid" in card


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "absent.toml"], 1, "config init"),
        (["train"], 2, "data.store"),
        (["train", "--set", "data.store=absent"], 1, "absent"),
        (["train", "--set", "optimzer.lr=1"], 2, 'Did you mean "optimizer"?'),
        (["train", "--set", "data.store=STORE", "--set", "data.eval_split=valid"], 1, "train"),
        (["train", "--set", "data.store=STORE", "--set", "model.name=connvet"], 2, 'Did you mean "convnet"?'),
        (["train", "--set", "data.store=STORE", "--set", "model.options.width=3"], 2, 'Did you mean "widths"?'),
        (["train", "--set", "data.store=STORE", "--set", "points.sampler=latice"], 2, 'Did you mean "lattice"?'),
        (["config", "check", "--set", "data.store=STORE", "--set", "points.eval_sampler=sobel"], 2, 'Did you mean "sobol"?'),
        (["config", "show", "--set", "run.seed=x"], 2, "a whole number"),
        (["eval", "absent"], 1, "inrbridge train"),
        (["eval", "RUN", "absent"], 1, "absent"),
        (["eval", "RUN", "--n", "0"], 2, "at least 1"),
        (["eval", "RUN", "--sampler", "sobel"], 2, 'Did you mean "sobol"?'),
        (["predict", "absent", "x"], 1, "inrbridge train"),
    ],
)
def test_errors_and_exit_codes(trained, store, tmp_path, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("STORE", str(store)).replace("RUN", str(trained)) for word in words]
    assert main(words) == code
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err and not captured.out
    assert not (tmp_path / "run" / "step-000001").exists()


def test_a_damaged_model_and_missing_labels(trained, store, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_bytes((trained / "config.json").read_bytes())
    (damaged / "model.safetensors").write_bytes(b"\0" * 50)
    assert main(["eval", str(damaged)]) == 1
    assert "model.safetensors" in capsys.readouterr().err
    files = sorted((store.parent / "fields").rglob("*.safetensors"))[:3]
    pack(files, tmp_path / "bare", labels=["across", None, "down"])
    assert main(["train", "--set", f"data.store={tmp_path / 'bare'}", "--set", "data.train_split=", "--set", "data.eval_split=",
                 "--set", f"run.out={tmp_path / 'none'}"]) == 1  # fmt: skip
    assert "1 of 3 items without a label" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_init_prints_or_writes_and_never_overwrites(tmp_path, capsys):
    assert main(["config", "init"]) == 0
    assert "# highest learning rate\nlr = 0.001" in capsys.readouterr().out
    path = tmp_path / "c.toml"
    assert main(["config", "init", str(path)]) == 0
    assert main(["config", "init", str(path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["config", "init", str(path), "--force"]) == 0
    assert main(["config", "init", str(tmp_path / "no" / "c.toml")]) == 2


@pytest.mark.parametrize("verb", ["train", "eval", "predict", "config"])
def test_help_ends_with_two_examples(verb, capsys):
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.count(f"  inrbridge {verb} ") == 2 and "--json" in out


def test_predictions_with_a_tolerance(trained, store, capsys):
    fields = sorted(map(str, (store.parent / "fields" / "test").rglob("*.safetensors")))[:3]
    assert main(["predict", str(trained), *fields, "--tol", "0.5", "--n", "256", "--max-n", "1024", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert all(a["settled"] == (a["moved"] <= 0.5) and a["points"] in (256, 512, 1024) for a in answers)
    assert main(["predict", str(trained), *fields, "--tol", "1e-9", "--n", "64", "--max-n", "64"]) == 0
    printed = capsys.readouterr()
    assert "settled" in printed.out and " no" in printed.out and "3 of 3 fields still moved" in printed.err
    assert main(["predict", str(trained), *fields, "--tol", "-1"]) == 2
    assert "expected a number above 0" in capsys.readouterr().err
