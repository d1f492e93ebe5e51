import pytest
import torch

from inrbridge import GridField, save_field
from inrbridge.data import Store, pack
from inrbridge.data.packing import PACKED_ALREADY
from inrbridge.domains import Box
from inrbridge.errors import CannotOpen, InrBridgeError, MissingFile, ShapeMismatch


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """The core without plugins."""
    from inrbridge import plugins

    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
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


def test_nothing_to_pack(tmp_path):
    with pytest.raises(MissingFile, match="no files"):
        pack(tmp_path, tmp_path / "out")
    with pytest.raises(MissingFile, match="nothing at"):
        pack([tmp_path / "absent"], tmp_path / "out")
