"""Floor 7: bring a field's coordinates to those of a dataset: crop, order, directions of view, domain, and units of length.

Coordinates are mapped affinely, axis by axis, between domains of one kind; a field may be cut down to a planar slice or to a
smaller domain inside its own. Where lengths change, density and signed distance change with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from inrbridge.data.channels import canonical_channels
from inrbridge.domains import Ball, Box, Domain, Product, Region, Sphere, Torus
from inrbridge.errors import CannotAlign, ShapeMismatch
from inrbridge.field import Field, channel_names
from inrbridge.transforms import (
    FixedDirection,
    IgnoreDirections,
    MapChannels,
    MeanOverDirections,
    PermuteAxes,
    RestrictField,
    SliceField,
    has_directions,
    rescale,
)

Corners = tuple[Sequence[float], Sequence[float]]
Axis = int | str
Directions = int | Sequence[float]

UPWARD = (0.0, 0.0, 1.0)  # the direction that is asked where none matters
_SAME_AXIS = {"row": "y", "column": "x", "col": "x"}  # of an image, whose rows go down: y points down there


def positions_of(domain: Domain) -> Domain:
    """Return a domain without its directions of view, if it has any."""
    return domain.a if has_directions(domain) else domain


def crop_field(field: Field, crop: Corners) -> Field:
    """Return the part of a field between two corners, in the field's own coordinates."""
    own = positions_of(field.domain)
    advice = "pass crop=(low, high) inside it, or leave crop out."
    try:
        low, high = crop
        part = Box(low, high)
    except (TypeError, ValueError, ShapeMismatch) as error:
        raise CannotAlign(f"Got crop={crop!r} of {own}, expected two corners with low < high; {advice}") from error
    if not isinstance(own, Box) or part.dim != own.dim or not _lies_in(part, own):
        raise CannotAlign(f"Got crop={crop!r} of a field on {field.domain}, expected a part of its Box; {advice}")
    return RestrictField(field, Product(part, field.domain.b) if has_directions(field.domain) else part)


def read_axes(field: Field, axes: Sequence[Axis]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the field's coordinates in the order of the new ones, and which of the new ones run backwards.

    Args:
        axes: for each new coordinate the number or the name of the field's own, "-" before it to mirror it. Names are looked
            up in the field's `axes`; where it does not name its coordinates, they are taken to be the new ones in order.
    """
    count, names = positions_of(field.domain).dim, getattr(field, "axes", None)
    named = names is not None and len(names) == count and all(isinstance(name, str) for name in names)
    known = [_SAME_AXIS.get(name.lower(), name.lower()) for name in names] if named else None
    order, mirrored = [], []
    for place, axis in enumerate(_listed(axes)):
        word = axis.lower() if isinstance(axis, str) else str(axis)
        if word.startswith("-"):
            mirrored.append(place)
            word = word[1:]
        word = _SAME_AXIS.get(word, word)
        if word.isdigit():
            order.append(int(word))
        elif known is not None and word in known:
            order.append(known.index(word))
        elif known is None and len(axes) == count:
            order.append(place)
        else:
            told = f"the coordinates {', '.join(names)}" if named else f"{count} coordinates without names"
            raise CannotAlign(
                f"Got axes={tuple(axes)} for a field on {field.domain} with {told}, expected some of them; "
                f"pass axes as numbers from 0 to {count - 1}."
            )
    return tuple(order), tuple(mirrored)


def _listed(axes: Sequence[Axis]) -> list[Axis]:
    found = list(axes) if isinstance(axes, list | tuple) else []
    if not found or not all(isinstance(axis, str) or (isinstance(axis, int) and axis >= 0) for axis in found):
        raise CannotAlign(
            f'Got axes={axes!r}, expected a list of coordinates by number from 0 or by name, such as (1, 0) or ("x", "-z", "y").'
        )
    return found


def reorder(field: Field, order: tuple[int, ...], mirrored: tuple[int, ...], at: Sequence[float] | None) -> Field:
    """Return the field with its coordinates in this order, or a planar slice that keeps these."""
    if len(order) != positions_of(field.domain).dim:
        field = SliceField(field, order, at)
        order = tuple(range(len(order)))
    if order == tuple(range(len(order))) and not mirrored:
        return field
    return PermuteAxes(field, order, mirrored)


def look(field: Field, directions: Directions | None, depends: bool) -> Field:
    """Return a field of positions and directions on its positions alone.

    Args:
        directions: how many to average over, or the one to look along.
        depends: whether what is wanted of the field depends on the direction; if not, one is asked.
    """
    single = directions is not None and not isinstance(directions, int)
    if single or not depends:
        return FixedDirection(field, directions if single else UPWARD)
    if directions is None:
        raise CannotAlign(
            f"Got a field on {field.domain} of {field.domain.dim} coordinates, expected {field.domain.a.dim}: its colours depend "
            "on the direction of view. Pass directions=16 for their mean over 16 directions, directions=(0, 0, 1) to look along "
            "one, or a domain that keeps them: Product(domain, Sphere())."
        )
    return MeanOverDirections(field, directions)


def place(field: Field, domain: Domain) -> Field:
    """Return the field on a domain with or without directions: stretched onto it, or cut down to it."""
    own = field.domain
    if own == domain:
        return field
    if has_directions(domain) and not has_directions(own) and own.dim == domain.a.dim:
        return IgnoreDirections(place(field, domain.a), domain.b)
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
        return _in_units(rescale(field, domain), own, domain)
    if _lies_in(domain, own):
        return RestrictField(field, domain)
    raise CannotAlign(
        f"Got a field on {own}, which neither stretches onto {domain} nor contains it; expected two domains of one kind, "
        "or a smaller one inside a Box; leave such fields out, or choose another domain."
    )


def _in_units(field: Field, own: Domain, domain: Domain) -> Field:
    """Express density and signed distance, which were stated on `own`, in the units of length of `domain`.

    With s old units in a new one, density becomes s sigma, so that the optical depth of every path stays what it was, and
    distance becomes sdf / s. If the sides were stretched by different factors no number does both: density takes their
    geometric mean, which keeps the integral of sigma^d, and distance the largest, so that it never exceeds the true one.
    """
    (old_low, old_high), (low, high) = positions_of(own).bounds, positions_of(domain).bounds
    factors = [(d - c) / (b - a) for a, b, c, d in zip(low, high, old_low, old_high, strict=True)]
    units = {"density": math.prod(factors) ** (1 / len(factors)), "sdf": 1 / max(factors)}
    scale = [units.get(name, 1.0) for name in canonical_channels(channel_names(field))]
    if all(math.isclose(factor, 1.0, rel_tol=1e-12) for factor in scale):
        return field
    return MapChannels(field, scale, [0.0] * len(scale))


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
    if isinstance(domain, Product) and isinstance(own, Product):
        return domain.b == own.b and domain.a.dim == own.a.dim and (domain.a == own.a or _lies_in(domain.a, own.a))
    (low, high), (own_low, own_high) = domain.bounds, own.bounds
    slack = [1e-9 * (b - a) for a, b in zip(own_low, own_high, strict=True)]
    inside = all(a >= c - s for a, c, s in zip(low, own_low, slack, strict=True)) and all(
        b <= d + s for b, d, s in zip(high, own_high, slack, strict=True)
    )
    return inside and isinstance(own, Box | Torus)
