"""Read the checkpoint of another code base into a `SirenField`, and say what had to be assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from inrbridge import Box, errors, read_tensors
from inrbridge_siren.dialects import DIALECTS, Dialect, detect
from inrbridge_siren.field import SirenField

_CHANNELS = {(2, 1): ("gray",), (2, 3): ("red", "green", "blue")}
_AXES = {1: ("t",), 3: ("x", "y", "z")}


def open_foreign(path: Path, *, dialect: str | None, omega_0: float | None, hidden_omega: float | None, final: str | None,
                 low: float | Sequence[float] | None, high: float | Sequence[float] | None, index: int | None,
                 convention: str) -> SirenField:  # fmt: skip
    """Build the field that a foreign file describes; None takes what the dialect says (see `SirenFormat.open`)."""
    tensors = read_tensors(path)
    spoken = _dialect(dialect, {name: tuple(value.shape) for name, value in tensors.items()})
    pairs, has_readout = spoken.pairs({name: value.shape for name, value in tensors.items()})
    layers = _select([(tensors[weight], tensors[bias]) for weight, bias in pairs], index)
    dim, channels = layers[0][0].shape[1], layers[-1][0].shape[0]
    domain = Box(*(_corner(given, default, dim) for given, default in ((low, spoken.low), (high, spoken.high))))
    ranges = (spoken.ranges * channels)[:channels] if len(spoken.ranges) == 1 else spoken.ranges
    axes = spoken.axes if dim == 2 else _AXES.get(dim)
    if spoken.offset:
        layers[-1] = (layers[-1][0], layers[-1][1] + spoken.offset)
    ending = final or ("identity" if has_readout else "sine")
    if convention == "image":
        layers, axes, ranges = _as_image(layers, dim, axes, ranges, ending)
    elif convention != "file":
        raise errors.unknown_name("convention", convention, ("file", "image"))
    field = SirenField(
        domain, channels, [weight.shape[0] for weight, _ in layers[:-1]],
        omega_0=spoken.omega_0 if omega_0 is None else omega_0,
        hidden_omega=spoken.hidden_omega if hidden_omega is None else hidden_omega,
        final=ending, normalize=False, axes=axes, channel_ranges=ranges if dim == 2 and len(ranges) == channels else None,
    )  # fmt: skip
    field = field.to(layers[0][0].dtype)
    field.load_state_dict({f"layers.{i}.{kind}": value for i, pair in enumerate(layers)
                           for kind, value in zip(("weight", "bias"), pair, strict=True)})  # fmt: skip
    field.channel_names = _CHANNELS.get((dim, channels), ("sdf",) if (dim, channels) == (3, 1) else None)
    told = {"final": final, "omega_0": omega_0, "hidden_omega": hidden_omega, "domain": high if high is not None else low}
    field.assumed = _assumptions(spoken, field, named=dialect is not None, told=told)
    return field


def _dialect(name: str | None, shapes: dict[str, tuple[int, ...]]) -> Dialect:
    if name is None:
        found = detect(shapes)
        if found is None:
            raise errors.CannotOpen(
                f"its tensors ({', '.join(list(shapes)[:4])}, ...) fit none of the dialects {', '.join(DIALECTS)}; "
                "rename them to net.0.weight, net.0.bias, ... or save the bare state dict of the network."
            )
        return found
    if name not in DIALECTS:
        raise errors.unknown_name("dialect", name, DIALECTS)
    if DIALECTS[name].pairs(shapes) is None:
        raise errors.CannotOpen(
            f'its tensors ({", ".join(list(shapes)[:4])}, ...) do not fit dialect "{name}" ({DIALECTS[name].source}); '
            "leave the dialect out to have it found."
        )
    return DIALECTS[name]


def _select(layers: list[tuple[Tensor, Tensor]], index: int | None) -> list[tuple[Tensor, Tensor]]:
    """Take one network out of a stack of them, and lift half precision to single."""
    if layers[0][0].ndim == 3:
        count = len(layers[0][0])
        if index is None or not 0 <= index < count:
            raise errors.CannotOpen(
                f"it holds a stack of {count} networks, got index {index}; open one with index=0..{count - 1}."
            )
        layers = [(weight[index], bias[index]) for weight, bias in layers]
    elif index is not None:
        raise errors.CannotOpen(f"it holds one network, got index {index}; leave the index out.")
    dtype = layers[0][0].dtype if layers[0][0].dtype == torch.float64 else torch.float32
    return [(weight.to(dtype), bias.to(dtype)) for weight, bias in layers]


def _corner(given: float | Sequence[float] | None, default: float, dim: int) -> tuple[float, ...]:
    given = default if given is None else given
    corner = (float(given),) * dim if isinstance(given, int | float) else tuple(float(value) for value in given)
    if len(corner) != dim:
        raise errors.ShapeMismatch(
            f"Got a corner {corner} of the domain, expected {dim} numbers: the network takes {dim} coordinates."
        )
    return corner


def _as_image(layers: list[tuple[Tensor, Tensor]], dim: int, axes: tuple[str, str], ranges: Sequence, final: str):
    """Fold the project's image convention into the outer layers: rows before columns, values in [0, 1]."""
    if dim != 2 or len(ranges) != layers[-1][0].shape[0]:
        raise errors.CannotOpen(
            f"it takes {dim} coordinates to {layers[-1][0].shape[0]} values, expected an image of known range for "
            'convention="image"; open it with convention="file".'
        )
    (first, first_bias), (last, last_bias) = layers[0], layers[-1]
    if axes == ("x", "y"):
        layers[0] = (first.flip(1), first_bias)
    low, high = (last_bias.new_tensor([pair[end] for pair in ranges]) for end in (0, 1))
    if final != "identity" and (low.any() or (high != 1).any()):
        raise errors.CannotOpen(f'a final "{final}" hides the range of its values; open it with convention="file".')
    layers[-1] = (last / (high - low)[:, None], (last_bias - low) / (high - low))
    return layers, ("row", "column"), ((0.0, 1.0),) * len(ranges)


def _assumptions(spoken: Dialect, field: SirenField, *, named: bool, told: dict) -> tuple[str, ...]:
    origin = f"default of dialect {spoken.name}"
    facts = [] if named else [f"dialect = {spoken.name} (by the names of the tensors)"]
    facts += [f"{name} = {getattr(field, name):g} ({origin})" for name in ("omega_0", "hidden_omega") if told[name] is None]
    if told["final"] is None:
        facts.append(f"final = {field.final} ({origin})")
    if told["domain"] is None:
        facts.append(f"domain = [{spoken.low:g}, {spoken.high:g}]^{field.domain.dim} ({origin})")
    if field.channel_ranges:
        facts.append(f"coordinates are ({', '.join(field.axes)}), values in {_spell(field.channel_ranges)} ({origin})")
    facts += [spoken.note] if spoken.note else []
    seen = estimate_omega(field)
    if seen is not None and told["hidden_omega"] is None and seen != field.hidden_omega:
        facts.append(
            f"the spread of the weights rather looks like hidden_omega = {seen:g}: check, and open with hidden_omega={seen:g}"
        )
    return tuple(facts)


def _spell(ranges: tuple[tuple[float, float], ...]) -> str:
    return ", ".join(f"[{low:.4g}, {high:.4g}]" for low, high in dict.fromkeys(ranges))


def estimate_omega(field: SirenField) -> float | None:
    """Guess the hidden frequency, 1 or 30, from the widest spread of the hidden weights; None without hidden layers.

    A SIREN starts with weights of deviation sqrt(2 / fan_in) / omega (Sitzmann et al. 2020, section 3.2); training
    widens them, so the guess serves a warning and nothing else.
    """
    spreads = [
        math.sqrt(2 / w.shape[1]) / max(float(w.detach().std()), 1e-12) for w in (layer.weight for layer in field.layers[1:-1])
    ]
    if not spreads:
        return None
    return 30.0 if max(spreads) > 5.5 else 1.0
