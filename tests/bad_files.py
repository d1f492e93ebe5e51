"""Files of every kind, good and bad, in the current folder, and what the command line says of them."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_formats import RippleFormat, ripple
from fake_training import striped_grid
from PIL import Image
from safetensors.torch import save_file

from inrbridge import pack, plugins, save_field
from inrbridge.cli.main import main

SMALL = ["--set", "model.options.widths=[4, 4]", "--set", "model.options.resolution=12", "--set", "points.n=144",
         "--set", "optimizer.steps=4", "--set", "data.batch_size=4", "--set", "run.checkpoint_every=2",
         "--set", "run.device=cpu"]  # fmt: skip


class Twin(RippleFormat):
    """Claims the bare files that ripple claims."""

    name = "twin"


@pytest.fixture(autouse=True)
def host(monkeypatch, tmp_path):
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    monkeypatch.delenv("INRBRIDGE_STRICT", raising=False)
    monkeypatch.chdir(tmp_path)
    registry = plugins.rescan()
    registry.register(RippleFormat())
    yield registry
    monkeypatch.undo()
    plugins.rescan()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with fields, a store of them, and a model trained on it."""
    place = tmp_path_factory.mktemp("made")
    for i in range(12):
        folder = place / "fields" / ("test" if i % 6 == 5 else "train") / ("down" if i % 2 else "across")
        folder.mkdir(parents=True, exist_ok=True)
        save_field(striped_grid(bool(i % 2), i * 0.1), folder / f"{i:02d}.safetensors")
    pack(place / "fields", place / "store")
    assert main(["train", "--set", f"data.store={place / 'store'}", "--set", f"run.out={place / 'run'}", *SMALL]) == 0
    return place


@pytest.fixture
def files(made, tmp_path):
    """All kinds of files, in the current folder."""
    for name in ("store", "run", "fields"):
        (tmp_path / name).symlink_to(made / name)
    field = made / "fields" / "train" / "across" / "00.safetensors"
    (tmp_path / "good.safetensors").write_bytes(field.read_bytes())
    (tmp_path / "cut.safetensors").write_bytes(field.read_bytes()[:300])
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 2**50) + b"{}")
    (tmp_path / "text.txt").write_text("hello\n")
    (tmp_path / "zero.pt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "typo.toml").write_text("[optimizer]\nlearning_rte = 1\n")
    (tmp_path / "prose.toml").write_text("dear reader")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "image.png")
    np.save(tmp_path / "ok.npy", np.ones((4, 4)))
    np.save(tmp_path / "nan.npy", np.full((4, 4), np.nan))
    np.savez(tmp_path / "two.npz", a=np.ones((4, 4)), b=np.ones((4, 4)))
    RippleFormat().save(ripple(), tmp_path / "native.safetensors")
    save_file({"frequency": torch.ones(4, 2), "amplitude": torch.ones(4, 2)}, tmp_path / "claimed.safetensors")
    return tmp_path


class Evil:
    """A pickle that makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def told(capsys, words, code) -> str:
    """Run a command line that must fail; return its one line on standard error."""
    assert main([str(word) for word in words]) == code, capsys.readouterr().err
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("inrbridge") and error.count("\n") == 1, error
    assert "Traceback" not in error and "--debug" not in error, error  # --debug is named where the cause is not understood
    return error


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
