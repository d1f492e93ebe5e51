"""Floor 4: fields with other channels: chosen, scaled, mixed, or side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inrbridge.errors import CannotAlign, ShapeMismatch, unknown_name
from inrbridge.field import Field, channel_names
from inrbridge.transforms.base import Matrix, Transform, channel_ranges


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
