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
def _rows(halo, stride, H0: tl.constexpr, H1: tl.constexpr):
    """Where the rows of a halo begin, in two parts; the second is the first where there is one only."""
    near = tl.load(halo + tl.arange(0, H0)).to(tl.int64) * stride
    far = near
    if H1 > 0:
        far = tl.load(halo + H0 + tl.arange(0, H1)).to(tl.int64) * stride
    return near, far


@triton.jit
def _values(values, near_rows, far_rows, first, fields, low, channels, stride, H1: tl.constexpr, F: tl.constexpr,
            C: tl.constexpr):  # fmt: skip
    """Values (h, F * C) of fields `first` and on, channels `low` and on, at the two parts of a halo."""
    place = tl.arange(0, F * C)
    field, channel = first + place // C, low + place % C
    exists = ((field < fields) & (channel < channels))[None, :]
    place = values + (field * stride + channel)[None, :]
    near = tl.load(place + near_rows[:, None], mask=exists, other=0.0)
    far = near
    if H1 > 0:
        far = tl.load(place + far_rows[:, None], mask=exists, other=0.0)
    return near, far


@triton.jit
def _weights(phi, node, K: tl.constexpr, P: tl.constexpr, NODES: tl.constexpr, H0: tl.constexpr, H1: tl.constexpr):
    """Weights (NODES * P, h) of a patch for NODES nodes from `node` on, for the two parts of its halo."""
    row = node * P + tl.arange(0, NODES * P)
    line, exists = phi + row[:, None] * (H0 + H1), (row < K * P)[:, None]
    near = tl.load(line + tl.arange(0, H0)[None, :], mask=exists, other=0.0)
    far = near
    if H1 > 0:
        far = tl.load(line + H0 + tl.arange(0, H1)[None, :], mask=exists, other=0.0)
    return near, far


@triton.jit
def _matrices(kernel, node, low, left, inputs, outputs, stride, K: tl.constexpr, NODES: tl.constexpr, C: tl.constexpr,
              OUT: tl.constexpr):  # fmt: skip
    """W of NODES nodes from `node` on, (NODES * C, OUT), from channel `low` and output channel `left` on."""
    row, column = tl.arange(0, NODES * C), left + tl.arange(0, OUT)
    k, channel = node + row // C, low + row % C
    exists = ((k < K) & (channel < inputs))[:, None] & (column < outputs)[None, :]
    return tl.load(kernel + (k * inputs + channel)[:, None] * stride + column[None, :], mask=exists, other=0.0)


@triton.jit
def _seen(by_near, by_far, near, far, P: tl.constexpr, NODES: tl.constexpr, H1: tl.constexpr, F: tl.constexpr, C: tl.constexpr,
          PRECISION: tl.constexpr):  # fmt: skip
    """What NODES nodes see of the values at a halo: a row for each point and field, (P * F, NODES * C)."""
    seen = tl.dot(by_near, near, input_precision=PRECISION)
    if H1 > 0:
        seen = tl.dot(by_far, far, seen, input_precision=PRECISION)
    return seen.to(near.dtype).reshape(NODES, P, F, C).permute(1, 2, 0, 3).reshape(P * F, NODES * C)


@triton.jit
def _add_nodes(total, by_near, by_far, near, far, matrices, P: tl.constexpr, NODES: tl.constexpr, H1: tl.constexpr,
               F: tl.constexpr, C: tl.constexpr, ACROSS: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Add to a total what NODES nodes see times their matrices; ACROSS: it is laid (OUT, P * F), not (P * F, OUT)."""
    rows = _seen(by_near, by_far, near, far, P, NODES, H1, F, C, PRECISION)
    if ACROSS:
        total = tl.dot(matrices.trans(1, 0), rows.trans(1, 0), total, input_precision=PRECISION)
    else:
        total = tl.dot(rows, matrices, total, input_precision=PRECISION)
    return total


@triton.jit
def _lines(points, first, fields, stride, P: tl.constexpr, F: tl.constexpr):
    """Where the rows (points, fields first .. first + F) of a patch begin, (P * F,), and which of them exist."""
    row = tl.arange(0, P * F)
    target, field = tl.load(points + row // F), first + row % F
    return (target.to(tl.int64) * fields + field) * stride, (target >= 0) & (field < fields)


@triton.jit
def unscaled(total, gain, value_scale, other_scale):
    """A sum of products of numbers that were scaled (`halves`); scales are None where none was."""
    if value_scale is not None:
        total = total * gain / tl.load(value_scale) / tl.load(other_scale)
    return total


@triton.jit
def _write(out, total, points, first, left, fields, outputs, stride, P: tl.constexpr, F: tl.constexpr, OUT: tl.constexpr,
           ACROSS: tl.constexpr):  # fmt: skip
    """Write a total to the points of a patch, fields `first` and on, output channels `left` and on."""
    if ACROSS:
        total = total.trans(1, 0)
    line, exists = _lines(points, first, fields, stride, P, F)
    column = left + tl.arange(0, OUT)
    mask = exists[:, None] & (column < outputs)[None, :]
    tl.store(out + line[:, None] + column[None, :], total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def forward_held(values, kernel, phi, halo, points, out, gain, value_scale, kernel_scale, fields, inputs, outputs,
                 value_stride, out_stride,
                 K: tl.constexpr, P: tl.constexpr, H0: tl.constexpr, H1: tl.constexpr, F: tl.constexpr, C: tl.constexpr,
                 OUT: tl.constexpr, NODES: tl.constexpr, REST: tl.constexpr, ACROSS: tl.constexpr,
                 PRECISION: tl.constexpr):  # fmt: skip
    """Values (n, fields, value_stride) -> out (m, fields, out_stride), for each group of at most C channels by itself.

    The kernel and the weights of the patch are read once and stay in shared memory; the values of the next fields arrive
    meanwhile. Grid: patches, parts of the fields, groups * blocks of output channels.
    """
    patch, part, third = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    blocks = tl.cdiv(outputs, OUT)
    group, left = third // blocks, third % blocks * OUT
    phi += patch * K * P * (H0 + H1)
    points += patch * P
    kernel += group * outputs
    near_rows, far_rows = _rows(halo + patch * (H0 + H1), fields * value_stride, H0, H1)
    matrices, by_near, by_far = (), (), ()
    for node in tl.static_range(0, K // NODES * NODES, NODES):
        weights = _weights(phi, node, K, P, NODES, H0, H1)
        by_near += (weights[0],)
        by_far += (weights[1],)
        matrices += (_matrices(kernel, node, 0, left, inputs, outputs, out_stride, K, NODES, C, OUT),)
    if REST > 0:
        weights = _weights(phi, K // NODES * NODES, K, P, REST, H0, H1)
        by_near += (weights[0],)
        by_far += (weights[1],)
        matrices += (_matrices(kernel, K // NODES * NODES, 0, left, inputs, outputs, out_stride, K, REST, C, OUT),)
    for first in range(part * F, fields, F * tl.num_programs(1)):
        near, far = _values(values + group * inputs, near_rows, far_rows, first, fields, 0, inputs, value_stride, H1, F, C)
        total = tl.zeros((OUT, P * F) if ACROSS else (P * F, OUT), tl.float32)
        for run in tl.static_range(0, K // NODES):
            total = _add_nodes(total, by_near[run], by_far[run], near, far, matrices[run], P, NODES, H1, F, C, ACROSS, PRECISION)
        if REST > 0:
            total = _add_nodes(total, by_near[K // NODES], by_far[K // NODES], near, far, matrices[K // NODES], P, REST, H1, F, C,
                               ACROSS, PRECISION)  # fmt: skip
        total = unscaled(total, gain, value_scale, kernel_scale)
        _write(out + group * outputs, total, points, first, left, fields, outputs, out_stride, P, F, OUT, ACROSS)


@triton.jit
def forward(values, kernel, phi, halo, points, out, gain, value_scale, kernel_scale, fields, inputs, outputs,
            value_stride, out_stride,
            K: tl.constexpr, P: tl.constexpr, H0: tl.constexpr, H1: tl.constexpr, F: tl.constexpr, C: tl.constexpr,
            OUT: tl.constexpr, NODES: tl.constexpr, REST: tl.constexpr, ACROSS: tl.constexpr,
            PRECISION: tl.constexpr):  # fmt: skip
    """The same for any number of channels: kernel and weights arrive while the nodes before are multiplied."""
    patch, part, third = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    blocks = tl.cdiv(outputs, OUT)
    group, left = third // blocks, third % blocks * OUT
    phi += patch * K * P * (H0 + H1)
    points += patch * P
    kernel += group * outputs
    near_rows, far_rows = _rows(halo + patch * (H0 + H1), fields * value_stride, H0, H1)
    for first in range(part * F, fields, F * tl.num_programs(1)):
        total = tl.zeros((OUT, P * F) if ACROSS else (P * F, OUT), tl.float32)
        for low in range(0, inputs, C):
            near, far = _values(values + group * inputs, near_rows, far_rows, first, fields, low, inputs, value_stride, H1, F, C)
            for node in range(0, K // NODES * NODES, NODES):
                by_near, by_far = _weights(phi, node, K, P, NODES, H0, H1)
                matrices = _matrices(kernel, node, low, left, inputs, outputs, out_stride, K, NODES, C, OUT)
                total = _add_nodes(total, by_near, by_far, near, far, matrices, P, NODES, H1, F, C, ACROSS, PRECISION)
            if REST > 0:
                by_near, by_far = _weights(phi, K // NODES * NODES, K, P, REST, H0, H1)
                matrices = _matrices(kernel, K // NODES * NODES, low, left, inputs, outputs, out_stride, K, REST, C, OUT)
                total = _add_nodes(total, by_near, by_far, near, far, matrices, P, REST, H1, F, C, ACROSS, PRECISION)
        total = unscaled(total, gain, value_scale, kernel_scale)
        _write(out + group * outputs, total, points, first, left, fields, outputs, out_stride, P, F, OUT, ACROSS)


@triton.jit
def kernel_gradient(values, grad, phi, halo, points, partial, patches, fields, inputs, outputs, value_stride, grad_stride,
                    first_node, K: tl.constexpr, P: tl.constexpr, H0: tl.constexpr, H1: tl.constexpr, F: tl.constexpr,
                    C: tl.constexpr, OUT: tl.constexpr, NODES: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Values (n, fields, value_stride), grad (m, fields, grad_stride) -> partial (parts, K, inputs, grad_stride), float32.

    Part s sums patches s, s + parts, ...; the caller sums the parts. Grid: runs of NODES nodes from first_node on,
    parts, groups * blocks of channels * blocks of output channels.
    """
    part, third = tl.program_id(1), tl.program_id(2)
    node = first_node + tl.program_id(0) * NODES
    across, down = tl.cdiv(outputs, OUT), tl.cdiv(inputs, C)
    group, low, left = third // (across * down), third // across % down * C, third % across * OUT
    column = left + tl.arange(0, OUT)
    total = tl.zeros((NODES * C, OUT), tl.float32)
    for index in range(part, patches, tl.num_programs(1)):
        patch = index + tl.zeros((), tl.int64)
        near_rows, far_rows = _rows(halo + patch * (H0 + H1), fields * value_stride, H0, H1)
        by_near, by_far = _weights(phi + patch * K * P * (H0 + H1), node, K, P, NODES, H0, H1)
        for first in range(0, fields, F):
            near, far = _values(values + group * inputs, near_rows, far_rows, first, fields, low, inputs, value_stride, H1, F, C)
            rows = _seen(by_near, by_far, near, far, P, NODES, H1, F, C, PRECISION)
            line, exists = _lines(points + patch * P, first, fields, grad_stride, P, F)
            mask = exists[:, None] & (column < outputs)[None, :]
            flow = tl.load(grad + group * outputs + line[:, None] + column[None, :], mask=mask, other=0.0)
            total = tl.dot(rows.trans(1, 0), flow, total, input_precision=PRECISION)
    inner = tl.arange(0, NODES * C)
    k, channel = node + inner // C, low + inner % C
    exists = ((k < K) & (channel < inputs))[:, None] & (column < outputs)[None, :]
    line = ((part * K + k) * inputs + channel).to(tl.int64) * grad_stride + group * outputs
    tl.store(partial + line[:, None] + column[None, :], total, mask=exists)
