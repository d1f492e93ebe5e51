"""Floor 4: fields made of fields: other coordinates, a smaller domain, other channels.

A `Transform` changes the coordinates, asks the field inside, and changes the values: g(x) = V(f(M(x))). Transforms with
equal `signature` do the same to any field, so a stack takes them off, evaluates the fields inside in one batched call,
and puts them on again once for the whole group. All are pointwise and differentiable in the coordinates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from inrbridge.domains import Box, Domain
from inrbridge.errors import CannotAlign, NotFinite, OutsideDomain, ShapeMismatch, unknown_name
from inrbridge.field import Field, channel_names

Matrix = Sequence[Sequence[float]]


@runtime_checkable
class Ranged(Protocol):
    """A field that says between which values its channels lie: one (low, high) a channel, None where unknown."""

    channel_ranges: tuple[tuple[float, float] | None, ...]


def channel_ranges(field: Field) -> tuple[tuple[float, float] | None, ...]:
    """Return the range of each channel of a field, None where it does not say."""
    if isinstance(field, Ranged) and field.channel_ranges is not None:
        return tuple(field.channel_ranges)
    return (None,) * field.channels


class Transform(ABC):
    """A field seen through maps of its coordinates and values.

    `inner` is the field inside, `domain`, `channels` and `channel_names` describe the field outside.
    """

    inner: Field
    domain: Domain
    channels: int
    channel_names: tuple[str, ...]
    channel_ranges: tuple[tuple[float, float] | None, ...]

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
        """Map points (..., d) of `domain` to points (..., d_inner) of the inner field's domain."""
        return coords

    def map_values(self, values: Tensor) -> Tensor:
        """Map values (..., c_inner) of the inner field to values (..., channels)."""
        return values

    def __call__(self, coords: Tensor) -> Tensor:
        return self.map_values(self.inner(self.map_coords(coords)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


class AffineField(Transform):
    """A field at affinely mapped coordinates: g(x) = f(A x + t).

    Args:
        inner: the field f on a domain of dimension d_inner.
        domain: where g lives, of dimension d.
        matrix: A, d_inner rows of d numbers; any slice, rotation or scaling.
        offset: t, d_inner numbers.
    """

    def __init__(self, inner: Field, domain: Domain, matrix: Matrix, offset: Sequence[float]):
        super().__init__(inner, domain)
        self.matrix = tuple(tuple(float(v) for v in row) for row in matrix)
        self.offset = tuple(float(v) for v in offset)
        rows, columns = inner.domain.dim, domain.dim
        if len(self.matrix) != rows or len(self.offset) != rows or any(len(row) != columns for row in self.matrix):
            raise ShapeMismatch(
                f"Got an affine map with {len(self.matrix)} rows and {len(self.offset)} offsets from {domain} to {inner.domain}, "
                f"expected a matrix of {rows} rows of {columns} numbers and {rows} offsets."
            )
        if not all(math.isfinite(v) for row in (*self.matrix, self.offset) for v in row):
            raise NotFinite("Got NaN or infinite numbers in an affine map, expected finite ones.")
        # A diagonal map is the common one (boxes onto boxes) and needs no matrix product.
        off_diagonal = any(v != 0 for i, row in enumerate(self.matrix) for j, v in enumerate(row) if i != j)
        self._diagonal = None if off_diagonal or rows != columns else tuple(self.matrix[i][i] for i in range(rows))

    @property
    def signature(self):
        return "affine", self.domain, self.matrix, self.offset

    def around(self, inner):
        return AffineField(inner, self.domain, self.matrix, self.offset)

    def map_coords(self, coords):
        offset = coords.new_tensor(self.offset)
        if self._diagonal is not None:
            return coords * coords.new_tensor(self._diagonal) + offset
        return coords @ coords.new_tensor(self.matrix).T + offset


def rescale(field: Field, domain: Domain) -> Field:
    """Return the field stretched, axis by axis, from its own bounds onto those of `domain`.

    >>> from inrbridge.field import FunctionField
    >>> wide = rescale(FunctionField(lambda x: x, Box.unit(1), 1), Box((0.0,), (10.0,)))
    >>> float(wide(torch.tensor([5.0])))
    0.5
    """
    if domain == field.domain:
        return field
    if domain.dim != field.domain.dim:
        raise ShapeMismatch(
            f"Got {domain} to rescale a field on {field.domain} to, expected a domain of dimension {field.domain.dim}; "
            "use SliceField to lower the dimension."
        )
    (to_low, to_high), (from_low, from_high) = domain.bounds, field.domain.bounds
    pairs = zip(to_low, to_high, from_low, from_high, strict=True)
    scale, offset = [], []
    for low, high, inner_low, inner_high in pairs:
        scale.append((inner_high - inner_low) / (high - low))
        offset.append((inner_low * high - inner_high * low) / (high - low))
    matrix = [[s if i == j else 0.0 for j in range(domain.dim)] for i, s in enumerate(scale)]
    return AffineField(field, domain, matrix, offset)


class PermuteAxes(Transform):
    """A field with its coordinates in another order: coordinate a of the new field is coordinate axes[a] of the old.

    A matrix stored (row, column) and a function of (x, y) differ by `axes=(1, 0)`. Only on a Box.
    """

    def __init__(self, inner: Field, axes: Sequence[int]):
        axes = tuple(int(a) for a in axes)
        box = _box_of(inner, "permute the axes of")
        if sorted(axes) != list(range(box.dim)):
            raise ShapeMismatch(f"Got axes {axes}, expected an order of {tuple(range(box.dim))}: each coordinate once.")
        super().__init__(inner, Box([box.low[a] for a in axes], [box.high[a] for a in axes]))
        self.axes = axes

    @property
    def signature(self):
        return "permute", self.axes

    def around(self, inner):
        return PermuteAxes(inner, self.axes)

    def map_coords(self, coords):
        return coords[..., [self.axes.index(a) for a in range(len(self.axes))]]


class SliceField(Transform):
    """A field on a planar slice of its Box: coordinate a of the slice is coordinate axes[a], the others are held fixed.

    Args:
        axes: the coordinates kept, in their new order.
        at: one value for each coordinate held fixed, in their old order; the middle of the box where not given.
    """

    def __init__(self, inner: Field, axes: Sequence[int], at: Sequence[float] | None = None):
        axes = tuple(int(a) for a in axes)
        box = _box_of(inner, "slice")
        if not axes or len(set(axes)) != len(axes) or not all(0 <= a < box.dim for a in axes):
            raise ShapeMismatch(f"Got axes {axes} to keep of {box}, expected distinct numbers from 0 to {box.dim - 1}.")
        fixed = tuple(a for a in range(box.dim) if a not in axes)
        at = tuple((box.low[a] + box.high[a]) / 2 for a in fixed) if at is None else tuple(float(v) for v in at)
        if len(at) != len(fixed):
            raise ShapeMismatch(f"Got {len(at)} values for the {len(fixed)} coordinates {fixed} held fixed; pass one each.")
        for a, value in zip(fixed, at, strict=True):
            if not box.low[a] <= value <= box.high[a]:
                raise OutsideDomain(f"Got a slice at coordinate {a} = {value}, expected it within [{box.low[a]}, {box.high[a]}].")
        super().__init__(inner, Box([box.low[a] for a in axes], [box.high[a] for a in axes]))
        self.axes, self.at = axes, at
        self._fixed = dict(zip(fixed, at, strict=True))

    @property
    def signature(self):
        return "slice", self.axes, self.at

    def around(self, inner):
        return SliceField(inner, self.axes, self.at)

    def map_coords(self, coords):
        columns = [
            torch.full_like(coords[..., 0], self._fixed[a]) if a in self._fixed else coords[..., self.axes.index(a)]
            for a in range(len(self.axes) + len(self._fixed))
        ]
        return torch.stack(columns, dim=-1)


class RestrictField(Transform):
    """A field on a part of its domain: the same coordinates, fewer points."""

    def __init__(self, inner: Field, domain: Domain):
        if domain.dim != inner.domain.dim:
            raise ShapeMismatch(f"Got {domain} as a part of {inner.domain}, expected a domain of dimension {inner.domain.dim}.")
        super().__init__(inner, domain)

    @property
    def signature(self):
        return "restrict", self.domain

    def around(self, inner):
        return RestrictField(inner, self.domain)


class SelectChannels(Transform):
    """Some channels of a field, in the order asked for, by name or index; one may be asked for twice."""

    def __init__(self, inner: Field, channels: Sequence[str | int], names: Sequence[str] | None = None):
        known = channel_names(inner)
        index = []
        for channel in channels:
            if isinstance(channel, str) and channel in known:
                index.append(known.index(channel))
            elif not isinstance(channel, str) and 0 <= channel < inner.channels:
                index.append(int(channel))
            else:
                raise unknown_name("channel", channel, known, CannotAlign)
        if not index or (names is not None and len(names) != len(index)):
            raise ShapeMismatch(f"Got {len(index)} channels and names {names}, expected one or more, a name for each.")
        ranges = channel_ranges(inner)
        super().__init__(inner, inner.domain, names or [known[i] for i in index], [ranges[i] for i in index])
        self.index = tuple(index)

    @property
    def signature(self):
        return "select", self.index, self.channel_names

    def around(self, inner):
        return SelectChannels(inner, self.index, self.channel_names)

    def map_values(self, values):
        return values[..., list(self.index)]


class MapChannels(Transform):
    """A field with its values mapped affinely, channel by channel: g_i = scale_i f_i + offset_i."""

    def __init__(self, inner: Field, scale: Sequence[float], offset: Sequence[float], ranges: Sequence | None = None):
        self.scale, self.offset = tuple(float(v) for v in scale), tuple(float(v) for v in offset)
        if len(self.scale) != inner.channels or len(self.offset) != inner.channels:
            raise ShapeMismatch(
                f"Got {len(self.scale)} scales and {len(self.offset)} offsets, expected {inner.channels}: one for each channel."
            )
        if ranges is None:
            ranges = [
                None if known is None else tuple(sorted(s * v + o for v in known))
                for known, s, o in zip(channel_ranges(inner), self.scale, self.offset, strict=True)
            ]
        super().__init__(inner, inner.domain, ranges=ranges)

    @property
    def signature(self):
        return "map", self.scale, self.offset, self.channel_ranges

    def around(self, inner):
        return MapChannels(inner, self.scale, self.offset, self.channel_ranges)

    def map_values(self, values):
        return values * values.new_tensor(self.scale) + values.new_tensor(self.offset)


class MixChannels(Transform):
    """A field with its channels mixed linearly: g = M f, such as the luminance of a colour.

    Args:
        matrix: M, one row of inner.channels numbers for each new channel.
        names: the names of the new channels.
        ranges: their ranges, where known.
    """

    def __init__(self, inner: Field, matrix: Matrix, names: Sequence[str], ranges: Sequence | None = None):
        self.matrix = tuple(tuple(float(v) for v in row) for row in matrix)
        if not self.matrix or len(self.matrix) != len(names) or any(len(row) != inner.channels for row in self.matrix):
            raise ShapeMismatch(
                f"Got a matrix of {len(self.matrix)} rows for the channels {tuple(names)}, "
                f"expected one row of {inner.channels} numbers for each."
            )
        super().__init__(inner, inner.domain, names, ranges if ranges is not None else (None,) * len(self.matrix))

    @property
    def signature(self):
        return "mix", self.matrix, self.channel_names, self.channel_ranges

    def around(self, inner):
        return MixChannels(inner, self.matrix, self.channel_names, self.channel_ranges)

    def map_values(self, values):
        return values @ values.new_tensor(self.matrix).T


class ConcatChannels:
    """Several fields on one domain as one field, their channels side by side."""

    def __init__(self, fields: Sequence[Field], names: Sequence[str] | None = None):
        self.fields = tuple(fields)
        if not self.fields or any(f.domain != self.fields[0].domain for f in self.fields):
            found = sorted({str(f.domain) for f in self.fields})
            raise ShapeMismatch(f"Got fields on the domains {found}, expected at least one field and one domain; rescale them.")
        self.domain = self.fields[0].domain
        self.channels = sum(f.channels for f in self.fields)
        self.channel_ranges = tuple(r for f in self.fields for r in channel_ranges(f))
        found = tuple(name for f in self.fields for name in channel_names(f))
        if names is None:  # names that several fields share would be ambiguous
            names = found if len(set(found)) == len(found) else tuple(str(i) for i in range(self.channels))
        self.channel_names = tuple(names)
        if len(self.channel_names) != self.channels:
            raise ShapeMismatch(f"Got {len(self.channel_names)} names for {self.channels} channels; pass one name for each.")

    def __call__(self, coords: Tensor) -> Tensor:
        return torch.cat([field(coords) for field in self.fields], dim=-1)

    def __repr__(self) -> str:
        return f"ConcatChannels({list(self.fields)!r})"


def _box_of(field: Field, verb: str) -> Box:
    if not isinstance(field.domain, Box):
        raise CannotAlign(f"Got a field on {field.domain} to {verb}, expected one on a Box; restrict or rescale it first.")
    return field.domain
