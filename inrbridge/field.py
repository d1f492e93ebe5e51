"""Floor 3: what a field is, and the capabilities that a field may add.

A field is f: domain -> R^c, anything with `domain`, `channels` and `__call__(coords (..., d)) -> (..., c)`.
Letters everywhere: b fields, n points, d coordinates, c channels, k kernel nodes. Units: coordinates in
domain units, angles in radians, colours in [0, 1], densities per domain unit of length. Coordinate `a`
runs along array axis `a`: on an image, coordinate 0 goes down the rows and coordinate 1 along the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from inrbridge.domains import Domain
from inrbridge.errors import NotFinite, ShapeMismatch


@runtime_checkable
class Field(Protocol):
    """A function you can only evaluate: coords (..., d) -> values (..., channels), in the dtype of coords."""

    domain: Domain
    channels: int

    def __call__(self, coords: Tensor) -> Tensor: ...


@runtime_checkable
class Named(Protocol):
    """A field that says what its channels mean, e.g. ("red", "green", "blue"), ("sdf",), ("gray",)."""

    channel_names: tuple[str, ...]


@runtime_checkable
class Stackable(Protocol):
    """A field that is an `nn.Module` and says how to build it anew.

    Fields of one class with equal `architecture`, domain and channels are evaluated as one stack: their
    state dicts are stacked on axis 0. `architecture` holds the keyword arguments of its format's `build`.
    """

    architecture: Mapping[str, object]

    def state_dict(self) -> Mapping[str, Tensor]: ...


@runtime_checkable
class StackEvaluable(Protocol):
    """A stackable field with its own batched evaluation, faster than the generic `torch.func.vmap`."""

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b fields: states (b, ...), coords (n, d) shared or (b, n, d) -> values (b, n, c)."""
        ...


@runtime_checkable
class Layered(Protocol):
    """A stack-evaluable field that is nothing but a row of layers, for which fitting has a shorter way."""

    def as_layers(self, states: Mapping[str, Tensor], coords: Tensor) -> tuple[Tensor, Sequence[object]] | None:
        """Return what `batched.perceptron` takes to evaluate b fields, its layers holding the states themselves; or None."""
        ...


@runtime_checkable
class Tabular(Protocol):
    """A stackable field that names those of its states of which an evaluation reads a few rows: (.., columns), one row a place.

    Fields that are stacked to be read only have these stored side by side (`inrbridge.batched.side_by_side`).
    """

    tables: tuple[str, ...]


@runtime_checkable
class Differentiable(Protocol):
    """A field with an analytic gradient: coords (..., d) -> (..., channels, d)."""

    def gradient(self, coords: Tensor) -> Tensor: ...


def channel_names(field: Field) -> tuple[str, ...]:
    """Return the names of a field's channels; ("0", "1", ...) where it does not say."""
    if isinstance(field, Named) and field.channel_names is not None:
        return tuple(field.channel_names)
    return tuple(str(i) for i in range(field.channels))


def are_classes(field: Field) -> bool:
    """Say whether the channels of a field are shares of classes, the names of the channels: it then states `are_classes`, or
    its `notes` do."""
    notes = getattr(field, "notes", None) or {}
    return bool(getattr(field, "are_classes", notes.get("are_classes", False)))


def query(field: Field, coords: Tensor) -> Tensor:
    """Evaluate a field with every check: dimension, finiteness, membership, and the shape that comes back.

    Args:
        coords: (..., d) points of `field.domain`.

    Returns:
        Values (..., channels).

    Raises:
        ShapeMismatch, NotFinite, OutsideDomain: the coordinates, or the field's answer, do not fit.
    """
    field.domain.check(coords)
    values = field(coords)
    expected = (*coords.shape[:-1], field.channels)
    if tuple(values.shape) != expected:
        raise ShapeMismatch(
            f"The field {type(field).__name__} returned shape {tuple(values.shape)} for coords {tuple(coords.shape)}, "
            f"expected {expected}; correct its __call__ or its `channels`."
        )
    if not bool(values.isfinite().all()):
        raise NotFinite(f"The field {type(field).__name__} returned NaN or infinite values; its weights are damaged.")
    return values


class FunctionField:
    """A Python callable as a field.

    >>> import torch; from inrbridge.domains import Box
    >>> FunctionField(lambda x: x.sum(-1, keepdim=True), Box.centered(2), 1)(torch.ones(3, 2)).shape
    torch.Size([3, 1])
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], domain: Domain, channels: int, channel_names: tuple[str, ...] | None = None
    ):
        self.function, self.domain, self.channels = function, domain, channels
        self.channel_names = channel_names

    def __call__(self, coords: Tensor) -> Tensor:
        return self.function(coords)

    def __repr__(self) -> str:
        return f"FunctionField({getattr(self.function, '__name__', 'function')}, {self.domain}, channels={self.channels})"
