"""Floor 1: one layer of b networks on a GPU, y = activation(omega (W x + b)), in one launch: product, bias, activation and slope.

Capital letters are sizes of blocks: M points, OUT outputs, IN inputs at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def _turned(phase):
    """A phase less whole turns, of which 6.28125 is the part without rounding."""
    turns = tl.floor(phase * 0.15915494309189535 + 0.5)
    return phase - turns * 6.28125 - turns * 0.0019353071795864769


@triton.jit
def layer(x, weight, bias, y, slope, n, inputs, outputs, x_step, omega, KIND: tl.constexpr, BIAS: tl.constexpr,
          KEEP: tl.constexpr, M: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, FEW: tl.constexpr, FAST: tl.constexpr,
          PRECISION: tl.constexpr):  # fmt: skip
    """x (b, n, inputs) with x_step numbers from one field to the next, weight (b, outputs, inputs) -> y (b, n, outputs).

    Grid: blocks of points, blocks of outputs, fields. KIND: "identity", "relu" or "sine". KEEP: the derivative of the activation
    is written to slope. FEW: so few inputs, IN, that they are summed one by one in float32. FAST: by the sine of the device.
    """
    field = tl.program_id(2).to(tl.int64)
    row, column = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * OUT + tl.arange(0, OUT)
    x += field * x_step
    weight += field * outputs * inputs
    y += field * n * outputs
    slope += field * n * outputs
    z = tl.zeros((M, OUT), tl.float32)
    if FEW:
        for i in tl.static_range(IN):
            left = tl.load(x + row * inputs + i, mask=row < n, other=0.0).to(tl.float32)
            right = tl.load(weight + column * inputs + i, mask=column < outputs, other=0.0).to(tl.float32)
            z += left[:, None] * right[None, :]
    else:
        for start in range(0, inputs, IN):
            inner = start + tl.arange(0, IN)
            left = tl.load(
                x + row[:, None] * inputs + inner[None, :], mask=(row < n)[:, None] & (inner < inputs)[None, :], other=0.0
            )
            right = tl.load(weight + column[None, :] * inputs + inner[:, None],
                            mask=(column < outputs)[None, :] & (inner < inputs)[:, None], other=0.0)  # fmt: skip
            z = tl.dot(left, right.to(left.dtype), z, input_precision=PRECISION)
    if BIAS:
        z += tl.load(bias + field * outputs + column, mask=column < outputs, other=0.0).to(tl.float32)[None, :]
    place = row[:, None] * outputs + column[None, :]
    exists = (row < n)[:, None] & (column < outputs)[None, :]
    value, steep = z, tl.full((M, OUT), 1.0, tl.float32)
    if KIND == "sine":
        phase = _turned(z * omega)
        if FAST:
            value = libdevice.fast_sinf(phase)
            if KEEP:
                steep = omega * libdevice.fast_cosf(phase)
        else:
            value = tl.sin(phase)
            if KEEP:
                steep = omega * tl.cos(phase)
    if KIND == "relu":
        value, steep = tl.maximum(z, 0.0), tl.where(z > 0, 1.0, 0.0)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=exists)
    if KEEP:
        tl.store(slope + place, steep.to(slope.dtype.element_ty), mask=exists)
