"""Interruptions, full disks and locked folders: nothing already written is lost, and the work goes on."""
# ruff: noqa: F811 (tests name the fixtures that they import)

from pathlib import Path

import numpy as np
import pytest
from bad_files import SMALL, Evil, Twin, contents, files, host, made, told  # noqa: F401 (fixtures too)

from inrbridge.cli.main import main
from inrbridge.data import Store


def test_an_interrupted_fit_keeps_what_it_finished(capsys, monkeypatch, tmp_path):
    import inrbridge.fitting as fitting

    np.savez("many.npz", x=np.random.default_rng(0).random((9, 4, 4)))
    words = ["fit", "many.npz", "--stacked", "-o", "store", "--format", "grid", "--batch", "3"]
    real, calls = fitting._fit_batch, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(fitting, "_fit_batch", interrupted)
    assert main(words) == 130
    error = capsys.readouterr().err
    assert "interrupted" in error and "the same command goes on" in error and "Traceback" not in error
    assert len(Store("store")) == 6
    before = {path: data for path, data in contents(tmp_path / "store").items() if "shard" in path.name}
    assert main(words) == 0
    assert len(Store("store")) == 9 and before.items() <= contents(tmp_path / "store").items()


def test_an_interrupted_training_goes_on(files, capsys, monkeypatch):
    import inrbridge.training.loop as loop

    words = ["train", "--set", "data.store=store", "--set", "run.out=new", *SMALL]
    real = loop._Run._step

    def interrupted(run, step):
        if step == 3:
            raise KeyboardInterrupt
        real(run, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_step", interrupted)
        assert main(words) == 130
    assert "--resume" in capsys.readouterr().err and Path("new/step-000002").is_dir()
    assert "inrbridge train new/config.toml --resume" in told(capsys, ["eval", "new"], 1)
    before = contents(Path("new"))
    assert "--resume" in told(capsys, words, 2)  # not without being asked to
    assert contents(Path("new")) == before
    assert main([*words, "--resume"]) == 0 and Path("new/model.safetensors").exists()


def test_a_folder_that_holds_other_files_is_no_run(files, capsys):
    Path("project").mkdir()
    Path("project/README.md").write_text("mine")
    error = told(capsys, ["train", "--set", "data.store=store", "--set", "run.out=project", *SMALL], 2)
    assert "new or empty folder" in error and contents(Path("project")) == {Path("project/README.md"): b"mine"}


def test_a_full_disk_while_checkpoints_are_written(files, capsys, monkeypatch):
    import inrbridge.training.checkpoint as checkpoint

    words = ["train", "--set", "data.store=store", "--set", "run.out=new", *SMALL]
    real, calls = checkpoint.save_tensors, []

    def full(path, state):
        calls.append(path)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        real(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full)
        assert main(words) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "Cannot write new/step-000004" in error and "No space left" in error and "make room" in error
    assert [path.name for path in Path("new").glob("*step-*")] == ["step-000002"]  # whole, and nothing half written beside it
    assert main([*words, "--resume"]) == 0


def test_a_full_disk_while_a_store_is_written(capsys, monkeypatch, tmp_path):
    import inrbridge.data.writer as writer

    np.savez("many.npz", x=np.random.default_rng(0).random((6, 4, 4)))
    words = ["fit", "many.npz", "--stacked", "-o", "store", "--format", "grid", "--batch", "3"]
    real, calls = writer.save, []

    def full(states):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(states)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "save", full)
        assert main(words) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "Cannot write" in error and "No space left" in error and "has room" in error
    assert len(Store("store")) == 3 and not list(Path("store").glob("*.tmp"))
    assert main(words) == 0 and len(Store("store")) == 6


def test_a_folder_that_cannot_be_written(files, capsys, monkeypatch):
    real = Path.mkdir

    def locked(path, *args, **options):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", locked)
    assert "Cannot make a store at locked" in told(capsys, ["fit", "ok.npy", "-o", "locked", "--format", "grid"], 1)
    error = told(capsys, ["train", "--set", "data.store=store", "--set", "run.out=locked", *SMALL], 1)
    assert "Permission denied" in error and "run.out=NAME" in error
    assert "Permission denied" in told(capsys, ["predict", "run", "good.safetensors", "-o", "locked"], 1)


def test_a_picture_never_replaces_one_that_was_not_named(files, capsys):
    Path("good.png").write_bytes(b"my photograph")
    assert main(["preview", "good.safetensors", "--resolution", "8"]) == 0
    assert capsys.readouterr().out.strip() == "good-2.png" and Path("good.png").read_bytes() == b"my photograph"


@pytest.mark.filterwarnings("always::UserWarning")  # even where Python would show each one
def test_a_narrow_kernel_is_told_once_a_run(files, capsys):
    words = ["train", "--set", "data.store=store", "--set", "run.out=new", *SMALL, "--set", "points.n=9"]
    assert main(words) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == 1 and "narrower than the spacing" in lines[0] and "wider kernel or more points" in lines[0]
