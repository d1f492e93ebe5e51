"""Floor 1: numbers of 32 bits in 16 for products in the arithmetic of tf32: a float16 has the same mantissa of 11 bits, and a
power of two makes its range fit a tensor.

Tensor cores take float16 in any layout and at twice the rate. What is 2^-29 of the largest number of a tensor or less loses
bits, which tf32 would keep.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PARTS = 256  # of a tensor whose largest numbers are found one beside the other
_BLOCK = 4096


@triton.jit
def _largest(x, largest, count, BLOCK: tl.constexpr):
    """The largest absolute value of every part of x; NaN counts as zero."""
    most = tl.zeros((BLOCK,), tl.float32)
    for start in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        place = start + tl.arange(0, BLOCK).to(tl.int64)
        most = tl.maximum(most, tl.abs(tl.load(x + place, mask=place < count, other=0.0)))
    tl.store(largest + tl.program_id(0), tl.max(most, 0))


@triton.jit
def _halve(x, largest, half, scale, count, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """x times a power of two, its largest number 2^14 to 2^15, as float16; the power goes to scale."""
    most = tl.max(tl.load(largest + tl.arange(0, PARTS)), 0)
    exponent = (most.to(tl.int32, bitcast=True) >> 23) - 127
    power = tl.exp2(tl.minimum(tl.maximum(14 - exponent, -100), 100).to(tl.float32))
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < count
    tl.store(half + place, (tl.load(x + place, mask=exists, other=0.0) * power).to(tl.float16), mask=exists)
    tl.store(scale, power, mask=tl.program_id(0) == 0)


def halved(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 numbers times a power of two as float16, and the power (1,)."""
    x = x.contiguous()
    largest, scale = x.new_empty(_PARTS), x.new_empty(1)
    half = torch.empty_like(x, dtype=torch.float16)
    _largest[(_PARTS,)](x, largest, x.numel(), BLOCK=_BLOCK)
    _halve[(triton.cdiv(x.numel(), _BLOCK),)](x, largest, half, scale, x.numel(), PARTS=_PARTS, BLOCK=_BLOCK)
    return half, scale
