"""Each floor imports only downwards, and the two wings never meet below `train`: the contracts in pyproject.toml."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from inrbridge.cli.main import VERBS

ROOT = Path(__file__).parents[1]


def test_import_contracts_are_kept():
    command = Path(sys.executable).with_name("lint-imports")
    if not (command.exists() or shutil.which("lint-imports")) or not (ROOT / "inrbridge").is_dir():
        pytest.skip('needs a checkout and import-linter: pip install "inrbridge[dev]"')
    run = subprocess.run(
        [str(command) if command.exists() else "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_each_file_states_the_floor_it_stands_on():
    """The first line of a file names its floor; the order of the layers in pyproject.toml never goes up; README lists them."""
    if not (ROOT / "README.md").is_file() or not (ROOT / "inrbridge").is_dir():
        pytest.skip("needs a checkout: it compares pages with files")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    above = 10
    for layer in contracts[0]["layers"]:
        for name in (part.strip().removeprefix("inrbridge.") for part in layer.split("|")):
            if name == "__main__":
                continue
            path = ROOT / "inrbridge" / name
            files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
            verbs = {f"{verb.replace('-', '_')}.py" for verb in VERBS} | {"main.py"} if name == "cli" else set()
            floors = {re.match(r'"""Floor (\d+)', file.read_text(encoding="utf-8")) for file in files if file.name not in verbs}
            assert None not in floors, f"a file of {name} does not begin with its floor"
            numbers = {int(found.group(1)) for found in floors}
            assert len(numbers) == 1 and max(numbers) <= above, f"{name} says {numbers}, above it stands floor {above}"
            above = max(numbers)
            listed = re.search(rf"^    {above} (?:(?!^    \d ).)*?\b{name}(/|\.py)", readme, re.MULTILINE | re.DOTALL)
            assert listed, f"README does not list {name} on floor {above}"
