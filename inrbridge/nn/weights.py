"""Floor 5: quadrature weights as the layers that integrate need them."""

from __future__ import annotations

import torch
from torch import Tensor

from inrbridge.discretization import Discretization, derived
from inrbridge.nn.sampled import Sampled


def promoted(sampled: Sampled) -> tuple[Tensor, Tensor]:
    """Return values (b, n, c) and weights (n,) that sum to 1, at least in float32: half precision is too short for sums."""
    values = sampled.values.to(torch.promote_types(sampled.values.dtype, torch.float32))
    weights = sampled.discretization.weights.to(values)
    return values, weights / weights.sum()


@derived
def has_equal_weights(discretization: Discretization) -> bool:
    """Say whether all points weigh the same, up to rounding; looked up once."""
    weights = discretization.weights
    return bool(((weights - weights[0]).abs() <= 1e-6 * weights[0].abs()).all())
