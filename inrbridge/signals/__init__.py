"""Floor 6: discrete signals (images, arrays, sounds) and Python callables as continuous fields.

A signal's samples are cell centres of a box, [-1, 1]^d unless another is asked for, and the field between them is the cubic
interpolation that passes through every sample. Array axis a is coordinate a. No file is believed before its size is
checked, and nothing in a file is executed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inrbridge import sampling
from inrbridge.domains import Box, Domain
from inrbridge.errors import CannotOpen, ConfigError, MissingFile, NotFinite, ShapeMismatch
from inrbridge.field import Field, FunctionField
from inrbridge.grid import GridField
from inrbridge.signals.files import ARRAYS, IMAGES, SOUNDS, SUFFIXES, check_file, read_array, read_image, read_labels, read_sound

__all__ = ["CHANNEL_RULES", "Signal", "read_array", "read_labels", "read_signal", "read_signals"]

SPLITS = ("train", "val", "valid", "validation", "test")
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
    split: str | None = None


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
        samples, names, peak = _read_samples(path, channels, key, background)
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
        sources: in a folder every file with a known suffix is read, in the order of their paths. Below that folder (or, for
            single files, the one around all of them) the path without its suffix is the name, the innermost folder is the
            label, and a folder called train, val or test is the split.
        names, labels: one per signal, in place of the default ones.
        split_axis: axis 0 of an array counts signals, as in a packed data set (n, height, width).
        **options: of `read_signal`.
    """
    signals: list[Signal] = []
    for source, told in _each(sources):
        signals += _read_one(source, split_axis, {**told, **options})
    if names is None:
        signals = _number_equal_names(signals)
    for what, given in (("names", names), ("labels", labels)):
        if given is not None and len(given) != len(signals):
            raise ShapeMismatch(f"Got {len(given)} {what} for {len(signals)} signals, expected one for each.")
    if names is not None:
        signals = [replace(signal, name=str(name)) for signal, name in zip(signals, names, strict=True)]
    if labels is not None:
        signals = [replace(signal, label=_plain(label)) for signal, label in zip(signals, labels, strict=True)]
    return signals


def _plain(label):
    return label.item() if isinstance(label, (np.generic, Tensor)) else label


def _each(sources) -> Iterator[tuple[object, dict]]:
    """Yield each source with what its path tells: name, label and split."""
    listed = list(sources) if isinstance(sources, (list, tuple)) else [sources]
    paths = [Path(source) for source in listed if isinstance(source, (str, Path))]
    lone = [path.absolute().parent for path in paths if not path.is_dir()]
    around = Path(os.path.commonpath(lone)) if lone else None
    for source in listed:
        if not isinstance(source, (str, Path)):
            yield source, {}
        elif Path(source).is_dir():
            yield from ((path, _told(path, Path(source))) for path in _signal_files(Path(source)))
        else:
            yield source, _told(Path(source).absolute(), around)


def _signal_files(folder: Path) -> list[Path]:
    inside = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    paths = [path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not paths:
        raise MissingFile(f"Got folder {folder} without a signal in it, expected files ending in {', '.join(SUFFIXES)}.")
    return paths


def _told(path: Path, root: Path) -> dict:
    inner = path.relative_to(root)
    label = inner.parent.name
    return {
        "name": inner.with_suffix("").as_posix(),
        "label": label if label and label not in SPLITS else None,
        "split": next((part for part in inner.parent.parts if part in SPLITS), None),
    }


def _read_one(source, split_axis: bool, options: dict) -> list[Signal]:
    if not split_axis or callable(source) or isinstance(source, Signal):
        return [_with_split(source, options)]
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix.lower() not in ARRAYS:
            return [_with_split(path, options)]
        source, options = read_array(path, options.get("key")), {"name": path.stem, **options}
    if not isinstance(source, (np.ndarray, Tensor)) or source.ndim < 2:
        got = f"an array of shape {tuple(source.shape)}" if hasattr(source, "shape") else f"a {type(source).__name__}"
        raise ShapeMismatch(f"Got {got} with split_axis=True, expected an array of at least two axes.")
    stem = options.get("name") or "item"
    digits = len(str(max(len(source) - 1, 0)))
    options = {k: v for k, v in options.items() if k not in ("name", "key")}
    return [_with_split(row, {**options, "name": f"{stem}-{i:0{digits}d}"}) for i, row in enumerate(source)]


def _with_split(source, options: dict) -> Signal:
    split = options.get("split")
    signal = read_signal(source, **{name: value for name, value in options.items() if name != "split"})
    return signal if split is None else replace(signal, split=split)


def _number_equal_names(signals: list[Signal]) -> list[Signal]:
    counts = Counter(signal.name for signal in signals)
    digits = len(str(max(len(signals) - 1, 0)))
    return [
        signal if counts[signal.name] == 1 else replace(signal, name=f"{signal.name}-{i:0{digits}d}")
        for i, signal in enumerate(signals)
    ]


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
    probe = sampling.sobol(domain, 3).points
    values = function(probe)
    if not isinstance(values, Tensor) or values.ndim not in (1, 2) or values.shape[0] != 3:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ShapeMismatch(f"The callable returned {got} for coords (3, {domain.dim}), expected a tensor (3, channels) or (3,).")
    if values.ndim == 1:
        return FunctionField(lambda coords: function(coords).unsqueeze(-1), domain, 1)
    return FunctionField(function, domain, values.shape[1])


def _read_samples(path: Path, channels: str, key: str | None, background: float):
    """Return samples (*shape, c), channel names or None, and the peak or None."""
    check_file(path)
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        return *read_image(path, background), 1.0
    if suffix in SOUNDS:
        return *read_sound(path), None
    if suffix in ARRAYS:
        samples, peak = _array_samples(read_array(path, key), channels, str(path))
        return samples, None, peak
    raise CannotOpen(
        f"{path} ends in {suffix or 'no suffix'}, expected a signal: {', '.join(SUFFIXES)}; a field opens by open_field."
    )


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
