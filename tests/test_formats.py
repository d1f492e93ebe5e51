"""The Format interface and the shared look at a file."""

import gzip
import inspect
import json
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from fake_formats import RippleField, RippleFormat, ripple
from safetensors.torch import save_file

from inrbridge import Box, Format, Probe
from inrbridge.errors import ConfigError
from inrbridge.formats import bare


class Bomb:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def save_torch(path, value, **options):
    torch.save(value, path, **options)
    return Probe(path)


def test_a_safetensors_header_is_listed_without_loading(tmp_path):
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.float16)}, tmp_path / "x", metadata={"who": "me"})
    probe = Probe(tmp_path / "x")
    assert probe.magic == "safetensors"
    assert probe.tensors == {"a": (2, 3), "b": (4,)}
    assert probe.dtypes == {"a": "F32", "b": "F16"}
    assert probe.metadata == {"who": "me"} and probe.native == {} and probe.damage == ""


def test_the_header_of_our_own_files_is_parsed(tmp_path):
    RippleFormat().save(ripple(), tmp_path / "x.safetensors")
    assert Probe(tmp_path / "x.safetensors").native["architecture"] == {"waves": 4}
    save_file({"a": torch.zeros(1)}, tmp_path / "y", metadata={"inrbridge": "no json"})
    assert Probe(tmp_path / "y").native == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_listed_flat(tmp_path, zipped):
    state = {"state_dict": {"module.net.0.weight": torch.zeros(5, 2)}, "epoch": 3, "names": ["a", "b"], "pair": (torch.zeros(1),)}
    probe = save_torch(tmp_path / "x.pt", state, _use_new_zipfile_serialization=zipped)
    assert probe.magic == "torch"
    assert probe.tensors == {"state_dict.module.net.0.weight": (5, 2), "pair.0": (1,)}
    assert probe.scalars == {"epoch": 3, "names.0": "a", "names.1": "b"}
    assert probe.bare_tensors["net.0.weight"] == (5, 2)


def test_a_torch_file_that_refers_to_itself_is_listed_in_bounded_time(tmp_path):
    layer = [torch.zeros(1)] * 20
    for _ in range(20):
        layer = [layer] * 20
    assert save_torch(tmp_path / "x.pt", layer).tensors == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_not_run(tmp_path, capsys, zipped):
    probe = save_torch(tmp_path / "x.pt", {"w": torch.zeros(2), "bomb": Bomb()}, _use_new_zipfile_serialization=zipped)
    assert probe.tensors == {} and "print" in probe.refused and probe.damage == ""
    assert capsys.readouterr().out == ""


def test_arrays_of_npz_and_npy_are_listed(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", links=np.zeros((2, 3, 4), np.int32), data=np.zeros(5, np.float16))
    np.save(tmp_path / "y.npy", np.zeros((3, 2)))
    np.save(tmp_path / "z.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    probe = Probe(tmp_path / "x.npz")
    assert (
        probe.magic == "npz"
        and probe.tensors == {"links": (2, 3, 4), "data": (5,)}
        and probe.listing == ("links.npy", "data.npy")
    )
    assert Probe(tmp_path / "y.npy").tensors == {"array": (3, 2)}
    assert Probe(tmp_path / "z.npy").dtypes == {"array": "object"} and Probe(tmp_path / "z.npy").damage == ""


@pytest.mark.parametrize(
    ("head", "magic"),
    [
        (gzip.compress(b"x", mtime=0), "gzip"), (b"\x89HDF\r\n\x1a\n", "hdf5"), (b"\x83\xa1a\x01", "msgpack"),
        (b"\xde\x00\x10", "msgpack"), (b"\x80\x04\x95abc", "pickle"), (b"hello", "unknown"), (b"", "unknown"),
    ],
)  # fmt: skip
def test_other_containers_are_named(tmp_path, head, magic):
    (tmp_path / "x").write_bytes(head)
    assert Probe(tmp_path / "x").magic == magic


def test_a_folder_is_listed_two_levels_deep(tmp_path):
    (tmp_path / "run" / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "config.yml").touch()
    (tmp_path / "run" / "sub" / "step.ckpt").touch()
    probe = Probe(tmp_path / "run")
    assert probe.magic == "folder" and probe.head == b""
    assert probe.listing == ("config.yml", "sub/", "sub/deep/", "sub/step.ckpt")


def test_every_truncation_of_every_container_is_told_and_never_raises(tmp_path):
    save_file({"a": torch.zeros(50, 3)}, tmp_path / "x.safetensors")
    torch.save({"a": torch.zeros(50, 3)}, tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", a=np.zeros((50, 3)))
    np.save(tmp_path / "x.npy", np.zeros((50, 3)))
    torch.save({"a": torch.zeros(50, 3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("x.safetensors", "x.pt", "old.pt", "x.npz", "x.npy"):
        whole = (tmp_path / name).read_bytes()
        assert Probe(tmp_path / name).damage == ""
        for keep in [*range(0, 16), *range(16, len(whole), 61), len(whole) - 1]:
            (tmp_path / f"cut-{name}").write_bytes(whole[:keep])
            probe = Probe(tmp_path / f"cut-{name}")
            assert probe.damage or (probe.magic == "unknown" and not probe.tensors), (name, keep, probe.magic)


@pytest.mark.parametrize(
    "header",
    [
        b"[1, 2]", b"nonsense", b'{"a": 5}', b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}', b"{" * 5000,
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}', b'{"__metadata__": 3}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_false_safetensors_headers_are_damage(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert Probe(tmp_path / "x.safetensors").damage


def test_sizes_that_a_file_only_claims_are_damage(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "claims" in Probe(tmp_path / "x.safetensors").damage
    (tmp_path / "y.npy").write_bytes(npy_header((10**12,)) + bytes(8))
    assert "truncated" in Probe(tmp_path / "y.npy").damage
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("a.npy", npy_header((10**12,)) + bytes(8))
    assert "claims" in Probe(tmp_path / "z.npz").damage
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(2**20))
    assert "memory" in Probe(tmp_path / "bomb.npz").damage
    assert "claim" in save_torch(tmp_path / "w.pt", {"a": torch.zeros(1).expand(10**9)}).damage


def npy_header(shape):
    text = json.dumps({"descr": "<f8", "fortran_order": "F"}).replace('"F"', f"False, 'shape': {shape!r}").replace('"', "'")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def test_a_file_that_cannot_be_read_says_so(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x").touch()
    monkeypatch.setattr("pathlib.Path.open", forbidden)
    with pytest.raises(PermissionError):
        _ = Probe(tmp_path / "x").tensors


def test_wrapper_words_are_stripped():
    assert bare("pipeline.module.model.net.0.weight") == "net.0.weight"
    assert bare("mode.weight") == "mode.weight"


def test_options_are_listed_with_their_defaults():
    assert RippleFormat().options() == {"gain": 1.0}
    assert RippleFormat().options("build") == {"waves": 4}
    assert RippleFormat().options("sample") == {}


def test_the_defaults_of_optional_methods():
    class Reader(Format):
        api, name = 1, "reader"

        def recognizes(self, probe):
            return False

        def open(self, path, *, must):
            return None

    format = Reader()
    assert format.options()["must"] is inspect.Parameter.empty
    assert format.abilities() == () and RippleFormat().abilities() == ("build",)
    assert format.sample(None, Box.centered(2), 1) is None and format.preview(None) is None
    assert format.self_check() == [] and set(format.fit_defaults()) == {"steps", "lr"}
    with pytest.raises(ConfigError, match='"reader" opens files but builds no fresh fields'):
        format.build(Box.centered(2), 1)


def test_an_incomplete_format_cannot_be_made():
    with pytest.raises(TypeError):
        type("Half", (Format,), {"open": lambda self, path: None})()


def test_the_example_is_a_file_of_the_format(tmp_path):
    path = RippleFormat().example(tmp_path)
    assert RippleFormat().recognizes(Probe(path))
    assert isinstance(RippleFormat().open(path), RippleField)


def test_listing_formats_imports_no_torch():
    code = "import sys, inrbridge.plugins, inrbridge.formats, inrbridge.cli.formats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
