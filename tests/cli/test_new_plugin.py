"""`inrbridge new-plugin`: the folder it writes is a plugin that keeps every law, without any change."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import inrbridge
from inrbridge import plugins
from inrbridge.cli.main import main
from inrbridge.testing import LAWS

ROOT = Path(inrbridge.__file__).parents[1]


def test_the_skeleton_passes_the_kit(tmp_path, capsys):
    folder = tmp_path / "made"
    assert main(["new-plugin", "dots_2d", "--folder", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    install(folder, project)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(folder)]
    run = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(LAWS)} passed" in run.stdout and "skipped" not in run.stdout


def install(folder: Path, project: dict) -> None:
    """What pip would write of it: its metadata, beside its module."""
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (entry,) = project["entry-points"]["inrbridge"].items()
    (info / "entry_points.txt").write_text("[inrbridge]\n{} = {}\n".format(*entry))


@pytest.mark.parametrize("name", ["Dots", "2d", "a-b", "", "a b"])
def test_a_bad_name_is_refused(name, capsys):
    assert main(["new-plugin", name]) == 2
    assert "expected lower case" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["grid", "siren"])
def test_a_taken_name_is_refused(name, capsys, monkeypatch):
    monkeypatch.setattr(plugins, "_registry", None)
    assert main(["new-plugin", name]) == 2
    assert "is taken" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "note.txt").write_text("mine")
    assert main(["new-plugin", "dots", "--folder", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
