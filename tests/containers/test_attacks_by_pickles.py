"""Pickles made to hurt: to run code, fill the memory, or take for ever; and what a pickle may hold."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import msgpack
import numpy as np
import pytest
import torch
from fuzzing import SECONDS, Hang, cheap, time_limit

from inrbridge import Probe, read_tensors
from inrbridge.containers.pickles import load_inert
from inrbridge.containers.records import DamagedPickle, RefusedPickle
from inrbridge.containers.sidecar import find_sidecar
from inrbridge.errors import CannotOpen

PRIME = 2**61 - 1  # integers that differ by it have the same hash


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
