"""Files made to hurt: to run code, fill the memory, or take for ever. Each is refused, or read for what it is, at small cost."""

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import msgpack
import numpy as np
import pytest
import torch
from fuzzing import cheap
from safetensors.torch import save_file

from inrbridge import Probe, read_tensors
from inrbridge.containers import archives
from inrbridge.containers.packed import inflate, unpack
from inrbridge.containers.pickles import InertReader
from inrbridge.errors import CannotOpen
from inrbridge.native import read_native
from inrbridge.testing.rewriting import in_every_container

# archives


def archive(path: Path, compression=zipfile.ZIP_DEFLATED, **arrays) -> Path:
    with zipfile.ZipFile(path, "w", compression) as opened:
        for name, body in arrays.items():
            opened.writestr(f"{name}.npy", body)
    return path


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + length + header.encode("latin-1") + data


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compressions_are_refused(tmp_path, compression):
    path = archive(tmp_path / "a.npz", compression, a=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(8)))
    assert "compressed" in Probe(path).damage


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_encrypted_members_and_endless_directories_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("a.npy", b"")
        opened.writestr("a.npy", b"")
    assert "same name" in Probe(path).damage
    raw = bytearray(archive(path, a=b"").read_bytes())
    raw[raw.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    assert "encrypted" in Probe(path).damage
    entry = b"PK\x01\x02" + bytes(42)
    body = b"PK\x03\x04" + entry * 400_000
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, len(body) - 4, 4, 0)
    path.write_bytes(body + end)
    assert "directory" in cheap(lambda: Probe(path).damage, 96)


def test_an_archive_of_overlapping_members_is_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "INFLATED_BYTES", 2**20)
    zeros = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (400000,), }", bytes(400_000))
    assert "memory" in Probe(archive(tmp_path / "a.npz", **{f"a{i}": zeros for i in range(8)})).damage


@pytest.mark.parametrize("header", [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "{'descr': '<f4', 'fortran_order': False, 'shape': (1e9,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (", "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
    "{'descr': 'wobble', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<U99999999999', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (2,), }", "[" * 5000, "((((" * 20 + "\0" * 40, "", "\n",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 40 + "), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (12345678901234567890,)}",
])  # fmt: skip
def test_headers_of_arrays_that_are_none_are_damage(tmp_path, header):
    (tmp_path / "a.npy").write_bytes(npy(header, bytes(64)))
    archive(tmp_path / "a.npz", a=npy(header, bytes(64)))
    for name in ("a.npy", "a.npz"):
        assert Probe(tmp_path / name).damage
        with pytest.raises(CannotOpen):
            read_tensors(tmp_path / name)


def test_claims_of_an_array_are_compared_with_the_file(tmp_path):
    big = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }", bytes(64))
    (tmp_path / "a.npy").write_bytes(big)
    archive(tmp_path / "a.npz", a=big)
    for name in ("a.npy", "a.npz"):
        assert "claims" in Probe(tmp_path / name).damage or "fit" in Probe(tmp_path / name).damage
        with pytest.raises(CannotOpen):
            cheap(lambda name=name: read_tensors(tmp_path / name))


def test_orders_versions_and_byte_orders_of_arrays(tmp_path):
    expected = np.arange(6).reshape(2, 3)
    for kind in ("<f4", ">f8", ">i2", "|u1", "<c8", "?"):
        for array in (
            expected.astype(kind),
            np.asfortranarray(expected.astype(kind)),
            expected.astype(kind)[:, :1],
            expected.astype(kind)[0, 1],
        ):
            np.save(tmp_path / "a.npy", array)
            assert np.array_equal(read_tensors(tmp_path / "a.npy")["array"].numpy(), array)
    for version in (b"\x02\x00", b"\x03\x00"):
        body = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }", np.ones(6, "<f4").tobytes(), version)
        (tmp_path / "a.npy").write_bytes(body)
        assert read_tensors(tmp_path / "a.npy")["array"].shape == (2, 3)


def test_objects_and_texts_in_an_archive_do_not_hide_its_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3), o=np.array([{"x": 1}], object), s=np.array(["x", "y"]))
    assert list(read_tensors(tmp_path / "a.npz")) == ["a"] and Probe(tmp_path / "a.npz").damage == ""


# MessagePack


def test_lists_that_promise_items_take_no_room(tmp_path):
    body = b"\x81\xa1a" + b"".join(b"\xdd" + struct.pack(">I", 2**16) for _ in range(60)) + bytes(2**16)
    (tmp_path / "a.msgpack").write_bytes(body)
    assert cheap(lambda: Probe(tmp_path / "a.msgpack").damage)
    for body in (
        b"\x81\xa1a" + b"\x91" * 100_000,
        b"\x81\xa1a" + b"\x81\x01" * 100_000,
        b"\x81\xa1a\xc7\x01\x05x",
        b"\x81\xa1a\xc1",
        b"\x81",
    ):
        (tmp_path / "a.msgpack").write_bytes(body)
        assert cheap(lambda: Probe(tmp_path / "a.msgpack").damage)


def test_messagepack_agrees_with_the_library():
    value = {"a": [0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**63, -1, -32, -33, -128, -129, -32769, -(2**31) - 1],
    "f": [0.5, None, True],
             "t": ["", "x" * 31, "x" * 32, "x" * 300, "ü" * 40_000], "b": [b"", b"x" * 256, b"y" * 70_000], "l": [[0] * 15,
             [0] * 16, [0] * 70_000],
             1: {f"k{i}": i for i in range(20)}, "m": {str(i): None for i in range(70_000)}}  # fmt: skip
    assert unpack(msgpack.packb(value)) == value
    assert unpack(msgpack.packb(0.1, use_single_float=True)) == np.float32(0.1)


def test_a_compressed_frame_is_read_in_pieces(tmp_path):
    noise = np.random.default_rng(0)
    for size in (0, 1, 2**18 - 1, 2**18, 3 * 2**18 + 7):
        for body in (noise.bytes(size), bytes(size)):
            for frame in (
                gzip.compress(body),
                zlib.compress(body),
                gzip.compress(body) + gzip.compress(b"more"),
                gzip.compress(body) + b"waste",
            ):
                (tmp_path / "a").write_bytes(frame)
                assert inflate(tmp_path / "a") == body


# HDF5


def test_hdf5_objects_are_visited_once_however_many_links_lead_to_them(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("g")
        for i in range(200):
            group.attrs[f"a{i}"] = i
        for i in range(30):
            group[f"up{i}"] = file["/"]
            group[f"self{i}"] = group
        group["numbers"] = np.ones(100_000)
        for i in range(300):
            file[f"again{i}"] = group["numbers"]
    found = cheap(lambda: read_tensors(tmp_path / "a.h5"))
    assert len(found) == 1 and len(Probe(tmp_path / "a.h5").scalars) == 200


def test_hdf5_pieces_that_inflate_to_more_than_they_are_are_refused(tmp_path):
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        data = file.create_dataset("a", (256,), "f4", chunks=(256,), compression="gzip")
        data.id.write_direct_chunk((0,), zlib.compress(bytes(2**27), 9))
        data = file.create_dataset("b", (4,), "f4", chunks=(2**28,), maxshape=(None,), compression="gzip")
    for name in ("a", "b"):
        with h5py.File(tmp_path / "whole.h5", "r") as old, h5py.File(tmp_path / f"{name}.h5", "w") as new:
            old.copy(name, new)
        with pytest.raises(CannotOpen, match=r"pieces|memory|more bytes"):
            cheap(lambda name=name: read_tensors(tmp_path / f"{name}.h5"))


def test_hdf5_filters_that_would_load_code_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((4,))
        plan.set_filter(32666, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), plan)
    assert "plain data" in Probe(tmp_path / "a.h5").damage


def test_hdf5_references_are_not_followed_and_large_attributes_left_out(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.ones(2)
        file.attrs["reference"] = file["a"].ref
        file.attrs["list"] = np.zeros(8000)
        file.attrs["word"] = "yes"
        file.create_dataset("references", data=[file["a"].ref], dtype=h5py.ref_dtype)
    probe = Probe(tmp_path / "a.h5")
    assert probe.damage == "" and probe.scalars == {"word": "yes"} and list(read_tensors(tmp_path / "a.h5")) == ["a"]


# configurations and JSON headers


def entry(dtype: str = '"F32"', shape: str = "[1]", offsets: str = "[0, 4]") -> bytes:
    return f'{{"a": {{"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}}}}}'.encode()


@pytest.mark.parametrize("header", [
    b"[" * 100_000, entry()[:-1] + b', "a": 3}', b'{"a": 3}', b"[]", b"3", b'{"__metadata__": 3}', entry(shape='["1"]'),
    entry(shape="[true]"), entry(shape="[-1, -1]"), entry(offsets="[4, 0]"), entry(offsets="[1e999, 4]"), entry(offsets="[0]"),
    entry(shape=f"[{'9' * 5000}]"), entry(shape="[2]"), entry(shape=str([1] * 100)), entry(offsets="[8, 12]"),
])  # fmt: skip
def test_safetensors_headers_that_make_no_sense_are_damage(tmp_path, header):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert cheap(lambda: Probe(tmp_path / "a.safetensors").damage)


def test_native_headers_that_nest_too_deep_are_refused(tmp_path):
    from fake_formats import RippleFormat

    for words in ("[" * 100_000, '{"format": "ripple", "api": Infinity}'):
        save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"inrbridge": words})
        assert Probe(tmp_path / "a.safetensors").native.get("format") in (None, "ripple")
        with pytest.raises(CannotOpen, match='no "inrbridge" header'):
            read_native(tmp_path / "a.safetensors", RippleFormat())


def test_every_container_gives_the_same_tensors(tmp_path):
    state = {"net.0.weight": torch.arange(6.0).reshape(2, 3), "net.0.bias": torch.ones(2)}
    save_file(state, tmp_path / "a.safetensors")
    seen = set()
    for container, path in in_every_container(tmp_path / "a.safetensors", tmp_path / "rewritten"):
        found = read_tensors(path)
        seen.add(container)
        for name, value in state.items():
            numbers = found[name].numpy().tobytes()  # MessagePack keeps bytes alone
            assert numbers == value.numpy().tobytes(), container
    assert len(seen) == 8


def test_the_machine_knows_what_python_writes():
    value = {"a": [1, -2, 2**40, 1.5, None, True, "ü", b"\x00\xff", (1, 2, 3, 4), {"x"}], "b": bytearray(b"z"), 3: frozenset([1])}
    for protocol in range(6):
        data = pickle.dumps(value, protocol)
        found = InertReader(io.BytesIO(data), len(data)).load()
        assert found["a"][:8] == [1, -2, 2**40, 1.5, None, True, "ü", b"\x00\xff"] and found["a"][8] == (1, 2, 3, 4)
        assert found["a"][9] == ["x"] and found["b"] == b"z" and found[3] == [1]
