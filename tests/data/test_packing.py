import numpy as np
import pytest
import torch

from inrbridge import GridField, plugins, save_field
from inrbridge.data import Store, StoreWriter, pack
from inrbridge.data.packing import PACKED_ALREADY, UNCLAIMED
from inrbridge.domains import Box
from inrbridge.errors import CannotOpen, InrBridgeError, MissingFile, ShapeMismatch, StoreError, UnknownFormat
from inrbridge.grid import GridFormat


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """The core without plugins."""
    monkeypatch.setattr(plugins, "distributions", lambda: [])  # installed plugins are out of sight, not switched off
    plugins.rescan()
    yield
    monkeypatch.undo()
    plugins.rescan()


@pytest.fixture
def folder(tmp_path):
    """Two splits of two classes of two files each."""
    for number, (split, label, name) in enumerate((s, c, n) for s in ("train", "test") for c in ("cat", "dog") for n in "ab"):
        place = tmp_path / "data" / split / label
        place.mkdir(parents=True, exist_ok=True)
        save_field(GridField(torch.full((2, 2, 1), float(number)), Box.unit(2)), place / f"{name}.safetensors")
    return tmp_path / "data"


def table(store):
    return {item.name: (item.label, item.split, round(float(store.field(i)(torch.full((2,), 0.5)))))
            for i, item in enumerate(store.items)}  # fmt: skip


def test_names_labels_and_splits_follow_the_folders(folder):
    store = pack(folder, folder / "packed")
    expected = {
        f"{split}/{label}/{name}": (label, split, number)
        for number, (split, label, name) in enumerate((s, c, n) for s in ("train", "test") for c in ("cat", "dog") for n in "ab")
    }
    assert table(store) == expected
    skipped = []
    again = pack(folder, folder / "packed", on_skip=lambda path, why: skipped.append(why))
    assert table(again) == expected and skipped == [PACKED_ALREADY] * 8  # and the store itself is passed over
    files = sorted((folder / "train").rglob("*.safetensors"))
    assert table(pack(files, folder / "other")) == {
        "cat/a": ("cat", None, 0), "cat/b": ("cat", None, 1), "dog/a": ("dog", None, 2), "dog/b": ("dog", None, 3),
    }  # fmt: skip
    assert table(pack(files[0], folder / "single")) == {"a": (None, None, 0)}


def test_names_labels_and_splits_as_told(folder):
    files = sorted((folder / "train").rglob("*.safetensors"))
    store = pack(files, folder / "a", labels=torch.tensor([3, 1, 3, 1]), splits="train", names=list("wxyz"), class_names="0123")
    assert table(store) == {"w": (3, "train", 0), "x": (1, "train", 1), "y": (3, "train", 2), "z": (1, "train", 3)}
    assert store.manifest.class_names == ("0", "1", "2", "3")
    store = pack(files, folder / "b", labels={"a.safetensors": "first", "b": "second"}, splits=lambda path: path.parent.name)
    assert [table(store)[name][:2] for name in ("cat/a", "dog/b")] == [("first", "cat"), ("second", "dog")]
    with pytest.raises(ShapeMismatch, match="3 labels for 4 files"):
        pack(files, folder / "c", labels=list("abc"))


def test_a_file_that_does_not_open(folder):
    (folder / "train" / "cat" / "b.safetensors").write_bytes(b"junk")
    with pytest.raises(InrBridgeError, match=r"b\.safetensors"):
        pack(folder, folder / "a", format="grid")
    assert len(Store(folder / "a")) == 5  # what came before
    told = []
    store = pack(folder, folder / "b", keep_going=True, on_error=lambda path, error: told.append((path.name, type(error))))
    assert len(store) == 7 and told == [("b.safetensors", CannotOpen)]


def test_a_name_that_another_file_has_taken_is_an_error_even_when_going_on(folder):
    pack(folder / "train", folder / "a", names=lambda path: path.stem + path.parent.name)
    with pytest.raises(StoreError, match='holds "acat" already, of another file than'):
        pack(folder / "test", folder / "a", names=lambda path: path.stem + path.parent.name, keep_going=True)
    with StoreWriter(folder / "b") as writer:  # of a field that came from no file
        writer.add(GridField(torch.zeros(2, 2, 1), Box.unit(2)), name="cat/a")
    with pytest.raises(StoreError, match='holds "cat/a" already'):
        pack(folder / "train", folder / "b")


def test_files_of_other_kinds_are_passed_over_in_a_folder_and_errors_when_named(folder):
    (folder / "README.md").write_text("about these files")
    np.savez(folder / "train" / "golden.npz", coords=np.zeros((3, 2)))
    skipped = []
    store = pack(folder, folder / "a", on_skip=lambda path, why: skipped.append((path.name, why)))
    assert len(store) == 8 and skipped == [("README.md", UNCLAIMED), ("golden.npz", UNCLAIMED)]
    with pytest.raises(UnknownFormat, match=r"README\.md"):
        pack([folder / "train", folder / "README.md"], folder / "b")
    assert len(Store(folder / "b")) == 4
    torch.save({"net.0.linear.weight": torch.zeros(4, 2)}, folder / "siren.pt")  # of a plugin that is known and absent
    with pytest.raises(UnknownFormat, match="pip install inrbridge-siren"):
        pack(folder, folder / "c")
    (folder / "only").mkdir()
    (folder / "only" / "a.txt").write_text("nothing")
    with pytest.raises(MissingFile, match="no format claims 1 and 0 do not open"):
        pack(folder / "only", folder / "d")
    assert not (folder / "d").exists()


def test_an_interrupted_packing_goes_on(folder, monkeypatch):
    calls = []

    def stop(done, total, figures):
        calls.append((done, total))
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(folder, folder / "a", progress=stop)
    assert calls == [(i + 1, 8) for i in range(5)]
    before = {path.name: path.read_bytes() for path in (folder / "a").glob("shard-*")}
    assert len(Store(folder / "a")) == 5
    skipped = []
    assert len(pack(folder, folder / "a", on_skip=lambda path, why: skipped.append(why))) == 8
    assert skipped == [PACKED_ALREADY] * 5
    assert before.items() <= {path.name: path.read_bytes() for path in (folder / "a").glob("shard-*")}.items()
    assert table(Store(folder / "a")) == table(pack(folder, folder / "whole"))


def test_a_file_of_several_fields_goes_on_where_it_stopped(tmp_path):
    class Rows(GridFormat):
        name = "rows"

        def recognizes(self, probe):
            return "array" in probe.tensors

        def count(self, probe):
            return probe.tensors["array"][0]

        def open(self, path, *, index: int = 0):
            if index == 2 and not (tmp_path / "mended").exists():
                raise CannotOpen("row 2 is broken.")
            field = GridField(torch.from_numpy(np.load(path))[index], Box.unit(2))
            field.format = "grid"
            return field

    np.save(tmp_path / "pile.npy", np.float32(np.arange(4)[:, None, None, None] * np.ones((4, 2, 2, 1))))
    plugins.registry().register(Rows())
    store = pack(tmp_path / "pile.npy", tmp_path / "s", keep_going=True, on_error=lambda path, error: None)
    assert store.names == ["pile/0", "pile/1"]
    (tmp_path / "mended").touch()
    assert [row[2] for row in table(pack(tmp_path / "pile.npy", tmp_path / "s")).values()] == [0, 1, 2, 3]
    assert pack(tmp_path / "pile.npy", tmp_path / "one", options={"index": 1}).names == ["pile"]


def test_nothing_to_pack(tmp_path):
    with pytest.raises(MissingFile, match="no files"):
        pack(tmp_path, tmp_path / "out")
    with pytest.raises(MissingFile, match="nothing at"):
        pack([tmp_path / "absent"], tmp_path / "out")
