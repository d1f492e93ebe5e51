"""`inrbridge info`: the configuration that was read, how many fields there are, and the class that the file tells."""

import json

import pytest
from fake_formats import RippleFormat, ripple

from inrbridge.cli.main import main
from inrbridge.testing import only_plugins


class PairFormat(RippleFormat):
    """Two ripples in one file."""

    name = "pair"

    def recognizes(self, probe):
        return probe.path.suffix == ".pair"

    def count(self, probe):
        return 2

    def open(self, path, *, index: int = 0):
        field = ripple(seed=index)
        field.format, field.label, field.assumed = "pair", f"number {index}", ("gain = 1 (default of dialect pair)",)
        return field


@pytest.fixture
def files(tmp_path):
    (tmp_path / "x.pair").write_bytes(b"two of them")
    RippleFormat().save(ripple(), tmp_path / "y.safetensors")
    (tmp_path / "x.config.yml").write_text("gain: 1")
    with only_plugins() as registry:
        registry.register(PairFormat())
        registry.register(RippleFormat())
        yield tmp_path


def test_info_of_a_file_of_several_fields_with_a_configuration(files, capsys):
    assert main(["info", str(files / "x.pair"), "--set", "index=1"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["configuration"] == "x.config.yml, beside the file" and lines["label"] == "number 1"
    assert lines["fields"].startswith("2;") and lines["assumed"] == "gain = 1 (default of dialect pair)"
    assert main(["info", str(files / "x.pair"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["sidecar"], facts["fields"], facts["label"]) == ("x.config.yml", 2, "number 0")


def test_info_of_a_plain_file_says_none_of_this(files, capsys):
    assert main(["info", str(files / "y.safetensors")]) == 0
    out = capsys.readouterr().out
    assert not any(line.startswith(("configuration", "fields", "label")) for line in out.splitlines())
