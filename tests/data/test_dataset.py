import pickle

import pytest
import torch
from fake_formats import RippleFormat, ripple
from reference_fields import loop

from inrbridge import GridField, plugins
from inrbridge.data import FieldDataset, StoreWriter, align
from inrbridge.domains import Box
from inrbridge.errors import CannotAlign, StoreError
from inrbridge.grid import GridFormat

BOX = Box.centered(2)


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """A host without strangers' plugins, with the fake format."""
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    plugins.rescan().register(RippleFormat())
    yield
    monkeypatch.undo()
    plugins.rescan()


def grid(seed, domain=BOX, names=("gray",), ranges=None, shape=None):
    generator = torch.Generator().manual_seed(seed)
    shape = shape or (4,) * domain.dim
    field = GridField(torch.rand(*shape, len(names), generator=generator), domain, channel_names=names)
    field.channel_ranges = ranges
    return field


def gray_ripple(seed):
    field = ripple(channels=1, seed=seed)
    field.channel_names = ("gray",)
    return field


def write(path, fields, **columns):
    """Write fields; columns such as label=[..] or split="train" go to each."""
    with StoreWriter(path, class_names=columns.pop("class_names", None)) as writer:
        for i, field in enumerate(fields):
            values = {key: column if isinstance(column, str) else column[i] for key, column in columns.items()}
            writer.add(field, name=f"f{i}", **values)
    return path


@pytest.fixture
def mixed(tmp_path):
    """Fields of two formats, three domains and two kinds of channels."""
    fields = [
        gray_ripple(0), grid(1, Box.unit(2)), grid(2, names=("red", "green", "blue")), gray_ripple(3),
        grid(4, Box.unit(2)), grid(5, Box([0, 0], [3, 1])),
    ]  # fmt: skip
    path = write(tmp_path / "store", fields, label=list("abcaab"), split=["train"] * 4 + ["test"] * 2)
    return path, fields


def test_a_minibatch_is_aligned_in_order_one_group_an_architecture(mixed):
    path, fields = mixed
    dataset = FieldDataset(path, channels="gray")
    assert dataset.domain == BOX and dataset.channels == ("gray",) and dataset.class_names == ["a", "b", "c"]
    order = [dataset.names.index(f"f{i}") for i in (5, 2, 0, 4, 3, 1, 0)]
    stack, labels = dataset.batch(order)
    assert labels.tolist() == [1, 2, 0, 0, 0, 1, 0] and labels.dtype == torch.long
    assert len(stack.groups) == 4 and stack.domain == BOX and stack.channel_names == ("gray",)
    x = torch.rand(9, 2) * 2 - 1
    expected = loop([align(fields[i], BOX, "gray") for i in (5, 2, 0, 4, 3, 1, 0)], x)
    torch.testing.assert_close(stack(x), expected)
    torch.testing.assert_close(dataset.batch(torch.tensor(order))[0](x), expected)
    torch.testing.assert_close(dataset.field(order[1])(x), expected[1])
    assert dataset.labels[order].tolist() == labels.tolist()


def test_choice_of_items(mixed):
    path, _ = mixed
    assert sorted(FieldDataset(path, "test").names) == ["f4", "f5"]
    assert FieldDataset(path, "test", channels="gray").formats == ["grid", "grid"]
    assert sorted(FieldDataset(path, formats=["ripple"]).names) == ["f0", "f3"]
    assert sorted(FieldDataset(path, "train", exclude_formats=["grid"]).names) == ["f0", "f3"]
    assert FieldDataset(path, "train", channels="gray").class_names == ["a", "b", "c"]
    with pytest.raises(StoreError, match="no field of"):
        FieldDataset(path, "test", formats=["ripple"])
    with pytest.raises(StoreError, match=r"splits of .* are: test, train"):
        FieldDataset(path, "val")
    with pytest.raises(StoreError, match='Did you mean "ripple"'):
        FieldDataset(path, formats=["riple"])
    with pytest.raises(StoreError, match="siren"):
        FieldDataset(path, exclude_formats=["siren"])


def test_splits_of_one_store_agree(tmp_path):
    fields = [grid(0, Box.unit(2)), grid(1, Box.centered(2))]
    path = write(tmp_path / "s", fields, label=[7, 10], split=["train", "test"])
    train, test = FieldDataset(path, "train"), FieldDataset(path, "test")
    assert train.domain == test.domain == Box.unit(2) and train.channels == test.channels
    assert train.class_names == test.class_names == ["7", "10"]  # in the order of numbers
    assert train.labels.tolist() == [0] and test.labels.tolist() == [1]


def test_items_that_do_not_agree_are_refused_with_the_remedy(tmp_path):
    path = write(tmp_path / "s", [grid(0), grid(1, Box.centered(3))])
    with pytest.raises(CannotAlign, match=r"several domains.*axes"):
        FieldDataset(path)
    with pytest.raises(CannotAlign, match=r"axes=\(0, 1\)"):
        FieldDataset(path, domain=BOX)
    path = write(tmp_path / "t", [grid(0), grid(1, names=("sdf",))])
    with pytest.raises(CannotAlign, match="different channels"):
        FieldDataset(path)
    with pytest.raises(CannotAlign, match="cannot be made"):
        FieldDataset(path, channels="gray")
    with pytest.raises(StoreError, match="no field of"):
        FieldDataset(write(tmp_path / "u", []))


def test_slices_of_one_format_join_another(tmp_path):
    fields = [gray_ripple(0), grid(1, Box.unit(3))]
    dataset = FieldDataset(write(tmp_path / "s", fields), axes={"grid": (2, 0)}, at={"grid": (0.25,)})
    x = torch.tensor([[0.0, 0.5]])
    values = dataset.stack([dataset.names.index("f1")])(x)
    torch.testing.assert_close(values[0], fields[1](torch.tensor([[0.75, 0.25, 0.5]])))


def test_shared_channels(tmp_path):
    colours = ("red", "green", "blue")
    assert FieldDataset(write(tmp_path / "a", [grid(0, names=("r", "g", "b")), grid(1, names=colours)])).channels == colours
    both = [grid(0, names=(*colours, "alpha")), grid(1, names=colours)]
    assert FieldDataset(write(tmp_path / "b", both)).channels == colours
    assert FieldDataset(write(tmp_path / "c", [grid(0, names=("0", "1")), grid(1, names=("1", "0"))])).channels == ("1", "0")
    assert FieldDataset(write(tmp_path / "d", [grid(0, names=("0",)), grid(1)])).channels == ("gray",)
    assert FieldDataset(write(tmp_path / "e", [grid(0, names=("0", "1"))])).channels == ("0", "1")


def test_ranges_are_those_of_the_first_that_knows(tmp_path):
    fields = [grid(0, names=("heat",)), grid(1, names=("heat",), ranges=((0.0, 1.0),)),
              grid(2, names=("heat",), ranges=((0.0, 100.0),))]  # fmt: skip
    path = write(tmp_path / "s", fields)
    x = torch.rand(5, 2)
    dataset = FieldDataset(path)
    assert dataset.ranges == {"heat": (0.0, 1.0)}
    factors = torch.tensor([1.0, 1.0, 0.01])[:, None, None]
    order = [dataset.names.index(f"f{i}") for i in range(3)]
    torch.testing.assert_close(dataset.stack(order)(x), loop(fields, x) * factors)
    raised = FieldDataset(path, ranges={"heat": (0.0, 10.0)})
    torch.testing.assert_close(raised.stack(order)(x), loop(fields, x) * factors * torch.tensor([1.0, 10, 10])[:, None, None])
    signed = write(tmp_path / "t", [grid(0, ranges=((-1.0, 1.0),))])
    torch.testing.assert_close(FieldDataset(signed).field(0)(x), (grid(0)(x) + 1) / 2)


def test_density_keeps_its_unit_whatever_ranges_others_state(tmp_path):
    fields = [grid(1, names=("density",), ranges=((0.0, 1.0),)), grid(2, names=("density",), ranges=((0.0, 100.0),))]
    dataset = FieldDataset(write(tmp_path / "s", fields))
    x = torch.rand(5, 2)
    order = [dataset.names.index(f"f{i}") for i in range(2)]
    torch.testing.assert_close(dataset.stack(order)(x), loop(fields, x))
    asked = FieldDataset(tmp_path / "s", ranges={"density": (0.0, 10.0)}).stack(order)(x)
    torch.testing.assert_close(asked, loop(fields, x) * torch.tensor([10, 0.1])[:, None, None])


def test_labels(tmp_path):
    fields = [grid(i) for i in range(3)]
    unlabelled = FieldDataset(write(tmp_path / "a", fields, label=["x", None, None]))
    with pytest.raises(StoreError, match=r"2 of 3 items without a label: f1, f2"):
        unlabelled.batch([0])
    assert unlabelled.stack([1])(torch.zeros(1, 2)).shape == (1, 1, 1)
    given = FieldDataset(write(tmp_path / "b", fields, label=["x", "z", "x"]), class_names=["z", "y", "x"])
    assert given.labels.tolist() == [2, 0, 2]
    with pytest.raises(StoreError, match=r"classes z"):
        FieldDataset(tmp_path / "b", class_names=["x"]).batch([0])
    stored = FieldDataset(write(tmp_path / "c", fields, label=["x", "z", "x"], class_names=["y", "z", "x"]))
    assert stored.class_names == ["y", "z", "x"] and stored.labels.tolist() == [2, 1, 2]
    targets = FieldDataset(write(tmp_path / "d", fields, label=[0.5, 1, 2.0]))
    assert targets.labels.tolist() == [0.5, 1.0, 2.0] and targets.class_names == ["1"]
    vectors = FieldDataset(write(tmp_path / "e", fields, label=[[0.5, 1], [1, 2], [3, 4]]))
    assert vectors.labels.shape == (3, 2) and vectors.batch([2, 0])[1].tolist() == [[3, 4], [0.5, 1]]
    with pytest.raises(StoreError, match="several kinds"):
        FieldDataset(write(tmp_path / "f", fields, label=[0.5, "a", [1]])).batch([0])
    with pytest.raises(StoreError, match="no indices"):
        stored.batch([])


def test_nothing_of_the_format_reaches_the_values(tmp_path):
    smooth = gray_ripple(0)
    sampled = GridFormat().sample(smooth, BOX, 1, shape=64)
    dataset = FieldDataset(write(tmp_path / "s", [smooth, sampled]))
    values = dataset.stack(range(2))(torch.rand(50, 2) * 1.8 - 0.9)
    torch.testing.assert_close(values[0], values[1], atol=1e-3, rtol=0)


def test_a_dataset_goes_to_a_worker(mixed):
    dataset = FieldDataset(mixed[0], channels="gray")
    x = torch.rand(5, 2)
    again = pickle.loads(pickle.dumps(dataset))
    torch.testing.assert_close(again.stack(range(6))(x), dataset.stack(range(6))(x))
