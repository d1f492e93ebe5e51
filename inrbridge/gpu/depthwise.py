"""Floor 1: the depth-wise local operator on tensor cores, y_i = sum_j (sum_k P[i, k, j] w_k) f_j for each channel by itself.

The nodes of the kernel collapse to one weight for each point, neighbour and channel, which all fields share; it is made where
it is used and never stored. A program takes a patch of P points, some channels C and fields F, and goes through the halo H
places at a time: a product (C, K) (K, P * H) makes the weights, one (P, H) (H, F) for each channel applies them. Values lie
(points, channels, fields), so that what a channel multiplies is contiguous.
"""

from __future__ import annotations

import triton
import triton.language as tl

from inrbridge.gpu.local import unscaled


@triton.jit
def _shares(phi, low, length, P: tl.constexpr, K: tl.constexpr, NODES: tl.constexpr, H: tl.constexpr):
    """Weights (NODES, P * H) of a patch for all its nodes, K of which exist, at places low .. low + H of its halo."""
    node, place = tl.arange(0, NODES), tl.arange(0, P * H)
    line = phi + (node[:, None] * P + (place // H)[None, :]) * length
    at = low + place % H
    return tl.load(line + at[None, :], mask=(node < K)[:, None] & (at < length)[None, :], other=0.0)


@triton.jit
def _halo_values(values, halo, low, length, first, left, fields, channels, H: tl.constexpr, F: tl.constexpr, C: tl.constexpr):
    """Values (C, H, F) at places low .. low + H of a halo."""
    at = low + tl.arange(0, H)
    rows = tl.load(halo + at, mask=at < length, other=0).to(tl.int64) * (fields * channels)
    field, channel = first + tl.arange(0, F), left + tl.arange(0, C)
    place = rows[None, :, None] + (channel * fields)[:, None, None] + field[None, None, :]
    return tl.load(values + place, mask=(channel < channels)[:, None, None] & (field < fields)[None, None, :], other=0.0)


@triton.jit
def _at_points(points, patch, first, left, fields, channels, P: tl.constexpr, F: tl.constexpr, C: tl.constexpr):
    """Where some channels and fields of the points of a patch lie, (C, P, F), and which of them exist."""
    target = tl.load(points + patch * P + tl.arange(0, P))
    field, channel = first + tl.arange(0, F), left + tl.arange(0, C)
    rows = target.to(tl.int64) * (fields * channels)
    exists = (channel < channels)[:, None, None] & (target >= 0)[None, :, None] & (field < fields)[None, None, :]
    return rows[None, :, None] + (channel * fields)[:, None, None] + field[None, None, :], exists


@triton.jit
def forward(values, kernel, phi, halo, points, out, gain, value_scale, kernel_scale, length, fields, channels,
            P: tl.constexpr, K: tl.constexpr,
            NODES: tl.constexpr, H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Values (n, channels, fields), kernel (K, channels) -> out (m, channels, fields).

    Grid: patches * blocks of channels, fields. The channels of a patch follow one another: its weights are most of what is read.
    """
    blocks = tl.cdiv(channels, C)
    patch, left, first = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * C, tl.program_id(1) * F
    phi += patch * K * P * length
    halo += patch * length
    node, channel = tl.arange(0, NODES), left + tl.arange(0, C)
    weights = tl.load(kernel + node[None, :] * channels + channel[:, None],
                      mask=(node < K)[None, :] & (channel < channels)[:, None], other=0.0)  # fmt: skip
    total = tl.zeros((C, P, F), tl.float32)
    for low in range(0, length, H):
        shares = tl.dot(weights, _shares(phi, low, length, P, K, NODES, H), input_precision=PRECISION)  # (C, P * H)
        near = _halo_values(values, halo, low, length, first, left, fields, channels, H, F, C)
        total = tl.dot(shares.to(near.dtype).reshape(C, P, H), near, total, input_precision=PRECISION)
    place, exists = _at_points(points, patch, first, left, fields, channels, P, F, C)
    total = unscaled(total, gain, value_scale, kernel_scale)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=exists)


@triton.jit
def kernel_gradient(values, grad, phi, halo, points, partial, patches, length, fields, channels, P: tl.constexpr,
                    K: tl.constexpr, NODES: tl.constexpr, H: tl.constexpr, F: tl.constexpr, C: tl.constexpr,
                    PRECISION: tl.constexpr):  # fmt: skip
    """Values (n, channels, fields), grad (m, channels, fields) -> partial (parts, K, channels), float32; the caller sums parts.

    Grid: parts * blocks of channels. Part s takes patches s, s + parts, ...
    """
    blocks = tl.cdiv(channels, C)
    part, left, parts = tl.program_id(0) // blocks, tl.program_id(0) % blocks * C, tl.num_programs(0) // blocks
    total = tl.zeros((C, NODES), tl.float32)
    for index in range(part, patches, parts):
        patch = index + tl.zeros((), tl.int64)
        for low in range(0, length, H):
            products = tl.zeros((C, P, H), tl.float32)
            for first in range(0, fields, F):
                place, exists = _at_points(points, patch, first, left, fields, channels, P, F, C)
                flow = tl.load(grad + place, mask=exists, other=0.0)
                near = _halo_values(values, halo + patch * length, low, length, first, left, fields, channels, H, F, C)
                products = tl.dot(flow, near.permute(0, 2, 1), products, input_precision=PRECISION)
            shares = _shares(phi + patch * K * P * length, low, length, P, K, NODES, H)
            if shares.dtype == tl.float16:  # whose range the products may leave
                total = tl.dot(products.reshape(C, P * H), shares.to(tl.float32).trans(1, 0), total, input_precision=PRECISION)
            else:
                summed = products.to(shares.dtype).reshape(C, P * H)
                total = tl.dot(summed, shares.trans(1, 0), total, input_precision=PRECISION)
    node, channel = tl.arange(0, NODES), left + tl.arange(0, C)
    line = partial + (part * K + node)[None, :] * channels + channel[:, None]
    tl.store(line, total, mask=(node < K)[None, :] & (channel < channels)[:, None])
