import json
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from fake_formats import RippleFormat, ripple
from reference_fields import SineField, loop

from inrbridge import FunctionField, GridField, plugins
from inrbridge.data import Store, StoreWriter
from inrbridge.data.manifest import Manifest
from inrbridge.domains import Box
from inrbridge.errors import CannotSave, MissingFile, NotFinite, ShapeMismatch, StoreError, UnknownFormat
from inrbridge.field import channel_names
from inrbridge.transforms import rescale

BOX = Box.centered(2)


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """A host without strangers' plugins, with the fake format."""
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    plugins.rescan().register(RippleFormat())
    yield
    monkeypatch.undo()
    plugins.rescan()


def grid(seed, shape=(4, 3)):
    return GridField(torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed)), BOX)


FIELDS = [ripple(seed=0), grid(1), ripple(seed=2), ripple(seed=3, waves=2), grid(4), ripple(seed=5), grid(6)]


@pytest.fixture
def folder(tmp_path):
    """Seven fields of two formats and three architectures, in shards of two."""
    with StoreWriter(tmp_path / "store", shard_items=2) as writer:
        for i, field in enumerate(FIELDS):
            writer.add(field, name=f"f{i}", label=i % 3, split="train" if i < 5 else "test", psnr=30.0 + i)
    return tmp_path / "store"


def position(store, name):
    return store.names.index(name)


def test_what_was_written_is_read(folder):
    store = Store(folder)
    assert sorted(store.names) == [f"f{i}" for i in range(7)] and len(store) == 7
    assert store.format_names == ["grid", "ripple"] and len(store.manifest.architectures) == 3
    x = torch.rand(9, 2) * 2 - 1
    for i, field in enumerate(FIELDS):
        item = store.items[position(store, f"f{i}")]
        assert (item.label, item.split, item.psnr) == (i % 3, "train" if i < 5 else "test", 30.0 + i)
        read = store.field(position(store, f"f{i}"))
        assert read.format == field.format and read.architecture == field.architecture and read.domain == field.domain
        assert channel_names(read) == channel_names(field)
        torch.testing.assert_close(read(x), field(x))
    store.verify()
    assert not list(folder.glob("*.tmp"))


def test_a_minibatch_over_shards_and_architectures_keeps_its_order(folder):
    store = Store(folder)
    order = [6, 0, 3, 3, 5, 1]
    made = store.stack(position(store, f"f{i}") for i in order)
    assert len(made.groups) == 3 and not any(s.requires_grad for g in made.groups for s in g.states.values())
    x = torch.rand(9, 2) * 2 - 1
    torch.testing.assert_close(made(x), loop([FIELDS[i] for i in order], x))


def test_reading_does_not_touch_the_file(folder):
    store = Store(folder)
    (_, states, _), *_ = store.read([0])
    for value in states.values():
        value.zero_()
    store.verify()
    (_, again, _), *_ = store.read([0])
    assert any(value.abs().sum() > 0 for value in again.values())


def _first_values(store):
    return store.field(0)(torch.zeros(1, 2)).tolist()


def test_a_store_goes_to_a_worker(folder):
    store = Store(folder)
    here = _first_values(store)
    assert not pickle.loads(pickle.dumps(store))._tensors
    assert _first_values(pickle.loads(pickle.dumps(store))) == here
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        assert pool.submit(_first_values, store).result(timeout=60) == here


def test_appending_keeps_what_is_there(folder):
    before = {path.name: path.read_bytes() for path in folder.glob("shard-*")}
    with StoreWriter(folder) as writer:
        assert writer.names == {f"f{i}" for i in range(7)}
        writer.add(grid(9), name="late", label=2)
        with pytest.raises(StoreError, match="f3"):
            writer.add(grid(10), name="f3")
    store = Store(folder)
    store.verify()
    assert len(store) == 8 and store.names[-1] == "late" and len(store.manifest.architectures) == 3
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_an_error_in_the_middle_keeps_what_was_added(tmp_path):
    with pytest.raises(ZeroDivisionError), StoreWriter(tmp_path) as writer:
        writer.add(grid(0), name="a")
        raise ZeroDivisionError
    assert Store(tmp_path).names == ["a"]


def test_a_crash_while_writing_leaves_the_store_before(folder, monkeypatch):
    writer = StoreWriter(folder)
    writer.add(grid(9), name="late")

    def crash(source, target):
        if str(target).endswith("manifest.json"):
            raise OSError("no space left on device")
        return replace(source, target)

    replace = os.replace
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(StoreError, match="no space left"):
        writer.flush()
    Store(folder).verify()
    assert len(Store(folder)) == 7 and not list(folder.glob("*.tmp"))
    monkeypatch.setattr(os, "replace", replace)
    writer.flush()
    Store(folder).verify()
    assert Store(folder).names[-1] == "late"


def test_two_writers_do_not_overwrite_each_other(folder):
    first, second = StoreWriter(folder), StoreWriter(folder)
    first.add(grid(8), name="first")
    second.add(grid(9), name="second")
    first.flush()
    with pytest.raises(StoreError, match="another writer"):
        second.flush()
    assert Store(folder).names[-1] == "first"


def test_many_states_at_once(tmp_path):
    fields = [grid(i) for i in range(7)]
    states = {"samples": torch.stack([f.samples for f in fields])}
    with StoreWriter(tmp_path, shard_items=3) as writer:
        names = [f"f{i}" for i in range(7)]
        psnrs = torch.tensor([1.0, 2, 3, 4, 5, 6, float("inf")])
        writer.add_states(fields[0], states, names=names, labels=list("abcabca"), splits="train", psnrs=psnrs)
        with pytest.raises(ShapeMismatch, match="6 labels"):
            writer.add_states(fields[0], states, names=[f"g{i}" for i in range(7)], labels=list("abcabc"))
        with pytest.raises(ShapeMismatch, match="samples"):
            writer.add_states(fields[0], {"samples": states["samples"][:, :3]}, names=[f"g{i}" for i in range(7)])
        with pytest.raises(StoreError, match="twice"):
            writer.add_states(fields[0], states, names=["twice"] * 7)
    store = Store(tmp_path)
    assert [shard.rows for shard in store.manifest.shards] == [3, 3, 1]
    assert [item.psnr for item in store.items] == [1, 2, 3, 4, 5, 6, None]
    x = torch.rand(5, 2)
    torch.testing.assert_close(store.stack(range(7))(x), loop(fields, x))


def test_what_cannot_be_stored_is_refused(tmp_path):
    writer = StoreWriter(tmp_path)
    with pytest.raises(CannotSave, match=r"inrbridge\.fit"):
        writer.add(FunctionField(torch.sin, BOX, 2), name="a")
    with pytest.raises(CannotSave, match=r"field\.inner"):
        writer.add(rescale(grid(0), Box.unit(2)), name="a")
    broken = grid(0)
    broken.samples[0] = torch.nan
    with pytest.raises(NotFinite, match="a are NaN"):
        writer.add(broken, name="a")
    for label in (True, float("nan"), [1, "a"], {}):
        with pytest.raises(StoreError, match="label"):
            writer.add(grid(0), name="a", label=label)
    with pytest.raises(StoreError, match="split"):
        writer.add(grid(0), name="a", split=1)
    for name in ("", 3):
        with pytest.raises(StoreError, match="name"):
            writer.add(grid(0), name=name)
    odd = SineField()
    odd.width = object()
    with pytest.raises(CannotSave, match="JSON"):
        writer.add(odd, name="a")
    assert len(writer) == 0
    writer.add(grid(0), name="a")
    assert len(writer.store()) == 1
    with pytest.raises(StoreError, match="at least 1"):
        StoreWriter(tmp_path, shard_items=0)


def test_a_store_that_is_not_there(tmp_path):
    with pytest.raises(MissingFile, match=r"inrbridge\.pack"):
        Store(tmp_path)
    assert len(StoreWriter(tmp_path / "new").store()) == 0


def damage(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def test_damaged_shards_are_found(folder):
    shard = folder / "shard-00001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    with pytest.raises(StoreError, match=f"has {len(whole) - 10} bytes, expected {len(whole)}"):
        Store(folder)
    shard.unlink()
    with pytest.raises(StoreError, match="is missing"):
        Store(folder)
    with pytest.raises(StoreError, match="is missing"):
        StoreWriter(folder)
    shard.write_bytes(whole)
    store = Store(folder)
    damage(shard, lambda data: data.__setitem__(-1, data[-1] ^ 1))
    names = [item.name for item in store.items if item.shard == 1]
    with pytest.raises(StoreError, match=rf"shard-00001.safetensors .* 2 fields are damaged \({', '.join(names)}\)"):
        store.verify()
    shard.write_bytes(b"\xff" * len(whole))
    with pytest.raises(StoreError, match="is damaged"):
        Store(folder).read([position(store, names[0])])


def test_a_shard_of_another_architecture_is_refused(tmp_path):
    for seed, shape in ((0, (4, 3)), (1, (3, 4))):
        with StoreWriter(tmp_path / str(seed)) as writer:
            writer.add(grid(seed, shape), name="a")
    name = "shard-00000.safetensors"
    (tmp_path / "0" / name).write_bytes((tmp_path / "1" / name).read_bytes())
    store = Store(tmp_path / "0")  # of equal size, as it happens
    with pytest.raises(StoreError, match="not what the manifest says"):
        store.field(0)
    with pytest.raises(StoreError, match="checksum"):
        store.verify()


def test_an_architecture_that_the_format_does_not_build(folder):
    def edit(data):
        for architecture in data["architectures"].values():
            if architecture["format"] == "grid":
                architecture["options"]["shape"] = [1000000, 1000000]

    edited(folder, edit)
    store = Store(folder)
    with pytest.raises(StoreError, match="Cannot build"):
        store.field([store.manifest.format_of(i) for i in store.items].index("grid"))


def test_a_format_that_is_not_installed(folder):
    plugins.rescan()
    store = Store(folder)
    with pytest.raises(UnknownFormat, match="ripple"):
        store.stack(range(len(store)))


def edited(folder, change):
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(inrbridge_store=2), "version 2, this inrbridge reads up to 1"),
        (lambda d: d.pop("inrbridge_store"), "no manifest"),
        (lambda d: d.pop("shards"), "shards"),
        (lambda d: d["items"][0].update(row=99), "row 99 of shard"),
        (lambda d: d["items"][0].update(name=d["items"][1]["name"]), "occurs twice"),
        (lambda d: d["items"][0].update(label={"a": 1}), "label"),
        (lambda d: d["items"][0].update(split=["train"]), "text as split"),
        (lambda d: d["items"][0].update(row=float("inf")), "infinity"),
        (lambda d: d["shards"][0].update(file="../../secret.safetensors"), "secret"),
        (lambda d: d["shards"][0].update(architecture="other"), "other"),
        (lambda d: next(iter(d["architectures"].values())).update(channels=7), "one entry for each channel"),
    ],
)
def test_a_damaged_manifest_is_refused(folder, change, message):
    edited(folder, change)
    with pytest.raises(StoreError, match=message):
        Store(folder)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"inrbridge_store": 1}', "\x00\x01", "[" * 100_000])
def test_a_manifest_that_is_none(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match="pack the fields again"):
        Store(folder)


def test_unknown_keys_are_kept(folder):
    def add(data):
        data["origin"] = "a survey"
        data["items"][0]["author"] = "someone"
        data["shards"][0]["host"] = 3
        next(iter(data["architectures"].values()))["note"] = [1]

    edited(folder, add)
    with StoreWriter(folder) as writer:
        writer.add(grid(9), name="late")
    data = json.loads((folder / "manifest.json").read_text())
    assert data["origin"] == "a survey" and data["items"][0]["author"] == "someone" and data["shards"][0]["host"] == 3
    assert next(iter(data["architectures"].values()))["note"] == [1]
    Store(folder).verify()


def test_class_names_are_kept(tmp_path):
    StoreWriter(tmp_path, class_names=["shirt", "shoe"]).close()
    with StoreWriter(tmp_path) as writer:
        writer.add(grid(0), name="a", label="shoe")
    assert Store(tmp_path).manifest.class_names == ("shirt", "shoe")


def test_a_manifest_survives_its_text(folder):
    _, text = Manifest.read(folder)
    assert Manifest.from_text(text, "here").to_text() == text
