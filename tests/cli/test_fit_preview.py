"""The verbs fit, pack and preview: from files to a store to a picture, by the command line alone."""

import json

import numpy as np
import pytest
import torch
from fake_formats import RippleFormat, ripple
from PIL import Image
from reference_fitting import SwellFormat

from inrbridge import open_field, plugins
from inrbridge.cli.main import main
from inrbridge.data import Store
from inrbridge.data.packing import PACKED_ALREADY, UNCLAIMED


@pytest.fixture(autouse=True)
def host(monkeypatch, tmp_path):
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    monkeypatch.delenv("INRBRIDGE_STRICT", raising=False)
    monkeypatch.chdir(tmp_path)
    registry = plugins.rescan()
    registry.register(SwellFormat())
    registry.register(RippleFormat())
    yield
    monkeypatch.undo()
    plugins.rescan()


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "images" / ("train" if i < 4 else "test") / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (5, 5), np.uint8)).save(path)
    return tmp_path / "images"


def run(capsys, *words):
    """Return exit code, standard output and standard error of a command line."""
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_fit_a_folder_of_images_in_mixed_formats(capsys, images):
    words = ["fit", images, "-o", "store", "--format", "swell,grid", "--set", "width=8", "--set", "swell.lr=0.05", "--steps", "3"]
    code, out, error = run(capsys, *words)
    assert code == 0 and "next: inrbridge config init" in out and "fit: " in error and "fit: " not in out
    store = Store("store")
    assert store.format_names == ["grid", "swell"]
    item = store.items[store.names.index("test/a/4")]
    assert (item.label, item.split) == ("a", "test")
    code, out, _ = run(capsys, *words, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["fields"] == 6 and set(facts["formats"]) == {"grid", "swell"}
    assert facts["formats"]["grid"]["psnr_least"] > 100
    assert run(capsys, *words, "--no-resume")[0] == 1


def test_fit_stacked_arrays_with_labels_and_splits(capsys, tmp_path):
    np.savez("d.npz", x=np.random.default_rng(0).random((20, 4, 4), np.float32), y=np.arange(20) % 3)
    code, _, _ = run(capsys, "fit", "d.npz", "--key", "x", "--stacked", "--labels", "d.npz:y", "--split", "train=0.5,test=0.5",
                     "-o", "s", "--format", "grid")  # fmt: skip
    store = Store("s")
    assert code == 0 and len(store) == 20 and {item.split for item in store.items} == {"train", "test"}
    assert {item.name: item.label for item in store.items}["d-07"] == 1


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["fit", "gone", "-o", "s"], 1, "There is no file gone"),
        (["fit", "half.png", "-o", "s", "--format", "grid"], 1, "not a whole PNG"),
        (["fit", "nan.npy", "-o", "s", "--format", "grid"], 1, "NaN"),
        (["fit", "ok.npy", "-o", "s", "--format", "gird"], 2, 'Did you mean "grid"'),
        (["fit", "ok.npy", "-o", "s", "--format", "swell", "--set", "widht=3"], 2, 'Did you mean "width"'),
        (["fit", "ok.npy", "-o", "s", "--format", "swell", "--set", "width"], 2, "expected OPTION=VALUE"),
        (["fit", "ok.npy", "-o", "s", "--format", "swell", "--steps", "-3"], 2, "steps=-3"),
        (["fit", "ok.npy", "-o", "s", "--format", "grid", "--split", "train=x"], 2, "expected a word such as train"),
        (["fit", "ok.npy", "-o", "s", "--format", "grid", "--labels", "gone.txt"], 1, "gone.txt"),
        (["preview", "gone.safetensors"], 1, "nothing at gone.safetensors"),
        (["preview", "ripple.safetensors", "--format", "ripple", "--axes", "0,x"], 2, "expected numbers"),
        (["preview", "ripple.safetensors", "--axes", "0,7"], 2, "Got axes"),
        (["preview", "ripple.safetensors", "--at", "1=9"], 2, "for coordinate 1"),
        (["preview", "ripple.safetensors", "--item", "x"], 2, "no store"),
        (["preview", "ripple.safetensors", "-o", "x.gif"], 2, "ends in .png"),
        (["pack", "half.png", "-o", "p"], 2, "inrbridge fit"),
        (["pack", "ripple.safetensors", "-o", "p", "--labels", "bad.csv"], 1, "expected FILE,LABEL"),
    ],
)
def test_mistakes_have_one_sentence_and_an_exit_code(capsys, tmp_path, words, code, text):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8)).save("whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    np.save("nan.npy", np.array([np.nan, 1.0]))
    np.save("ok.npy", np.zeros((4, 4)))
    (tmp_path / "bad.csv").write_text("one,two,three\n")
    RippleFormat().save(ripple(), tmp_path / "ripple.safetensors")
    found, out, error = run(capsys, *words)
    assert (found, out) == (code, "") and text in error and "Traceback" not in error


def test_pack_and_preview(capsys, tmp_path):
    for i in range(3):
        folder = tmp_path / "fields" / "xy"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        RippleFormat().save(ripple(seed=i), folder / f"{i}.safetensors")
    (tmp_path / "fields" / "README.md").write_text("about these fields")
    code, out, _ = run(capsys, "pack", "fields", "-o", "store", "--split", "test")
    assert code == 0 and "3: 3 ripple" in out and "x (2), y (1)" in out and "1 (no format claims it: 1 .md)" in out
    (tmp_path / "fields" / "bad.pt").write_bytes(b"")
    code, out, error = run(capsys, "pack", "fields", "-o", "store", "--split", "test", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["fields"] == 3 and facts["labels"] == {"x": 2, "y": 1} and facts["splits"] == {"test": 3}
    assert "the file is empty" in error and facts["left_out"] == [str(tmp_path / "fields" / "bad.pt")]
    assert {why: len(paths) for why, paths in facts["skipped"].items()} == {UNCLAIMED: 1, PACKED_ALREADY: 3}
    assert run(capsys, "pack", "fields", "-o", "store", "--strict")[0] == 1
    assert run(capsys, "pack", "fields/x", "fields/bad.pt", "-o", "store2")[0] == 1  # it was named
    assert run(capsys, "pack", "fields/x", "fields/README.md", "-o", "store2")[0] == 2
    (tmp_path / "labels.csv").write_text("path,label,split\nfields/x/0.safetensors,first,train\nfields/x/2.safetensors,third,\n")
    code, out, _ = run(capsys, "pack", "fields/x", "-o", "named", "--labels", "labels.csv")
    assert code == 0 and "2 ripple" in out and "first (1), third (1)" in out and "train (1)" in out
    code, out, _ = run(capsys, "pack", "fields/x", "-o", "matched", "--label-pattern", r"x/(?P<label>\d)", "--set", "gain=2")
    assert code == 0 and "0 (1), 2 (1)" in out
    x = torch.rand(5, 2)
    torch.testing.assert_close(Store("matched").field(0)(x), 2 * open_field("fields/x/0.safetensors")(x))
    code, _, error = run(capsys, "pack", "fields/x", "-o", "matched", "--set", "gian=2")
    assert code == 2 and 'Did you mean "gain"' in error

    code, out, _ = run(capsys, "preview", "fields/x/0.safetensors", "--resolution", "8", "-o", "one.png", "--title", "ripples")
    assert code == 0 and out.strip() == "one.png" and (tmp_path / "one.png").stat().st_size > 1000
    code, out, _ = run(capsys, "preview", "store", "--item", "x/0", "--resolution", "8", "--axes", "1", "--at", "0=0.5", "--json")
    assert code == 0 and json.loads(out)["format"] == "ripple" and (tmp_path / "x-0.png").exists()
    assert run(capsys, "preview", "store", "--item", "2", "--resolution", "8")[0] == 0
    assert "expected one of them: --item" in run(capsys, "preview", "store")[2]
    code, _, error = run(capsys, "preview", "store", "--item", "x/9")
    assert code == 2 and 'Did you mean "x/' in error


@pytest.mark.parametrize("verb", ["fit", "pack", "preview"])
def test_help_ends_with_two_examples(capsys, verb):
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out.count(f"  inrbridge {verb} ") >= 2
