"""The code bases whose Fourier-feature checkpoints open here, and how each becomes frequencies and ReLU layers.

A dialect fits a file when its frequencies are there and every other tensor has a place. What its network does
beyond ReLU layers (a linear layer without activation, batch normalization) is folded into the weights, in float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = Mapping[str, Sequence[int]]
Layers = list[tuple[Tensor, Tensor]]  # weight (out, in) and bias (out,), in the order of evaluation


@dataclass(frozen=True)
class Content:
    """What a file says: frequencies (m, d) with the factor of their phase, and the layers on [cos, sin]."""

    frequencies: Tensor
    angle: float
    layers: Layers


@dataclass(frozen=True)
class Dialect:
    """How one code base writes a Fourier-feature network: when a file is its, how to read it, what it leaves out.

    `maps_domain`: the code maps [low, high] to [0, 1] itself, instead of taking the coordinates as they are.
    """

    name: str
    source: str
    fits: Callable[[Shapes], bool]
    read: Callable[[Mapping[str, Tensor]], Content]
    low: float
    high: float
    final: str
    maps_domain: bool = False
    ranges: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    axes: tuple[str, str] = ("row", "column")


_ENCODING = r"(?:.*\.)?b"
_SHARED = r"(?:.*?\.)??layers\.(\d+)(?:\.layers\.0)?"
_SEQUENCE = r"(?:(?:state_dict|model|module|net|network)\.)*(\d+)"


def _linear_names(shapes: Shapes, layer: str) -> list[str] | None:
    """Names of the linear layers in order if they and one encoding are all there is and their shapes chain, else None."""
    encodings = [key for key in shapes if re.fullmatch(_ENCODING, key) and len(shapes[key]) == 2]
    numbered = {}
    for key in shapes:
        name, _, kind = key.rpartition(".")
        found = re.fullmatch(layer, name)
        if found and kind in ("weight", "bias"):
            numbered[int(found[1])] = name
        elif key not in encodings:
            return None
    names = [numbered[number] for number in sorted(numbered)]
    if len(encodings) != 1 or len(names) < 2:
        return None
    width = 2 * shapes[encodings[0]][0]
    for name in names:
        weight, bias = tuple(shapes.get(f"{name}.weight", ())), tuple(shapes.get(f"{name}.bias", ()))
        if len(weight) != 2 or weight[1] != width or bias != weight[:1]:
            return None
        width = weight[0]
    return names


def _fits_shared(shapes: Shapes) -> bool:
    names = _linear_names(shapes, _SHARED)
    return names is not None and any(name.endswith(".layers.0") for name in names)


def _linear_layers(tensors: Mapping[str, Tensor], layer: str) -> Content:
    names = _linear_names({key: value.shape for key, value in tensors.items()}, layer)
    frequencies = next(value for key, value in tensors.items() if re.fullmatch(_ENCODING, key))
    return Content(frequencies, 2 * math.pi, [(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names])


def _read_shared(tensors: Mapping[str, Tensor]) -> Content:
    content = _linear_layers(tensors, _SHARED)
    (first, first_bias), (second, second_bias), *others = [(w.double(), b.double()) for w, b in content.layers]
    merged = (second @ first, second @ first_bias + second_bias)  # no activation stands between the first two
    return Content(content.frequencies, content.angle, [merged, *others])


def _fits_dinet(shapes: Shapes) -> bool:
    return "_B" in shapes and len(shapes["_B"]) == 2 and "layers.2.running_mean" in shapes and "layers.9.weight" in shapes


def _read_dinet(tensors: Mapping[str, Tensor]) -> Content:
    half = tensors["_B"].shape[1]
    layers, scale, shift = [], None, None
    for number in (0, 3, 6, 9):  # convolutions of kernel 1 without bias, then ReLU, then batch normalization
        weight = tensors[f"layers.{number}.weight"].double().squeeze(-1)
        if number == 0:
            weight = torch.cat([weight[:, half:], weight[:, :half]], 1)  # its features are [sin, cos]
            bias = weight.new_zeros(len(weight))
        else:
            weight, bias = weight * scale, weight @ shift
        layers.append((weight, bias))
        if number < 9:
            norm = {
                kind: tensors[f"layers.{number + 2}.{kind}"].double()
                for kind in ("weight", "bias", "running_mean", "running_var")
            }
            scale = norm["weight"] / torch.sqrt(norm["running_var"] + 1e-5)
            shift = norm["bias"] - norm["running_mean"] * scale
    return Content(tensors["_B"].mT.contiguous(), 1.0, layers)


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("dinet", "DI-net RFFNet", _fits_dinet, _read_dinet, -1.0, 1.0, "sigmoid", maps_domain=True),
        Dialect(
            "jmclong", "github.com/jmclong/random-fourier-features-pytorch, its image example", _fits_shared, _read_shared,
            0.0, 1.0, "sigmoid",
        ),
        Dialect(
            "sequential", "rff.layers.GaussianEncoding and linear layers with ReLU between them",
            lambda shapes: _linear_names(shapes, _SEQUENCE) is not None,
            lambda tensors: _linear_layers(tensors, _SEQUENCE), 0.0, 1.0, "identity",
        ),
    )
}  # fmt: skip


def detect(shapes: Shapes) -> Dialect | None:
    """Return the first dialect that fits."""
    return next((dialect for dialect in DIALECTS.values() if dialect.fits(shapes)), None)
