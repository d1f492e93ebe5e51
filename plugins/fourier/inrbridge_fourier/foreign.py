"""Read the checkpoint of another code base into a Fourier-feature field, and say what had to be assumed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import torch

from inrbridge import Assumptions, Box, errors, foreign, read_tensors
from inrbridge_fourier.dialects import DIALECTS, Dialect, detect, find_bare
from inrbridge_fourier.field import ACTIVATIONS, FINALS, FourierField
from inrbridge_fourier.filters import FilterField
from inrbridge_fourier.naming import Shapes
from inrbridge_fourier.source import Content, Source, Told

_CHANNELS = {(2, 1): ("gray",), (2, 3): ("red", "green", "blue")}
_AXES = {1: ("t",), 3: ("x", "y", "z")}
_SQUASHED = 0.25  # values so far outside [0, 1] are no values of a picture


def open_foreign(path: Path, dialect: str | None, told: Told) -> FourierField | FilterField:
    """Build the field that a foreign file describes (see `FourierFormat.open`).

    Raises:
        CannotOpen: the file is damaged, or of none of the dialects.
    """
    tensors = read_tensors(path)
    spoken, names = _dialect(dialect, {name: tuple(value.shape) for name, value in tensors.items()}, told)
    source = Source(tensors, Assumptions(spoken.name), told)
    if dialect is None:
        source.assume.note(f"dialect = {spoken.name} (by the names of the tensors)")
    with foreign.fitting_together(dialect is not None or told != Told()):
        module, function = spoken.reader.split(":")
        reader = getattr(importlib.import_module(f"inrbridge_fourier.{module}"), function)
        field = _assemble(reader(source, names, spoken), source, spoken)
    field.assumed = source.assume.sentences
    return field


def _dialect(name: str | None, shapes: Shapes, told: Told) -> tuple[Dialect, object]:
    if told.encoding not in (None, "positional"):
        raise errors.unknown_name("encoding", told.encoding, ("positional",))
    if name is not None and name not in DIALECTS:
        raise errors.unknown_name("dialect", name, DIALECTS)
    spoken = DIALECTS[name] if name else detect(shapes)
    names = spoken.find(shapes) if spoken else None
    if names is None and told.encoding == "positional" and name in (None, "sequential"):
        spoken, names = DIALECTS["sequential"], find_bare(shapes)
    if names is None:
        asked = f'dialect "{name}"' if name else "any dialect"
        raise errors.CannotOpen(
            f"its tensors ({', '.join(list(shapes)[:4])}, ...) do not fit {asked}, "
            f"expected one of {', '.join(DIALECTS)}; a network saved without its frequencies (a tensor `b`) cannot be evaluated."
        )
    return spoken, names


def _assemble(content: Content, source: Source, spoken: Dialect) -> FourierField | FilterField:
    told, assume, dim, channels = source.told, source.assume, content.dim, content.channels
    final = _known(source, "final", told.final, spoken.final, FINALS)
    domain = _domain(source, spoken, content)
    axes = spoken.axes if dim == 2 else _AXES.get(dim)
    ranges = spoken.ranges * channels if dim == 2 else None
    if told.convention == "image":
        axes, ranges = _as_image(content, axes, ranges, final)
    elif told.convention != "file":
        raise errors.unknown_name("convention", told.convention, ("file", "image"))
    if ranges and axes:
        low, high = ranges[0]
        assume.note(f"coordinates are ({', '.join(axes)}), values in [{low:g}, {high:g}] (default of dialect {spoken.name})")
    for note in spoken.notes:
        assume.note(note)
    meaning = {"final": final, "normalize": spoken.maps_domain, "axes": axes, "channel_ranges": ranges, "sigma": None}
    if content.filters:
        field, state = _filter_field(content, domain, meaning)
    else:
        activation = _known(source, "activation", told.activation, spoken.activation, ACTIVATIONS)
        meaning["activation"] = activation
        if activation == "softplus":
            meaning["beta"] = assume.choose("beta", told.beta, spoken.beta)
        field, state = _mlp_field(content, domain, meaning)
    field = field.to(torch.float64 if content.layers[0][0].dtype == torch.float64 else torch.float32)
    field.load_state_dict(state)
    single = (spoken.volume,) if spoken.volume else None
    field.channel_names = _CHANNELS.get((dim, channels), single if (dim, channels) == (3, 1) else None)
    _warn(field, source)
    return field


def _known(source: Source, name: str, told: str | None, default: str, known: Sequence[str]) -> str:
    value = source.assume.choose(name, told, default, kind=str)
    if value not in known:
        raise errors.unknown_name({"final": "final activation"}.get(name, name), value, known)
    return value


def _mlp_field(content: Content, domain: Box, meaning: dict) -> tuple[FourierField, dict]:
    hidden = [len(bias) for _, bias in content.layers[:-1]]
    field = FourierField(domain, content.channels, len(content.frequencies), hidden, angle=content.angle, raw=content.raw,
                         skips=content.skips, **meaning)  # fmt: skip
    return field, {"frequencies": content.frequencies} | _named("layers", content.layers)


def _filter_field(content: Content, domain: Box, meaning: dict) -> tuple[FilterField, dict]:
    *layers, (weight, bias) = content.layers
    field = FilterField(domain, content.channels, weight.shape[1], len(layers), **meaning)
    state = _named("filters", content.filters) | _named("layers", layers)
    return field, state | {"readout.weight": weight, "readout.bias": bias}


def _named(prefix: str, layers: Sequence) -> dict:
    return {f"{prefix}.{i}.{kind}": value for i, pair in enumerate(layers)
            for kind, value in zip(("weight", "bias"), pair, strict=True)}  # fmt: skip


def _domain(source: Source, spoken: Dialect, content: Content) -> Box:
    low, high, dim = source.told.low, source.told.high, content.dim
    lowest, highest = (spoken.low, spoken.high) if content.half is None else (-content.half, content.half)
    if spoken.maps_domain and not (low is None and high is None):
        raise errors.ConfigError(
            f"Got corners {low}, {high} of the domain, expected none; leave them out: "
            f"dialect {spoken.name} fixes [{spoken.low:g}, {spoken.high:g}]."
        )
    if low is None and high is None:
        source.assume.note(f"domain = [{lowest:g}, {highest:g}]^{dim} (default of dialect {spoken.name})")
    return foreign.told_box(low, high, [lowest] * dim, [highest] * dim)


def _as_image(content: Content, axes: Sequence[str] | None, ranges: Sequence | None, final: str):
    """Make the outer layers follow the project's image convention: rows before columns, values in [0, 1]."""
    if content.dim != 2 or ranges is None:
        raise errors.CannotOpen(
            f"it takes {content.dim} coordinates to {content.channels} values, expected an image for "
            'convention="image"; open it with convention="file".'
        )
    if axes == ("x", "y"):
        content.swap_coordinates()
    if any(tuple(pair) != (0.0, 1.0) for pair in ranges):
        if final != "identity":
            raise errors.CannotOpen(f'a final "{final}" hides the range of its values; open it with convention="file".')
        scale = [1 / (high - low) for low, high in ranges]
        content.map_values(scale, [-low * s for s, (low, _) in zip(scale, ranges, strict=True)])
    return ("row", "column"), ((0.0, 1.0),) * len(ranges)


def _warn(field: FourierField | FilterField, source: Source) -> None:
    """Say where the values of a picture do not look like those of one."""
    if source.told.final is not None or field.final != "identity" or field.channel_ranges != ((0.0, 1.0),) * field.channels:
        return
    low, high = field.domain.bounds
    points = torch.cartesian_prod(*(torch.linspace(a, b, 12) for a, b in zip(low, high, strict=True)))
    with torch.no_grad():
        values = field(points)
    outside = float(((values < -_SQUASHED) | (values > 1 + _SQUASHED)).float().mean())
    if outside > 0.2:
        source.assume.note(
            f"{100 * outside:.0f} % of the values lie far outside [0, 1], as before a sigmoid: check, and open with final=sigmoid"
        )
