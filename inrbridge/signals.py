"""Floor 5: discrete signals (images, arrays, sounds) and Python callables as continuous fields.

A signal's samples are cell centres of a box, [-1, 1]^d unless another is asked for, and the field between them is the cubic
interpolation that passes through every sample. Array axis a is coordinate a. No file is believed before its size is
checked, and nothing in a file is executed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inrbridge.domains import Box, Domain
from inrbridge.errors import CannotOpen, ConfigError, MissingDependency, MissingFile, NotFinite, ShapeMismatch
from inrbridge.field import Field, FunctionField
from inrbridge.grid import GridField

IMAGES = (".png", ".jpg", ".jpeg")
ARRAYS = (".npy", ".npz")
SOUNDS = (".wav",)
SUFFIXES = IMAGES + ARRAYS + SOUNDS
MAX_BYTES = 2**32  # of one decoded signal
CHANNEL_RULES = ("auto", "last", "none")
MOST_CHANNELS = 4  # channels="auto" takes a last axis of up to this length for channels


@dataclass(frozen=True, eq=False)
class Signal:
    """A field to be represented, with what is known of the samples it came from.

    `shape` counts the samples along each axis (None for a callable); `peak` is the range of values that PSNR refers to
    (1 for images, the span of the samples otherwise; None: to be measured).
    """

    name: str
    field: Field
    label: str | int | None = None
    shape: tuple[int, ...] | None = None
    peak: float | None = None


def read_signal(
    source: str | Path | np.ndarray | Tensor | Callable[[Tensor], Tensor] | Field | Signal,
    *,
    name: str | None = None,
    label: str | int | None = None,
    domain: Domain | None = None,
    channels: str = "auto",
    key: str | None = None,
    background: float = 1.0,
) -> Signal:
    """Read one signal from a file, an array or a callable.

    Args:
        source: a path to .png, .jpg, .npy, .npz or .wav; an array (*shape, c) or (*shape,); a callable of coords (..., d)
            that returns (..., c) or (...), which needs `domain`; or a field as it is.
        domain: the box that the samples fill; default [-1, 1]^d.
        channels: which axis of an array holds channels. "last": the last one; "none": no axis does;
            "auto": the last one if the array has at least two axes and the last is no longer than 4.
        key: the array's name inside an .npz file; may be left out where the file holds one array.
        background: grey level in [0, 1] on which a transparent image is laid.

    Returns:
        The signal. Unsigned 8- and 16-bit integers become fractions of their full range ([0, 1]), sounds lie in [-1, 1],
        other numbers stay as they are, all as float32.

    Raises:
        MissingFile, CannotOpen: the file is not there, or damaged.
        ShapeMismatch, NotFinite: an array without samples, of too many axes, or with NaN.

    >>> read_signal(np.zeros((8, 8, 3))).field.channels
    3
    """
    if channels not in CHANNEL_RULES:
        raise ConfigError(f'Got channels="{channels}", expected one of {CHANNEL_RULES}: which axis of an array holds channels.')
    if isinstance(source, Signal):
        return source
    if isinstance(source, (str, Path)):
        path = Path(source)
        samples, names, peak = _read_file(path, channels, key, background)
        return _grid_signal(samples, names, peak, name or path.stem, label, domain, str(path))
    if isinstance(source, (np.ndarray, Tensor)):
        array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
        samples, peak = _array_samples(array, channels, name or "the array")
        return _grid_signal(samples, None, peak, name or "signal", label, domain, name or "the array")
    if isinstance(source, Field):
        return Signal(name or "signal", source, label)
    if callable(source):
        return Signal(name or getattr(source, "__name__", "signal"), _callable_field(source, domain), label)
    raise ConfigError(
        f"Got a {type(source).__name__} as a signal, expected a path, an array, a tensor, a callable of coordinates or a field."
    )


def read_signals(
    sources: object,
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[str | int] | None = None,
    split_axis: bool = False,
    **options,
) -> list[Signal]:
    """Read many signals: a folder, one source, or an iterable of sources, each as `read_signal` takes it.

    Args:
        sources: in a folder every file with a known suffix is read, in the order of the relative paths, which (without
            suffix) are the names; the folder that holds a file is its label, unless it is the top one.
        names, labels: one per signal, in place of the default ones.
        split_axis: axis 0 of an array counts signals, as in a packed data set (n, height, width).
        **options: of `read_signal`.
    """
    signals: list[Signal] = []
    for source in _each(sources):
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            signals += _read_folder(Path(source), split_axis, options)
        else:
            signals += _read_one(source, split_axis, options)
    if names is None and len({s.name for s in signals}) < len(signals):
        signals = _number_equal_names(signals)
    for what, given in (("names", names), ("labels", labels)):
        if given is not None and len(given) != len(signals):
            raise ShapeMismatch(f"Got {len(given)} {what} for {len(signals)} signals, expected one for each.")
    return [
        Signal(str(names[i]) if names is not None else s.name, s.field, _plain(labels[i]) if labels is not None else s.label,
               s.shape, s.peak)
        for i, s in enumerate(signals)
    ]  # fmt: skip


def _plain(label):
    return label.item() if isinstance(label, (np.generic, Tensor)) else label


def _each(sources) -> Iterable:
    return sources if isinstance(sources, (list, tuple)) else [sources]


def _read_folder(folder: Path, split_axis: bool, options: dict) -> list[Signal]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise MissingFile(f"Got folder {folder} without a signal in it, expected files ending in {', '.join(SUFFIXES)}.")
    signals = []
    for path in paths:
        inner = path.relative_to(folder)
        named = {"name": inner.with_suffix("").as_posix(), "label": inner.parent.name or None}
        signals += _read_one(path, split_axis, {**named, **options})
    return signals


def _read_one(source, split_axis: bool, options: dict) -> list[Signal]:
    if not split_axis or callable(source) or isinstance(source, Signal):
        return [read_signal(source, **options)]
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix.lower() not in ARRAYS:
            return [read_signal(path, **options)]
        _check_file(path)
        source, options = _load_array(path, options.get("key")), {"name": path.stem, **options}
    if source.ndim < 2:
        raise ShapeMismatch(f"Got an array of shape {tuple(source.shape)} with split_axis=True, expected at least two axes.")
    stem = options.get("name") or "item"
    digits = len(str(max(len(source) - 1, 0)))
    options = {k: v for k, v in options.items() if k not in ("name", "key")}
    return [read_signal(row, name=f"{stem}-{i:0{digits}d}", **options) for i, row in enumerate(source)]


def _number_equal_names(signals: list[Signal]) -> list[Signal]:
    digits = len(str(len(signals) - 1))
    return [Signal(f"{s.name}-{i:0{digits}d}", s.field, s.label, s.shape, s.peak) for i, s in enumerate(signals)]


def _grid_signal(samples: np.ndarray, names, peak, name, label, domain, where: str) -> Signal:
    shape = samples.shape[:-1]
    if samples.size == 0:
        raise ShapeMismatch(f"Got {where} of shape {samples.shape} without samples, expected at least one along each axis.")
    if not 1 <= len(shape) <= 4:
        raise ShapeMismatch(
            f"Got {where} with {len(shape)} axes of samples, expected 1 to 4; slice it, or say which axis holds channels "
            '(channels="last" or "none").'
        )
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise NotFinite(f"Got {where} with {bad} NaN or infinite of {samples.size} values, expected numbers; fill or drop them.")
    if domain is None:
        domain = Box.centered(len(shape))
    if not isinstance(domain, Box) or domain.dim != len(shape):
        raise ShapeMismatch(f"Got the domain {domain} for {where} with {len(shape)} axes of samples, expected a Box of as many.")
    if peak is None:
        peak = float(samples.max() - samples.min()) or max(1.0, float(np.abs(samples).max()))
    field = GridField(
        torch.from_numpy(np.ascontiguousarray(samples, np.float32)), domain, interpolation="cubic", channel_names=names
    )
    return Signal(name, field, label, tuple(shape), peak)


def _callable_field(function: Callable, domain: Domain | None) -> FunctionField:
    if domain is None:
        raise ConfigError("Got a callable without a domain, expected e.g. read_signal(f, domain=Box.centered(2)).")
    probe = domain.from_unit(torch.full((3, domain.unit_dim), 0.5))
    values = function(probe)
    if not isinstance(values, Tensor) or values.ndim not in (1, 2) or values.shape[0] != 3:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ShapeMismatch(f"The callable returned {got} for coords (3, {domain.dim}), expected a tensor (3, channels) or (3,).")
    if values.ndim == 1:
        return FunctionField(lambda coords: function(coords).unsqueeze(-1), domain, 1)
    return FunctionField(function, domain, values.shape[1])


def _check_file(path: Path) -> None:
    if not path.exists():
        raise MissingFile(f"There is no file {path}; check the path.")
    if path.is_dir():
        raise CannotOpen(f"Got the folder {path}, expected a file; read a whole folder with read_signals.")


def _read_file(path: Path, channels: str, key: str | None, background: float):
    _check_file(path)
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        return _read_image(path, background)
    if suffix in SOUNDS:
        return _read_sound(path)
    if suffix in ARRAYS:
        samples, peak = _array_samples(_load_array(path, key), channels, str(path))
        return samples, None, peak
    raise CannotOpen(
        f"{path} ends in {suffix or 'no suffix'}, expected a signal: {', '.join(SUFFIXES)}; a field opens by open_field."
    )


def _read_image(path: Path, background: float):
    """Return samples (height, width, 1 or 3) in [0, 1], channel names, and the peak 1."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingDependency('Reading images needs pillow: pip install "inrbridge[plot]"') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                pixels, names = _pixels(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CannotOpen(f"{path} is not a whole PNG or JPEG image ({error}); write it anew.") from error
    if pixels.shape[-1] in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1:]
        pixels = pixels * alpha + background * (1 - alpha)
    return pixels, names, 1.0


def _pixels(image) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (height, width, 1..4) in [0, 1]: grey or colours, with alpha last where the image has it."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return np.asarray(image, np.float32)[..., None] / 65535, ("gray",)
    transparent = "A" in image.mode or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA")
    mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    pixels = np.asarray(image.convert(mode), np.float32) / 255
    return pixels.reshape(*pixels.shape[:2], -1), ("gray",) if grey else ("red", "green", "blue")


def _read_sound(path: Path):
    """Return samples (time, 1 or 2) in [-1, 1], channel names, and the peak 2 (their full range)."""
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*EOF.*")
            warnings.filterwarnings("ignore", message=".*not understood.*", category=wavfile.WavFileWarning)
            _, samples = wavfile.read(path)
    except Exception as error:  # the parser raises struct.error, ValueError, MemoryError and more for damaged headers
        raise CannotOpen(f"{path} is not a whole WAV sound ({error}); write it anew.") from error
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    names = {1: ("sound",), 2: ("left", "right")}.get(samples.shape[1])
    return samples.astype(np.float32), names, 2.0


def _array_samples(array: np.ndarray, channels: str, where: str) -> tuple[np.ndarray, float | None]:
    """Return samples (*shape, c) as float, and the peak where the type of the numbers tells it."""
    if array.dtype.kind not in "biuf":
        raise CannotOpen(f"Got {where} of type {array.dtype}, expected real numbers; convert it first.")
    has_channels = channels == "last" or (channels == "auto" and array.ndim >= 2 and array.shape[-1] <= MOST_CHANNELS)
    if has_channels and array.ndim < 2:
        raise ShapeMismatch(
            f'Got {where} of shape {array.shape} with channels="last", expected a sample axis before the channels.'
        )
    array = array if has_channels else array[..., None]
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(np.float32) / np.iinfo(array.dtype).max, 1.0
    return array.astype(np.float32), 1.0 if array.dtype == bool else None


def _load_array(path: Path, key: str | None) -> np.ndarray:
    """Read one array; the length that a header promises is compared with the file before memory is taken."""
    try:
        if path.suffix.lower() == ".npy":
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # refuses a file shorter than its header says
            _check_bytes(path, mapped.nbytes)
            return np.array(mapped)
        with np.load(path, allow_pickle=False) as archive:
            member = _member(path, archive.files, key)
            _check_member(path, archive, f"{member}.npy")
            return archive[member]
    except (CannotOpen, ConfigError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged files
        raise CannotOpen(
            f"{path} is not a whole NumPy file of plain numbers ({error}); write it anew with numpy.save."
        ) from error


def _member(path: Path, members: list[str], key: str | None) -> str:
    if key is None and len(members) == 1:
        return members[0]
    if key is None or key not in members:
        got = "no key" if key is None else f'the key "{key}"'
        raise ConfigError(f"Got {got} for {path}, expected one of: {', '.join(members) or '(it is empty)'}; pass key=.")
    return key


def _check_member(path: Path, archive, member: str) -> None:
    """Compare what the header of an archive's array promises with what the archive holds, before memory is taken."""
    held = archive.zip.getinfo(member).file_size
    with archive.zip.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    promised = math.prod(shape) * dtype.itemsize
    if promised > held:
        raise CannotOpen(f"{path} promises {promised} bytes of {member} and holds {held}; write it anew with numpy.savez.")
    _check_bytes(path, held)


def _check_bytes(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise CannotOpen(f"{path} holds {size / 2**30:.1f} GiB, expected at most {MAX_BYTES / 2**30:.0f}; cut it into parts.")
