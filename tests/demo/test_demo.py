"""The demo: who takes part, how the digits are shared out, and a very small run from end to end."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from inrbridge import Format, register
from inrbridge.cli.demo import free_folder
from inrbridge.cli.main import main
from inrbridge.demo import pipeline
from inrbridge.demo.digits import assign, load_digits, participants, signals
from inrbridge.plugins import rescan

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

TINY = replace(pipeline.QUICK, items=120, points=64, epochs=2, widths=(8, 8, 8), fit_steps=10)
KEYS = {"accuracy", "accuracy_by_format", "accuracy_by_points", "accuracy_by_sampler", "leave_one_format_out", "psnr_by_format",
        "seconds"}  # fmt: skip


class _Bump(torch.nn.Module):
    """A trainable field of three coordinates only: a sum of waves."""

    format, channels, channel_names = "bump", 1, ("gray",)

    def __init__(self, domain, generator):
        super().__init__()
        self.domain, self.architecture = domain, {}
        self.wave = torch.nn.Parameter(torch.randn(3, 8, generator=generator))
        self.height = torch.nn.Parameter(torch.zeros(8, 1))

    def forward(self, coords):
        return torch.sin(coords @ self.wave) @ self.height + 0.5


class _Solid(Format):
    """A format that knows fields on 3-D boxes only."""

    api, name = 1, "bump"

    def recognizes(self, probe):
        return False

    def open(self, path):
        raise OSError("never asked")

    def build(self, domain, channels, *, generator=None):
        if domain.dim != 3 or channels != 1:
            raise ValueError("bumps have three coordinates and one channel")
        return _Bump(domain, generator)

    def fit_defaults(self):
        return {"steps": 10, "lr": 1e-2}


class _Reader(_Solid):
    """A format that builds nothing."""

    name = "reader"
    build = Format.build


@pytest.fixture
def solid():
    register(_Solid())
    register(_Reader())
    yield
    rescan()


def test_formats_are_balanced_over_classes_and_splits():
    _, labels = load_digits()
    splits, formats = assign(labels, ["a", "b", "c"], 0.2, seed=0)
    for split in ("train", "test"):
        chosen = [(label, f) for label, f, s in zip(labels, formats, splits, strict=True) if s == split]
        by_format = Counter(f for _, f in chosen)
        assert max(by_format.values()) - min(by_format.values()) <= 1
        by_class = Counter(chosen)
        for label in range(10):
            counts = [by_class[label, f] for f in "abc"]
            assert max(counts) - min(counts) <= 1
    assert assign(labels, ["a", "b", "c"], 0.2, seed=0) == (splits, formats)
    assert assign(labels, ["a", "b", "c"], 0.2, seed=1) != (splits, formats)


def test_a_format_of_three_dimensions_takes_part_and_a_reader_does_not(solid):
    found, absent = participants()
    assert {p.name: p.dim for p in found}["bump"] == 3
    assert "grid" in [p.name for p in found] and "reader" in absent and "builds no fields" in absent["reader"]
    images, labels = load_digits(2)
    flat, lifted = signals(images, labels, ["grid", "bump"], {"grid": 2, "bump": 3})
    here = torch.rand(5, 2) * 2 - 1
    column = torch.cat([here, torch.rand(5, 1)], 1)
    same = signals(images[1:], labels[1:], ["grid"], {"grid": 2})[0]
    torch.testing.assert_close(lifted.field(column), same.field(here))
    assert flat.field.domain.dim == 2 and lifted.field.domain.dim == 3


def test_a_tiny_run_writes_everything(tmp_path, solid):
    lines = []
    report = pipeline.run_demo(tmp_path / "demo", TINY, progress=False, say=lines.append)
    assert set(report) >= KEYS and "bump" in report["accuracy_by_format"]
    assert json.loads((tmp_path / "demo" / "report.json").read_text()).keys() == report.keys()
    assert list(report["accuracy_by_points"]) == ["32", "64", "128", "256"]
    assert {"lattice", "sobol", "grid", "uniform", "shrunk"} <= set(report["accuracy_by_sampler"])
    assert set(report["leave_one_format_out"]) == set(report["accuracy_by_format"])
    for name in ("report.md", "fields.png", "accuracy.png", "points.png", "confusion.png", "model/config.json",
                 "model/model.safetensors", "model/README.md", "store/manifest.json"):  # fmt: skip
        assert (tmp_path / "demo" / name).stat().st_size > 0
    assert len(lines) == 5
    assert sum(map(sum, report["confusion"])) == sum(report["fields"]["test"].values())


@pytest.mark.slow
def test_the_command_learns_and_prints_json_last(tmp_path, capsys):
    if len(participants()[0]) < 2:
        pytest.skip("needs a second format: pip install inrbridge-siren")
    assert main(["demo", "--quick", "--json", "-o", str(tmp_path / "demo")]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) >= KEYS and report["accuracy"] > 0.7


def test_an_earlier_report_is_kept(tmp_path):
    wanted = tmp_path / "demo"
    assert free_folder(wanted) == wanted
    wanted.mkdir()
    assert free_folder(wanted) == wanted
    (wanted / "report.json").write_text("{}")
    assert free_folder(wanted) == tmp_path / "demo-2"
