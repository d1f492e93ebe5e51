"""Floor 5: layers in a row, and blocks that add their input to their output."""

from __future__ import annotations

import torch
from torch import nn

from inrbridge.errors import ShapeMismatch
from inrbridge.nn.resample import Downsample
from inrbridge.nn.sampled import Sampled


class Sequential(nn.Sequential):
    """Apply layers one after the other; parameters are named by position, as in torch.nn.Sequential.

    The last layers may leave the domain: `Sequential(Conv(..), GlobalIntegral(), torch.nn.Linear(..))` returns a tensor.
    """

    def forward(self, sampled: Sampled):
        for layer in self:
            sampled = layer(sampled)
        return sampled


class Residual(nn.Module):
    """Return x + F(x), F being layers in a row.

    Args:
        layers: F.
        stride: what F divides the points by, in each axis; the input is then thinned to the same points.
        shortcut: layer S for S(x) + F(x), where F changes the channels, for instance
            Sequential(Downsample(2), Linear(16, 32)); it does its own thinning.
    """

    def __init__(self, *layers: nn.Module, shortcut: nn.Module | None = None, stride: int = 1):
        super().__init__()
        self.body = Sequential(*layers)
        self.shortcut = shortcut if shortcut is not None else Downsample(stride) if stride > 1 else nn.Identity()

    def forward(self, sampled: Sampled) -> Sampled:
        return add(self.shortcut(sampled), self.body(sampled))


def add(a: Sampled, b: Sampled) -> Sampled:
    """Return a + b, refusing values that lie on different points or differ in channels."""
    _check_aligned(a, b)
    if a.values.shape != b.values.shape:
        raise ShapeMismatch(
            f"Got values {tuple(a.values.shape)} and {tuple(b.values.shape)} to add, expected equal shapes; "
            "give the residual block a `shortcut` that brings its input to the channels of its output."
        )
    return b.with_values(a.values + b.values)


def concat(a: Sampled, b: Sampled) -> Sampled:
    """Return the channels of a, then those of b, refusing values that lie on different points: a skip connection."""
    _check_aligned(a, b)
    return b.with_values(torch.cat([a.values, b.values], dim=2))


def _check_aligned(a: Sampled, b: Sampled) -> None:
    first, second = a.discretization, b.discretization
    if first is second:
        return
    if first.points.shape != second.points.shape or not bool((first.points == second.points).all()):
        raise ShapeMismatch(
            f"Got values on {len(first)} and on {len(second)} other points to join, expected one discretization; "
            "state the `stride` of a residual block, or give it a `shortcut` that ends on the same points."
        )
