"""Floor 1: what fields share that evaluate many of their architecture at once: networks, rows of tables, and chunks of points.

Written for the authors of plugins; parameters of b fields are stacked along the first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge.compiled import perceptron as _compiled
from inrbridge.compiled.building import Sources
from inrbridge.compiled.calling import is_eager
from inrbridge.compiled.perceptron import Layer
from inrbridge.gpu import perceptron as _gpu
from inrbridge.tables import Recall, side_by_side, table_rows, weighted_rows

__all__ = ["ACTIVATIONS", "Layer", "Recall", "Sources", "asks_gradient", "fitting_gradients", "is_eager", "linear", "perceptron",
           "side_by_side", "slices", "table_rows", "unset_linear", "weighted_rows"]  # fmt: skip

# Values of a layer that stay in a core's cache: measured twice as fast as one pass over 600 networks 2-32-32-1 at 1024 points,
# and never slower.
_CACHE_NUMBERS = 2**18

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "waves": lambda x: torch.cat([x[..., : x.shape[-1] // 2].cos(), x[..., x.shape[-1] // 2 :].sin()], -1),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "selu": functional.selu,
    "softplus": functional.softplus,
    "elu": functional.elu,
}


def unset_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer without values, on the default device: `nn.Linear` would draw them from the global generator."""
    return nn.Linear(inputs, outputs, bias, device="meta").to_empty(device=torch.get_default_device())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply b linear layers: x (b, n, in), weight (b, out, in), bias (b, out) or None -> (b, n, out)."""
    return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


def perceptron(x: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Evaluate b networks, twice differentiable in x, the weights and the biases.

    Compiled for the CPU a network's values stay in cache from its first layer to its last; on a GPU a layer is one launch;
    elsewhere, and for other activations than sine and ReLU, plain torch does the same.

    Args:
        x: (b, n, in), or (n, in) shared by all.
        layers: `Layer(weight (b, out, in), bias (b, out) or None, kind, omega)`: y = kind(W x + b), where the kind is "sine",
            sin(omega (W x + b)), "waves", cosines of the first half of W x + b and sines of the second, another name in
            ACTIVATIONS, or any function of tensors.

    Returns:
        (b, n, out) in the dtype of x; on a GPU layers of 16 bits are multiplied as such, and else in the dtype of x.

    >>> ones = torch.ones(5, 1, 2)
    >>> perceptron(torch.ones(3, 2), [Layer(ones, ones[..., 0], "relu"), Layer(ones[..., :1], None)]).shape
    torch.Size([5, 3, 1])
    """
    for kernels in (_compiled, _gpu):
        if is_eager() and kernels.available(x, layers):
            return _run(kernels, x, layers).to(x.dtype)
    first, last = layers[0], layers[-1]
    if last.kind not in _compiled.KINDS:  # it stands alone behind the others, which kernels may know
        return _activation(last.kind)(perceptron(x, [*layers[:-1], last._replace(kind="identity")]))
    if first.kind == "waves" and x.device.type != "cpu":
        return perceptron(_plain(x, [_in_dtype(first, x.dtype)]), layers[1:])
    if any(tensor.dtype != x.dtype for layer in layers for tensor in layer[:2] if tensor is not None):
        return perceptron(x, [_in_dtype(layer, x.dtype) for layer in layers])
    return _plain(x, layers)


def fitting_gradients(x: Tensor, layers: Sequence[Layer], targets: Tensor, scale: float) -> list[Tensor | None] | None:
    """Return the gradients of scale sum (y - targets)^2 of each weight and bias, in turn; None where that takes autograd.

    A network is led through its points once, forth and back, and nothing of it is kept.

    Args:
        x: (b, n, in), or (n, in) shared by all; layers: as `perceptron` takes them; targets: (b, n, out).
    """
    if not (is_eager() and _compiled.available(x, layers) and targets.dtype == x.dtype):
        return None
    with torch.no_grad():
        pairs = zip(*_compiled.fitting_gradients(x, layers, targets, scale), strict=True)
    return [value for pair in pairs for value in pair]


def _in_dtype(layer: Layer, dtype: torch.dtype) -> Layer:
    return layer._replace(weight=layer.weight.to(dtype), bias=None if layer.bias is None else layer.bias.to(dtype))


def _run(kernels: ModuleType, x: Tensor, layers: Sequence[Layer]) -> Tensor:
    tensors = [tensor for layer in layers for tensor in layer[:2]]
    if asks_gradient(x, [tensor for tensor in tensors if tensor is not None]):
        return _Perceptron.apply(kernels, [layer[2:] for layer in layers], x, *tensors)
    return kernels.forward(x.detach(), layers, False)[0]


class _Perceptron(torch.autograd.Function):
    """Networks by kernels; where a derivative shall have a derivative itself, by the plain twin."""

    @staticmethod
    def forward(ctx, kernels: ModuleType, kinds: Sequence[tuple], x: Tensor, *tensors: Tensor | None) -> Tensor:
        layers = _layers(kinds, tensors)
        values, kept = kernels.forward(x, layers, True)
        ctx.kernels, ctx.kinds, ctx.count = kernels, kinds, len(tensors)
        ctx.save_for_backward(x, *tensors, *kept)
        return values

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, *saved = ctx.saved_tensors
        tensors, kept = saved[: ctx.count], saved[ctx.count :]
        layers = _layers(ctx.kinds, tensors)
        moves, *learns = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return None, None, *_differentiable_gradients(x, layers, grad, [moves, *learns])
        to_x, to_weights, to_biases = ctx.kernels.backward(x, layers, kept, grad, any(learns), moves)
        to_x = to_x.sum(0) if moves and x.ndim == 2 else to_x
        pairs = zip(to_weights, to_biases, strict=True) if any(learns) else [(None, None)] * len(layers)
        return None, None, to_x, *(value for pair in pairs for value in pair)


def _layers(kinds: Sequence[tuple], tensors: Sequence[Tensor | None]) -> list[Layer]:
    return [Layer(*pair, *kind) for *pair, kind in zip(tensors[::2], tensors[1::2], kinds, strict=True)]


def _differentiable_gradients(x: Tensor, layers: Sequence[Layer], grad: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
    """Return the gradients of the wanted ones among x and all weights and biases, with a graph of their own."""
    tensors = [x, *(tensor for layer in layers for tensor in layer[:2])]
    chosen = [tensor for tensor, is_wanted in zip(tensors, wanted, strict=True) if is_wanted]
    with torch.enable_grad():
        values = _plain(x.to(layers[0].weight.dtype), layers)
        found = iter(torch.autograd.grad(values, chosen, grad.to(values.dtype), create_graph=True))
    return [next(found) if is_wanted else None for is_wanted in wanted]


def _plain(x: Tensor, layers: Sequence[Layer]) -> Tensor:
    b, n = len(layers[0].weight), x.shape[-2]
    x = x.expand(b, *x.shape[-2:])
    reuse = not asks_gradient(x, [tensor for layer in layers for tensor in layer[:2] if tensor is not None])
    widest = max(size for layer in layers for size in layer.weight.shape[1:])
    step = max(1, _CACHE_NUMBERS // max(1, n * widest)) if x.device.type == "cpu" else max(1, b)
    if step >= b:
        return _plain_layers(x, layers, reuse)
    count = -(-b // step)
    # `split`, whose gradient is one joint tensor; that of a slice is as large as the whole
    weights = [layer.weight.split(step) for layer in layers]
    biases = [[None] * count if layer.bias is None else layer.bias.split(step) for layer in layers]
    parts = []
    for i, points in enumerate(x.split(step)):
        some = [Layer(w[i], bias[i], *layer[2:]) for w, bias, layer in zip(weights, biases, layers, strict=True)]
        parts.append(_plain_layers(points, some, reuse))
    return torch.cat(parts)


def _plain_layers(x: Tensor, layers: Sequence[Layer], reuse: bool) -> Tensor:
    for weight, bias, kind, omega in layers:
        x = linear(x, weight, bias)
        if kind == "sine":
            x = x.mul_(omega).sin_() if reuse else torch.sin(omega * x)
        elif kind == "relu" and reuse:
            x = x.relu_()
        else:
            x = _activation(kind)(x)
    return x


def _activation(kind: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return ACTIVATIONS[kind] if isinstance(kind, str) else kind


def asks_gradient(x: Tensor, states: Iterable[Tensor]) -> bool:
    """Say whether a gradient can be asked for, in x or in one of the states; else points may be taken a few at a time."""
    return torch.is_grad_enabled() and (x.requires_grad or any(value.requires_grad for value in states))


def slices(count: int, step: int) -> list[slice]:
    """Cut `count` things into runs of `step`, at least one, which may be empty.

    >>> slices(5, 2), slices(0, 2)
    ([slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)], [slice(0, 2, None)])
    """
    return [slice(start, start + step) for start in range(0, max(1, count), step)]
