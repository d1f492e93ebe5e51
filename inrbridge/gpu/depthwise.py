"""Floor 1: the depth-wise local operator on tensor cores, y_i = sum_j (sum_k P[i, k, j] w_k) f_j for each channel by itself.

The nodes of the kernel collapse to one weight for each point, neighbour and channel, which all fields share; it is made where
it is used and never stored. A program takes a patch of P points, some channels C and fields F, and goes through the halo H
places at a time: a product (C, K) (K, P * H) makes the weights, one (P, H) (H, F) for each channel applies them.
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
    """Values (H, F, C) at places low .. low + H of a halo."""
    at = low + tl.arange(0, H)
    rows = tl.load(halo + at, mask=at < length, other=0).to(tl.int64) * (fields * channels)
    field, channel = first + tl.arange(0, F), left + tl.arange(0, C)
    place = field[:, None] * channels + channel[None, :]
    exists = (field < fields)[:, None] & (channel < channels)[None, :]
    return tl.load(values + rows[:, None, None] + place[None, :, :], mask=exists[None, :, :], other=0.0)


@triton.jit
def _at_points(points, patch, first, left, fields, channels, P: tl.constexpr, F: tl.constexpr, C: tl.constexpr):
    """Where the points of a patch, some fields and channels lie, (P, F, C), and which of them exist."""
    target = tl.load(points + patch * P + tl.arange(0, P))
    field, channel = first + tl.arange(0, F), left + tl.arange(0, C)
    place = field[:, None] * channels + channel[None, :]
    exists = (field < fields)[:, None] & (channel < channels)[None, :]
    rows = target.to(tl.int64) * (fields * channels)
    return rows[:, None, None] + place[None, :, :], (target >= 0)[:, None, None] & exists[None, :, :]


@triton.jit
def forward(values, kernel, phi, halo, points, out, gain, value_scale, kernel_scale, length, fields, channels,
            P: tl.constexpr, K: tl.constexpr,
            NODES: tl.constexpr, H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Values (n, fields, channels), kernel (K, channels) -> out (m, fields, channels). Grid: patches, channels, fields."""
    patch = tl.program_id(0).to(tl.int64)
    left, first = tl.program_id(1) * C, tl.program_id(2) * F
    phi += patch * K * P * length
    halo += patch * length
    node, channel = tl.arange(0, NODES), left + tl.arange(0, C)
    weights = tl.load(kernel + node[None, :] * channels + channel[:, None],
                      mask=(node < K)[None, :] & (channel < channels)[:, None], other=0.0)  # fmt: skip
    total = tl.zeros((C, P, F), tl.float32)
    for low in range(0, length, H):
        shares = tl.dot(weights, _shares(phi, low, length, P, K, NODES, H), input_precision=PRECISION)  # (C, P * H)
        near = _halo_values(values, halo, low, length, first, left, fields, channels, H, F, C)
        total = tl.dot(shares.to(near.dtype).reshape(C, P, H), near.permute(2, 0, 1), total, input_precision=PRECISION)
    place, exists = _at_points(points, patch, first, left, fields, channels, P, F, C)
    total = unscaled(total, gain, value_scale, kernel_scale)
    tl.store(out + place, total.to(out.dtype.element_ty).permute(1, 2, 0), mask=exists)


@triton.jit
def kernel_gradient(values, grad, phi, halo, points, partial, patches, length, fields, channels, P: tl.constexpr,
                    K: tl.constexpr, NODES: tl.constexpr, H: tl.constexpr, F: tl.constexpr, C: tl.constexpr,
                    PRECISION: tl.constexpr):  # fmt: skip
    """Values (n, fields, channels), grad (m, fields, channels) -> partial (parts, K, channels), float32; the caller sums parts.

    Grid: parts, channels. Part s takes patches s, s + parts, ...
    """
    part, left = tl.program_id(0), tl.program_id(1) * C
    total = tl.zeros((C, NODES), tl.float32)
    for index in range(part, patches, tl.num_programs(0)):
        patch = index + tl.zeros((), tl.int64)
        for low in range(0, length, H):
            products = tl.zeros((C, P, H), tl.float32)
            for first in range(0, fields, F):
                place, exists = _at_points(points, patch, first, left, fields, channels, P, F, C)
                flow = tl.load(grad + place, mask=exists, other=0.0)
                near = _halo_values(values, halo + patch * length, low, length, first, left, fields, channels, H, F, C)
                products = tl.dot(flow.permute(2, 0, 1), near.permute(2, 1, 0), products, input_precision=PRECISION)
            shares = _shares(phi + patch * K * P * length, low, length, P, K, NODES, H)
            if shares.dtype == tl.float16:  # whose range the products may leave
                total = tl.dot(products.reshape(C, P * H), shares.to(tl.float32).trans(1, 0), total, input_precision=PRECISION)
            else:
                summed = products.to(shares.dtype).reshape(C, P * H)
                total = tl.dot(summed, shares.trans(1, 0), total, input_precision=PRECISION)
    node, channel = tl.arange(0, NODES), left + tl.arange(0, C)
    line = partial + (part * K + node)[None, :] * channels + channel[:, None]
    tl.store(line, total, mask=(node < K)[None, :] & (channel < channels)[:, None])
