"""The table of laws in tests/README.md is complete and true: every law has a file that exists, every law's file is listed."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = dict(re.findall(r"^\| (Q\d+) \|(.*)\|$", (HERE / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
LAWS = [f"Q{i}" for i in range(1, 26)]


def test_every_law_has_a_row():
    assert list(ROWS) == LAWS


@pytest.mark.parametrize("law", LAWS)
def test_its_files_exist_are_all_listed_and_test_something(law):
    listed = set(re.findall(r"`(test_property_q\d+\w*\.py)`", ROWS[law]))
    found = {path.name for path in HERE.glob(f"test_property_q{int(law[1:]):02}_*.py")}
    assert listed and listed == found
    for name in listed:
        text = (HERE / name).read_text(encoding="utf-8")
        assert f"Q{int(law[1:])}" in text.split('"""')[1], f"{name} does not name its law"
        assert re.search(r"^def test_", text, re.MULTILINE) and "assert" in text


@pytest.mark.parametrize("law", LAWS)
def test_it_names_its_negative_control(law):
    says, files, control = ROWS[law].split(" | ")
    assert len(says.split()) > 4 and "`" in files and len(control.split()) > 1
