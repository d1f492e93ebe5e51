"""The verb generate, from a store without labels to files that the other verbs open."""

import json

import pytest
import torch
from fake_training import striped_grid

from inrbridge import open_field, pack, save_field
from inrbridge.cli.main import main

SMALL = {
    "latent": "3", "beta": "1e-3",
    "generator_options": "{widths = [8, 6], resolution = 8, degree = 3, hidden = 12, output = 'tanh'}",
    "encoder_options": "{widths = [6, 6], strides = [1, 2], resolution = 8}",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on twelve fields that have no labels."""
    folder = tmp_path_factory.mktemp("generate")
    files = [folder / f"{i:02d}.safetensors" for i in range(12)]
    for i, path in enumerate(files):
        save_field(striped_grid(bool(i % 2), i * 0.1), path)
    pack(files, folder / "store")
    settings = {"task": "generation", "model.name": "vae", "data.store": folder / "store", "data.train_split": "",
                "data.eval_split": "", "data.batch_size": 6, "points.n": 64, "optimizer.steps": 4, "run.device": "cpu",
                "run.out": folder / "run"} | {f"model.options.{key}": value for key, value in SMALL.items()}  # fmt: skip
    assert main(["train", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]) == 0
    return folder / "run"


def test_files_of_noise_open_like_any_other(run, tmp_path, capsys):
    words = ["generate", str(run), "-n", "3", "--seed", "5"]
    assert main([*words, "-o", str(tmp_path / "made"), "--sheet", str(tmp_path / "sheet.png"), "--resolution", "24"]) == 0
    captured = capsys.readouterr()
    paths = captured.out.split()
    assert [path[-16:] for path in paths] == [f"000{i}.safetensors" for i in range(3)] and "sheet.png" in captured.err
    assert (tmp_path / "sheet.png").stat().st_size > 100
    assert main(["info", paths[1], "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "output" and facts["channels"] == 1 and "gray" in json.dumps(facts)
    assert main(["preview", paths[1], "-o", str(tmp_path / "one.png"), "--resolution", "32"]) == 0
    capsys.readouterr()
    assert main([*words[:3], "2", *words[4:], "-o", str(tmp_path / "again"), "--json"]) == 0
    coords = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for mine, other in zip(json.loads(capsys.readouterr().out), paths, strict=False):
        assert torch.equal(open_field(mine)(coords), open_field(other)(coords))
    assert not torch.equal(open_field(paths[0])(coords), open_field(paths[1])(coords))


def test_fields_fitted_in_another_format_stay_what_they_are(run, tmp_path, capsys):
    for folder, words in (("made", []), ("small", ["--format", "grid"])):
        assert main(["generate", str(run), "-n", "2", "-o", str(tmp_path / folder), *words]) == 0
    coords = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    for name in ("0000.safetensors", "0001.safetensors"):
        made, small = open_field(tmp_path / "made" / name), open_field(tmp_path / "small" / name)
        assert small.format == "grid" and (small(coords) - made(coords)).square().mean() < 0.02 * made(coords).var() + 1e-4
        assert 0 < small.notes["rms"] < 0.1 and "0000" in json.dumps(open_field(tmp_path / "small" / "0000.safetensors").notes)


def test_eval_and_predict_know_the_model(run, capsys, tmp_path):
    store = run.parent / "store"
    assert main(["eval", str(run), str(store)]) == 0
    out = capsys.readouterr().out
    assert "energy" in out and "12 fields" in out and "grid" in out
    assert main(["predict", str(run), str(run.parent / "00.safetensors"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["value"]) == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["RUN", "-n", "0", "-o", "OUT"], 2, "at least 1"),
        (["RUN", "--seed", "-1", "-o", "OUT"], 2, "at least 0"),
        (["RUN"], 2, "--out"),
        (["absent", "-o", "OUT"], 1, "inrbridge train"),
        (["RUN", "-n", "1", "-o", "OUT", "--format", "gird"], 2, 'Did you mean "grid"?'),
        (["RUN", "-n", "1", "-o", "HELD"], 2, "0000.safetensors already"),
        (["RUN", "-n", "1", "-o", "OUT", "--sheet", "made.jpg"], 2, ".png"),
        (["RUN", "-n", "1", "-o", "OUT", "--sheet", "made.png", "--resolution", "1"], 2, "2 to 2048"),
    ],
)
def test_errors_and_exit_codes(run, tmp_path, capsys, words, code, said):
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "0000.safetensors").write_bytes(b"")
    names = {"RUN": str(run), "OUT": str(tmp_path / "out"), "HELD": str(tmp_path / "held")}
    assert main(["generate", *(names.get(word, word) for word in words)]) == code
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err and not captured.out
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())  # nothing is done in vain


def test_help_ends_with_two_examples(capsys):
    assert main(["generate", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.count("  inrbridge generate ") == 2 and "--json" in out
