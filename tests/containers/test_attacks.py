"""Files made to hurt: to run code, fill the memory, or take for ever. Each is refused, or read for what it is, at small cost."""

import gzip
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import msgpack
import numpy as np
import pytest
import torch
from fuzzing import Hang, time_limit
from safetensors.torch import save_file

from inrbridge import Probe, read_tensors
from inrbridge.container import read_native
from inrbridge.containers import archives
from inrbridge.containers.packed import inflate, unpack
from inrbridge.containers.pickles import InertReader, load_inert
from inrbridge.containers.records import DamagedPickle, RefusedPickle
from inrbridge.containers.sidecar import find_sidecar
from inrbridge.errors import CannotOpen
from inrbridge.testing.rewriting import in_every_container

SECONDS, MEBIBYTES = 15, 64
PRIME = 2**61 - 1  # integers that differ by it have the same hash


def cheap(look, mebibytes=MEBIBYTES):
    """What `look` returns; it must not take long, nor much memory on the way."""
    tracemalloc.start()
    try:
        with time_limit(SECONDS):
            found = look()
        peak = tracemalloc.get_traced_memory()[1]
    except Hang:
        pytest.fail(f"took more than {SECONDS} s")
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * 2**20, f"took {peak >> 20} MiB"
    return found


def follow(body: bytes):
    """Read the body of a pickle of protocol 4."""
    data = b"\x80\x04" + body + b"."
    return load_inert(io.BytesIO(data), len(data))


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def call(name: str, *arguments: bytes) -> bytes:
    """Instructions that call `module:name` with arguments."""
    return b"c" + name.replace(":", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def integer(value: int) -> bytes:
    body = pickle.encode_long(value)
    return b"\x8a" + bytes([len(body)]) + body


# pickles: code


@pytest.mark.parametrize("body", [
    call("os:system", text("true")), call("posix:system", text("true")), call("builtins:eval", text("1")),
    call("builtins:getattr", text("a"), text("b")), call("operator:attrgetter", text("a")), call("copyreg:add_extension"),
    text("builtins") + text("getattr") + b"\x93)R", text("builtins") + text("object.__class__") + b"\x93)R",
    b"(S'true'\nios\nsystem\n", b"(cos\nsystem\nS'true'\no", b"cos\nsystem\n(S'true'\nt}\x92",
    call("importlib:import_module", text("os")), call("functools:reduce", text("a")), call("__builtin__:compile", text("a")),
])  # fmt: skip
def test_names_of_the_standard_library_are_refused_however_they_are_called(body):
    with pytest.raises(RefusedPickle, match="asks to run"):
        follow(body)


@pytest.mark.parametrize("body", [
    b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00",  # the registry of extensions
    b"\x97", text("pid") + b"Q", b"Ppid\n", b"(" + text("storage") + b"NNNNtQ",  # what lies outside
    text("a") + b")R", b"N)R", b"})R", b"}}b)R",  # calls of what is no function
    b"ca\nb\n}b", call("torch:Size") + b"}b", b"N}b",  # states of a class, a tuple, nothing
    b"K\x01K\x02\x93", b"]K\x02\x93", b"h\x05", b"g-1\n", b"e", b"u", b"0", b"t", b"\x87", b"\xff",
    b"Na", b"]NNs", b"(NNu", b"I" + b"9" * 5000 + b"\n", b"\x8b\xff\xff\xff\x7f", b"p" + b"9" * 30 + b"\n", b"F1,5\n",
    b"T\xff\xff\xff\xff", b"X\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8, b"\x8e" + b"\xff" * 7 + b"\x7f",
    b"\x96" + b"\xff" * 7 + b"\x0f",
    b"\x96" + struct.pack("<Q", 2**32), b"S'ab\n",
    call("torch._utils:_rebuild_tensor_v2", b"K\x01", b"K\x00", b")", b")"),
    call("copyreg:_reconstructor", b"K\x01"), call("torch._utils:_rebuild_sparse_tensor", b"N", b")"),
    call("torch._tensor:_rebuild_from_type_v2", b"K\x01", b"N", b")"),
])  # fmt: skip
def test_instructions_that_make_no_sense_are_damage(body):
    with pytest.raises(DamagedPickle):
        cheap(lambda: follow(body))


def test_states_and_keywords_change_no_attribute():
    """Neither of a record, nor of a dict that stands for an OrderedDict; a shell keeps what it is given under `state`."""
    state = b"}" + text("origin") + text("os.system") + b"s" + b"}" + text("__class__") + text("x") + b"s\x86"
    shell = follow(b"ca\nb\n)\x81" + state + b"b")
    assert shell.origin == "a.b" and shell.state == {"origin": "os.system", "__class__": "x"}
    made = follow(call("collections:OrderedDict") + b"}" + text("update") + b"K\x01sb")
    assert made == {} and type(made) is dict
    assert follow(b"ca\nb\n)}" + text("args") + b"K\x01s\x92").state == {}


# pickles: memory and time


def test_a_shared_list_is_not_unrolled_at_every_place(tmp_path):
    wide = b"](" + b"K\x00" * 50_000 + b"e\x94"
    deep = b"".join(b"](h" + bytes([i]) + b"e\x94" for i in range(20))  # each holds the one before
    many = b"](" + b"h\x0e" * 50_000 + b"e"
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + wide + deep + many + b".")
    assert cheap(lambda: Probe(tmp_path / "a.pkl")).tensors == {}


@pytest.mark.parametrize("container", ["pickle", "msgpack", "json", "yaml", "hdf5"])
def test_a_long_key_does_not_stand_before_a_hundred_thousand_names(tmp_path, container):
    content = {"k" * 100_000: [0] * 4000, "m" * 1000: {"n" * 1000: [[0] * 100] * 300}}
    path = tmp_path / "a"
    if container == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif container == "msgpack":
        path.write_bytes(msgpack.packb(content))
    elif container == "hdf5":
        with h5py.File(path, "w") as file:
            group = file.create_group("k" * 60_000)
            for i in range(2000):
                group.attrs[f"a{i}"] = i if i < 250 else 0
    else:
        (tmp_path / f"config.{'yml' if container == 'yaml' else 'json'}").write_text(json.dumps(content)[: 2**17 - 1])
    probe = Probe(path)
    if container in ("json", "yaml"):
        with time_limit(SECONDS):
            names = find_sidecar(path)[1]
    else:
        names = cheap(lambda: [*probe.tensors, *probe.scalars], 96)
    assert sum(map(len, names)) <= 2**25


@pytest.mark.parametrize("make", [
    lambda i: integer(i * PRIME),
    lambda i: b"I%d\n" % (i * PRIME),
    lambda i: integer(i * PRIME) + b"\x85",
    lambda i: b"K\x00\x8f\x94K" + bytes([i % 250]) + b"\x86",
], ids=["integers", "texts of integers", "tuples", "lists"])  # fmt: skip
@pytest.mark.parametrize("how", ["items", "one by one", "dict", "OrderedDict", "set", "frozenset", "remembered"])
def test_keys_cannot_be_made_to_collide(make, how):
    keys = [make(i) for i in range(20_000)]
    pairs = b"(" + b"".join(key + b"N" for key in keys)
    body = {
        "items": b"}" + pairs + b"u", "one by one": b"}" + b"".join(key + b"Ns" for key in keys), "dict": pairs + b"d",
        "OrderedDict": call("collections:OrderedDict", b"](" + b"".join(key + b"N\x86" for key in keys) + b"e"),
        "set": b"\x8f(" + b"".join(keys) + b"\x90", "frozenset": b"(" + b"".join(keys) + b"\x91",
        "remembered": b"".join(b"Np%d\n0" % (i * PRIME) for i in range(20_000)),
    }[how]  # fmt: skip
    try:
        with time_limit(SECONDS):
            made = follow(body)
    except Hang:
        pytest.fail(f"took more than {SECONDS} s")
    except DamagedPickle:
        return
    assert isinstance(made, list) or len(made) <= 16


def test_keys_that_nest_deeply_are_never_hashed_nor_written_out():
    nested = b")" + b"\x85" * 60_000
    assert cheap(lambda: follow(b"}" + nested + b"Ns")) == {}
    doubled = b")" + b"2\x86" * 60  # written out, it has 2^60 parts
    assert cheap(lambda: follow(b"}" + doubled + b"Ns")) == {}
    assert cheap(lambda: follow(call("torch:device", doubled))) is not None
    with pytest.raises(DamagedPickle):
        cheap(lambda: follow(b"(" + text("storage") + b"ctorch\nFloatStorage\n" + doubled + text("cpu") + b"K\x01tQ"))
    with pytest.raises(DamagedPickle):
        cheap(lambda: follow(doubled + text("a") + b"\x93"))


@pytest.mark.parametrize("body", [
    b"](" + b"N" * 20_000 + b"e\x940(" + call("builtins:list", b"h\x00") * 2000 + b"t",
    b"](" + b"N" * 20_000 + b"e\x940(" + call("builtins:set", b"h\x00") * 2000 + b"t",
    text("x" * 100_000) + b"\x940(" + call("_codecs:encode", b"h\x00", text("latin1")) * 4000 + b"t",
    call("builtins:bytearray", b"J\xff\xff\xff\x7f"),
    call("torch:FloatStorage", b"J\xff\xff\xff\x7f"),
    call("torch:Tensor", b"J\xff\xff\xff\x7f"),
    call("numpy:zeros", b"J\xff\xff\xff\x7f"),
    b"(" + b"".join(b"cm\nc%d\n" % i for i in range(20_000)) + b"t",
])  # fmt: skip
def test_copies_and_claims_are_paid_for(body):
    def look():
        try:
            return follow(body)
        except (DamagedPickle, RefusedPickle):
            return None

    cheap(look)


def test_a_pickle_without_end_is_stopped():
    with pytest.raises(DamagedPickle, match="operations"):
        follow(b"N0" * 600_000)


def test_a_tensor_that_stands_in_a_thousand_places_takes_its_memory_once(tmp_path):
    one = torch.ones(100_000)
    torch.save([one] * 500, tmp_path / "a.pt")
    found = cheap(lambda: read_tensors(tmp_path / "a.pt"))
    assert len(found) == 500 and len({value.data_ptr() for value in found.values()}) == 1
    torch.save([one] * 3000, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    assert "claim" in Probe(tmp_path / "b.pt").damage
    (tmp_path / "c.pkl").write_bytes(pickle.dumps([np.ones(100_000)] * 1000))
    assert "claim" in cheap(lambda: Probe(tmp_path / "c.pkl").damage)


# torch files


def rezip(path: Path, change, compression=zipfile.ZIP_STORED) -> Path:
    """Write a torch file anew with changed members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


@pytest.fixture
def saved(tmp_path):
    torch.save({"w": torch.arange(6.0).reshape(2, 3).t(), "n": 3}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_all_types_of_numbers_and_sparse_tensors_are_read_as_they_were_written(tmp_path):
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
             torch.uint8, torch.uint16, torch.bool, torch.complex64, torch.float8_e5m2]  # fmt: skip
    state = {str(kind): torch.arange(4).to(kind) for kind in kinds} | {"sparse": torch.eye(3).to_sparse()}
    for is_zip in (True, False):
        torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
        found, probe = read_tensors(tmp_path / "a.pt"), Probe(tmp_path / "a.pt")
        for name, value in state.items():  # torch itself does not read all of them back from old files
            assert found[name].dtype == value.dtype and probe.dtypes[name] == str(value.dtype).removeprefix("torch.")
            assert torch.equal(found[name].to_dense().to(torch.complex128), value.to_dense().to(torch.complex128))


def test_sizes_beyond_the_storage_are_refused(saved):
    pkl = "a/data.pkl"
    huge = rezip(saved, lambda m: m.update({pkl: m[pkl].replace(b"K\x03K\x02\x86", b"J\xff\xff\xff\x7fK\x02\x86", 1)}))
    assert "claim" in Probe(huge).damage
    with pytest.raises(CannotOpen, match="claim"):
        cheap(lambda: read_tensors(huge))


def test_parts_that_are_missing_short_or_bombs_are_refused(saved, tmp_path):
    whole = saved.read_bytes()
    for change in (
        lambda m: m.pop("a/data/0"),
        lambda m: m.update({"a/data/0": m["a/data/0"][:5]}),
        lambda m: m.pop("a/data.pkl"),
        lambda m: m.update({"a/byteorder": b"big"}),
        lambda m: m.update({"a/constants.pkl": b"", "a/code/net.py": b""}),
    ):
        saved.write_bytes(whole)
        with pytest.raises(CannotOpen):
            read_tensors(rezip(saved, change))
    saved.write_bytes(whole)
    bomb = rezip(saved, lambda m: m.update({"a/data.pkl": bytes(2**26 + 1)}), zipfile.ZIP_DEFLATED)
    assert "memory" in cheap(lambda: Probe(bomb).damage)


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
