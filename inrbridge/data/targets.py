"""Floor 7: what the output of a dense net is compared with, point by point (Wang & Golland 2023, Algorithm 2).

Targets belong to the items of a dataset by name, and are read at the very points that are asked for: labelled points
(`labelled.py`) at those that have a label, target fields anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from inrbridge.data.dataset import FieldDataset
from inrbridge.data.describing import shorten
from inrbridge.data.manifest import FILE
from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, MissingFile, StoreError
from inrbridge.sampling.fixed import named_sampler

Chances = Callable[..., torch.Generator]  # (what for) -> a generator of its own


@dataclass(frozen=True, eq=False)
class PointTargets:
    """The targets of b fields: at coordinates (m, d) that they share, or (b, m, d).

    values: class numbers (b, m), or numbers (b, m, k). weights (b, m): of a mean over the points; 0 where nothing is known.
    """

    coords: Tensor
    values: Tensor
    weights: Tensor

    def to(self, device: torch.device | str) -> PointTargets:
        """Return the same targets on another device."""
        return PointTargets(self.coords.to(device), self.values.to(device), self.weights.to(device))


class Seen(Protocol):
    """How the fields of a minibatch are seen: a field f as x -> f(A x), with a map A of its own."""

    def there(self, coords: Tensor) -> Tensor:
        """Return A x (b, m, d) of coords x (m, d) or (b, m, d)."""
        ...

    def back(self, coords: Tensor) -> Tensor:
        """Return x (b, m, d) of coords A x."""
        ...


class Targets(ABC):
    """Targets of named items on one domain. `names` are the channels of the output, or its classes."""

    names: tuple[str, ...]
    are_classes: bool
    domain: Domain

    @abstractmethod
    def missing(self, items: Sequence[str]) -> list[str]:
        """Return those items that have no targets."""

    @abstractmethod
    def at(self, items: Sequence[str], discretization: Discretization, n: int = 0, chances: Chances | None = None,
           seen: Seen | None = None) -> PointTargets:  # fmt: skip
        """Return the targets of items.

        Args:
            discretization: where the net sees the fields.
            n: points of each item, drawn with `chances`; 0, or no chances: all that there are.
            seen: how the net sees the fields; None: as they are.
        """

    def check(self, items: Sequence[str], domain: Domain) -> None:
        """Raise StoreError unless each of these items has targets on this domain."""
        lost = self.missing(items)
        if lost:
            raise StoreError(
                f"Got {len(lost)} of {len(items)} fields without targets: {shorten(lost)}; expected some for each name; add "
                "them, or leave these fields out by their split or format."
            )
        if domain != self.domain:
            raise StoreError(
                f"Got targets on {self.domain} for fields on {domain}, expected one domain; set data.domain, or give the targets "
                "in coordinates of the dataset."
            )


class TargetFields(Targets):
    """A field for each item: another modality, a clean signal, a distance. Losses are integrals, by quadrature.

    Args:
        dataset: fields with the names of the items, on their domain.
        are_classes: its channels are shares of classes.
    """

    def __init__(self, dataset: FieldDataset, are_classes: bool = False):
        self.dataset, self.are_classes = dataset, are_classes
        self.names, self.domain = tuple(dataset.channels), dataset.domain
        self._place = {name: place for place, name in enumerate(dataset.names)}

    def missing(self, items):
        return [name for name in items if name not in self._place]

    def at(self, items, discretization, n=0, chances=None, seen=None):
        if n and chances is not None:
            points = named_sampler(discretization.sampler)(self.domain, n, chances("points"))
            discretization = points.to(discretization.points)
        fields = self.dataset.stack([self._place[name] for name in items]).to(discretization.points.device)
        coords = discretization.points
        with torch.no_grad():
            values = fields(coords if seen is None else seen.there(coords))
        return PointTargets(coords, values, discretization.weights.expand(len(items), -1))


def open_targets(source: str | Path, domain: Domain, *, class_names: Sequence[str] = (), ignore: int = -1,
                 channels: Sequence[str] = (), are_classes: bool = False) -> Targets:  # fmt: skip
    """Open a store or a folder of target fields, or a file or a folder of labelled points.

    Args:
        domain: of the dataset that the targets belong to.
        class_names, ignore: of labelled points, as `LabelledPoints` takes them.
        channels, are_classes: of target fields: which channels are wanted, and whether they are shares of classes.

    Raises:
        MissingFile: nothing is there. StoreError, CannotOpen: it is damaged, or holds neither.
    """
    from inrbridge.data.labelled import ARRAYS, LabelledPoints

    path = Path(source)
    if not path.exists():
        raise MissingFile(
            f"There is nothing at {path}, expected targets: a store of fields, or labels by name (.npz, .safetensors, a folder); "
            "check targets.source."
        )
    if path.is_file() and path.suffix not in ARRAYS:
        raise ConfigError(f"Got {path} as targets, expected a store of fields, or labels in a file {', '.join(ARRAYS)}.")
    if path.is_file() or LabelledPoints.are_in(path):
        return LabelledPoints.read(path, domain, class_names=class_names, ignore=ignore)
    kind = "store" if (path / FILE).exists() else "folder"
    try:
        dataset = FieldDataset(path, domain=domain, channels=list(channels) or None)
    except MissingFile as error:
        raise MissingFile(f"Got the {kind} {path} as targets, expected fields or labels by name. {error}") from error
    return TargetFields(dataset, are_classes)
