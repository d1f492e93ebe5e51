"""A folder of field files is read as a store of them: the slow twin of a loose folder is the store that `pack` makes of it."""

import pickle

import numpy as np
import pytest
import torch
from fake_formats import RippleFormat, ripple

from inrbridge import GridField, open_field, plugins, save_field
from inrbridge.data import FieldDataset, LooseFolder, Store, open_store, pack
from inrbridge.domains import Box
from inrbridge.errors import ConfigError, LeftOut, MissingFile, StoreError
from inrbridge.testing import only_plugins


class SeveralFormat(RippleFormat):
    """Files of several ripples, stacked on axis 0, with their classes."""

    name = "several"

    def recognizes(self, probe):
        return "array" in probe.tensors and len(probe.tensors["array"]) == 3

    def count(self, probe):
        return probe.tensors["array"][0]

    def open(self, path, *, index: int = 0, gain: float = 1.0):
        numbers = torch.from_numpy(np.load(path))[index]  # (waves, 3)
        field = ripple(channels=1, waves=len(numbers))
        field.load_state_dict({"frequency": numbers[:, :2], "amplitude": gain * numbers[:, 2:]})
        field.channel_names, field.format, field.label = ("gray",), "several", f"class {index % 2}"
        return field

    def build(self, domain, channels, *, generator=None, waves: int = 4):
        field = super().build(domain, channels, generator=generator, waves=waves)
        field.channel_names, field.format = ("gray",), "several"
        return field


@pytest.fixture(autouse=True)
def host():
    with only_plugins() as registry:
        registry.register(RippleFormat())
        registry.register(SeveralFormat())
        yield


@pytest.fixture
def folder(tmp_path):
    """Fields of three formats and two architectures of one, in two splits and two classes, beside files of other kinds."""
    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        place = tmp_path / "d" / ("train" if number < 6 else "test") / f"class {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        if number % 3:
            size = 4 + number % 2
            field = GridField(torch.rand(size, size, 1, generator=generator), Box.centered(2), channel_names=("gray",))
        else:
            field = ripple(channels=1, seed=number)
            field.channel_names = ("gray",)
        save_field(field, place / f"{number}.safetensors")
    np.save(tmp_path / "d" / "train" / "packed.npy", np.float32(np.random.default_rng(0).normal(size=(3, 4, 3))))
    (tmp_path / "d" / "README.md").write_text("about these fields")
    np.savez(tmp_path / "d" / "train" / "golden.npz", coords=np.zeros((3, 2)))
    return tmp_path / "d"


def test_packed_and_loose_are_equal(folder, tmp_path):
    packed, loose = pack(folder, tmp_path / "packed"), open_store(folder)
    assert isinstance(loose, LooseFolder) and isinstance(open_store(tmp_path / "packed"), Store)
    assert len(loose) == 11 and loose.names == packed.names and loose.format_names == ["grid", "ripple", "several"]
    for ours, theirs in zip(loose.items, packed.items, strict=True):
        assert (ours.label, ours.split, loose.manifest.format_of(ours)) == (
            theirs.label, theirs.split, packed.manifest.format_of(theirs))  # fmt: skip
    assert loose.manifest.architectures == packed.manifest.architectures
    x = torch.rand(50, 2) * 2 - 1
    for split in (None, "train", "test"):
        first, second = FieldDataset(folder, split), FieldDataset(tmp_path / "packed", split)
        assert (first.domain, first.channels, first.class_names) == (second.domain, second.channels, second.class_names)
        assert first.formats == second.formats and torch.equal(first.labels, second.labels)
        order = torch.randperm(len(first), generator=torch.Generator().manual_seed(1))
        ours, theirs = first.batch(order), second.batch(order)
        assert torch.equal(ours[0](x), theirs[0](x)) and torch.equal(ours[1], theirs[1])
    assert not any(path.name == "manifest.json" for path in folder.rglob("*"))


def test_files_of_several_fields_are_several_items_with_their_own_labels(folder):
    loose = LooseFolder(folder)
    several = {item.name: (item.label, item.split) for item in loose.items if loose.manifest.format_of(item) == "several"}
    assert several == {f"train/packed/{i}": (f"class {i % 2}", "train") for i in range(3)}
    x = torch.rand(5, 2)
    field = loose.field(loose.names.index("train/packed/2"))
    assert torch.equal(field(x), open_field(folder / "train" / "packed.npy", index=2)(x))
    (folder / "labels.csv").write_text("path,label\ntrain/packed.npy,told\n")
    assert LooseFolder(folder, format=None).items[loose.names.index("train/packed/2")].label == "told"


def test_options_reach_the_formats_that_have_them(folder):
    x = torch.rand(5, 2)
    plain, louder = LooseFolder(folder), LooseFolder(folder, options={"gain": 3.0})
    for index, item in enumerate(plain.items):
        factor = 1.0 if plain.manifest.format_of(item) == "grid" else 3.0
        torch.testing.assert_close(louder.field(index)(x), plain.field(index)(x) * factor)
    one = LooseFolder(folder, options={"index": 1})
    assert [name for name in one.names if "packed" in name] == ["train/packed"] and len(one) == 9
    with pytest.raises(ConfigError, match=r'no option "gian".*Did you mean "gain"'):
        LooseFolder(folder, options={"gian": 1.0})


def test_states_beyond_the_memory_are_opened_again(folder):
    whole, small = FieldDataset(folder), FieldDataset(LooseFolder(folder, memory=300))
    assert len(small.store._kept) < len(small) == len(whole.store._kept)
    x = torch.rand(9, 2)
    assert torch.equal(small.stack(range(11))(x), whole.stack(range(11))(x))
    changed = folder / "train" / "class 1" / "5.safetensors"
    number = small.names.index("train/class 1/5")
    save_field(GridField(torch.rand(9, 9, 1), Box.centered(2), channel_names=("gray",)), changed)
    with pytest.raises(StoreError, match=r"5\.safetensors was changed"):
        small.stack([number])


def test_a_loose_folder_goes_to_a_worker_without_its_states(folder):
    dataset = FieldDataset(folder)
    text = pickle.dumps(dataset)
    again = pickle.loads(text)
    assert not again.store._kept
    x = torch.rand(5, 2)
    assert torch.equal(again.stack(range(11))(x), dataset.stack(range(11))(x))


def test_a_bad_file_is_left_out_with_a_warning(folder):
    (folder / "train" / "class 0" / "bad.safetensors").write_bytes(b"junk")
    with pytest.warns(LeftOut, match=r"1 file of .*/class 0/bad\.safetensors.*truncated"):
        loose = LooseFolder(folder)
    assert len(loose) == 11


def test_folders_without_fields_and_names_that_clash(tmp_path, folder):
    (tmp_path / "texts").mkdir()
    for path in ("absent", "texts"):
        with pytest.raises(MissingFile, match="no store at"):
            FieldDataset(tmp_path / path)
    (tmp_path / "texts" / "a.txt").write_text("nothing")
    with pytest.raises(MissingFile, match="nor any file in it that a format opens"):
        FieldDataset(tmp_path / "texts")
    (tmp_path / "twice").mkdir()
    for name in ("train-1", "test-1"):
        save_field(ripple(), tmp_path / "twice" / f"{name}.safetensors")
    with pytest.raises(StoreError, match="several fields with the names 1"):
        LooseFolder(tmp_path / "twice", label_pattern=r"(?P<label>\w+)-(?P<name>\d)")


def test_only_installed_formats_open_files(folder):
    plugins.rescan()
    with pytest.warns(LeftOut, match='no format "ripple"'):
        loose = LooseFolder(folder)
    assert loose.format_names == ["grid"]
