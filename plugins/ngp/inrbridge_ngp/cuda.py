"""The second evaluator: NVIDIA's tiny-cuda-nn (package `tinycudann`), for fields on CUDA. It computes in half precision
and gives first derivatives only; nothing else here depends on it.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from inrbridge import errors
from inrbridge_ngp.networks import ALIGNMENT, Layer, layers_of, pack_network, padded

if TYPE_CHECKING:
    from inrbridge_ngp.field import NgpField

EVALUATORS = ("auto", "torch", "tinycudann")
INSTALL = 'pip install --no-build-isolation "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"'
_GRIDS = {"hash": "Hash", "dense": "Dense", "tiled": "Tiled"}
_HASHES = {"coherent-prime": "CoherentPrime", "prime": "Prime", "reversed-prime": "ReversedPrime"}
_FUSED = (16, 32, 64, 128)  # widths of its fully fused network


@cache
def is_installed() -> bool:
    """Say whether the package is there, without importing it."""
    return importlib.util.find_spec("tinycudann") is not None


def obstacle(field: NgpField) -> str:
    """Say why tiny-cuda-nn cannot evaluate a field of this architecture; empty where it can."""
    grid = field.grid
    if grid is None or field.frequencies or field.planes_shape or field.raw:
        return "it reads other features than a grid's"
    if grid.layout != "tcnn" or grid.dim not in (2, 3, 4) or grid.features not in (1, 2, 4, 8):
        return f"its grid has layout {grid.layout}, {grid.dim} dimensions and {grid.features} features"
    if field.bias != "none" or field.colour_bias == "all":
        return "its networks have biases"
    if field.layers == 0 or (field.head == "radiance" and field.colour_layers == 0):
        return "its networks have no hidden layers"
    if field.width % ALIGNMENT or (field.head == "radiance" and field.colour_width % ALIGNMENT):
        return f"the widths of its networks are no multiples of {ALIGNMENT}"
    if field.convention.outside == "blank":
        return "it has no features beyond its box"
    return ""


def wants_cuda(field: NgpField, coords: Tensor) -> bool:
    """Say whether tiny-cuda-nn is to evaluate the field at coords.

    "auto" takes it for fields on CUDA where no gradient is asked for and single precision is enough.

    Raises:
        MissingDependency, ConfigError: it was asked for by name and cannot.
    """
    if field.evaluator == "torch" or (field.evaluator == "auto" and not coords.is_cuda):
        return False
    if field.evaluator == "auto":
        asked = coords.requires_grad or any(value.requires_grad for value in field.parameters())
        return (
            not (torch.is_grad_enabled() and asked) and coords.dtype != torch.float64 and is_installed() and not obstacle(field)
        )
    if not is_installed():
        raise errors.MissingDependency(f'Got evaluator="tinycudann", which is not installed; {INSTALL}')
    reason = "its coordinates are not on CUDA" if not coords.is_cuda else obstacle(field)
    if reason:
        raise errors.ConfigError(f'Got evaluator="tinycudann" for a field of which {reason}; choose evaluator="torch".')
    return True


def base_config(field: NgpField) -> tuple[dict, dict]:
    """Return tiny-cuda-nn's configurations of the grid and of the base network."""
    grid = field.grid
    encoding = {
        "otype": "Grid",
        "type": _GRIDS[grid.grid],
        "n_levels": grid.levels,
        "n_features_per_level": grid.features,
        "log2_hashmap_size": grid.log2_table,
        "base_resolution": grid.base,
        "per_level_scale": grid.growth,
        "interpolation": grid.interpolation.capitalize(),
        "hash": _HASHES[grid.hash],
    }
    return encoding, network_config(field.width, field.layers, field.activation)


def network_config(width: int, layers: int, activation: str) -> dict:
    """Return tiny-cuda-nn's configuration of a network."""
    names = {"none": "None", "relu": "ReLU", "leaky-relu": "LeakyReLU"}
    return {
        "otype": "FullyFusedMLP" if width in _FUSED else "CutlassMLP",
        "activation": names.get(activation, activation.capitalize()),
        "output_activation": "None",
        "n_neurons": width,
        "n_hidden_layers": layers,
    }


def base_parameters(field: NgpField) -> Tensor:
    """Pack the base network and then the grid in tiny-cuda-nn's order."""
    return torch.cat([pack_network(_layers(field, "base")), field.table.reshape(-1)])


def colour_parameters(field: NgpField) -> Tensor:
    """Pack the colour network; its inputs are those of `colour_inputs`."""
    return pack_network(_layers(field, "colour"))


def colour_inputs(field: NgpField) -> int:
    """Count the inputs of the colour network: a bias that finds no padded column needs one more, the constant 1."""
    inputs = field.harmonics**2 + field.geometry
    return inputs + (field.colour_bias == "first" and padded(inputs) == inputs)


def evaluate_on_cuda(field: NgpField, coords: Tensor) -> Tensor:
    """Evaluate at coords (n, d) through tiny-cuda-nn: values (n, channels)."""
    x, dim = coords.float(), field.places.dim
    u, seen = field.convention.enter(x[:, :dim], field.places.bounds)
    base, colour = _modules(field)
    out = functional_call(base, {"params": base_parameters(field)}, (u,)).to(x.dtype)
    states = {name: value.unsqueeze(0) for name, value in field.named_parameters()}
    if colour is None:
        return field.read(out.unsqueeze(0), seen, None, states)[0]
    fed = [field.convention.harmonics(x[:, dim:], field.harmonics), out]
    if colour_inputs(field) > field.harmonics**2 + field.geometry:
        fed.append(torch.ones_like(out[:, :1]))
    raw = functional_call(colour, {"params": colour_parameters(field)}, (torch.cat(fed, -1),)).to(x.dtype)
    density = field.convention.density_of(out[:, :1], None if seen is None else seen.unsqueeze(-1))
    return torch.cat([field.colours(raw.unsqueeze(0), states)[0], density], -1)


def _layers(field: NgpField, name: str) -> list[Layer]:
    states = {key: value.unsqueeze(0) for key, value in field.named_parameters()}
    found = [
        (weight[0], None if bias is None else bias[0]) for weight, bias in layers_of(states, name, len(getattr(field, name)))
    ]
    weight, bias = found[0]
    if bias is not None and padded(weight.shape[1]) == weight.shape[1]:
        found[0] = torch.cat([weight, bias[:, None]], 1), None
    return found


def _modules(field: NgpField):
    """Make tiny-cuda-nn's modules of this architecture, once for all fields of it."""
    encoding, network = base_config(field)
    outputs = {"values": field.channels, "medium": 4, "radiance": field.geometry}[field.head]
    colour = None
    if field.head == "radiance":
        colour = (colour_inputs(field), _frozen(network_config(field.colour_width, field.colour_layers, "relu")))
    return _made(field.places.dim, outputs, _frozen(encoding), _frozen(network), colour)


def _frozen(config: dict) -> tuple:
    return tuple(config.items())


@cache
def _made(dim: int, outputs: int, encoding: tuple, network: tuple, colour: tuple | None):
    import tinycudann

    base = tinycudann.NetworkWithInputEncoding(dim, outputs, dict(encoding), dict(network))
    return base, None if colour is None else tinycudann.Network(colour[0], 3, dict(colour[1]))
