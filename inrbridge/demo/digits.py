"""Floor 9: the digits as signals, and which format holds which one.

The data are the 1,797 handwritten digits of 8x8 pixels that scikit-learn ships (Alpaydin & Kaynak 1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inrbridge.domains import Box
from inrbridge.errors import InrBridgeError, MissingDependency, PluginError
from inrbridge.field import FunctionField
from inrbridge.formats import Format
from inrbridge.grid import GridField
from inrbridge.plugins import all_formats
from inrbridge.signals import Signal

PLANE = Box.centered(2)

# What suits 8x8 pixels: small nets and tables, and frequencies near those that 8 samples across can hold.
OPTIONS: dict[str, dict[str, object]] = {
    "siren": {"width": 32, "layers": 2, "omega_0": 15.0, "hidden_omega": 30.0, "steps": 300, "lr": 5e-3},
    "fourier": {"width": 32, "layers": 2, "sigma": 1.5, "steps": 300, "lr": 1e-2},
    "ngp": {"levels": 4, "log2_table": 9, "base": 2, "finest": 16, "width": 16, "steps": 150, "lr": 2e-2},
    "nerf": {"width": 32, "layers": 3, "frequencies": 3, "steps": 300},
    "plenoxels": {"resolution": 20, "steps": 150, "lr": 0.2},
    "grid": {"interpolation": "cubic"},
}


@dataclass(frozen=True)
class Participant:
    """A format that takes part, with the dimension of the fields it builds: 2, or 3 where it takes part through a slice."""

    name: str
    dim: int
    options: dict


def participants() -> tuple[list[Participant], dict[str, str]]:
    """Return the installed formats that can hold a gray image, by trying each, and why the others cannot."""
    found, absent = [], {}
    for format_ in all_formats():
        if format_.required("build"):  # made of more than a domain and channels: of a net
            continue
        options = OPTIONS.get(format_.name, {})
        try:
            found.append(Participant(format_.name, _dimension(format_, options), options))
        except Exception as error:  # a stranger's format may fail in any way; the demo goes on without it
            absent[format_.name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return sorted(found, key=lambda p: p.name), absent


def _dimension(format_: Format, options: dict) -> int:
    abilities = format_.abilities()
    if "sample" in abilities:
        return 2
    if "build" not in abilities:
        raise PluginError(f'Format "{format_.name}" builds no fields; it only opens files.')
    known = {key: value for key, value in options.items() if key not in ("steps", "lr")}
    failure: Exception | None = None
    for dim in (2, 3):
        try:
            field = format_.build(Box.centered(dim), 1, generator=torch.Generator().manual_seed(0), **known)
            if field.channels != 1:
                raise PluginError(f'Format "{format_.name}" has {field.channels} channels of its own, no single gray one.')
            field(torch.zeros(1, dim))
            return dim
        except (InrBridgeError, ValueError, TypeError, RuntimeError) as error:
            failure = failure or error
    raise failure


def load_digits(count: int | None = None) -> tuple[torch.Tensor, list[int]]:
    """Return images (n, 8, 8, 1) in [0, 1] and their labels.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise MissingDependency('The demo needs scikit-learn for its digits: pip install "inrbridge[demo]"') from error
    data = load()
    images = torch.from_numpy(data.images).float()[..., None] / 16
    return images[:count], [int(label) for label in data.target[:count]]


def assign(labels: Sequence[int], names: Sequence[str], test_share: float, seed: int) -> tuple[list[str], list[str]]:
    """Choose a split and a format for each item, at random and balanced within each class.

    Returns:
        The split ("train" or "test") and the format of each item.
    """
    generator = torch.Generator().manual_seed(seed)
    splits, formats = [""] * len(labels), [""] * len(labels)
    turn = {"train": 0, "test": 0}  # goes on from class to class, so that no format gets every class's remainder
    for label in sorted(set(labels)):
        items = [i for i, other in enumerate(labels) if other == label]
        items = [items[k] for k in torch.randperm(len(items), generator=generator).tolist()]
        held_out = max(1, round(test_share * len(items)))
        for place, item in enumerate(items):
            splits[item] = "test" if place < held_out else "train"
            formats[item] = names[turn[splits[item]] % len(names)]
            turn[splits[item]] += 1
    return splits, formats


def signals(images: torch.Tensor, labels: Sequence[int], formats: Sequence[str], dims: dict[str, int]) -> list[Signal]:
    """Return one gray signal for each image; for formats of three dimensions it is constant along the third axis."""
    made = []
    for i, (image, label, name) in enumerate(zip(images, labels, formats, strict=True)):
        field = GridField(image, PLANE, channel_names=("gray",))
        shape: tuple[int, ...] | None = tuple(image.shape[:-1])
        if dims[name] == 3:
            field, shape = FunctionField(_Column(field), Box.centered(3), 1, ("gray",)), None
        made.append(Signal(f"digit-{i:04d}", field, label, shape, 1.0))
    return made


class _Column:
    """A planar field as a function of three coordinates."""

    def __init__(self, field: GridField):
        self.field = field

    def __call__(self, coords: torch.Tensor) -> torch.Tensor:
        return self.field(coords[..., :2])
