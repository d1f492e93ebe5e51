"""Containers of others: what is in them is listed and read alike, nothing in them runs, nothing fills the memory."""

import argparse
import collections
import gzip
import io
import json
import os
import pickle
import struct
import zlib

import h5py
import msgpack
import numpy as np
import pytest
import torch

from inrbridge import Assumptions, Probe, read_tensors
from inrbridge.errors import CannotOpen, ConfigError


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.omega_0 = torch.nn.Linear(2, 3), 17.0
        self.register_buffer("table", torch.arange(6.0).reshape(2, 3).t())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def agree(path):
    probe, tensors = Probe(path), read_tensors(path)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == dict(probe.tensors)
    return probe, tensors


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickled_module_gives_its_tensors_and_attributes(tmp_path, is_zip):
    net = Net()
    torch.save({"net": net, "options": argparse.Namespace(lr=0.5)}, tmp_path / "net.pt", _use_new_zipfile_serialization=is_zip)
    probe, tensors = agree(tmp_path / "net.pt")
    assert torch.equal(tensors["net.first.weight"], net.first.weight) and torch.equal(tensors["net.table"], net.table)
    assert probe.scalars["net.omega_0"] == 17.0 and probe.scalars["net.__class__"].endswith("Net")
    assert probe.scalars["options.lr"] == 0.5


def test_arrays_of_numpy_in_a_torch_file_and_objects_in_npy(tmp_path):
    torch.save({"w": torch.ones(2), "a": np.arange(4, dtype=np.float32), "n": np.float64(2.5)}, tmp_path / "a.pt")
    probe, tensors = agree(tmp_path / "a.pt")
    assert tensors["a"].tolist() == [0, 1, 2, 3] and probe.scalars["n"] == 2.5
    objects = np.empty(2, object)
    objects[0], objects[1] = np.ones((2, 3), np.float32), np.asfortranarray(np.arange(6.0).reshape(3, 2))
    np.save(tmp_path / "o.npy", objects)
    _, tensors = agree(tmp_path / "o.npy")
    assert torch.equal(tensors["1"], torch.from_numpy(np.arange(6.0).reshape(3, 2)))


@pytest.mark.parametrize("write", [
    lambda path: path.write_bytes(pickle.dumps(Evil())),
    lambda path: path.write_bytes(pickle.dumps({"w": np.ones(3), "e": Evil()}, protocol=4)),
    lambda path: torch.save({"w": torch.ones(3), "e": Evil()}, path),
    lambda path: torch.save({"w": torch.ones(3), "e": Evil()}, path, _use_new_zipfile_serialization=False),
    lambda path: np.save(path.open("wb"), np.array([Evil(), np.ones(3)], object)),
])  # fmt: skip
def test_a_pickle_that_asks_to_run_something_is_refused_and_does_not_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "evil.pkl")
    probe = Probe(tmp_path / "evil.pkl")
    assert "mkdir" in probe.refused and not probe.tensors
    with pytest.raises(CannotOpen, match="mkdir"):
        read_tensors(tmp_path / "evil.pkl")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("body", [
    b"\x80\x04r\xff\xff\xff\x7fN.",  # remembers under the number 2^31
    b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",  # a text of 2^60 bytes
    b"\x80\x04" + b"(" * 1000,
    b"\x80\x04cbuiltins\ndict\n)R.",
    b"\x80\x04K\x01Q.",
])  # fmt: skip
def test_pickles_that_cannot_be_followed_are_told(tmp_path, body):
    (tmp_path / "a.pkl").write_bytes(body)
    probe = Probe(tmp_path / "a.pkl")
    assert probe.damage or probe.refused
    with pytest.raises(CannotOpen):
        read_tensors(tmp_path / "a.pkl")


def test_a_tensor_beyond_its_storage_is_told(tmp_path):
    torch.save({"net": Net()}, tmp_path / "net.pt", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "net.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(raw[:-20])
    assert Probe(tmp_path / "short.pt").damage
    with pytest.raises(CannotOpen):
        read_tensors(tmp_path / "short.pt")


SNAPSHOT = {"encoding": {"n_levels": 8},
            "snapshot": {"mode": "nerf", "blob": b"\x01\x02", "aabb": {"min": [0.0, 0.5]}, "none": None,
                         "text": {"bytes": [3, 4, 5], "subtype": None}}}  # fmt: skip


@pytest.mark.parametrize("frame", [bytes, gzip.compress, zlib.compress])
def test_messagepack_bare_and_compressed(tmp_path, frame):
    (tmp_path / "a.msgpack").write_bytes(frame(msgpack.packb(SNAPSHOT)))
    probe, tensors = agree(tmp_path / "a.msgpack")
    assert tensors["snapshot.blob"].tolist() == [1, 2] and tensors["snapshot.text"].tolist() == [3, 4, 5]
    assert probe.scalars["snapshot.mode"] == "nerf" and probe.scalars["encoding.n_levels"] == 8
    assert probe.scalars["snapshot.aabb.min.1"] == 0.5


def test_messagepack_keeps_its_bytes_however_many_images_it_tells_of(tmp_path):
    images = [{"name": f"{i}.png", "lens": list(range(40))} for i in range(3000)]
    (tmp_path / "a.msgpack").write_bytes(msgpack.packb({"snapshot": {"dataset": {"metadata": images}, "params": bytes(8)}}))
    _, tensors = agree(tmp_path / "a.msgpack")
    assert tensors["snapshot.params"].shape == (8,)


def test_messagepack_that_is_none(tmp_path):
    path = tmp_path / "a.ingp"
    whole = gzip.compress(msgpack.packb(SNAPSHOT))
    for body in (whole[:-9], gzip.compress(msgpack.packb([1, 2])), gzip.compress(msgpack.packb({"a": msgpack.ExtType(4, b"x")})),
                 b"\x81\xa1a\xdd\xff\xff\xff\xff", b"\x81\xa1a\xc6\xff\xff\xff\xff"):  # fmt: skip
        path.write_bytes(body)
        assert Probe(path).damage
        with pytest.raises(CannotOpen):
            read_tensors(path)


def test_a_compressed_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    body = b"".join(packer.compress(bytes(2**22)) for _ in range(128)) + packer.flush()
    (tmp_path / "bomb.ingp").write_bytes(body)
    assert "fill the memory" in Probe(tmp_path / "bomb.ingp").damage


def test_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("net/dense/kernel", data=np.ones((2, 3), np.float32), compression="gzip")
        file["net"].attrs["activation"] = "relu"
        file["label"] = 4
    probe, tensors = agree(tmp_path / "a.h5")
    assert set(tensors) == {"net.dense.kernel", "label"} and probe.scalars["net.activation"] == "relu"


def test_hdf5_that_reaches_elsewhere_or_claims_too_much_is_refused(tmp_path):
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["a"] = h5py.ExternalLink("other.h5", "/a")
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("a", shape=(2**20, 2**20), dtype="f4", chunks=(1024, 1024), compression="gzip")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("a", shape=(4,), dtype="f4", external=[(str(tmp_path / "numbers"), 0, 16)])
    for name in ("link", "huge", "outside"):
        assert Probe(tmp_path / f"{name}.h5").damage, name
    (tmp_path / "cut.h5").write_bytes((tmp_path / "huge.h5").read_bytes()[:200])
    assert Probe(tmp_path / "cut.h5").damage


def test_numbers_and_texts_of_an_npz_are_values(tmp_path):
    np.savez(tmp_path / "a.npz", data_format=np.array("SH9"), basis_type=1, links=np.zeros((2, 2), np.uint32))
    probe, tensors = agree(tmp_path / "a.npz")
    assert probe.scalars == {"data_format": "SH9", "basis_type": 1}
    assert tensors["links"].dtype == torch.int64


def test_the_configuration_beside_a_file(tmp_path):
    file = tmp_path / "lego.ckpt"
    file.write_bytes(b"")
    assert Probe(file).sidecar == {} and Probe(file).sidecar_name == ""
    (tmp_path / "config.json").write_text(json.dumps({"a": {"b": [1, 2]}}))
    assert Probe(file).sidecar == {"a.b.0": 1, "a.b.1": 2}
    (tmp_path / "lego.config.yml").write_text(
        "!!python/object:os.system\nmodel: !tag\n  n: 8\n  path: !!python/object/apply:os.mkdir [x]\n"
    )
    assert Probe(file).sidecar == {"model.n": 8, "model.path.0": "x"} and Probe(file).sidecar_name == "lego.config.yml"
    models = tmp_path / "nerfstudio_models"
    models.mkdir()
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps({"scale": 0.5}))
    assert Probe(models / "step-1.ckpt").sidecar["dataparser.scale"] == 0.5


def test_aliases_of_yaml_do_not_multiply(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "config.yml").write_text("\n".join(lines))
    assert len(Probe(tmp_path / "x.pt").sidecar) < 1000


def test_assumptions_keep_account():
    known = Assumptions("d", {"omega": "much", "levels": 4}, "config.yml")
    assert known.choose("omega_0", None, 30.0, key="omega") == 30.0
    assert known.choose("levels", None, 16, key="levels", kind=int) == 4
    assert known.choose("final", "sine", "identity", kind=str) == "sine"
    known.note("so it is")
    assert known.sentences == ("omega_0 = 30 (default of dialect d)", "levels = 4 (config.yml)", "so it is")
    with pytest.raises(ConfigError, match="omega_0"):
        known.choose("omega_0", "fast", 30.0)


def test_ordered_dicts_and_counters_are_data(tmp_path):
    stream = io.BytesIO()
    pickle.dump({"w": collections.OrderedDict(a=np.ones(2)), "c": collections.Counter("aab")}, stream)
    (tmp_path / "a.pkl").write_bytes(stream.getvalue())
    assert list(read_tensors(tmp_path / "a.pkl")) == ["w.a"]
