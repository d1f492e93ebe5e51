"""Floor 1: many networks of linear layers and their activations on a GPU, one launch a layer, and their gradients.

Layers are those of `compiled.perceptron`, and so are the two functions. Values between layers have the dtype of the weights;
products sum in float32, and so does the phase of a sine. Coordinates of at most eight numbers enter in their own dtype, so
that networks in bfloat16 see them in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inrbridge.compiled.perceptron import KINDS, Layer
from inrbridge.gpu.precision import DTYPES, beside, has_triton, interprets, precision

_FEW = 8  # inputs that are summed one by one
_NARROW = 32  # outputs that one block of 16 or 32 takes


class _Blocks(NamedTuple):
    """How a launch is cut: points, outputs, inputs at a time, warps and stages."""

    points: int
    outputs: int
    inputs: int
    warps: int
    stages: int
    registers: int  # of a thread at most: two programs share a multiprocessor, one multiplies while the other takes sines


_WIDE = {2: _Blocks(128, 128, 64, 8, 3, 128), 4: _Blocks(128, 128, 64, 8, 3, 255)}  # by bytes of a number, as measured best


def available(x: Tensor, layers: Sequence[Layer]) -> bool:
    """Say whether the kernels take these tensors: on a GPU, all weights in one dtype of 32 or 16 bits."""
    dtype = layers[0].weight.dtype
    if not has_triton(x.device) or dtype not in DTYPES or x.dtype not in (dtype, torch.float32):
        return False
    tensors = [tensor for layer in layers for tensor in layer[:2] if tensor is not None]
    return all(t.dtype == dtype and t.device == x.device for t in tensors) and all(layer.kind in KINDS for layer in layers)


def forward(x: Tensor, layers: Sequence[Layer], keep: bool) -> tuple[Tensor, list[Tensor | None]]:
    """Evaluate b networks.

    Args:
        x: (b, n, in), or (n, in) shared by all.
        keep: also return what `backward` needs.

    Returns:
        (b, n, out) in the dtype of the weights, and for each layer the slopes of its activation and its values.
    """
    kept: list[Tensor | None] = []
    for index, layer in enumerate(layers):
        with beside(x):
            y, slope = _layer(x, layer, keep and layer.kind != "identity")
        kept += [slope, y if index < len(layers) - 1 else None]
        x = y
    return x, kept if keep else [None] * len(kept)


def backward(
    x: Tensor, layers: Sequence[Layer], kept: Sequence[Tensor | None], grad: Tensor, learns: bool, moves: bool
) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
    """Return the gradients of x (b, n, in), if it `moves`, and of all weights and biases, if the networks `learn`."""
    dtype = layers[0].weight.dtype
    to_weights, to_biases, flow = [], [], grad.to(dtype)
    first = x.to(dtype).expand(len(layers[0].weight), *x.shape[-2:])
    inputs = [first, *kept[1:-1:2]]
    for index in reversed(range(len(layers))):
        layer, slope = layers[index], kept[2 * index]
        flow = flow if slope is None else flow * slope
        if learns:
            to_weights.append(torch.bmm(flow.mT, inputs[index]))
            to_biases.append(None if layer.bias is None else flow.sum(1))
        if index or moves:
            flow = torch.bmm(flow, layer.weight)
    return flow.to(x.dtype) if moves else None, to_weights[::-1], to_biases[::-1]


def _layer(x: Tensor, layer: Layer, keep: bool) -> tuple[Tensor, Tensor | None]:
    """One layer and, if asked, the slopes of its activation."""
    from inrbridge.gpu.layer import layer as launch

    weight, bias = layer.weight.contiguous(), layer.weight if layer.bias is None else layer.bias.contiguous()
    b, outputs, inputs = weight.shape
    n, few = x.shape[-2], inputs <= _FEW
    x = x.contiguous() if few else x.to(weight.dtype).contiguous()
    y = weight.new_empty(b, n, outputs)
    slope = torch.empty_like(y) if keep else None
    if y.numel() == 0:
        return y, slope
    blocks = _WIDE[weight.dtype.itemsize] if outputs > _NARROW else _Blocks(128, _NARROW, 64, 4, 3, 128)
    across, inner = (min(most, max(16, 1 << (count - 1).bit_length()))
                     for most, count in ((blocks.outputs, outputs), (blocks.inputs, inputs)))  # fmt: skip
    grid = (-(-n // blocks.points), -(-outputs // across), b)
    launch[grid](
        x, weight, bias, y, y if slope is None else slope, n, inputs, outputs, 0 if x.ndim == 2 else n * inputs, layer.omega,
        KIND=layer.kind, BIAS=layer.bias is not None, KEEP=keep, M=blocks.points, OUT=across, IN=inputs if few else inner,
        FEW=few, FAST=not interprets(), PRECISION=precision(weight.dtype), num_warps=blocks.warps, num_stages=blocks.stages,
        maxnreg=blocks.registers,
    )  # fmt: skip
    return y, slope
