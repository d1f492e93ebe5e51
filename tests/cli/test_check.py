"""`inrbridge check`: the laws as a table, as JSON, and as an exit code."""

import json

from fake_formats import RippleFormat, ripple

from inrbridge import plugins
from inrbridge.cli.main import main
from inrbridge.testing import LAWS


def test_a_sound_format_exits_with_0_and_shows_every_law(capsys):
    assert main(["check", "grid"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["law", *LAWS]


def test_json_names_law_outcome_and_reason(capsys):
    assert main(["check", "grid", "--json", "--law", "is_pointwise", "--law", "imports_public_names"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["law"], first["outcome"], first["reason"]) == ("is_pointwise", "kept", "")
    assert (second["law"], second["outcome"]) == ("imports_public_names", "skipped") and second["reason"]


def test_a_broken_law_exits_with_1(tmp_path, capsys, monkeypatch):
    class Dull(RippleFormat):
        name = "dull"

        def recognizes(self, probe):
            return False

    with_registry(monkeypatch, Dull())
    path = tmp_path / "dull.safetensors"
    Dull().save(ripple(), path)
    assert main(["check", "dull", str(path), "--set", "gain=2", "--law", "recognizes_its_file"]) == 1
    assert "broken" in capsys.readouterr().out


def test_wrong_use_is_told(tmp_path, capsys):
    assert main(["check", "grid", "--law", "is_pontwise"]) == 2
    assert "is_pointwise" in capsys.readouterr().err
    assert main(["check", "grid", str(tmp_path / "none.safetensors")]) == 1
    assert "nothing at" in capsys.readouterr().err


def with_registry(monkeypatch, format):
    monkeypatch.setattr(plugins, "_registry", plugins.Registry({"INRBRIDGE_PLUGINS": ""}))
    plugins.register(format)
