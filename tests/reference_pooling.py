"""Slow twin of the pooling windows: every pair of points, one output at a time."""

import torch


def window_members(points, output, low, high, domain):
    """Say which of points (n, d) lie in [output + low, output + high), around the edges where the domain repeats."""
    inside = torch.ones(len(points), dtype=torch.bool)
    for axis, period in enumerate(domain.axis_periods):
        moves = (-period, 0.0, period) if period else (0.0,)
        offset = points[:, axis] - output[axis]
        inside &= torch.stack([(offset + m >= low) & (offset + m < high) for m in moves]).any(0)
    return inside


def pool(values, discretization, outputs, low, high, reduce):
    """Reduce values (b, n, c) over each window: reduce((b, k, c), weights (k,)) -> (b, c). Returns (b, m, c)."""
    rows = []
    for output in outputs:
        inside = window_members(discretization.points, output, low, high, discretization.domain)
        weights = discretization.weights[inside]
        rows.append(reduce(values[:, inside], weights / weights.sum()))
    return torch.stack(rows, 1)
