"""Which files are fields, and how names, labels and splits are read from folders, tables and patterns."""

import pytest

from inrbridge.data.sources import find_sources, read_table
from inrbridge.errors import CannotOpen, ConfigError, MissingFile

DWS = r"png_(?P<split>training|testing)_(?P<label>\d)_(?P<name>\d+)"


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def told(sources):
    return {source.name: (source.label, source.split) for source in sources}


@pytest.mark.parametrize(
    ("name", "label", "split"),
    [
        ("cat/1.pt", "cat", None),
        ("train/cat/1.pt", "cat", "train"),
        ("cat/train/1.pt", "cat", "train"),  # DI-net: the split may lie inside the class
        ("testing/05/3_42.ckpt", "05", "test"),
        ("animals/cat/1.pt", "cat", None),
        ("1.pt", None, None),
        ("val/1.pt", None, "val"),
        ("mnist_png_testing_7_0/checkpoints/model_final.pth", None, None),  # a run is no class
        ("cat/run_3/checkpoints/model_final.pth", "cat", None),
        ("cat/2024-01-01/nerfstudio_models/step-000.ckpt", "cat", None),
    ],
)
def test_folders_tell_labels_and_splits(tmp_path, name, label, split):
    (source,) = find_sources(touch(tmp_path / "data", name))
    assert (source.label, source.split, source.is_named, source.is_told) == (label, split, False, False)
    assert source.name == name.rpartition(".")[0]


def test_hidden_files_tables_and_stores_are_no_sources(tmp_path):
    root = touch(tmp_path / "data", ".git/x.pt", "a/.cache/y.pt", "a/z.pt", "labels.csv", "store/manifest.json",
                 "store/shard-00000.safetensors", "b/manifest.json", "b/shard-1.safetensors")  # fmt: skip
    (root / "labels.csv").write_text("path,label\na/z.pt,zed\n")
    assert [source.path.name for source in find_sources(root)] == ["z.pt", "shard-1.safetensors"]


def test_a_pattern_tells_label_split_and_name(tmp_path):
    root = touch(tmp_path / "d", *(f"mnist_png_{part}_{c}_{i}/checkpoints/model_final.pth" for part, c, i in
                                   (("training", 7, 10), ("testing", 2, 11))), "other/x.pth")  # fmt: skip
    assert told(find_sources(root, pattern=DWS)) == {"10": ("7", "train"), "11": ("2", "test"), "other/x": (None, None)}
    nfn = touch(tmp_path / "randinit_test_9s", "net0.pth", "net1.pth")
    # the name of the folder that is given belongs to the path, and one group without a name is the label
    assert told(find_sources(nfn, pattern=r"_(\d)s/net")) == {"net0": ("9", None), "net1": ("9", None)}
    assert told(find_sources(nfn, pattern=r"_(\d)s/net", splits="val")) == {"net0": ("9", "val"), "net1": ("9", "val")}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(", "no regular expression"),
        ("abc", "a group for the label"),
        ("(?P<class>.)", "a group for the label"),
        ("(q+)", "no path"),
    ],
)
def test_a_bad_pattern_is_told(tmp_path, pattern, text):
    with pytest.raises(ConfigError, match=text):
        find_sources(touch(tmp_path / "d", "a/1.pt"), pattern=pattern)


def test_a_table_tells_label_and_split_relative_to_itself(tmp_path):
    root = touch(tmp_path / "d", "a/1.pt", "a/2.pt", "b/1.pt")
    table = tmp_path / "table.csv"
    table.write_text("split,path,label\ntrain, d/a/1.pt ,cat\n,d/b/1.pt,dog\n")
    expected = {"a/1": ("cat", "train"), "a/2": (None, None), "b/1": ("dog", None)}
    assert told(find_sources(root, table)) == told(find_sources(root, str(table))) == expected
    assert all(source.is_told for source in find_sources(root, table))
    table.rename(root / "labels.csv")
    (root / "labels.csv").write_text("path,label,split\na/1.pt,cat,train\nb/1.pt,dog,\n")
    assert told(find_sources(root)) == expected  # found by itself
    assert told(find_sources(root, pattern=r"/(\w)/"))["a/2"] == ("a", None)  # a pattern that is asked for goes before it
    (root / "labels.csv").write_text("path,label\n/somewhere/1.pt,cat\n")
    with pytest.raises(CannotOpen, match="names none of the 3 files"):
        find_sources(root)


def test_lines_without_a_header_are_read_by_path_or_file_name(tmp_path):
    root = touch(tmp_path / "d", "a/1.pt", "b/2.pt")
    (tmp_path / "t.csv").write_text("2.pt,two\nd/a/1.pt,one\n")
    assert told(find_sources(root, tmp_path / "t.csv")) == {"a/1": ("one", None), "b/2": ("two", None)}


def test_numbers_that_are_not_whole_are_targets(tmp_path):
    table = tmp_path / "t.csv"
    for text, labels in (("0.5,1,-2e3", [0.5, 1.0, -2000.0]), ("3,1,2", ["3", "1", "2"]), ("0.5,a,1", ["0.5", "a", "1"])):
        table.write_text("path,label\n" + "".join(f"{i},{label}\n" for i, label in enumerate(text.split(","))))
        assert [row["label"] for row in read_table(table).values()] == labels


@pytest.mark.parametrize("text", ["", "path,label\n", "path,label\na\n", "a,b,c\n", b"\xff\xfe\x00"])
def test_a_bad_table_is_told(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CannotOpen, match="expected"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(CannotOpen, match="Cannot read labels"):
        read_table(tmp_path / "absent.csv")


def test_nothing_to_find(tmp_path):
    with pytest.raises(MissingFile, match="no files"):
        find_sources(tmp_path)
    with pytest.raises(MissingFile, match="nothing at"):
        find_sources([tmp_path / "absent"])
