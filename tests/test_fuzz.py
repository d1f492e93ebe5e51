"""Damaged files of every format end as a field or a refusal; random bytes end every reader in order.

`tests/benchmarks/fuzz.py` does the same by the thousand, under a limit of memory.
"""

import io
import os
import struct

import numpy as np
import pytest
from fuzzing import judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inrbridge import open_field, plugins, read_tensors
from inrbridge.containers.packed import DamagedPack, unpack
from inrbridge.containers.pickles import _STEPS, load_inert
from inrbridge.containers.records import DamagedPickle, RefusedPickle
from inrbridge.errors import CannotOpen, InrBridgeError
from inrbridge.formats import Probe
from inrbridge.testing import damaged
from inrbridge.testing.rewriting import in_every_container

CASES, CASES_ELSEWHERE = 30, 10  # of an example file, and of its tensors in each other container
SEED = 5

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip


def names() -> list[str]:
    return sorted(format.name for format in plugins.all_formats())


@pytest.mark.parametrize("name", names())
def test_damaged_examples_open_or_are_refused(tmp_path, name):
    format = plugins.get_format(name)
    example = format.example(tmp_path)
    if example.is_dir():
        pytest.skip("its files are folders")
    files = [(example, CASES)]
    for _, path in in_every_container(example, tmp_path / "rewritten"):
        try:
            open_field(path, format=name)
        except InrBridgeError:  # it does not know the tensors there
            continue
        files.append((path, CASES_ELSEWHERE))
    fields = 0
    for file, count in files:
        for what, path in damaged(file, tmp_path / "damaged", seed=SEED, count=count):
            outcome = judge(path, name)
            assert outcome.kind in ("field", "refused"), f"{file.name}: {what}: {outcome.kind} {outcome.reason}"
            fields += outcome.kind == "field"
    assert fields < sum(count for _, count in files)


def test_variants_depend_on_the_seed_alone(tmp_path):
    example = plugins.get_format("grid").example(tmp_path)
    first = [(what, path.read_bytes()) for what, path in damaged(example, tmp_path / "a", seed=1, count=24)]
    again = [(what, path.read_bytes()) for what, path in damaged(example, tmp_path / "b", seed=1, count=24)]
    other = [(what, path.read_bytes()) for what, path in damaged(example, tmp_path / "c", seed=2, count=24)]
    assert first == again and first != other
    assert sum(content != example.read_bytes() for _, content in first) > 20


def test_texts_among_the_arrays_are_damaged_too(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3), word=np.array("SH9"))
    kinds = {what.partition(":")[0] for what, _ in damaged(tmp_path / "a.npz", tmp_path / "damaged", count=200)}
    assert "all tensors" in kinds


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(CannotOpen, match="neither a file nor a folder"):
        open_field(tmp_path / "a.pt")


STARTS = {
    "a.safetensors": struct.pack("<Q", 40) + b"{", "a.zip": b"PK\x03\x04", "a.npz": b"PK\x03\x04", "a.npy": b"\x93NUMPY\x01\x00",
    "a.pkl": b"\x80\x04", "a.pt": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.", "a.msgpack": b"\x82",
    "a.ingp": b"\x1f\x8b\x08\x00", "a.zlib": b"\x78\x9c", "a.h5": b"\x89HDF\r\n\x1a\n", "a.bin": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
@quick
@given(body=st.binary(max_size=400))
def test_any_bytes_are_listed_and_read_or_refused(tmp_path, name, body):
    path = tmp_path / name
    path.write_bytes(STARTS[name] + body)
    probe = Probe(path)
    assert isinstance(probe.damage, str) and isinstance(probe.tensors, dict)
    try:
        read_tensors(path)
    except CannotOpen:
        return


NAMES = ["torch\nFloatStorage", "torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict", "numpy\ndtype", "mine\nNet",
         "numpy.core.multiarray\n_reconstruct", "_codecs\nencode", "os\nsystem"]  # fmt: skip
VALUES = st.sampled_from([
    b"N", b"K\x01", b"\x8a\x01\x05", b"X\x01\x00\x00\x00a", b"C\x01b", b"G?\xf0\x00\x00\x00\x00\x00\x00", b")", b"}", b"]",
    b"\x8f", b"(", b"X\x07\x00\x00\x00storageq\x01", b"h\x01", *(f"c{name}\n".encode() for name in NAMES),
])  # fmt: skip


@settings(quick, max_examples=400)
@given(st.lists(VALUES | st.sampled_from(sorted(_STEPS)) | st.binary(min_size=1, max_size=3), max_size=40))
def test_any_instructions_end_in_a_value_or_a_refusal(instructions):
    data = b"\x80\x04" + b"".join(instructions) + b"."
    try:
        load_inert(io.BytesIO(data), len(data))
    except (DamagedPickle, RefusedPickle):
        return


@settings(quick, max_examples=200)
@given(st.binary(max_size=60))
def test_any_messagepack_ends_in_a_value_or_a_refusal(data):
    try:
        unpack(data)
    except DamagedPack:
        return
