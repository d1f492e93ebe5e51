"""A field of another format for any field, the measured difference, and what the new file tells of it."""

import json
import math

import pytest
import torch

from inrbridge import Box, FunctionField, GridField, distill, open_field, save_field
from inrbridge.cli.main import main
from inrbridge.errors import CannotSave, ConfigError, InrBridgeError
from inrbridge.field import are_classes
from inrbridge.fitting import deviation
from inrbridge.models import build_model
from inrbridge.outputs import ModelField

BOX = Box.centered(2)
COORDS = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1


def wave(k: float = 3.0) -> FunctionField:
    return FunctionField(lambda x: torch.sin(k * x[..., :1]) * torch.cos(x[..., 1:]), BOX, 1, ("height",))


def output(**options) -> ModelField:
    net = build_model("unet", BOX, 1, 2, widths=[4, 6], convs=1, resolution=8, generator=torch.Generator().manual_seed(0))
    input = GridField(torch.rand(6, 6, 1, generator=torch.Generator().manual_seed(1)), BOX)
    return ModelField(net, input, points={"sampler": "lattice", "n": 64, "seed": 0}, channel_names=("sky", "road"), **options)


def test_an_output_is_detached_from_its_net_and_its_input(tmp_path):
    source = output(activation="softmax")
    small = distill(source, "grid", tmp_path / "small.safetensors", shape=48)
    assert isinstance(small, GridField) and small.channel_names == ("sky", "road")
    found = deviation(source, small)
    assert small.notes["distilled_from"] == "output field-0000"
    assert small.notes["rms"] == pytest.approx(found.rms, rel=1e-4) and found.rms < 0.03
    again = open_field(tmp_path / "small.safetensors")
    assert again.notes == small.notes and are_classes(again)
    torch.testing.assert_close(again(COORDS), small(COORDS))
    assert (tmp_path / "small.safetensors").stat().st_size < 4 * 48 * 48 * 2 + 2000


def test_any_field_will_do():
    coarse, fine = (distill(wave(), "grid", shape=side) for side in (8, 32))
    assert fine.notes["rms"] < coarse.notes["rms"] / 6 and fine.notes["psnr"] > 45
    assert fine.channel_names == ("height",) and not are_classes(fine)
    assert fine.notes["points"] == 4096


def test_a_network_is_optimised_to_it():
    pytest.importorskip("inrbridge_siren")
    before, after = (distill(wave(), "siren", steps=steps, n=256, lr=5e-3, width=16, layers=1, omega_0=5.0) for steps in (1, 80))
    assert after.format == "siren" and after.notes["rms"] < before.notes["rms"] / 4


def test_the_deviation_is_an_integral_relative_to_the_span():
    class Off:
        domain, channels = BOX, 1

        def __call__(self, x):
            return wave()(x) + 0.02 * (x[..., :1] > 0)

    found = deviation(wave(), Off(), n=2**14)
    span = 2.0  # sin and cos reach 1
    assert found.span == pytest.approx(span, rel=0.01)
    assert found.rms == pytest.approx(0.02 / span / math.sqrt(2), rel=0.02)
    assert found.greatest == pytest.approx(0.02 / span, rel=0.02)
    assert found.psnr == pytest.approx(-20 * math.log10(found.rms))
    assert deviation(wave(), wave()).psnr == 200 and deviation(wave(), wave()).greatest == 0
    with pytest.raises(ConfigError, match="one domain"):
        deviation(wave(), FunctionField(lambda x: x, Box.unit(2), 2))


def test_several_fields_and_where_they_go(tmp_path):
    for name, k in (("a", 2.0), ("b", 3.0)):
        save_field(distill(wave(k), "grid", shape=16), tmp_path / f"{name}.safetensors")
    both = distill([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], "grid", tmp_path / "out", n=400)
    assert [field.notes["distilled_from"] for field in both] == ["grid a", "grid b"] and both[0].shape == (20, 20)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.safetensors", "b.safetensors"]
    distill(wave(), "grid", tmp_path / "out", names=["c"], shape=8)
    assert open_field(tmp_path / "out" / "c.safetensors").shape == (8, 8)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no fields"):
        distill([], "grid")
    with pytest.raises(InrBridgeError, match="There is no format"):
        distill(wave(), "gird")
    with pytest.raises(ConfigError, match="wdith"):
        distill(wave(), "grid", wdith=3)
    with pytest.raises(CannotSave):
        distill(wave(), "grid", tmp_path / "absent" / "x.safetensors", shape=4)


def test_on_the_command_line(tmp_path, capsys):
    source = tmp_path / "out.safetensors"
    save_field(output(activation="softmax"), source)
    assert main(["distill", str(source), "-o", str(tmp_path / "one.safetensors"), "--format", "grid", "--set", "shape=24"]) == 0
    assert "psnr" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "one.safetensors")]) == 0
    assert "note: rms" in (told := capsys.readouterr().out) and "output out" in told
    assert main(["distill", str(source), str(tmp_path / "one.safetensors"), "-o", str(tmp_path / "many"), "--format", "grid",
                 "--json"]) == 0  # fmt: skip
    rows = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in rows] == [str(source), str(tmp_path / "one.safetensors")] and rows[1]["rms"] < 0.02
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["one.safetensors", "out.safetensors"]
    for words, said in [
        (["--set", "steps=3"], "--steps"),
        (["--format", "gird"], 'Did you mean "grid"?'),
        (["--set", "widht=3", "--format", "grid"], "widht"),
    ]:
        assert main(["distill", str(source), "-o", str(tmp_path / "x"), *words]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "x").exists()
