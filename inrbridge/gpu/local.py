"""Floor 1: the local operator on tensor cores, y_i = sum_k (sum_j P[i, k, j] f_j) W_k, in patches of points.

One program takes a patch and some fields at a time. Their values at the halo are read once, (h, f * c); for a few nodes of the
kernel they are contracted to (nodes * p, f * c) and multiplied by the W_k of those nodes, and the sum over the nodes stays in
registers. What a node sees is rounded to the dtype of the values between the two products, as in the plain path.

Capital letters are sizes of blocks: P points of a patch, H0 + H1 places of its halo, F fields, C and OUT channels, K nodes of
the kernel of which NODES are taken at a time and REST at last.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _places(first, fields, low, channels, stride, F: tl.constexpr, C: tl.constexpr):
    """Where fields first .. first + F and channels low .. low + C lie in a row (fields, stride), and which of them exist."""
    place = tl.arange(0, F * C)
    field, channel = first + place // C, low + place % C
    return field * stride + channel, (field < fields) & (channel < channels)


@triton.jit
def _read(values, rows, place, exists):
    """Rows (h,) of values at places (f * c,) of a row."""
    return tl.load(values + rows[:, None] + place[None, :], mask=exists[None, :], other=0.0)


@triton.jit
def _weights(phi, node, low, K: tl.constexpr, P: tl.constexpr, NODES: tl.constexpr, H: tl.constexpr, LENGTH: tl.constexpr):
    """Weights (NODES * P, H) of a patch for NODES nodes from `node` on, at places low .. low + H of its halo."""
    row = node * P + tl.arange(0, NODES * P)
    return tl.load(phi + row[:, None] * LENGTH + low + tl.arange(0, H)[None, :], mask=(row < K * P)[:, None], other=0.0)


@triton.jit
def _matrices(kernel, node, low, left, inputs, outputs, stride, K: tl.constexpr, NODES: tl.constexpr, C: tl.constexpr,
              OUT: tl.constexpr):  # fmt: skip
    """W of NODES nodes from `node` on, (NODES * C, OUT), from channel `low` and output channel `left` on."""
    row, column = tl.arange(0, NODES * C), left + tl.arange(0, OUT)
    k, channel = node + row // C, low + row % C
    exists = ((k < K) & (channel < inputs))[:, None] & (column < outputs)[None, :]
    return tl.load(kernel + (k * inputs + channel)[:, None] * stride + column[None, :], mask=exists, other=0.0)


@triton.jit
def _at_nodes(phi, near, far, node, K: tl.constexpr, P: tl.constexpr, NODES: tl.constexpr, H0: tl.constexpr, H1: tl.constexpr,
              F: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """What NODES nodes from `node` on see of the values of a halo: a row for each point and field, (P * F, NODES * C)."""
    seen = tl.dot(_weights(phi, node, 0, K, P, NODES, H0, H0 + H1), near, input_precision=PRECISION)
    if H1 > 0:
        seen = tl.dot(_weights(phi, node, H0, K, P, NODES, H1, H0 + H1), far, seen, input_precision=PRECISION)
    return seen.to(near.dtype).reshape(NODES, P, F, C).permute(1, 2, 0, 3).reshape(P * F, NODES * C)


@triton.jit
def _multiply(total, rows, matrices, ACROSS: tl.constexpr, PRECISION: tl.constexpr):
    """Add rows times matrices to a total, which lies across, (OUT, rows), where that makes the longer blocks."""
    if ACROSS:
        total = tl.dot(matrices.trans(1, 0), rows.trans(1, 0), total, input_precision=PRECISION)
    else:
        total = tl.dot(rows, matrices, total, input_precision=PRECISION)
    return total


@triton.jit
def forward(values, kernel, phi, halo, points, out, fields, inputs, outputs, value_stride, out_stride,
            K: tl.constexpr, P: tl.constexpr, H0: tl.constexpr, H1: tl.constexpr, F: tl.constexpr, C: tl.constexpr,
            OUT: tl.constexpr, NODES: tl.constexpr, REST: tl.constexpr, BLOCKS: tl.constexpr, HOLD: tl.constexpr,
            ACROSS: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Values (n, fields, value_stride) -> out (m, fields, out_stride), for each group of channels by itself.

    Grid: patches, parts of the fields, groups * blocks of output channels. HOLD: the kernel stays in shared memory.
    """
    patch, part, third = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    blocks = tl.cdiv(outputs, OUT)
    group, left = third // blocks, third % blocks * OUT
    phi += patch * K * P * (H0 + H1)
    halo += patch * (H0 + H1)
    near_rows = tl.load(halo + tl.arange(0, H0)).to(tl.int64) * (fields * value_stride)
    far_rows = near_rows
    if H1 > 0:
        far_rows = tl.load(halo + H0 + tl.arange(0, H1)).to(tl.int64) * (fields * value_stride)
    values += group * inputs
    kernel += group * outputs
    held = ()
    if HOLD:
        for node in tl.static_range(0, K // NODES * NODES, NODES):
            held += (_matrices(kernel, node, 0, left, inputs, outputs, out_stride, K, NODES, C, OUT),)
        if REST > 0:
            held += (_matrices(kernel, K // NODES * NODES, 0, left, inputs, outputs, out_stride, K, REST, C, OUT),)

    row, column = tl.arange(0, P * F), left + tl.arange(0, OUT)
    target = tl.load(points + patch * P + row // F)
    for first in range(part * F, fields, F * tl.num_programs(1)):
        total = tl.zeros((OUT, P * F) if ACROSS else (P * F, OUT), tl.float32)
        for block in range(0, BLOCKS):
            low = block * C
            place, exists = _places(first, fields, low, inputs, value_stride, F, C)
            near = _read(values, near_rows, place, exists)
            far = near
            if H1 > 0:
                far = _read(values, far_rows, place, exists)
            if HOLD:
                for node in tl.static_range(0, K // NODES * NODES, NODES):
                    rows = _at_nodes(phi, near, far, node, K, P, NODES, H0, H1, F, C, PRECISION)
                    total = _multiply(total, rows, held[node // NODES], ACROSS, PRECISION)
            else:
                for node in range(0, K // NODES * NODES, NODES):
                    rows = _at_nodes(phi, near, far, node, K, P, NODES, H0, H1, F, C, PRECISION)
                    matrices = _matrices(kernel, node, low, left, inputs, outputs, out_stride, K, NODES, C, OUT)
                    total = _multiply(total, rows, matrices, ACROSS, PRECISION)
            if REST > 0:
                rows = _at_nodes(phi, near, far, K // NODES * NODES, K, P, REST, H0, H1, F, C, PRECISION)
                if HOLD:
                    matrices = held[K // NODES]
                else:
                    matrices = _matrices(kernel, K // NODES * NODES, low, left, inputs, outputs, out_stride, K, REST, C, OUT)
                total = _multiply(total, rows, matrices, ACROSS, PRECISION)
        if ACROSS:
            total = total.trans(1, 0)
        field = first + row % F
        line = (target.to(tl.int64) * fields + field) * out_stride + group * outputs
        writes = ((target >= 0) & (field < fields))[:, None] & (column < outputs)[None, :]
        tl.store(out + line[:, None] + column[None, :], total.to(out.dtype.element_ty), mask=writes)


@triton.jit
def kernel_gradient(values, grad, phi, halo, points, partial, patches, fields, inputs, outputs, value_stride, grad_stride,
                    first_node, K: tl.constexpr, P: tl.constexpr, H0: tl.constexpr, H1: tl.constexpr, F: tl.constexpr,
                    C: tl.constexpr, OUT: tl.constexpr, NODES: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Values (n, fields, value_stride), grad (m, fields, grad_stride) -> partial (parts, K, inputs, grad_stride), float32.

    Part s sums patches s, s + parts, ...; the caller sums the parts. Grid: parts, runs of NODES nodes from first_node on,
    groups * blocks of channels * blocks of output channels.
    """
    part, third = tl.program_id(0), tl.program_id(2)
    node = first_node + tl.program_id(1) * NODES
    across, down = tl.cdiv(outputs, OUT), tl.cdiv(inputs, C)
    group, low, left = third // (across * down), third // across % down * C, third % across * OUT
    values += group * inputs
    grad += group * outputs
    row, column = tl.arange(0, P * F), left + tl.arange(0, OUT)
    total = tl.zeros((NODES * C, OUT), tl.float32)
    for index in range(part, patches, tl.num_programs(0)):
        patch = index + tl.zeros((), tl.int64)
        here = phi + patch * K * P * (H0 + H1)
        read = halo + patch * (H0 + H1)
        near_rows = tl.load(read + tl.arange(0, H0)).to(tl.int64) * (fields * value_stride)
        far_rows = near_rows
        if H1 > 0:
            far_rows = tl.load(read + H0 + tl.arange(0, H1)).to(tl.int64) * (fields * value_stride)
        target = tl.load(points + patch * P + row // F)
        for first in range(0, fields, F):
            place, exists = _places(first, fields, low, inputs, value_stride, F, C)
            near = _read(values, near_rows, place, exists)
            far = near
            if H1 > 0:
                far = _read(values, far_rows, place, exists)
            rows = _at_nodes(here, near, far, node, K, P, NODES, H0, H1, F, C, PRECISION)
            field = first + row % F
            line = (target.to(tl.int64) * fields + field) * grad_stride
            given = ((target >= 0) & (field < fields))[:, None] & (column < outputs)[None, :]
            flow = tl.load(grad + line[:, None] + column[None, :], mask=given, other=0.0)
            total = tl.dot(rows.trans(1, 0), flow, total, input_precision=PRECISION)
    inner = tl.arange(0, NODES * C)
    k, channel = node + inner // C, low + inner % C
    exists = ((k < K) & (channel < inputs))[:, None] & (column < outputs)[None, :]
    line = ((part * K + k) * inputs + channel).to(tl.int64) * grad_stride + group * outputs
    tl.store(partial + line[:, None] + column[None, :], total, mask=exists)
