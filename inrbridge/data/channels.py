"""Floor 7: what channels mean by their names, and which are made of which.

Colours and gray are made of each other; occupancy and alpha are made of density or signed distance. Nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from inrbridge.errors import CannotAlign
from inrbridge.field import Field, channel_names
from inrbridge.transforms import MapChannels, MixChannels, SelectChannels, WithOccupancy, channel_ranges

RGB = ("red", "green", "blue")
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as image programs make gray
SOLID = ("occupancy", "alpha")  # 1 where matter is, 0 where none is
PHYSICAL = ("sdf", "density")  # in units of length, so that no range of another field stretches them
COLOUR_RANGE = (0.0, 1.0)
RANGES = dict.fromkeys((*RGB, "gray", *SOLID), COLOUR_RANGE)  # what these mean everywhere in inrbridge
_ALIASES = {
    "r": "red", "g": "green", "b": "blue", "a": "alpha", "grey": "gray", "luminance": "gray", "luma": "gray", "l": "gray",
    "sigma": "density", "signed_distance": "sdf", "occ": "occupancy",
}  # fmt: skip

Range = tuple[float, float]


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


def are_matter(channels: Iterable[str], known: Sequence[str] = ()) -> bool:
    """Say whether channels, of a field that has those `known`, do not depend on the direction of view.

    In a radiance field colours do, density does not.
    """
    return all(_source(name, known) in (*PHYSICAL, *SOLID) for name in channels)


def name_channels(field: Field, wanted: tuple[str, ...]) -> Field:
    """Give the field these names where its channels are matched by their place."""
    own = channel_names(field)
    return SelectChannels(field, range(len(own)), wanted) if own != wanted and taken_in_order(own, wanted) else field


def align_ranges(field: Field, ranges: Mapping[str, Range]) -> Field:
    """Map the channels whose own range is known affinely onto these ranges, by canonical name."""
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


def align_channels(field: Field, wanted: tuple[str, ...], length: float, ramp: float) -> Field:
    """Choose, mix or make the channels wanted; `length` and `ramp` as in `transforms.WithOccupancy`."""
    field = name_channels(field, wanted)
    for name in wanted:
        known = canonical_channels(channel_names(field))
        if (source := _source(name, known)) in PHYSICAL and source != name:
            field = WithOccupancy(field, known.index(source), source, name, length=length, ramp=ramp)
    known = canonical_channels(channel_names(field))
    if wanted == known:
        return field if channel_names(field) == wanted else SelectChannels(field, range(len(known)), wanted)
    matrix = [_channel_row(name, known, field, wanted) for name in wanted]
    if all(sorted(row)[-1] == 1 and sum(row) == 1 for row in matrix):
        return SelectChannels(field, [row.index(1) for row in matrix], wanted)
    own = channel_ranges(field)
    return MixChannels(field, matrix, wanted, [own[row.index(1)] if row.count(0) == len(row) - 1 else None for row in matrix])


def _source(name: str, known: Sequence[str]) -> str:
    """Return which known channel says where matter is, for occupancy or alpha; else the name itself."""
    if name in known or name not in SOLID:
        return name
    return next((other for other in (*SOLID, *PHYSICAL) if other in known), name)


def _channel_row(name: str, known: tuple[str, ...], field: Field, wanted: tuple[str, ...]) -> list[float]:
    """Return how a channel is made of those of the field: one factor for each."""
    if name in known:
        parts = {name: 1.0}
    elif name in SOLID and _source(name, known) in known:
        parts = {_source(name, known): 1.0}
    elif name == "gray" and all(colour in known for colour in RGB):
        parts = dict(zip(RGB, LUMINANCE, strict=True))
    elif name in RGB and "gray" in known:
        parts = {"gray": 1.0}
    else:
        own = canonical_channels(channel_names(field))
        raise CannotAlign(
            f"Got a field on {field.domain} with the channels {', '.join(own)}, expected {', '.join(wanted)}: "
            f'"{name}" cannot be made of them; choose channels that all fields have, or leave such fields out.'
        )
    return [parts.get(channel, 0.0) for channel in known]
