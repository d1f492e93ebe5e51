"""Floor 4: what a transform is: maps of coordinates and values around a field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from inrbridge.domains import Domain
from inrbridge.field import Field, channel_names

Matrix = Sequence[Sequence[float]]
Range = tuple[float, float]


@runtime_checkable
class Ranged(Protocol):
    """A field that says between which values its channels lie: one (low, high) a channel, None where unknown."""

    channel_ranges: tuple[Range | None, ...]


def channel_ranges(field: Field) -> tuple[Range | None, ...]:
    """Return the range of each channel of a field, None where it does not say."""
    if isinstance(field, Ranged) and field.channel_ranges is not None:
        return tuple(field.channel_ranges)
    return (None,) * field.channels


class Transform(ABC):
    """A field seen through maps of its coordinates and values.

    `inner` is the field inside, `domain`, `channels` and `channel_names` describe the field outside. A transform that asks
    the field at several points for each of its own says so by `expansion`; one that differentiates the field, by `derivatives`.
    """

    inner: Field
    domain: Domain
    channels: int
    channel_names: tuple[str, ...]
    channel_ranges: tuple[Range | None, ...]
    expansion: int = 1  # points of the inner field for each point of this one
    derivatives: int = 0  # how often the inner field is differentiated: its layers stay in memory as long

    def __init__(self, inner: Field, domain: Domain, names: Sequence[str] | None = None, ranges: Sequence | None = None):
        self.inner, self.domain = inner, domain
        self.channel_names = channel_names(inner) if names is None else tuple(names)
        self.channel_ranges = channel_ranges(inner) if ranges is None else tuple(ranges)
        self.channels = len(self.channel_names)

    @property
    @abstractmethod
    def signature(self) -> Hashable:
        """What this transform does, whatever the field inside: equal signatures, equal maps."""

    @abstractmethod
    def around(self, inner: Field) -> Transform:
        """Return the same transform of another field."""

    def map_coords(self, coords: Tensor) -> Tensor:
        """Map points (..., n, d) of `domain` to points (..., n * expansion, d_inner) of the inner field's domain."""
        return coords

    def map_values(self, values: Tensor) -> Tensor:
        """Map values (..., n * expansion, c_inner) of the inner field to values (..., n, channels)."""
        return values

    def apply(self, evaluate: Callable[[Tensor], Tensor], coords: Tensor) -> Tensor:
        """Return this transform of whatever `evaluate` asks, one inner field or many at once, at coords (..., n, d)."""
        return self.map_values(evaluate(self.map_coords(coords)))

    def __call__(self, coords: Tensor) -> Tensor:
        if self.expansion > 1 and coords.ndim == 1:  # a lone point has no axis along which its points could stand
            return self(coords[None])[0]
        return self.apply(self.inner, coords)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"
