"""Floor 7: map a field onto the domain and the channels of a dataset, or say why that cannot be.

Coordinates are mapped affinely, axis by axis, between domains of one kind; a field may be cut down to a planar slice or to a
smaller domain inside its own. Channels are chosen by name; colours and gray are made of each other. Nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inrbridge.domains import Ball, Box, Domain, Product, Region, Sphere, Torus
from inrbridge.errors import CannotAlign
from inrbridge.field import Field, channel_names
from inrbridge.transforms import (
    MapChannels,
    MixChannels,
    PermuteAxes,
    RestrictField,
    SelectChannels,
    SliceField,
    channel_ranges,
    rescale,
)

RGB = ("red", "green", "blue")
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as image programs make gray
COLOUR_RANGE = (0.0, 1.0)
RANGES = dict.fromkeys((*RGB, "gray", "alpha"), COLOUR_RANGE)  # what colours mean everywhere in inrbridge
_ALIASES = {
    "r": "red", "g": "green", "b": "blue", "a": "alpha", "grey": "gray", "luminance": "gray", "luma": "gray", "l": "gray",
    "sigma": "density", "signed_distance": "sdf", "occ": "occupancy",
}  # fmt: skip

Range = tuple[float, float]


def align(
    field: Field,
    domain: Domain | None = None,
    channels: str | Sequence[str] | None = None,
    *,
    ranges: Mapping[str, Range] | None = None,
    axes: Sequence[int] | None = None,
    at: Sequence[float] | None = None,
) -> Field:
    """Return the field seen on a domain, with these channels in these ranges.

    Args:
        domain: where the new field lives; None keeps the field's own.
        channels: names of its channels, "rgb" for the three colours; None keeps the field's own.
        ranges: range of values by channel name, for channels whose own range is known; colours lie in [0, 1].
        axes: the field's coordinates in the order of the new ones; those left out are held fixed.
        at: values of the coordinates held fixed, in the field's order; the middle where not given.

    Raises:
        CannotAlign: the text says what does not fit and what to pass.

    >>> import torch; from inrbridge.field import FunctionField
    >>> gray = FunctionField(lambda x: x, Box.unit(1), 1, ("gray",))
    >>> align(gray, Box.centered(1), "rgb")(torch.tensor([0.0]))
    tensor([0.5000, 0.5000, 0.5000])
    """
    if axes is not None:
        field = _reorder(field, axes, at)
    if domain is not None:
        field = _align_domain(field, domain)
    wanted = canonical_channels(channel_names(field) if channels is None else channels)
    if channels is not None and taken_in_order(channel_names(field), wanted):
        field = _align_channels(field, wanted)  # a range means nothing before the channel has a name
    field = _align_ranges(field, {**RANGES, **(ranges or {})})
    return field if channels is None else _align_channels(field, wanted)


def canonical_channels(channels: str | Sequence[str]) -> tuple[str, ...]:
    """Return channel names in inrbridge's own words.

    >>> canonical_channels("rgb"), canonical_channels(["R", "grey"])
    (('red', 'green', 'blue'), ('red', 'gray'))
    """
    listed = (channels,) if isinstance(channels, str) else tuple(channels)
    names = []
    for name in listed:
        word = str(name).lower()
        names += RGB if word == "rgb" else (*RGB, "alpha") if word == "rgba" else [_ALIASES.get(word, str(name))]
    if not names:
        raise CannotAlign('Got no channel names, expected at least one, such as "gray" or "rgb".')
    return tuple(names)


def is_unnamed(names: Sequence[str]) -> bool:
    """Say whether channels have numbers for names, which tell nothing of their meaning."""
    return tuple(names) == tuple(str(i) for i in range(len(names)))


def taken_in_order(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Say whether channels are matched by their place: equally many, and one side has no names."""
    return len(names) == len(wanted) and (is_unnamed(names) or is_unnamed(wanted))


def _reorder(field: Field, axes: Sequence[int], at: Sequence[float] | None) -> Field:
    if tuple(axes) == tuple(range(field.domain.dim)):
        return field
    if len(axes) == field.domain.dim:
        return PermuteAxes(field, axes)
    return SliceField(field, axes, at)


def _align_domain(field: Field, domain: Domain) -> Field:
    own = field.domain
    if own == domain:
        return field
    if own.dim != domain.dim:
        raise CannotAlign(
            f"Got a field on {own} of {own.dim} coordinates, expected {domain.dim} for {domain}; "
            + (
                f"choose a planar slice with axes={tuple(range(domain.dim))}, and `at` for the coordinates held fixed."
                if own.dim > domain.dim and isinstance(own, Box)
                else "leave such fields out, or choose another domain."
            )
        )
    if _is_stretchable(own, domain):
        return rescale(field, domain)
    if _lies_in(domain, own):
        return RestrictField(field, domain)
    raise CannotAlign(
        f"Got a field on {own}, which neither stretches onto {domain} nor contains it; expected two domains of one kind, "
        "or a smaller one inside a Box; leave such fields out, or choose another domain."
    )


def _is_stretchable(own: Domain, domain: Domain) -> bool:
    """Say whether the affine map of the bounds carries one domain onto the other."""
    if type(own) is not type(domain) or isinstance(own, Region):
        return False
    if isinstance(own, Product):
        return own.a.dim == domain.a.dim and all(
            mine == other or _is_stretchable(mine, other) for mine, other in ((own.a, domain.a), (own.b, domain.b))
        )
    return isinstance(own, Box | Ball | Sphere | Torus)


def _lies_in(domain: Domain, own: Domain) -> bool:
    if isinstance(domain, Region):
        return domain.domain == own or _lies_in(domain.domain, own)
    (low, high), (own_low, own_high) = domain.bounds, own.bounds
    slack = [1e-9 * (b - a) for a, b in zip(own_low, own_high, strict=True)]
    inside = all(a >= c - s for a, c, s in zip(low, own_low, slack, strict=True)) and all(
        b <= d + s for b, d, s in zip(high, own_high, slack, strict=True)
    )
    return inside and isinstance(own, Box | Torus)


def _align_ranges(field: Field, ranges: Mapping[str, Range]) -> Field:
    own, scale, offset, new = channel_ranges(field), [], [], []
    for name, known in zip(canonical_channels(channel_names(field)), own, strict=True):
        wanted = ranges.get(name, known) if known is not None else None
        if known is None or not known[0] < known[1]:
            factor, shift = 1.0, 0.0  # what does not say lies in the range of the others
        else:
            factor = (wanted[1] - wanted[0]) / (known[1] - known[0])
            shift = wanted[0] - known[0] * factor
        scale.append(factor)
        offset.append(shift)
        new.append(wanted)
    if all(factor == 1 for factor in scale) and all(shift == 0 for shift in offset):
        return field
    return MapChannels(field, scale, offset, new)


def _align_channels(field: Field, wanted: tuple[str, ...]) -> Field:
    known = canonical_channels(channel_names(field))
    if wanted == known or taken_in_order(known, wanted):
        return field if channel_names(field) == wanted else SelectChannels(field, range(len(known)), wanted)
    matrix = [_channel_row(name, known, field, wanted) for name in wanted]
    if all(sorted(row)[-1] == 1 and sum(row) == 1 for row in matrix):
        return SelectChannels(field, [row.index(1) for row in matrix], wanted)
    return MixChannels(field, matrix, wanted)


def _channel_row(name: str, known: tuple[str, ...], field: Field, wanted: tuple[str, ...]) -> list[float]:
    """Return how a channel is made of those of the field: one factor for each."""
    if name in known:
        parts = {name: 1.0}
    elif name == "gray" and all(colour in known for colour in RGB):
        parts = dict(zip(RGB, LUMINANCE, strict=True))
    elif name in RGB and "gray" in known:
        parts = {"gray": 1.0}
    else:
        raise CannotAlign(
            f"Got a field on {field.domain} with the channels {', '.join(known)}, expected {', '.join(wanted)}: "
            f'"{name}" cannot be made of them; choose channels that all fields have, or leave such fields out.'
        )
    return [parts.get(channel, 0.0) for channel in known]
