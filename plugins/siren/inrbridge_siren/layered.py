"""Readers of state dicts: numbered linear layers, after an encoding of the coordinates or without one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrbridge import errors
from inrbridge_siren.dialects import MOST_COORDINATES
from inrbridge_siren.field import ACTIVATIONS, FINALS
from inrbridge_siren.source import Layer, Parts, Source

_ENCODINGS = ("none", "nerf", "positional")
_SIGMA = 10.0  # of the positional encoding of DWSNets
_MOST_OCTAVES = {3: 10, 2: 12, 1: 16}  # of vsitzmann/siren: ten in space, else as many as the samples resolve
_WIDEST_SINE = 4.0  # a first sine layer starts with |W| fan_in below 1, a layer before a ReLU far above


def read_layers(source: Source) -> Parts:
    """Collect the layers of a dialect that names them, one network out of a stack of them."""
    layers = source.dialect.layers
    pairs, has_readout = layers.pairs(source.shapes)
    chosen, label = _select(source, [_layer(source, weight, bias) for weight, bias in pairs])
    parts = Parts(chosen, has_readout, omegas=source.omegas(len(pairs) - has_readout), label=label)
    _add_activations(source, parts, pairs[-1][0].removesuffix(".weight"))
    _add_encoding(source, parts, starts_late=layers.number(pairs[0][0]) > 0)
    if source.dialect.name == "explore" and parts.layers[-1][0].shape[0] == 1 and parts.coordinates == 2:
        source.assume.note("one gray channel; DI-net repeats it three times when it reads such a file")
    return parts


def _layer(source: Source, weight: str, bias: str | None) -> Layer:
    matrix = source.tensors[weight]
    return matrix, source.tensors[bias] if bias else matrix.new_zeros(matrix.shape[:-1])


def _add_activations(source: Source, parts: Parts, readout: str) -> None:
    """Take the activations that the modules of a pickled file tell, and write them down."""
    between, after = source.activations(readout)
    if between in ACTIVATIONS and source.told.activation is None:
        parts.activation = between
        source.assume.note(f"activation = {between} (told by the modules of the file)")
    if after in FINALS and source.told.final is None:
        parts.final = after
        source.assume.note(f"final = {after} (told by the modules of the file)")


def refuse_hypernetwork(source: Source) -> Parts:
    """Say why a hypernetwork is no field."""
    raise errors.CannotOpen(
        "it holds a network that makes networks (a hypernetwork or neural process), not a field; save the state dict of one "
        "network that it made, and open that."
    )


def _select(source: Source, layers: list[Layer]) -> tuple[list[Layer], int | None]:
    """Take one network out of a stack of them, with its label, and lift half precision to single."""
    label = None
    if layers[0][0].ndim == 3:
        index = source.choose_index(len(layers[0][0]))
        layers = [(weight[index], bias[index]) for weight, bias in layers]
        label = source.scalars.get(f"1.{index}.cls")
    elif source.told.index is not None:
        raise errors.CannotOpen(f"it holds one network, got index {source.told.index}; leave the index out.")
    label = label if isinstance(label, int) and not isinstance(label, bool) else None
    return [(_lifted(weight), _lifted(bias)) for weight, bias in layers], label


def _lifted(value: Tensor) -> Tensor:
    if value.layout != torch.strided or not value.is_floating_point():
        raise errors.CannotOpen(f"its layers hold {value.dtype} numbers, expected floating-point ones.")
    return value.to(torch.float64 if value.dtype == torch.float64 else torch.float32)


def _add_encoding(source: Source, parts: Parts, starts_late: bool) -> None:
    """Find what stands before the first layer, and sort that layer's columns into the order of the field's features."""
    told, first = source.told.encoding, parts.layers[0][0]
    if told not in (None, *_ENCODINGS):
        raise errors.unknown_name("encoding", told, _ENCODINGS)
    if centres := next(source.find(r"rbf_layer\.centres"), None):
        name = centres[0].removesuffix("centres")
        m, dim = source.tensor(f"{name}centres", first.shape[1], None).shape
        state = {"centres": source.tensor(f"{name}centres", m, dim), "sharpness": source.tensor(f"{name}sigmas", m)}
        parts.dim, parts.encoding, parts.features = dim, {"encoding": "bumps", "features": m}, state
        return
    if found := next(source.find(r"seq\.0\.b"), None):
        frequencies = source.tensor(found[0], None, None)
        m, dim = frequencies.shape
        _check_width(first, 2 * m, f"the {m} frequencies of its Gaussian encoding")
        parts.dim, parts.features = dim, {"frequencies": frequencies}
        parts.encoding = {"encoding": "waves", "features": m, "angle": 2 * math.pi, "raw": False}
        return
    is_wide = first.shape[1] > MOST_COORDINATES
    guessed = "positional" if starts_late else "nerf" if is_wide and (source.told.dim or _reads_octaves(first)) else "none"
    kind = source.assume.choose("encoding", told, guessed, kind=str) if guessed != "none" or told else "none"
    if kind == "nerf":
        _add_octaves(source, parts)
    elif kind == "positional":
        _add_positional(source, parts)
    elif is_wide and told is None and source.dialect.name != "vsitzmann":
        raise errors.CannotOpen(f"its first layer takes {first.shape[1]} inputs, too many for coordinates; tell its encoding.")


def _check_width(first: Tensor, expected: int, of: str) -> None:
    if first.shape[1] != expected:
        raise errors.CannotOpen(f"its first layer takes {first.shape[1]} inputs, expected {expected} for {of}.")


def _add_octaves(source: Source, parts: Parts) -> None:
    """`mode="nerf"` of vsitzmann/siren: x, then for each octave i and coordinate j: sin(2^i pi x_j), cos(2^i pi x_j)."""
    weight, bias = parts.layers[0]
    width = weight.shape[1]
    fitting = _octave_dims(width)
    dim = source.assume.choose("dim", source.told.dim, fitting[0] if fitting else 2, kind=int)
    octaves = (width - dim) // (2 * dim) if dim > 0 else 0
    if octaves < 1:
        raise errors.CannotOpen(f"its first layer takes {width} inputs, expected more for an encoding of {dim} coordinates.")
    _check_width(weight, dim + 2 * dim * octaves, f"{octaves} octaves of {dim} coordinates")
    waves = weight[:, dim:]
    parts.layers[0] = (torch.cat([weight[:, :dim], waves[:, 1::2], waves[:, 0::2]], 1), bias)
    scale = math.pi * 2.0 ** torch.arange(octaves, dtype=torch.float64)
    frequencies = torch.cat([value * torch.eye(dim, dtype=torch.float64) for value in scale])  # octave major
    parts.dim, parts.features = dim, {"frequencies": frequencies.to(weight.dtype)}
    parts.encoding = {"encoding": "waves", "features": dim * octaves, "angle": 1.0, "raw": True}


def _octave_dims(width: int) -> list[int]:
    """Return the numbers of coordinates whose octaves, and they themselves, make up so many columns, the likeliest first."""
    counts = {dim: (width - dim) / (2 * dim) for dim in _MOST_OCTAVES}
    return [dim for dim, count in counts.items() if count in range(10 if dim == 3 else 1, _MOST_OCTAVES[dim] + 1)]


def _reads_octaves(first: Tensor) -> bool:
    """Say whether a wide first layer reads octaves; else it reads the coordinates of a state space, as DeepReach's do."""
    return bool(_octave_dims(first.shape[1])) and float(first.abs().max()) * first.shape[1] > _WIDEST_SINE


def _add_positional(source: Source, parts: Parts) -> None:
    """Positional encoding of DWSNets: for each coordinate the m cosines, then the m sines of 2 pi sigma^(k/m) x."""
    weight, bias = parts.layers[0]
    dim = source.assume.choose("dim", source.told.dim, 2, kind=int)
    sigma = source.assume.choose("sigma", source.told.sigma, _SIGMA)
    m = weight.shape[1] // (2 * dim) if dim > 0 else 0
    if m < 1 or not sigma > 0:
        raise errors.CannotOpen(f"its first layer takes {weight.shape[1]} inputs, expected 2 {dim} m of an encoding.")
    _check_width(weight, 2 * dim * m, f"the encoding of {dim} coordinates")
    columns = weight.reshape(len(weight), dim, 2, m)
    parts.layers[0] = (torch.cat([columns[:, :, 0].flatten(1), columns[:, :, 1].flatten(1)], 1), bias)
    scale = sigma ** (torch.arange(m, dtype=torch.float64) / m)
    frequencies = torch.kron(torch.eye(dim, dtype=torch.float64), scale[:, None])  # coordinate major
    parts.dim, parts.features = dim, {"frequencies": frequencies.to(weight.dtype)}
    parts.encoding = {"encoding": "waves", "features": dim * m, "angle": 2 * math.pi, "raw": False}
