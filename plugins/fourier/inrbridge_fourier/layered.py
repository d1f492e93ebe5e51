"""Readers of MLPs on Fourier features: each sorts the columns of the first layer, and folds what is no plain layer into one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrbridge import errors
from inrbridge_fourier.dialects import Dialect
from inrbridge_fourier.naming import Names
from inrbridge_fourier.source import Content, Layer, Source

_ORDERS, _RAW = ("cos-sin", "sin-cos"), ("first", "last")
_SIGMA = 10.0


def read_layers(source: Source, names: Names, dialect: Dialect) -> Content:
    """Frequencies under 2 pi, and linear layers on [cos, sin] or [sin, cos] of them, with the coordinates or without."""
    if names.encoding is None:
        return _positional(source, names)
    frequencies = _frequencies(source, names)
    return _on_features(source, names, dialect, frequencies, 2 * math.pi)


def _frequencies(source: Source, names: Names) -> Tensor:
    """Return the frequencies (m, d)."""
    found = source.tensor(names.encoding)
    return found.mT.contiguous() if names.is_wide else found


def _on_features(source: Source, names: Names, dialect: Dialect, frequencies: Tensor, angle: float, *, flip: bool = False):
    layers = [source.layer(weight, bias, flip=flip) for weight, bias in names.layers]
    order = _choose(source, "order", source.told.order, dialect.order, _ORDERS)
    dim = frequencies.shape[1] if names.has_raw else 0
    place = _choose(source, "raw", source.told.raw, dialect.raw, _RAW) if dim else "last"
    first, bias = layers[0]
    start = 0 if place == "first" else first.shape[1] - dim
    raw, waves = first[:, start : start + dim], torch.cat([first[:, :start], first[:, start + dim :]], 1)
    if order == "sin-cos":
        sine, cosine = waves.chunk(2, 1)
        waves = torch.cat([cosine, sine], 1)
    layers[0] = (torch.cat([raw, waves], 1), bias)
    return Content(layers, frequencies, angle, raw=bool(dim), skips=names.skips)


def _choose(source: Source, name: str, told: str | None, default: str, known: tuple[str, ...]) -> str:
    value = source.assume.choose(name, told, default, kind=str)
    if value not in known:
        raise errors.unknown_name(name, value, known)
    return value


def _positional(source: Source, names: Names) -> Content:
    """`PositionalEncoding` of jmclong, which stores nothing: for each coordinate m cosines, m sines of 2 pi sigma^(k/m) x."""
    told = source.told
    if told.encoding != "positional":
        raise errors.CannotOpen(
            "the frequencies B of its encoding were not saved with the network, and nothing can replace random ones; save the "
            'module of the encoding too. If it was a positional encoding, which has none, open it with encoding="positional".'
        )
    layers = [source.layer(weight, bias) for weight, bias in names.layers]
    dim = source.assume.choose("dim", told.dim, 2, kind=int)
    sigma = source.assume.choose("sigma", told.sigma, _SIGMA)
    width = layers[0][0].shape[1]
    m = width // (2 * dim) if dim > 0 else 0
    if m < 1 or width != 2 * dim * m or not sigma > 0:
        raise errors.CannotOpen(f"its first layer takes {width} inputs, expected 2 m for each of {dim} coordinates; tell dim.")
    columns = layers[0][0].reshape(-1, dim, 2, m)
    layers[0] = (torch.cat([columns[:, :, 0].flatten(1), columns[:, :, 1].flatten(1)], 1), layers[0][1])
    scale = sigma ** (torch.arange(m, dtype=torch.float64) / m)
    frequencies = torch.kron(torch.eye(dim, dtype=torch.float64), scale[:, None]).to(columns.dtype)
    return Content(layers, frequencies, 2 * math.pi)


def read_shared(source: Source, names: Names, dialect: Dialect) -> Content:
    """The image example of jmclong: no activation stands between the first two layers."""
    content = read_layers(source, names, dialect)
    content.layers = _merge_first(content.layers)
    return content


def _merge_first(layers: list[Layer]) -> list[Layer]:
    """Make one layer of the first two."""
    (first, first_bias), (second, second_bias), *others = [(w.double(), b.double()) for w, b in layers]
    if not others:
        raise errors.CannotOpen("it has two linear layers, expected three or more.")
    kind = layers[0][0].dtype
    return [((second @ first).to(kind), (second @ first_bias + second_bias).to(kind)), *layers[2:]]


def read_kees(source: Source, names: Names, dialect: Dialect) -> Content:
    """Layers `lin{i}` on frequencies or coordinates; where coordinates enter again, their input is (h | x) / sqrt 2."""
    if names.encoding is None:
        layers = [source.layer(weight, bias) for weight, bias in names.layers]
        content = Content(layers, layers[0][0].new_zeros(0, layers[0][0].shape[1]), raw=True, skips=names.skips)
    else:
        content = read_layers(source, names, dialect)
    for i in content.skips:
        weight, bias = content.layers[i]
        content.layers[i] = ((weight.double() / math.sqrt(2)).to(weight.dtype), bias)
    return content


def read_nerfstudio(source: Source, names: Names, dialect: Dialect) -> Content:
    """2 pi x B times octaves 2^k, k evenly from the first to the last; sin(v | v + pi / 2), then the coordinates."""
    basis = _frequencies(source, names)  # (m, d)
    m, dim = basis.shape
    width = source.tensors[names.layers[0][0]].shape[1] - dim * names.has_raw
    count = width // (2 * m)
    if count > 1:
        told = source.told.octaves
        try:
            low, high = (0.0, count - 1.0) if told is None else (float(value) for value in told)
        except (TypeError, ValueError) as error:
            raise errors.ConfigError(f"Got octaves = {told!r}, expected the first and the last exponent.") from error
        if told is None:
            source.assume.note(f"octaves = [{low:g}, {high:g}] ({count} of them; default of dialect {dialect.name})")
        scale = 2 ** torch.linspace(low, high, count, dtype=torch.float64)
        basis = (basis[:, None].double() * scale[:, None]).reshape(m * count, dim).to(basis.dtype)
    return _on_features(source, names, dialect, basis, 2 * math.pi)


def read_stax(source: Source, names: Names, dialect: Dialect) -> Content:
    """Pairs of W (in, out) and b, as jax's stax lists them."""
    return _on_features(source, names, dialect, _frequencies(source, names), 2 * math.pi, flip=True)


def read_dinet(source: Source, names: Names, dialect: Dialect) -> Content:
    """`RFFNet` of DI-net: v = u B without 2 pi, [sin, cos]; convolutions of kernel 1, ReLU, batch normalization in eval mode."""
    layers, scale, shift = [], None, None
    for name, _ in names.layers:
        number = int(name.split(".")[1])
        weight = source.tensor(name).double().squeeze(-1)
        bias = weight.new_zeros(len(weight))
        if scale is None:
            sine, cosine = weight.chunk(2, 1)
            weight = torch.cat([cosine, sine], 1)
        else:
            weight, bias = weight * scale, weight @ shift
        layers.append((weight, bias))
        if number < 9:
            kinds = ("weight", "bias", "running_mean", "running_var")
            gain, offset, mean, variance = (source.tensor(f"layers.{number + 2}.{kind}").double() for kind in kinds)
            scale = gain / torch.sqrt(variance + 1e-5)
            shift = offset - mean * scale
    kind = source.tensor(names.layers[0][0]).dtype
    return Content([(w.to(kind), b.to(kind)) for w, b in layers], _frequencies(source, names), 1.0)
