"""Floor 1: many networks of linear layers and their activations on the CPU by `perceptron.cpp`, and their gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inrbridge.compiled.building import library

_NAMES = {torch.float32: "f32", torch.float64: "f64"}
KINDS = {"identity": 0, "sine": 1, "relu": 2}  # that all kernels know
NARROW = 96
_NUMBERS = {**KINDS, "waves": 3}


class Layer(NamedTuple):
    """y = kind(W x + b) of b networks: weight (b, out, in), bias (b, out) or None.

    "sine" is sin(omega (W x + b)), "waves" are the cosines of the first half of W x + b and the sines of the second. Compiled
    are these, "relu" and "identity"; elsewhere any other name or function may stand.
    """

    weight: Tensor
    bias: Tensor | None
    kind: str | Callable[[Tensor], Tensor] = "identity"
    omega: float = 1.0


def available(x: Tensor, layers: Sequence[Layer]) -> bool:
    """Say whether the compiled networks take these tensors: all of 32 or all of 64 bits on the CPU, where there is a compiler."""
    if x.device.type != "cpu" or x.dtype not in _NAMES or library("perceptron") is None:
        return False
    for weight, bias, kind, _ in layers:
        if weight.dtype != x.dtype or weight.device != x.device or kind not in _NUMBERS:
            return False
        if bias is not None and (bias.dtype != x.dtype or bias.device != x.device):
            return False
    return True


def forward(x: Tensor, layers: Sequence[Layer], keep: bool) -> tuple[Tensor, list[Tensor | None]]:
    """Evaluate b networks.

    Args:
        x: (b, n, in), or (n, in) shared by all.
        keep: also return what `backward` needs.

    Returns:
        (b, n, out), and for each layer what is kept of it: omega z of a sine, the values of another one; nothing of networks
        whose units read NARROW others or fewer on the average, for `backward` is quicker to evaluate them again.
    """
    b, n = len(layers[0].weight), x.shape[-2]
    kept: list[Tensor | None] = [None] * len(layers)
    if keep and sum(layer.weight[0].numel() for layer in layers) > NARROW * sum(layer.weight.shape[1] for layer in layers):
        last = len(layers) - 1
        for i, layer in enumerate(layers):
            if i < last or layer.kind != "identity":
                kept[i] = x.new_empty(b, n, layer.weight.shape[1])
    values = x.new_empty(b, n, layers[-1].weight.shape[1])
    x, net = x.contiguous(), _Net(layers, kept)
    if b * n:
        net.call("forward", x, b, n, values.data_ptr())
    return values, kept


def backward(
    x: Tensor, layers: Sequence[Layer], kept: Sequence[Tensor | None], grad: Tensor, learns: bool, moves: bool
) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
    """Return the gradients of x (b, n, in), if it `moves`, and of all weights and biases, if the networks `learn`."""
    to_x = x.new_empty(len(grad), *x.shape[-2:]) if moves else None
    grad = grad.contiguous()
    return to_x, *_gradients(x, layers, kept, (grad.data_ptr(), None, 0.0), learns, to_x)


def fitting_gradients(
    x: Tensor, layers: Sequence[Layer], targets: Tensor, scale: float
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Return the gradients of scale sum (y - targets)^2 of all weights and biases, in one pass over the points.

    Args:
        x: (b, n, in), or (n, in) shared by all; targets: (b, n, out).
    """
    targets = targets.contiguous()
    return _gradients(x, layers, [None] * len(layers), (None, targets.data_ptr(), 2 * scale), True, None)


def _gradients(x: Tensor, layers: Sequence[Layer], kept: Sequence[Tensor | None], aim: tuple, learns: bool, to_x: Tensor | None):
    b, n = len(layers[0].weight), x.shape[-2]
    x, net = x.contiguous(), _Net(layers, kept)
    to_weights = [torch.zeros_like(layer.weight, memory_format=torch.contiguous_format) for layer in layers] if learns else []
    to_biases = [None if layer.bias is None else x.new_zeros(layer.bias.shape) for layer in layers] if learns else []
    if b * n:
        pointers = [_pointers(tensors) if learns else None for tensors in (to_weights, to_biases)]
        net.call("backward", x, b, n, *aim, *pointers, None if to_x is None else to_x.data_ptr())
    return to_weights, to_biases


class _Net:
    """What the compiled functions ask about a row of layers; keeps the dense tensors alive while they run."""

    def __init__(self, layers: Sequence[Layer], kept: Sequence[Tensor | None]):
        self.weights = [layer.weight.contiguous() for layer in layers]
        self.biases = [None if layer.bias is None else layer.bias.contiguous() for layer in layers]
        count = len(layers)
        widths = [layers[0].weight.shape[2], *(layer.weight.shape[1] for layer in layers)]
        self.arguments = (
            ctypes.c_int64(count),
            (ctypes.c_int64 * (count + 1))(*widths),
            (ctypes.c_int64 * count)(*(_NUMBERS[layer.kind] for layer in layers)),
            (ctypes.c_double * count)(*(layer.omega for layer in layers)),
            _pointers(self.weights),
            _pointers(self.biases),
            _pointers(kept),
        )

    def call(self, function: str, x: Tensor, b: int, n: int, *rest: object) -> None:
        step = 0 if x.ndim == 2 else n * x.shape[-1]
        integers = (ctypes.c_int64(b), ctypes.c_int64(n), ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(step))
        converted = {int: ctypes.c_void_p, float: ctypes.c_double}
        given = (converted.get(type(value), lambda same: same)(value) for value in rest)
        getattr(library("perceptron"), f"perceptron_{function}_{_NAMES[x.dtype]}")(*self.arguments, *integers, *given)


def _pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))
