"""Signals: every kind of file and array becomes a field through its samples, and every bad one a clear error."""

import pickle
import struct
import sys
import wave
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from inrbridge import sampling
from inrbridge.domains import Ball, Box, Region
from inrbridge.errors import CannotOpen, ConfigError, MissingDependency, MissingFile, NotFinite, ShapeMismatch
from inrbridge.field import FunctionField
from inrbridge.signals import Signal, read_array, read_labels, read_signal, read_signals

rng = np.random.default_rng(0)


def values(signal):
    """Values of a signal's field at its own sample points, as an array (*shape, c)."""
    points = sampling.grid(signal.field.domain, signal.shape).points
    return signal.field(points).reshape(*signal.shape, -1).numpy()


@pytest.mark.parametrize("shape", [(9,), (5, 7), (4, 3, 6), (2, 3, 2, 5)])
def test_the_field_passes_through_the_samples_in_every_dimension(shape):
    array = rng.normal(size=(*shape, 2)).astype(np.float32)
    signal = read_signal(array, channels="last")
    assert signal.shape == shape and signal.field.domain == Box.centered(len(shape)) and signal.field.channels == 2
    np.testing.assert_allclose(values(signal), array, atol=1e-5)
    assert signal.peak == pytest.approx(array.max() - array.min())


def test_array_axis_a_is_coordinate_a():
    array = np.zeros((4, 8), np.float32)
    array[3, 0] = 1.0
    field = read_signal(array, domain=Box((0, 0), (4, 8))).field
    assert field(torch.tensor([[3.5, 0.5], [0.5, 3.5]])).flatten().tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "rule", "samples", "channels"),
    [
        ((6, 5), "auto", (6, 5), 1),
        ((6, 4), "auto", (6,), 4),
        ((6, 4), "none", (6, 4), 1),
        ((6, 5), "last", (6,), 5),
        ((6,), "auto", (6,), 1),
        ((3,), "none", (3,), 1),
        ((6, 5, 3), "auto", (6, 5), 3),
    ],
)
def test_which_axis_holds_channels(shape, rule, samples, channels):
    signal = read_signal(np.ones(shape), channels=rule)
    assert (signal.shape, signal.field.channels) == (samples, channels)


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint16, 65535), (bool, 1)])
def test_unsigned_integers_are_fractions_of_their_range(dtype, most):
    signal = read_signal((np.eye(6) * most).astype(dtype))
    np.testing.assert_allclose(values(signal)[..., 0], np.eye(6), atol=1e-6)
    assert signal.peak == 1.0


def test_other_numbers_stay_as_they_are_and_a_constant_has_a_peak():
    assert float(values(read_signal(np.full((4, 5), -7)))[0, 0, 0]) == -7.0
    assert read_signal(np.full((4, 5), -7)).peak == 7.0
    assert read_signal(torch.zeros(5)).peak == 1.0


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        (np.array([1.0, np.nan, 2.0]), NotFinite, "1 NaN or infinite of 3"),
        (np.array([1e300, 1.0]), NotFinite, "infinite"),
        (np.zeros((0, 5)), ShapeMismatch, "without samples"),
        (np.zeros((5, 4, 0)), ShapeMismatch, "without samples"),
        (np.zeros((2,) * 6), ShapeMismatch, "expected 1 to 4"),
        (np.array(["a"]), CannotOpen, "real numbers"),
        (np.array([1j]), CannotOpen, "real numbers"),
        (np.array(3.0), ShapeMismatch, "0 axes"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_arrays(array, error, words):
    with pytest.raises(error, match=words):
        read_signal(array)


def test_wrong_options():
    with pytest.raises(ConfigError, match='channels="first"'):
        read_signal(np.ones(4), channels="first")
    with pytest.raises(ShapeMismatch, match="sample axis before"):
        read_signal(np.ones(4), channels="last")
    with pytest.raises(ShapeMismatch, match="expected a Box of as many"):
        read_signal(np.ones((4, 5)), domain=Box.unit(3))
    with pytest.raises(ConfigError, match="Got a int as a signal"):
        read_signal(3)


# images


def save_image(path, array, mode=None):
    Image.fromarray(array, mode).save(path) if mode else Image.fromarray(array).save(path)
    return path


def test_gray_and_colour_images(tmp_path):
    gray = rng.integers(0, 256, (7, 5), np.uint8)
    colour = rng.integers(0, 256, (7, 5, 3), np.uint8)
    for name, array, names in (("g", gray, ("gray",)), ("c", colour, ("red", "green", "blue"))):
        signal = read_signal(save_image(tmp_path / f"{name}.png", array))
        assert (signal.name, signal.shape, signal.peak, signal.field.channel_names) == (name, (7, 5), 1.0, names)
        np.testing.assert_allclose(values(signal), array.reshape(7, 5, -1) / 255, atol=1e-6)


def test_transparent_images_lie_on_the_background(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255  # the upper half is black, the lower nothing
    path = save_image(tmp_path / "a.png", pixels)
    assert values(read_signal(path))[:, 0, 0].tolist() == pytest.approx([0, 0, 1, 1])
    assert values(read_signal(path, background=0.25))[:, 0, 1].tolist() == pytest.approx([0, 0, 0.25, 0.25])


def test_palette_bilevel_and_deep_images(tmp_path):
    palette = Image.new("P", (3, 2))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((2, 1), 1)
    palette.save(tmp_path / "p.png")
    found = values(read_signal(tmp_path / "p.png"))
    assert found[0, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-6) and found[1, 2].tolist() == pytest.approx(
        [0, 0, 1], abs=1e-6
    )
    Image.new("1", (3, 3), 1).save(tmp_path / "b.png")
    assert values(read_signal(tmp_path / "b.png")).min() == pytest.approx(1.0)
    deep = np.full((4, 4), 32768, np.uint16)
    Image.fromarray(deep).save(tmp_path / "d.png")
    assert values(read_signal(tmp_path / "d.png"))[0, 0, 0] == pytest.approx(32768 / 65535)


def test_damaged_images(tmp_path):
    whole = save_image(tmp_path / "w.png", rng.integers(0, 256, (64, 64), np.uint8)).read_bytes()
    for name, content in (("half.png", whole[: len(whole) // 2]), ("text.png", b"hello"), ("none.jpg", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CannotOpen, match=f"{name} is not a whole PNG or JPEG"):
            read_signal(tmp_path / name)
    header = bytearray(whole)
    header[16:24] = struct.pack(">II", 60000, 60000)  # a picture of 3.6e9 pixels
    (tmp_path / "bomb.png").write_bytes(bytes(header))
    with pytest.raises(CannotOpen):
        read_signal(tmp_path / "bomb.png")


def test_images_without_pillow(tmp_path, monkeypatch):
    path = save_image(tmp_path / "w.png", np.zeros((2, 2), np.uint8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependency, match=r'pip install "inrbridge\[plot\]"'):
        read_signal(path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(MissingFile, match=r"There is no file .*gone\.png"):
        read_signal(tmp_path / "gone.png")
    (tmp_path / "song.mp3").write_bytes(b"")
    with pytest.raises(CannotOpen, match=r"ends in \.mp3, expected a signal: \.png"):
        read_signal(tmp_path / "song.mp3")
    with pytest.raises(CannotOpen, match="folder"):
        read_signal(tmp_path)


# arrays in files


def test_arrays_in_files(tmp_path):
    array = rng.normal(size=(6, 7))
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "b.npz", x=array, y=array + 1)
    np.savez(tmp_path / "c.npz", only=array)
    np.testing.assert_allclose(values(read_signal(tmp_path / "a.npy"))[..., 0], array, atol=1e-5)
    np.testing.assert_allclose(values(read_signal(tmp_path / "b.npz", key="y"))[..., 0], array + 1, atol=1e-5)
    assert read_signal(tmp_path / "c.npz").shape == (6, 7)
    for key in (None, "z"):
        with pytest.raises(ConfigError, match="expected one of: x, y; pass key="):
            read_signal(tmp_path / "b.npz", key=key)


def test_damaged_arrays(tmp_path):
    np.save(tmp_path / "a.npy", rng.normal(size=(64, 64)))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "half.npy").write_bytes(whole[:9000])
    (tmp_path / "junk.npy").write_bytes(b"junk")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.save(tmp_path / "empty.npy", np.zeros((0, 3)))
    np.save(tmp_path / "nan.npy", np.array([np.nan, 1.0]))
    for name in ("half.npy", "junk.npy", "junk.npz"):
        with pytest.raises(CannotOpen, match=name):
            read_signal(tmp_path / name)
    with pytest.raises(ShapeMismatch, match=r"empty\.npy of shape .* without samples"):
        read_signal(tmp_path / "empty.npy")
    with pytest.raises(NotFinite, match=r"nan\.npy"):
        read_signal(tmp_path / "nan.npy")


class Bomb:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_no_array_runs_code(tmp_path, capsys):
    np.save(tmp_path / "o.npy", np.array([Bomb()], object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=np.array([Bomb()], object))
    (tmp_path / "p.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("o.npy", "o.npz", "p.npy"):
        with pytest.raises(CannotOpen):
            read_signal(tmp_path / name)
    assert "must never" not in capsys.readouterr().out


def test_sizes_that_a_header_only_promises_are_refused_before_memory_is_taken(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    lie = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64
    (tmp_path / "lie.npy").write_bytes(lie)
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("x.npy", lie)
    for name in ("lie.npy", "lie.npz"):
        with pytest.raises(CannotOpen, match="promises 8000000000000 bytes"):
            read_signal(tmp_path / name)


def test_labels_in_files(tmp_path):
    np.save(tmp_path / "y.npy", np.array([3, 1]))
    np.savez(tmp_path / "y.npz", y=np.array([3, 1], np.uint8), x=np.zeros(2))
    (tmp_path / "y.txt").write_text("cat\ndog\n")
    assert read_labels(tmp_path / "y.npy") == read_labels(f"{tmp_path}/y.npz:y") == [3, 1]
    assert read_labels(tmp_path / "y.txt") == ["cat", "dog"]
    with pytest.raises(CannotOpen, match="one text or whole number"):
        read_labels(f"{tmp_path}/y.npz:x")
    with pytest.raises(MissingFile):
        read_labels(tmp_path / "z.txt")
    assert read_array(tmp_path / "y.npy").tolist() == [3, 1]


# sounds


def save_sound(path, channels=1, width=2, frames=50):
    ramp = np.linspace(-1, 1, frames * channels)
    packed = {1: ((ramp + 1) * 127.5).astype(np.uint8), 2: (ramp * 32767).astype("<i2")}[width]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(packed.tobytes())
    return ramp.reshape(frames, channels)


@pytest.mark.parametrize(("channels", "width", "names"), [(1, 2, ("sound",)), (2, 2, ("left", "right")), (1, 1, ("sound",))])
def test_sounds(tmp_path, channels, width, names):
    ramp = save_sound(tmp_path / "s.wav", channels, width)
    signal = read_signal(tmp_path / "s.wav")
    assert signal.shape == (50,) and signal.field.channel_names == names
    np.testing.assert_allclose(values(signal), ramp, atol=0.016 if width == 1 else 1e-4)


def test_sounds_of_floats_and_damaged_sounds(tmp_path):
    from scipy.io import wavfile

    wavfile.write(tmp_path / "f.wav", 8000, np.array([0.5, -0.5, 0.25], np.float32))
    assert values(read_signal(tmp_path / "f.wav"))[:, 0].tolist() == pytest.approx([0.5, -0.5, 0.25])
    save_sound(tmp_path / "s.wav")
    whole = (tmp_path / "s.wav").read_bytes()
    for name, content in (("cut.wav", whole[:70]), ("head.wav", whole[:20]), ("junk.wav", b"junk")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CannotOpen, match="not a whole WAV"):
            read_signal(tmp_path / name)


# callables and fields


def test_callables():
    disc = Region(Box.centered(2), lambda x: x.norm(dim=-1) < 0.5)
    for domain in (Ball((0.0, 0.0)), disc):
        plain = read_signal(lambda x: x.sum(-1), domain=domain)
        assert plain.field.channels == 1 and plain.shape is None and plain.field(torch.ones(3, 2)).shape == (3, 1)
        assert read_signal(torch.sin, domain=domain).field.channels == 2
    with pytest.raises(ConfigError, match="without a domain"):
        read_signal(torch.sin)
    with pytest.raises(ShapeMismatch, match="expected a tensor"):
        read_signal(lambda x: x.sum(), domain=Box.unit(2))
    with pytest.raises(ShapeMismatch, match="returned float"):
        read_signal(lambda x: 1.0, domain=Box.unit(2))


def test_fields_and_signals_pass_as_they_are():
    field = FunctionField(torch.sin, Box.unit(1), 1)
    assert read_signal(field, name="f").field is field
    signal = Signal("s", field)
    assert read_signals([signal])[0].field is field


# many


def test_a_folder_tells_names_labels_and_splits(tmp_path):
    for place in ("train/cat/1", "train/dog/1", "test/cat/2", "loose", ".hidden/x", "train/plain"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"{place}.npy", np.zeros(3))
    (tmp_path / "notes.txt").write_text("no signal")
    found = [(s.name, s.label, s.split) for s in read_signals(tmp_path)]
    assert found == [
        ("loose", None, None),
        ("test/cat/2", "cat", "test"),
        ("train/cat/1", "cat", "train"),
        ("train/dog/1", "dog", "train"),
        ("train/plain", None, "train"),
    ]
    paths = [tmp_path / "train/cat/1.npy", str(tmp_path / "train/dog/1.npy")]
    assert [(s.name, s.label) for s in read_signals(paths)] == [("cat/1", "cat"), ("dog/1", "dog")]
    (tmp_path / "void").mkdir()
    with pytest.raises(MissingFile, match="without a signal in it"):
        read_signals(tmp_path / "void")


def test_many_arrays_get_numbers_labels_and_names():
    arrays = [np.zeros(3), np.ones((2, 2)), torch.zeros(5)]
    assert [s.name for s in read_signals(arrays)] == ["signal-0", "signal-1", "signal-2"]
    named = read_signals(arrays, names=["a", "b", "c"], labels=np.array([4, 5, 6]))
    assert [(s.name, s.label) for s in named] == [("a", 4), ("b", 5), ("c", 6)]
    assert isinstance(named[0].label, int)
    for wrong in ({"labels": [1]}, {"names": ["a"]}):
        with pytest.raises(ShapeMismatch, match="for 3 signals"):
            read_signals(arrays, **wrong)


def test_axis_zero_may_count_signals(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((12, 6, 5), np.uint8), y=np.arange(12))
    found = read_signals(tmp_path / "d.npz", key="x", split_axis=True, labels=range(12))
    assert [s.name for s in found][:2] == ["d-00", "d-01"] and found[11].label == 11 and found[0].shape == (6, 5)
    with pytest.raises(ShapeMismatch, match="at least two axes"):
        read_signals(np.zeros(3), split_axis=True)
