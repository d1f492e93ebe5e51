"""Each floor imports only downwards, and the two wings never meet below `train`: the contracts in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_import_contracts_are_kept():
    command = Path(sys.executable).with_name("lint-imports")
    if not (command.exists() or shutil.which("lint-imports")) or not (ROOT / "inrbridge").is_dir():
        pytest.skip('needs a checkout and import-linter: pip install "inrbridge[dev]"')
    run = subprocess.run(
        [str(command) if command.exists() else "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:]
