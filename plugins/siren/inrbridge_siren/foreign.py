"""Read the checkpoint of another code base into a `SirenField`, and say what had to be assumed."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from inrbridge import Assumptions, Box, Probe, errors, foreign, read_tensors
from inrbridge_siren.dialects import DIALECTS, detect
from inrbridge_siren.field import ACTIVATIONS, FINALS, SirenField
from inrbridge_siren.source import Parts, Source, Told, check_chain

_CHANNELS = {(2, 1): ("gray",), (2, 3): ("red", "green", "blue")}
_AXES = {1: ("t",), 3: ("x", "y", "z")}
_SQUASHED = 0.25  # values so far outside [0, 1] are no values of a picture


def open_foreign(path: Path, dialect: str | None, told: Told) -> SirenField:
    """Build the field that a foreign file describes (see `SirenFormat.open`).

    Raises:
        CannotOpen: the file is damaged, or of none of the dialects.
    """
    return _build(_read(path, dialect), dialect is None, told)


def open_all_foreign(path: Path, dialect: str | None, told: Told, count: int) -> Iterator[SirenField]:
    """Build the fields of a file that holds several, reading it once."""
    read = _read(path, dialect)
    return (_build(read, dialect is None, dataclasses.replace(told, index=index)) for index in range(count))


def count_networks(probe: Probe) -> int:
    """Return how many networks a foreign file holds, by its shapes."""
    spoken = detect(probe.tensors, probe.scalars)
    if spoken is None:
        return 1
    if spoken.name == "fit-a-nef":
        shape = tuple(probe.tensors.get("params", ()))
        return shape[0] if len(shape) == 2 else 1
    found = spoken.layers.pairs(probe.tensors) if spoken.layers else None
    shape = tuple(probe.tensors[found[0][0][0]]) if found else ()
    return shape[0] if len(shape) == 3 else 1


def _read(path: Path, dialect: str | None) -> Source:
    probe = Probe(path)
    tensors = read_tensors(path)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    spoken = foreign.choose_dialect(
        dialect, DIALECTS, detect(shapes, probe.scalars), lambda one: one.fits(shapes, probe.scalars), shapes,
        "open with dialect=ordered where they are linear layers in the order of evaluation, or rename them to "
        "net.0.weight, net.0.bias, ..., or save the bare state dict of the network.",
    )  # fmt: skip
    return Source(probe.path, tensors, probe.scalars, probe.sidecar, probe.sidecar_name, spoken, Assumptions(spoken.name), Told())


def _build(read: Source, is_detected: bool, told: Told) -> SirenField:
    spoken = read.dialect
    source = dataclasses.replace(read, told=told, assume=Assumptions(spoken.name))
    if is_detected:
        source.assume.note(f"dialect = {spoken.name} (by the names of the tensors)")
    with foreign.fitting_together(not is_detected or told != Told()):
        module, function = spoken.reader.split(":")
        parts = getattr(importlib.import_module(f"inrbridge_siren.{module}"), function)(source)
        return _assemble(parts, source)


def _assemble(parts: Parts, source: Source) -> SirenField:
    spoken, told, assume, dim = source.dialect, source.told, source.assume, parts.coordinates
    check_chain(parts.layers)
    channels = parts.layers[-1][0].shape[0]
    activation = parts.activation if parts.activation and told.activation is None else None
    usual = "relu" if parts.encoding and spoken.name == "vsitzmann" else spoken.activation  # as its training scripts have it
    activation = activation or assume.choose("activation", told.activation, usual, kind=str)
    if activation not in ACTIVATIONS:
        raise errors.unknown_name("activation", activation, ACTIVATIONS)
    omega_0, hidden_omega = _frequencies(parts, source) if activation == "sine" else (30.0, 30.0)
    ending = spoken.final if parts.has_readout else "sine" if activation == "sine" else activation
    final = parts.final or assume.choose("final", told.final, ending, kind=str)
    if final not in FINALS:
        raise errors.unknown_name("final activation", final, FINALS)
    domain = _domain(source, dim)
    is_video = (spoken.name, dim, channels) == ("vsitzmann", 3, 3)
    axes = spoken.axes if dim == 2 else ("t", "row", "column") if is_video else _AXES.get(dim)
    ranges = spoken.ranges * channels if len(spoken.ranges) == 1 else spoken.ranges
    ranges = ranges if len(ranges) == channels and (dim <= 2 or is_video) else None
    if spoken.offset:
        _map_values(parts, [1.0] * channels, [spoken.offset] * channels)
    if told.convention == "image":
        axes, ranges = _as_image(parts, axes, ranges, final)
    elif told.convention != "file":
        raise errors.unknown_name("convention", told.convention, ("file", "image"))
    _note_meaning(source, dim, axes, ranges)
    kind = torch.float64 if parts.layers[0][0].dtype == torch.float64 else torch.float32
    field = SirenField(
        domain, channels, [len(weight) for weight, _ in parts.layers[:-1]], omega_0=omega_0, hidden_omega=hidden_omega,
        activation=activation, final=final, normalize=False, axes=axes, channel_ranges=ranges, **parts.encoding,
    ).to(kind)  # fmt: skip
    state = {f"layers.{i}.{name}": value for i, pair in enumerate(parts.layers)
             for name, value in zip(("weight", "bias"), pair, strict=True)}  # fmt: skip
    field.load_state_dict(state | {f"encoding.{name}": value for name, value in parts.features.items()})
    single = (spoken.volume,) if spoken.volume else None
    field.channel_names = _CHANNELS.get((dim, channels), single if (dim, channels) == (3, 1) else None)
    if is_video:
        field.channel_names = _CHANNELS[2, 3]
    if parts.label is not None:
        field.label = parts.label
    _warn(field, parts, source)
    field.assumed = assume.sentences
    return field


def _frequencies(parts: Parts, source: Source) -> tuple[float, float]:
    """Return the frequencies of the first and the hidden sine layers; where hidden ones differ, the weights take them up."""
    told, assume, spoken, dim = source.told, source.assume, source.dialect, parts.coordinates
    omegas = parts.omegas
    if omegas and told.omega_0 is None and told.hidden_omega is None:
        hidden = omegas[1] if len(omegas) > 1 else omegas[0]
        for i, omega in enumerate(omegas[2:], 2):
            if omega != hidden:
                weight, bias = parts.layers[i]
                parts.layers[i] = (weight * (omega / hidden), bias * (omega / hidden))
        return omegas[0], hidden
    first = omegas[0] if omegas else spoken.default("omega_0", dim)
    hidden = omegas[-1] if omegas else spoken.hidden_omega
    return assume.choose("omega_0", told.omega_0, first), assume.choose("hidden_omega", told.hidden_omega, hidden)


def _domain(source: Source, dim: int) -> Box:
    spoken, told = source.dialect, source.told
    low, high = spoken.default("low", dim), spoken.default("high", dim)
    given = told.high
    if told.size is not None:
        if given is not None or spoken.name != "coin" or dim != 2:
            raise errors.ConfigError(
                f"Got size = {told.size}, expected it for COIN's images alone, and without `high`; give the corners instead."
            )
        given = _coin_corner(told.size)
    if told.low is None and given is None:
        source.assume.note(f"domain = [{low:g}, {high:g}]^{dim} (default of dialect {spoken.name})")
        if spoken.name == "coin":
            source.assume.note("on a picture that is not square COIN's columns leave [-1, 1]: tell size=[rows, columns]")
    return foreign.told_box(told.low, given, [low] * dim, [high] * dim)


def _coin_corner(size: Sequence[int]) -> tuple[float, float]:
    """Return the last pixel of COIN's coordinates: both axes are divided by the number of rows."""
    try:
        rows, columns = (int(value) for value in size)
    except (TypeError, ValueError) as error:
        raise errors.ConfigError(f"Got size = {size!r}, expected two whole numbers: rows and columns.") from error
    if rows < 2 or columns < 2:
        raise errors.ConfigError(f"Got size = {size!r}, expected at least two rows and columns.")
    return 1.0, 2 * (columns - 1) / (rows - 1) - 1


def _as_image(parts: Parts, axes: Sequence[str] | None, ranges: Sequence | None, final: str):
    """Make the outer layers follow the project's image convention: rows before columns, values in [0, 1]."""
    if parts.coordinates != 2 or ranges is None:
        raise errors.CannotOpen(
            f"it takes {parts.coordinates} coordinates to {parts.layers[-1][0].shape[0]} values, expected an image of known "
            'range for convention="image"; open it with convention="file".'
        )
    if axes == ("x", "y"):
        parts.swap_coordinates()
    if any(tuple(pair) != (0.0, 1.0) for pair in ranges):
        if final != "identity":
            raise errors.CannotOpen(f'a final "{final}" hides the range of its values; open it with convention="file".')
        scale = [1 / (high - low) for low, high in ranges]
        _map_values(parts, scale, [-low * s for s, (low, _) in zip(scale, ranges, strict=True)])
    return ("row", "column"), ((0.0, 1.0),) * len(ranges)


def _map_values(parts: Parts, scale: Sequence[float], offset: Sequence[float]) -> None:
    weight, bias = parts.layers[-1]
    factor = weight.new_tensor(scale)
    parts.layers[-1] = (weight * factor[:, None], bias * factor + weight.new_tensor(offset))


def _note_meaning(source: Source, dim: int, axes: Sequence[str] | None, ranges: Sequence | None) -> None:
    spoken, assume = source.dialect, source.assume
    origin = f"default of dialect {spoken.name}"
    if ranges and axes:
        assume.note(f"coordinates are ({', '.join(axes)}), values in {_spell(ranges)} ({origin})")
    elif dim == 2 and axes:
        assume.note(f"coordinates are ({', '.join(axes)}) ({origin})")
    if dim > 3 and spoken.name == "vsitzmann":
        assume.note("a value function of DeepReach: the first coordinate is time")
    for note in spoken.notes:
        assume.note(note)


def _spell(ranges: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"[{low:.4g}, {high:.4g}]" for low, high in dict.fromkeys(tuple(pair) for pair in ranges))


def _warn(field: SirenField, parts: Parts, source: Source) -> None:
    """Add what the weights themselves say against the assumptions."""
    seen = None if parts.is_modulated or field.activation != "sine" else estimate_omega(field)
    if seen is not None and source.told.hidden_omega is None and abs(math.log(seen / abs(field.hidden_omega))) > math.log(5.5):
        source.assume.note(
            f"the spread of the weights rather looks like hidden_omega = {seen:g}: check, and open with hidden_omega={seen:g}"
        )
    if source.dialect.name == "lucidrains" and source.told.final is None:
        low, high = field.domain.bounds
        points = torch.cartesian_prod(*(torch.linspace(a, b, 12) for a, b in zip(low, high, strict=True)))
        with torch.no_grad():
            values = field(points.reshape(-1, field.domain.dim)) if field.domain.dim <= 3 else points.new_zeros(1)
        outside = float(((values < -_SQUASHED) | (values > 1 + _SQUASHED)).float().mean())
        if outside > 0.2:
            source.assume.note(
                f"{100 * outside:.0f} % of the values lie far outside [0, 1], as before a sigmoid: check, and open with "
                "final=sigmoid"
            )


def estimate_omega(field: SirenField) -> float | None:
    """Guess the hidden frequency, 1 or 30, from the widest spread of the hidden weights; None without hidden layers.

    A SIREN starts with weights of deviation sqrt(2 / fan_in) / omega (Sitzmann et al. 2020, section 3.2); training
    widens them, so the guess serves a warning and nothing else.
    """
    spreads = [
        math.sqrt(2 / w.shape[1]) / max(float(w.detach().std()), 1e-12)
        for w in (layer.weight for layer in field.layers[1:-1]) if w.numel() > 1
    ]  # fmt: skip
    if not spreads:
        return None
    return 30.0 if max(spreads) > 5.5 else 1.0
