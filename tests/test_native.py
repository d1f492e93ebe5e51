"""inrbridge's own file: what is written is read back, and a false header is refused before it costs memory."""

import json
import os
import stat

import pytest
import torch
from fake_formats import RippleFormat, ripple
from native_headers import rewrite
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inrbridge import Box, FunctionField
from inrbridge.errors import CannotOpen, CannotSave
from inrbridge.native import native_header, read_native, write_native


@pytest.fixture
def file(tmp_path):
    write_native(ripple(seed=3), tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_field_is_read_back_bit_for_bit(tmp_path, dtype):
    field = ripple(channels=3, dim=2, seed=1).to(dtype)
    field.domain, field.channel_names = Box((0, -1), (2, 5)), ("red", "green", "blue")
    write_native(field, tmp_path / "x")
    back = read_native(tmp_path / "x", RippleFormat())
    assert (back.domain, back.channels, back.channel_names, back.format) == (field.domain, 3, field.channel_names, "ripple")
    assert back.architecture == field.architecture
    for name, value in field.state_dict().items():
        assert torch.equal(back.state_dict()[name], value) and back.state_dict()[name].dtype == dtype


def test_reading_leaves_the_global_generator_alone(file):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    read_native(file, RippleFormat())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_header_says_how_to_build_it_again():
    header = native_header(ripple())
    assert set(header) == {"format", "api", "architecture", "domain", "channels", "channel_names", "version"}
    assert header["format"] == "ripple" and json.loads(json.dumps(header)) == header


def test_tensors_that_share_memory_are_written(tmp_path):
    field = ripple()
    field.amplitude.data = field.frequency.data.T.contiguous().T
    field.register_buffer("twin", field.amplitude.data)
    write_native(field, tmp_path / "x")
    assert torch.equal(load_file(tmp_path / "x")["twin"], field.amplitude)


def test_a_field_without_a_format_or_architecture_is_not_written(tmp_path):
    field = FunctionField(lambda x: x, Box.centered(2), 2)
    with pytest.raises(CannotSave, match="belongs to no format"):
        write_native(field, tmp_path / "x")
    with pytest.raises(CannotSave, match="without `architecture`"):
        write_native(field, tmp_path / "x", format="ripple")
    broken = ripple()
    broken.waves = {1, 2}
    with pytest.raises(CannotSave, match="no JSON"):
        write_native(broken, tmp_path / "x")
    with pytest.raises(CannotSave, match="Cannot write"):
        write_native(ripple(), tmp_path / "absent" / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(CannotSave, match="disk full"):
        write_native(ripple(seed=9), file)
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_the_file_is_as_readable_as_any_other(file):
    plain = file.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_files_of_others_are_refused_with_the_reason(file, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(CannotOpen, match='no "inrbridge" header'):
        read_native(tmp_path / "foreign", RippleFormat())
    with pytest.raises(CannotOpen, match='format "other", not "ripple"'):
        read_native(rewrite(file, lambda header: header.update(format="other")), RippleFormat())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"api": 99}, "plugin API 99"),
        ({"api": "one"}, 'no "inrbridge" header'),
        ({"architecture": {"waves": 5}}, '"amplitude" is \\(4, 2\\) in the file and \\(5, 2\\)'),
        ({"architecture": {"waves": 10**12}}, '"amplitude" is \\(4, 2\\)'),
        ({"architecture": {"waves": -1}}, "does not describe"),
        ({"architecture": {"wobble": 1}}, "does not describe"),
        ({"architecture": [1]}, "does not describe"),
        ({"channels": 10**12}, "states 1000000000000 channels and names 2"),
        ({"channels": None}, "channels"),
        ({"channel_names": ["a"] * 3, "channels": 3}, '"amplitude"'),
        ({"channel_names": 5}, "does not describe"),
        ({"domain": {"type": "nowhere"}}, "nowhere"),
        ({"domain": {"type": "box", "low": [0]}}, "header"),
        ({"domain": 7}, "header"),
    ],
)
def test_false_headers_are_refused_without_taking_memory(file, change, reason):
    with pytest.raises(CannotOpen, match=reason):
        read_native(rewrite(file, lambda header: header.update(change)), RippleFormat())


def test_an_architecture_without_end_is_stopped(file):
    class Deep(RippleFormat):
        def build(self, domain, channels, *, generator=None, waves: int = 4):
            self.layers = [torch.empty(2) for _ in range(10**9 if waves == 5 else 1)]
            return super().build(domain, channels, generator=generator, waves=waves)

    assert read_native(file, Deep()).waves == 4
    with pytest.raises(CannotOpen, match="far more tensors"):
        read_native(rewrite(file, lambda header: header.update(architecture={"waves": 5})), Deep())


def test_a_header_that_lacks_a_part_is_refused(file):
    with pytest.raises(CannotOpen, match="architecture"):
        read_native(rewrite(file, lambda header: header.pop("architecture")), RippleFormat())


def test_every_truncation_is_refused(file):
    whole = file.read_bytes()
    for keep in range(0, len(whole), 7):
        file.write_bytes(whole[:keep])
        with pytest.raises(CannotOpen):
            read_native(file, RippleFormat())


def test_a_build_that_reads_values_back_is_read_too(file):
    class Counting(RippleFormat):
        def build(self, domain, channels, *, generator=None, waves: int = 4):
            assert torch.arange(waves).max().item() == waves - 1  # impossible without memory
            return super().build(domain, channels, generator=generator, waves=waves)

    assert torch.equal(read_native(file, Counting()).amplitude, ripple(seed=3).amplitude)


def test_complex_numbers_for_real_ones_are_refused(file):
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file({name: value.to(torch.complex64) for name, value in load_file(file).items()}, file, metadata=metadata)
    with pytest.raises(CannotOpen, match="complex"):
        read_native(file, RippleFormat())
