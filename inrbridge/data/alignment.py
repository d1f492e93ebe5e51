"""Floor 7: map a field onto the domain and the channels of a dataset, or say why that cannot be.

`placing.py` brings the coordinates, `channels.py` the values. `view.py` holds the options that a dataset aligns its fields with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from inrbridge.data.channels import (
    PHYSICAL,
    RANGES,
    Range,
    align_channels,
    align_ranges,
    are_matter,
    canonical_channels,
    name_channels,
)
from inrbridge.data.placing import Axis, Corners, Directions, crop_field, look, place, positions_of, read_axes, reorder
from inrbridge.domains import Domain
from inrbridge.field import Field, channel_names
from inrbridge.transforms import has_directions

PATHS = 16  # of the default `length` along a side of the domain


def align(
    field: Field,
    domain: Domain | None = None,
    channels: str | Sequence[str] | None = None,
    *,
    ranges: Mapping[str, Range] | None = None,
    crop: Corners | None = None,
    axes: Sequence[Axis] | None = None,
    at: Sequence[float] | None = None,
    directions: Directions | None = None,
    length: float | None = None,
    ramp: float = 0.0,
) -> Field:
    """Return the field seen on a domain, with these channels in these ranges.

    Args:
        domain: where the new field lives; None keeps the field's own. A field of positions is seen on positions and
            directions by ignoring these; one that depends on directions is seen on positions as `directions` says.
        channels: names of its channels, "rgb" for the three colours; None keeps the field's own. "occupancy" and "alpha" are
            made of density or sdf where the field has neither.
        ranges: range of values by channel name, for channels whose own range is known; colours lie in [0, 1].
        crop: corners (low, high), in the field's own coordinates, of the part of it that is looked at.
        axes: the field's coordinates in the order of the new ones, by number or by the field's own names, "-" before one
            that is to run backwards; those left out are held fixed.
        at: values of the coordinates held fixed, in the field's order; the middle where not given.
        directions: of view, for fields that have them: how many to average over, or the vector to look along, in the new
            coordinates. Density does not depend on them: where nothing else is wanted, one is asked, and none need be given.
        length: path over which a density is felt as occupancy, 1 - exp(-density length), in units of the new domain;
            default 1/16 of its side (of the geometric mean of its sides).
        ramp: thickness of the shell in which a signed distance becomes occupancy, in units of the new domain; 0: a step.

    Density is per unit of length and a signed distance is a length: where a field is stretched onto the domain, they
    are scaled with it.

    Raises:
        CannotAlign: the text says what does not fit and what to pass.

    >>> import torch; from inrbridge.domains import Box; from inrbridge.field import FunctionField
    >>> gray = FunctionField(lambda x: x, Box.unit(1), 1, ("gray",))
    >>> align(gray, Box.centered(1), "rgb")(torch.tensor([0.0]))
    tensor([0.5000, 0.5000, 0.5000])
    """
    order = None if axes is None else read_axes(field, axes)
    wanted = None if channels is None else canonical_channels(channels)
    if wanted is not None:
        field = name_channels(field, wanted)  # units and ranges mean nothing before a channel has a name
    known = canonical_channels(channel_names(field))
    depends = not are_matter(known if wanted is None else wanted, known)
    if crop is not None:
        field = crop_field(field, crop)
    if order is not None and len(order[0]) < positions_of(field.domain).dim and has_directions(field.domain):
        field = look(field, directions, depends)  # a slice of them
    if order is not None:
        field = reorder(field, *order, at)
    if has_directions(field.domain) and (directions is not None if domain is None else domain.dim != field.domain.dim):
        field = look(field, directions, depends)
    if domain is not None:
        field = place(field, domain)
    ranges = {**RANGES, **(ranges or {})}
    field = align_ranges(field, {name: ends for name, ends in ranges.items() if name not in PHYSICAL})
    if wanted is not None:
        field = align_channels(field, wanted, default_path(field.domain) if length is None else length, ramp)
    return align_ranges(field, {name: ends for name, ends in ranges.items() if name in PHYSICAL})


def default_path(domain: Domain) -> float:
    """Return the path over which a density is felt where none is given: 1/16 of the geometric mean of the domain's sides."""
    low, high = positions_of(domain).bounds
    return math.prod(b - a for a, b in zip(low, high, strict=True)) ** (1 / len(low)) / PATHS
