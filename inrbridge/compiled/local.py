"""Floor 1: passes of the local operator on tensors of the CPU, by `local.cpp` and `depthwise.cpp`.

Numbers are float32, float64 or bfloat16; sums are taken in float32, in float64 for float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call
from inrbridge.compiled.patches import Patches

_CHANNELS = 8  # that are worth a vector, where kernels are depth-wise
SUMS = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}


def available(like: Tensor) -> bool:
    """Say whether the passes take tensors like this one."""
    return like.device.type == "cpu" and like.dtype in SUMS and None not in map(library, ("local", "depthwise"))


def sweep(patches: Patches, source: Tensor, shape: tuple[int, int, int], groups: int, *, exchanged: bool,
          kernel: Tensor | None = None, other: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Sum a source (n, b, c) at the kernel nodes of all points, Z[i, k], and use these sums.

    Args:
        shape: of the kernel, (k, c / groups, o); for an exchanged stencil, whose source has o channels, that of the kernel of
            the stencil as it was.
        kernel: to multiply the sums by: out_i = sum_k Z[i, k] W_k (m, b, o), or (m, b, c) by the transposed W_k if exchanged.
        other: (m, b, o) or, if exchanged, (m, b, c), to correlate the sums with: sum_i Z[i, k]^T other_i, laid as the kernel.

    Returns:
        The product and the correlation, as far as asked for.
    """
    k, inner, outer = shape
    channels, out_channels = (outer, inner * groups) if exchanged else (inner * groups, outer)
    source = source.contiguous()
    fields = source.shape[1]
    kernel, other = (None if t is None else t.contiguous() for t in (kernel, other))
    for name, tensor, wanted in (("kernel", kernel, shape), ("other", other, (patches.points, fields, out_channels)),
                                 ("source", source, (source.shape[0], fields, channels))):  # fmt: skip
        if tensor is not None and (tuple(tensor.shape) != tuple(wanted) or tensor.dtype != source.dtype):
            raise ValueError(f"Got {name} of shape {tuple(tensor.shape)} and {tensor.dtype}, expected {wanted}, {source.dtype}.")
    out = None if kernel is None else source.new_empty(patches.points, fields, out_channels)
    total = None if other is None else source.new_empty(shape)
    if source.numel() == 0 or out_channels == 0:
        return tuple(None if t is None else t.zero_() for t in (out, total))
    sizes = patches.points, k, patches.size, fields, channels, out_channels, groups
    given = *patches.parts, *sizes, source, kernel, int(exchanged), out, other, total
    dtype = str(source.dtype).removeprefix("torch.")
    if channels == groups == out_channels and channels >= _CHANNELS:
        call("depthwise", f"depthwise_{dtype}", *given, *patches.turned)
    else:
        call("local", f"local_{dtype}", *given)
    return out, total
