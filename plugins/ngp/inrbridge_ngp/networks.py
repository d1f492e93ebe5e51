"""Small networks of b fields at once, and the order of parameters in tiny-cuda-nn's vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from inrbridge import batched, errors

Layer = tuple[Tensor, Tensor | None]  # weight (b, out, in), bias (b, out)

# tiny-cuda-nn's names and constants
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "leaky-relu": lambda x: functional.leaky_relu(x, 0.01),
    "exponential": torch.exp,
    "sine": torch.sin,
    "sigmoid": torch.sigmoid,
    "squareplus": lambda x: 0.5 * (x + torch.sqrt(x * x + 4 / 100)),
    "softplus": lambda x: functional.softplus(x, 10.0),
    "tanh": torch.tanh,
}
WIDTHS = (64, 128, 32, 16, 256)  # of networks whose width is found by their number of parameters
BIASES = ("none", "first", "all")
ALIGNMENT = 16  # of the widths of tiny-cuda-nn's matrices
_STEEPEST = 15.0


def evaluate(layers: Sequence[Layer], x: Tensor, activation: str) -> Tensor:
    """Evaluate b networks: x (b, n, in) -> (b, n, out), linear layers with the activation between them."""
    kind = {"none": "identity", "relu": "relu", "sine": "sine"}.get(activation, ACTIVATIONS[activation])
    *hidden, (weight, bias) = layers
    return batched.perceptron(x, [*(batched.Layer(*pair, kind) for pair in hidden), batched.Layer(weight, bias)])


def layers_of(states: Mapping[str, Tensor], name: str, count: int) -> list[Layer]:
    """Collect the layers "<name>.i.weight" and, where there is one, "<name>.i.bias" of stacked states."""
    return [(states[f"{name}.{i}.weight"], states.get(f"{name}.{i}.bias")) for i in range(count)]


def growing_exp(x: Tensor) -> Tensor:
    """Return exp(x) whose slope grows no more beyond x = 15, as density is learnt (Müller et al. 2022)."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return torch.exp(x)
    value = torch.exp(x.clamp(max=_STEEPEST))
    steep = (x > _STEEPEST).detach()
    beyond = value + (x - _STEEPEST) * math.exp(_STEEPEST)  # has the slope of 15, and then gets the value of x
    return torch.where(steep, beyond + (torch.exp(x.detach()) - beyond.detach()), value)


def padded(width: int) -> int:
    """Return the next multiple of 16."""
    return -(-width // ALIGNMENT) * ALIGNMENT


def count_network(inputs: int, outputs: int, width: int, layers: int) -> int:
    """Return how many numbers tiny-cuda-nn stores for a network of `layers` hidden layers."""
    if layers == 0:
        return padded(outputs) * padded(inputs)
    return width * padded(inputs) + (layers - 1) * width * width + padded(outputs) * width


def unpack_network(vector: Tensor, inputs: int, outputs: int, width: int, layers: int, padding: float) -> list[Layer]:
    """Cut tiny-cuda-nn's vector of a network into layers (out, in), without the padding.

    Inputs beyond the real ones have the constant value `padding`: 0 after a grid, 1 after all else, where they make a bias
    of the first layer.
    """
    if vector.numel() != count_network(inputs, outputs, width, layers):
        raise errors.CannotOpen(
            f"its network has {vector.numel()} parameters, expected {count_network(inputs, outputs, width, layers)} for "
            f"{inputs} inputs, {layers} hidden layers of {width} and {outputs} outputs."
        )
    shapes = [(width, padded(inputs)), *[(width, width)] * (layers - 1), (padded(outputs), width)]
    shapes = shapes if layers else [(padded(outputs), padded(inputs))]
    matrices, start = [], 0
    for rows, columns in shapes:
        matrices.append(vector[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    matrices[-1] = matrices[-1][:outputs]
    bias = None
    if padding and matrices[0].shape[1] > inputs:
        bias = padding * matrices[0][:, inputs:].sum(1)
    matrices[0] = matrices[0][:, :inputs]
    return [(matrix.contiguous(), bias if i == 0 else None) for i, matrix in enumerate(matrices)]


def pack_network(layers: Sequence[Layer]) -> Tensor:
    """Write layers (out, in) as tiny-cuda-nn's vector; a bias of the first layer goes into its first padded column.

    Raises:
        ConfigError: a bias that has no such column.
    """
    parts = []
    for index, (weight, bias) in enumerate(layers):
        rows = weight.shape[0] if index < len(layers) - 1 else padded(weight.shape[0])
        columns = padded(weight.shape[1]) if index == 0 else weight.shape[1]
        if bias is not None and (index or columns == weight.shape[1]):
            raise errors.ConfigError("Got a network with biases, expected one without: tiny-cuda-nn has none.")
        if bias is not None:
            weight = torch.cat([weight, bias[:, None]], 1)
        parts.append(functional.pad(weight, (0, columns - weight.shape[1], 0, rows - weight.shape[0])).reshape(-1))
    return torch.cat(parts)


def find_network(count: int, inputs: int, outputs: int, widths: Sequence[int] = WIDTHS) -> tuple[int, int] | None:
    """Return the hidden width and number of hidden layers of a network with `count` parameters, None where there is none."""
    for width in widths:
        for layers in range(1, 9):
            if count_network(inputs, outputs, width, layers) == count:
                return width, layers
    return None
