"""The examples run at their small defaults, leave nothing outside their folder, and stay short enough to read at once."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inrbridge.errors import UnknownFormat
from inrbridge.plugins import get_format

FOLDER = Path(__file__).parents[1] / "examples"
if not FOLDER.is_dir():
    pytest.skip("runs in a checkout: the examples are not installed", allow_module_level=True)
EXAMPLES = sorted(FOLDER.glob("*.py"))
MOST_LINES = 80


@pytest.fixture(params=EXAMPLES, ids=[path.stem for path in EXAMPLES])
def example(request):
    return request.param


def about(path):
    """The example's module docstring."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def skip_without_plugins(path):
    """Skip an example whose docstring names a plugin that is not installed; one that is broken is no reason to skip."""
    for name in re.findall(r"inrbridge-(\w+)", about(path)):
        try:
            get_format(name)
        except UnknownFormat:
            pytest.skip(f"needs inrbridge-{name}, which is not installed")


def run(path, folder, *arguments):
    """Run an example with `folder/tmp` for temporary files, in an empty working directory; return what it printed."""
    here, temporary = folder / "here", folder / "tmp"
    here.mkdir()
    temporary.mkdir()
    ours = {"TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(path), *arguments], cwd=here, env={**os.environ, **ours}, text=True,
                          capture_output=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(here.iterdir()), "an example writes only into its folder"
    return done.stdout


def test_there_are_examples():
    assert len(EXAMPLES) >= 5


def test_it_is_short_and_says_what_it_shows_and_how_to_run_it(example):
    assert len(example.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert f"Run: python {example.name}" in about(example)


def test_it_runs_at_its_defaults(example, tmp_path):
    skip_without_plugins(example)
    printed = run(example, tmp_path)
    assert len(printed.splitlines()) >= 3
    pictures = list((tmp_path / "tmp").rglob("*.png"))
    assert bool(pictures) == ("[FOLDER]" in about(example))
    assert all(str(path) in printed for path in pictures), "an example says where its pictures are"


def test_it_writes_into_the_folder_it_is_given(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    run(FOLDER / "views.py", tmp_path, str(given))
    assert {path.suffix for path in given.iterdir()} == {".png"}
    assert not list((tmp_path / "tmp").rglob("*.png"))
