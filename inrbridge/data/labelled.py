"""Floor 7: labels at points: of pixels, of scattered coordinates, classes or numbers; in memory and in files.

A file (.npz, .safetensors) holds for each item NAME either "NAME" or "NAME.labels" with "NAME.coords"; or for all of them
"labels" (items, ...), "names", and "coords" if not a grid. A folder holds NAME.npz or NAME.safetensors with "labels" and
"coords", NAME.npy or NAME.png with a grid of labels. Labels without coordinates are a grid: at the centres of equal cells that
fill the domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inrbridge.data.describing import shorten
from inrbridge.data.manifest import FILE
from inrbridge.data.targets import PointTargets, Targets
from inrbridge.domains import Domain
from inrbridge.errors import CannotOpen, ConfigError, InrBridgeError, MissingDependency, NotFinite, ShapeMismatch, StoreError
from inrbridge.formats import Probe
from inrbridge.loading import read_tensors
from inrbridge.sampling import grid
from inrbridge.signals import read_array

ARRAYS = (".npz", ".safetensors")
SUFFIXES = (*ARRAYS, ".npy", ".png")
_PARTS = ("labels", "coords", "weights")


@dataclass(frozen=True, eq=False)
class _Item:
    """The labelled points of one item; equal grids share one tensor of coordinates."""

    coords: Tensor  # (m, d)
    labels: Tensor  # (m,) or (m, k)
    weights: Tensor | None  # (m,)


class LabelledPoints(Targets):
    """Points with a class, or with k numbers, for each item by name.

    Args:
        labels: name -> labels on a grid over the domain, or (coords (m, d), labels) or (coords, labels, weights (m,)).
            Integers are classes; real numbers (m,) or (m, k), on a grid (*shape) or (*shape, k), are values to regress on.
        domain: of the dataset that the items belong to, in whose coordinates the points are.
        class_names: in the order of their numbers, or the names of the k channels. None: the numbers.
        ignore: the class that is not scored.

    Raises:
        StoreError: labels outside the classes, of two kinds, or none. ShapeMismatch, OutsideDomain, NotFinite: coordinates or
            labels that do not fit; each text names the item.
    """

    def __init__(self, labels: Mapping[str, object], domain: Domain, *, class_names: Sequence[str] | None = None,
                 ignore: int = -1):  # fmt: skip
        if not labels:
            raise StoreError("Got no labelled points, expected some for each item; see inrbridge.data.labelled for the layout.")
        self.domain, self.ignore = domain, ignore
        self._grids: dict[tuple[int, ...], Tensor] = {}
        self._items = {str(name): self._item(str(name), given) for name, given in labels.items()}
        kinds = {(item.labels.is_floating_point(), item.labels.ndim, item.labels.shape[1:]) for item in self._items.values()}
        if len(kinds) > 1:
            raise StoreError("Got labels of several kinds, expected classes only, or equally many numbers at each point.")
        self.are_classes = not next(iter(kinds))[0]
        self.names = tuple(map(str, class_names or ())) or self._numbered()
        if self.are_classes:
            self._check_classes()
        elif len(self.names) != self._width():
            raise StoreError(f"Got {self._width()} numbers at each point and {len(self.names)} names, expected as many names.")

    def missing(self, items):
        return [name for name in items if name not in self._items]

    def at(self, items, discretization, n=0, chances=None, seen=None):
        found = [self._items[name] for name in items]
        like, coords = discretization.points, found[0].coords
        draws = n if chances is not None else 0
        if all(item.coords is coords for item in found):
            index = _some(len(coords), draws, chances, "points")
            coords = coords[index].to(like)
            values, weights = (torch.stack(parts) for parts in zip(*(self._values(item, index) for item in found), strict=True))
        else:
            indices = [_some(len(item.coords), draws, chances, "points", place) for place, item in enumerate(found)]
            most = max(len(index) for index in indices)
            padded = [
                torch.cat([index, index[:1].expand(most - len(index))]) for index in indices
            ]  # the first again, at no weight
            coords = torch.stack([item.coords[index] for item, index in zip(found, padded, strict=True)]).to(like)
            pairs = [self._values(item, index) for item, index in zip(found, padded, strict=True)]
            values, weights = (torch.stack(parts) for parts in zip(*pairs, strict=True))
            weights = weights * torch.stack([torch.arange(most) < len(index) for index in indices])
        if seen is not None:
            coords = seen.back(coords)  # (b, m, d)
            inside = self.domain.contains(coords)
            weights = weights * inside.cpu()
            coords = torch.where(inside[..., None], coords, like[:1])
        return PointTargets(coords, values.to(like.device), weights.to(like))

    def _values(self, item: _Item, index: Tensor) -> tuple[Tensor, Tensor]:
        labels = item.labels[index]
        weights = torch.ones(len(index)) if item.weights is None else item.weights[index]
        if not self.are_classes:
            return labels.float() if labels.ndim == 2 else labels.float()[:, None], weights
        scored = labels != self.ignore
        return torch.where(scored, labels, 0).long(), weights * scored

    def _item(self, name: str, given) -> _Item:
        parts = given if isinstance(given, tuple | list) else (given,)
        if len(parts) == 1:
            labels, weights = _tensor(parts[0], name), None
            coords, labels = self._on_grid(labels, name)
        else:
            coords, labels, weights = (*(_tensor(part, name) for part in parts), *[None] * (3 - len(parts)))
        d = self.domain.dim
        if coords.ndim != 2 or coords.shape[1] != d or labels.ndim not in (1, 2) or len(labels) != len(coords) or not len(coords):
            raise ShapeMismatch(
                f'Got coordinates {tuple(coords.shape)} and labels {tuple(labels.shape)} for "{name}", expected (m, {d}) and '
                "(m,) or (m, k), with m at least 1."
            )
        if not labels.is_floating_point() and labels.ndim == 2:
            raise ShapeMismatch(f'Got classes of shape {tuple(labels.shape)} for "{name}", expected one a point: (m,).')
        if weights is not None and (weights.shape != coords.shape[:1] or not bool((weights >= 0).all())):
            raise ShapeMismatch(f'Got weights {tuple(weights.shape)} for "{name}", expected {len(coords)} of 0 or more.')
        try:
            self.domain.check(coords)
        except InrBridgeError as error:
            raise type(error)(f'The labels of "{name}" do not fit. {error}') from error
        if labels.is_floating_point() and not bool(labels.isfinite().all()):
            raise NotFinite(f'Got NaN or infinite labels for "{name}", expected numbers; leave these points out.')
        return _Item(coords, labels, None if weights is None else weights.float())

    def _on_grid(self, labels: Tensor, name: str) -> tuple[Tensor, Tensor]:
        d = self.domain.dim
        has_channels = labels.is_floating_point() and labels.ndim == d + 1
        if labels.ndim != d and not has_channels:
            raise ShapeMismatch(
                f'Got labels of shape {tuple(labels.shape)} for "{name}" on {self.domain}, expected a grid of {d} axes, or '
                "coordinates with them."
            )
        shape = tuple(labels.shape[:d])
        if shape not in self._grids:
            self._grids[shape] = grid(self.domain, shape, dtype=torch.float32).points
        return self._grids[shape], labels.reshape(len(self._grids[shape]), *labels.shape[d:])

    def _width(self) -> int:
        labels = next(iter(self._items.values())).labels
        return 1 if labels.ndim == 1 else labels.shape[1]

    def _numbered(self) -> tuple[str, ...]:
        if not self.are_classes:
            return tuple(str(i) for i in range(self._width()))
        most = max(int(torch.where(item.labels == self.ignore, -1, item.labels).max()) for item in self._items.values())
        return tuple(str(i) for i in range(max(most + 1, 1)))

    def _check_classes(self) -> None:
        for name, item in self._items.items():
            wrong = item.labels[((item.labels < 0) | (item.labels >= len(self.names))) & (item.labels != self.ignore)]
            if len(wrong):
                raise StoreError(
                    f'Got the class {int(wrong[0])} at {len(wrong)} points of "{name}", expected 0 to {len(self.names) - 1}, or '
                    f"{self.ignore} where nothing is known; correct the labels, targets.class_names or targets.ignore."
                )

    @classmethod
    def read(cls, path: str | Path, domain: Domain, *, class_names: Sequence[str] = (), ignore: int = -1) -> LabelledPoints:
        """Read a file or a folder; the layout is told above."""
        path = Path(path)
        found = dict(_of_folder(path)) if path.is_dir() else _of_file(path)
        try:
            return cls(found, domain, class_names=class_names, ignore=ignore)
        except InrBridgeError as error:
            raise type(error)(f"The labels in {path} do not fit. {error}") from error

    @classmethod
    def are_in(cls, folder: Path) -> bool:
        """Say whether a folder holds labels and not fields, judged by the first of its files."""
        if (folder / FILE).exists():
            return False
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".npy", ".png"):
                return True
            if file.suffix in ARRAYS:
                names = set(Probe(file).tensors)
                return "labels" in names and names <= set(_PARTS)
        return False


def _some(count: int, n: int, chances, *purpose) -> Tensor:
    """Draw n of `count` numbers without repetition; all of them where n is 0, or not less."""
    if n == 0 or n >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=chances(*purpose))[:n]


def _tensor(values, name: str) -> Tensor:
    try:
        tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    except TypeError as error:
        raise ShapeMismatch(f'Got {type(values).__name__} as labels of "{name}", expected arrays of numbers.') from error
    return tensor if tensor.is_floating_point() else tensor.to(torch.int32 if tensor.dtype != torch.uint8 else torch.int16)


def _of_file(path: Path) -> dict[str, tuple]:
    arrays = read_tensors(path)
    if "labels" in arrays:
        return _of_table(path, arrays)
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        name, dot, part = key.rpartition(".")
        name, part = (name, part) if dot and part in _PARTS else (key, "labels")
        found.setdefault(name, {})[part] = value
    lost = [name for name, parts in found.items() if "labels" not in parts]
    if lost:
        raise StoreError(f'Got coordinates without labels for {shorten(lost)} in {path}, expected "{lost[0]}.labels" too.')
    return {name: _parts(parts) for name, parts in found.items()}


def _of_table(path: Path, arrays: Mapping[str, Tensor]) -> dict[str, tuple]:
    labels = arrays["labels"]
    try:
        names = [str(name) for name in read_array(path, "names")] if path.suffix == ".npz" else []
    except (InrBridgeError, KeyError):
        names = []
    if len(names) != len(labels):
        raise StoreError(
            f'Got {len(labels)} rows of "labels" and {len(names)} "names" in {path}, expected the name of the field of each row.'
        )
    rest = {part: arrays[part] for part in _PARTS[1:] if part in arrays}
    shared = {part: value.ndim == (2 if part == "coords" else 1) for part, value in rest.items()}
    rows = ({part: value if shared[part] else value[i] for part, value in rest.items()} for i in range(len(labels)))
    return {name: _parts({**row, "labels": labels[i]}) for i, (name, row) in enumerate(zip(names, rows, strict=True))}


def _of_folder(folder: Path) -> Iterator[tuple[str, tuple]]:
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        if file.suffix in ARRAYS:
            arrays = read_tensors(file)
            if "labels" not in arrays:
                raise StoreError(f'Got the arrays {shorten(arrays)} in {file}, expected "labels", and "coords" unless a grid.')
            yield name, _parts(arrays)
        elif file.suffix == ".npy":
            yield name, (read_tensors(file)["array"],)
        elif file.suffix == ".png":
            yield name, (_read_indices(file),)


def _parts(arrays: Mapping[str, Tensor]) -> tuple:
    if "coords" not in arrays:
        return (arrays["labels"],)
    return tuple(arrays[part] for part in ("coords", "labels", "weights") if part in arrays)


def _read_indices(path: Path) -> np.ndarray:
    """Read the class of each pixel: grey values, or places in a palette, as they are."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency('Reading images needs pillow: pip install "inrbridge[plot]"') from error
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in ("L", "P", "I", "I;16", "1"):
                raise ConfigError(f"Got {path} in colours ({image.mode}), expected a class for each pixel: grey or a palette.")
            return np.asarray(image).astype(np.int32)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InrBridgeError):
            raise
        raise CannotOpen(f"{path} is no whole PNG image ({error}); write it anew.") from error
