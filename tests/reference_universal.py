"""Slow twin: algorithm B.1 with its five registers, one rectangle and one dimension after the other."""

import torch


def relu(x):
    return max(x, 0.0)


def algorithm_b1(net, f, as_printed=False):
    """Evaluate a RectangleNet at one point f (n,); `as_printed`: its ramps have the width delta of (42), not delta (b - a)."""
    x4, x5 = 0.0, 0.0
    for a, b, y, delta in zip(net.low.tolist(), net.high.tolist(), net.height.tolist(), net.delta.tolist(), strict=True):
        x3 = 1.0
        for k, f_k in enumerate(f.tolist()):
            width = delta if as_printed else delta * (b[k] - a[k])
            x1, x2 = f_k - b[k] + delta * (b[k] - a[k]), f_k - a[k]
            x1, x2 = relu(x1), relu(x2)
            x1, x2 = relu(width - x1), relu(width - x2)
            x3 = x3 * (x1 - x2) / width
        if y > 0:
            x4 += y * x3
        else:
            x5 += -y * x3
    return x4 - x5


def as_printed(net, f):
    """Sum y_i T_i, T of eq. (42) word for word: f (m, n) -> (m,)."""
    total = torch.zeros(len(f), dtype=f.dtype)
    for low, high, y, delta in zip(net.low, net.high, net.height, net.delta, strict=True):
        inner = high - delta * (high - low)
        ramps = (torch.relu(delta - torch.relu(f - inner)) - torch.relu(delta - torch.relu(f - low))) / delta
        total = total + y * ramps.prod(-1)
    return total
