"""Floor 6: the arguments of a step as JSON values: {"step": name} is the result of another, {"tuple": [..]} a tuple and so on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

_DTYPES = {str(kind).removeprefix("torch."): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}


def encode(value, reference: Callable[[object], dict | None]):
    """Turn an argument of a traced call into JSON values; `reference` recognizes the results of other steps.

    Raises:
        TypeError: it is nothing that a program can hold.
    """
    found = reference(value)
    if found is not None:
        return found
    if isinstance(value, slice):
        return {"slice": [encode(part, reference) for part in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": True}
    if isinstance(value, tuple):  # torch.Size too
        return {"tuple": [encode(part, reference) for part in value]}
    if isinstance(value, list):
        return [encode(part, reference) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {"dict": {key: encode(part, reference) for key, part in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an argument of type {type(value).__name__}")


def decoder(value) -> Callable[[dict, nn.Module], object]:
    """Return what turns that which `encode` gave back into an argument, given the results of the steps so far and the network."""
    if isinstance(value, list):
        return _of_parts(list, value)
    if not isinstance(value, dict):
        return lambda results, network: value
    ((kind, content),) = value.items()
    if kind == "step":
        return lambda results, network: results[content]
    if kind == "tuple":
        return _of_parts(tuple, content)
    if kind == "slice":
        parts = _of_parts(list, content)
        return lambda results, network: slice(*parts(results, network))
    if kind == "dict":
        parts = _of_parts(list, list(content.values()))
        return lambda results, network: dict(zip(content, parts(results, network), strict=True))
    if kind == "training":
        return lambda results, network: network.training is content
    if kind == "device":
        return lambda results, network: own_tensor(network).device
    if kind == "dtype" and content == "own":
        return lambda results, network: own_tensor(network).dtype
    constant = {"ellipsis": lambda _: Ellipsis, "dtype": dtype_of, "float": float}[kind](content)
    return lambda results, network: constant


def _of_parts(kind: Callable, values: list) -> Callable[[dict, nn.Module], object]:
    parts = [decoder(value) for value in values]
    return lambda results, network: kind([part(results, network) for part in parts])


def own_tensor(network: nn.Module) -> torch.Tensor:
    """Return a tensor of the dtype and on the device that a network computes with."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return next((t for t in tensors if t.is_floating_point()), torch.zeros(()))


def dtype_of(name: str) -> torch.dtype:
    """Return the dtype of a name; KeyError where there is none."""
    return _DTYPES[name]


def references(value) -> Iterator[str]:
    """Yield the names of the steps whose results are in encoded arguments.

    Raises:
        ValueError: `encode` does not write such a value.
    """
    if isinstance(value, list | tuple):
        for part in value:
            yield from references(part)
    elif isinstance(value, dict):
        kind, content = next(iter(value.items())) if len(value) == 1 else (None, None)
        if kind == "step" and isinstance(content, str):
            yield content
        elif kind in ("tuple", "slice") and isinstance(content, list) and (kind == "tuple" or len(content) == 3):
            yield from references(content)
        elif kind == "dict" and isinstance(content, dict):
            yield from references(list(content.values()))
        elif not (kind in ("ellipsis", "device", "training") and isinstance(content, bool)) and not (
            kind == "float" and content in ("inf", "-inf", "nan")) and not (
            kind == "dtype" and (content == "own" or content in _DTYPES)):  # fmt: skip
            raise ValueError(f"{value} is no argument")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise ValueError(f"{value} is no argument")
