"""Read the checkpoint of another code base into a `FourierField`, and say what had to be assumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from inrbridge import Box, errors, read_tensors
from inrbridge_fourier.dialects import DIALECTS, detect
from inrbridge_fourier.field import FourierField

_CHANNELS = {(2, 1): ("gray",), (2, 3): ("red", "green", "blue")}


def open_foreign(path: Path, *, dialect: str | None, final: str | None, low: float | Sequence[float] | None,
                 high: float | Sequence[float] | None) -> FourierField:  # fmt: skip
    """Build the field that a foreign file describes; None takes what the dialect says (see `FourierFormat.open`)."""
    tensors = read_tensors(path)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if dialect is not None and dialect not in DIALECTS:
        raise errors.unknown_name("dialect", dialect, DIALECTS)
    spoken = DIALECTS[dialect] if dialect else detect(shapes)
    if spoken is None or not spoken.fits(shapes):
        asked = f'dialect "{dialect}"' if dialect else "any dialect"
        raise errors.CannotOpen(
            f"its tensors ({', '.join(list(shapes)[:4])}, ...) do not fit {asked}, "
            f"expected one of {', '.join(DIALECTS)}; a network saved without its frequencies (a tensor `b`) cannot be evaluated."
        )
    if spoken.maps_domain and not (low is None and high is None):
        raise errors.ConfigError(
            f"Got corners {low}, {high} of the domain, expected none; leave them out: "
            f"dialect {spoken.name} fixes [{spoken.low:g}, {spoken.high:g}]."
        )
    content = spoken.read(tensors)
    m, dim = content.frequencies.shape
    widths = [len(bias) for _, bias in content.layers]
    domain = Box(*(_corner(given, default, dim) for given, default in ((low, spoken.low), (high, spoken.high))))
    is_image = dim == 2
    field = FourierField(
        domain, widths[-1], m, widths[:-1], sigma=None, angle=content.angle,
        final=final or spoken.final, normalize=spoken.maps_domain, axes=spoken.axes if is_image else None,
        channel_ranges=spoken.ranges * widths[-1] if is_image else None,
    )  # fmt: skip
    state = {f"layers.{i}.{kind}": value for i, pair in enumerate(content.layers)
             for kind, value in zip(("weight", "bias"), pair, strict=True)}  # fmt: skip
    if content.frequencies.dtype == torch.float64:
        field = field.double()
    field.load_state_dict({"frequencies": content.frequencies, **state})  # rounds what was folded in float64
    field.channel_names = _CHANNELS.get((dim, widths[-1]))
    origin = f"default of dialect {spoken.name}"
    facts = [
        (dialect is None, f"dialect = {spoken.name} (by the names of the tensors)"),
        (final is None, f"final = {field.final} ({origin})"),
        (low is None and high is None, f"domain = [{spoken.low:g}, {spoken.high:g}]^{dim} ({origin})"),
        (is_image, f"coordinates are ({', '.join(spoken.axes)}), values in [0, 1] ({origin})"),
    ]
    field.assumed = tuple(text for is_assumed, text in facts if is_assumed)
    return field


def _corner(given: float | Sequence[float] | None, default: float, dim: int) -> tuple[float, ...]:
    given = default if given is None else given
    corner = (float(given),) * dim if isinstance(given, int | float) else tuple(float(value) for value in given)
    if len(corner) != dim:
        raise errors.ShapeMismatch(
            f"Got a corner {corner} of the domain, expected {dim} numbers: the network takes {dim} coordinates."
        )
    return corner
