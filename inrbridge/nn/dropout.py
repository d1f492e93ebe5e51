"""Floor 5: dropout of values, of channels, and of quadrature points (Wang & Golland 2023, appendix C, "Dropout layer").

What is dropped is drawn from the generator that the layer was given, never from the global seed: runs resume exactly.
All three do nothing in evaluation.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError
from inrbridge.nn.sampled import Sampled


class Dropout(nn.Module):
    """Set values to zero with probability p and divide the others by 1 - p.

    Args:
        p: 0 <= p < 1.
        channels: drop whole channels of a field instead of single values.
        generator: where the choice comes from; it may be set later, for all layers of a net, by `use_generator`.
    """

    def __init__(self, p: float = 0.5, channels: bool = False, *, generator: torch.Generator | None = None):
        super().__init__()
        self.p, self.channels, self.generator = _checked(p), channels, generator

    def forward(self, sampled: Sampled) -> Sampled:
        if not self.training or self.p == 0:
            return sampled
        values = sampled.values
        b, n, c = values.shape
        kept = _uniform((b, 1 if self.channels else n, c), self).to(values.device) >= self.p
        return sampled.with_values(values * (kept.to(values.dtype) / (1 - self.p)))

    def extra_repr(self):
        return f"{self.p}, channels={self.channels}"


class PointDropout(nn.Module):
    """Keep about (1 - p) n of the points; those kept are reweighted, so that integrals stay unbiased.

    A point is kept with probability min(1, t w_j) by systematic sampling in random order and then weighs
    w_j / probability. The number of points is the same in every draw, the weights always sum to the measure, equal weights
    stay equal, and the expectation of sum_j w_j f_j over draws is the sum over all points. Later layers do less work,
    but on points that are new in every step, so that their geometry cannot be kept.

    Args: as of Dropout.
    """

    def __init__(self, p: float = 0.5, *, generator: torch.Generator | None = None):
        super().__init__()
        self.p, self.generator = _checked(p), generator

    def forward(self, sampled: Sampled) -> Sampled:
        n = len(sampled.discretization)
        wanted = max(1, round(n * (1 - self.p)))
        if not self.training or wanted == n:
            return sampled
        weights = sampled.discretization.weights.detach().to("cpu", torch.float64)
        chance = _inclusion(weights, wanted)
        order = torch.argsort(_uniform((n,), self, torch.float64).cpu())  # a random permutation
        start = _uniform((1,), self, torch.float64).cpu()
        steps = torch.cat([start, chance[order].cumsum(0) + start]).floor()
        kept = order[steps[1:] > steps[:-1]].sort().values
        reweighted = (weights / chance)[kept]
        return Sampled(_subset(sampled.discretization, kept, reweighted), sampled.values[:, kept.to(sampled.values.device)])

    def extra_repr(self):
        return f"{self.p}"


def use_generator(net: nn.Module, generator: torch.Generator) -> None:
    """Give every dropout layer of a net the generator to draw from."""
    for layer in net.modules():
        if isinstance(layer, Dropout | PointDropout):
            layer.generator = generator


def _checked(p: float) -> float:
    if not 0 <= p < 1:
        raise ConfigError(f"Got a dropout probability of {p}, expected 0 <= p < 1; p = 0 turns dropout off.")
    return float(p)


def _uniform(shape: tuple[int, ...], layer: Dropout | PointDropout, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from U[0, 1) where the generator lives, so that one seed drops the same values whatever the device of the net."""
    generator = layer.generator
    if generator is None:
        raise ConfigError(
            f"Got {type(layer).__name__} in training without a generator, expected one to draw from; call "
            "inrbridge.nn.use_generator(net, torch.Generator().manual_seed(0)) once, or net.eval()."
        )
    return torch.rand(shape, generator=generator, device=generator.device, dtype=dtype)


def _inclusion(weights: Tensor, wanted: int) -> Tensor:
    """Return probabilities (n,), in proportion to the weights where that is below 1, that sum to `wanted`."""
    chance = torch.zeros_like(weights)
    sure = torch.zeros_like(weights, dtype=torch.bool)
    while True:
        chance = torch.where(sure, 1.0, weights * ((wanted - sure.sum()) / weights[~sure].sum()))
        over = ~sure & (chance >= 1)
        if not bool(over.any()):
            return chance
        sure |= over


def _subset(discretization: Discretization, kept: Tensor, weights: Tensor) -> Discretization:
    weights = weights * (discretization.domain.measure / weights.sum())
    return replace(
        discretization,
        points=discretization.points[kept.to(discretization.points.device)],
        weights=weights.to(discretization.weights),
        structure=None,
        extend_to=None,
        finer=None,
        cache={},
    )
