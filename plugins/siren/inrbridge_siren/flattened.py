"""Readers of files that hold a network as one vector of numbers."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise

from torch import Tensor

from inrbridge import errors
from inrbridge_siren.layered import read_layers
from inrbridge_siren.source import Layer, Parts, Source, check_chain

_WIDTHS, _DEPTHS = (512, 256, 128, 64, 1024, 32), (4, 3, 5, 2, 6, 8, 1)


def read_inr2vec(source: Source) -> Parts:
    """An HDF5 file of inr2vec: `params` runs through weight (out, in) and bias of each layer, three coordinates to one value."""
    if "params" not in source.tensors:
        return read_layers(source)
    vector = source.tensor("params", None)
    told = source.told
    widths, depths = [told.width] if told.width else _WIDTHS, [told.layers] if told.layers else _DEPTHS
    fitting = [(w, n) for w in widths for n in depths if _count(sizes := [3, *[w] * n, 1]) == len(vector) and sizes]
    if not fitting:
        raise errors.CannotOpen(
            f"its vector has {len(vector)} numbers, which fit no network of three coordinates with layers of one width among "
            f"{', '.join(str(w) for w in widths)}; tell width and layers (512 and 4 have {_count([3, 512, 512, 512, 512, 1])})."
        )
    width, depth = fitting[0]
    source.assume.note(f"width = {width}, layers = {depth} (fit the number of parameters)")
    label = source.tensors.get("class_id")
    parts = Parts(_cut(vector, [3, *[width] * depth, 1]))
    if label is not None and label.numel() == 1 and not label.is_floating_point():
        parts.label = int(label)
    return parts


def _count(sizes: list[int]) -> int:
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))


def _cut(vector: Tensor, sizes: list[int]) -> list[Layer]:
    layers, start = [], 0
    for fan_in, fan_out in pairwise(sizes):
        middle, end = start + fan_in * fan_out, start + (fan_in + 1) * fan_out
        layers.append((vector[start:middle].reshape(fan_out, fan_in), vector[middle:end]))
        start = end
    return layers


def read_fit_a_nef(source: Source) -> Parts:
    """An HDF5 file of fit-a-nef: rows of `params` (N, P), cut as `param_config`, a JSON list of (name, shape), says."""
    rows = source.tensor("params", None, None)
    index = source.choose_index(len(rows))
    pieces, start = {}, 0
    for name, shape in _plan(source.scalars.get("param_config")):
        size = math.prod(shape)
        if start + size > rows.shape[1]:
            raise errors.CannotOpen(f"its param_config asks for more than the {rows.shape[1]} numbers of a network.")
        pieces[name], start = rows[index, start : start + size].reshape(shape), start + size
    if start != rows.shape[1]:
        raise errors.CannotOpen(f"its networks have {rows.shape[1]} numbers, expected {start} by its param_config.")
    numbers = sorted(int(found[1]) for name in pieces if (found := re.fullmatch(r"kernel_net_(\d+)\.linear\.kernel", name)))
    names = [f"kernel_net_{number}.linear" for number in numbers] + ["output_linear"]
    if numbers != list(range(len(numbers))) or set(pieces) != {f"{name}.{kind}" for name in names for kind in ("kernel", "bias")}:
        raise errors.CannotOpen(
            f"its networks have the parameters {', '.join(list(pieces)[:4])}, ..., expected kernel_net_i.linear and "
            "output_linear of a SIREN; other kinds of fit-a-nef do not open."
        )
    layers = []
    for name in names:
        kernel, bias = pieces[f"{name}.kernel"], pieces[f"{name}.bias"]
        if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
            raise errors.CannotOpen(f'its layer "{name}" has shapes {tuple(kernel.shape)} and {tuple(bias.shape)}.')
        layers.append((kernel.mT.contiguous(), bias))
    check_chain(layers)
    parts = Parts(layers, omegas=source.omegas(len(layers) - 1))
    labels = source.tensors.get("labels")
    if labels is not None and labels.shape == (len(rows),) and not labels.is_floating_point():
        parts.label = int(labels[index])
    return parts


def _plan(text: object) -> list[tuple[str, list[int]]]:
    try:
        plan = json.loads(json.loads(text)[0] if str(text).startswith('["[') else text)
        plan = [(str(name), [int(size) for size in shape]) for name, shape in plan]
    except (TypeError, ValueError) as error:
        raise errors.CannotOpen("its param_config is no JSON list of names and shapes.") from error
    if any(size < 1 for _, shape in plan for size in shape) or len(dict(plan)) != len(plan):
        raise errors.CannotOpen("its param_config names parameters without numbers, or twice.")
    return plan
