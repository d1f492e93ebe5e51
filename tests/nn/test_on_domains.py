"""Norms, integrals, tokens and attention on every kind of domain: where the weights are right, crowded points change nothing.

One test, many layers: what each makes of fixed places, its integrals taken over even points and over points that crowd, agrees;
with the crowd's weights forgotten it does not (the negative control).
"""

import pytest
import torch
from reference_rules import DOUBLE, crowded, equally_weighted

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, Weighted
from inrbridge.nn import (
    AdaptiveInstanceNorm,
    BatchNorm,
    ChannelAttention,
    GlobalIntegral,
    GroupNorm,
    InnerProduct,
    InstanceNorm,
    LayerNorm,
    Modulate,
    PointAttention,
    PositionalEncoding,
    Sampled,
    Sequential,
    Tokenize,
    TransformerBlock,
    parametric,
)
from inrbridge.sampling import sobol

HALF = Region(Box.centered(2), lambda x: x[..., 0] + x[..., 1] < 0.4, measure=4 - 1.6**2 / 2)
DOMAINS = {
    "interval": Box.centered(1),
    "box": Box((0.0, 1.0), (2.0, 2.0)),
    "space": Box.centered(3),
    "disc": Ball((1.0, 0.0), 2.0),
    "ball": Ball((0.0,) * 3, 1.0),
    "sphere": Sphere(),
    "torus": Torus((1.0, 2.0)),
    "product": Product(Box.unit(1), Sphere()),
    "region": HALF,
    "part of a sphere": Region(Sphere(), lambda x: x[..., 2] < 0.5, measure=3 * torch.pi),
    "weighted": Weighted(Box.unit(2), lambda x: 0.5 + x[..., 0]),
}
LAYERS = {
    "BatchNorm": lambda domain, g: BatchNorm(4),
    "InstanceNorm": lambda domain, g: InstanceNorm(4),
    "GroupNorm": lambda domain, g: GroupNorm(2, 4),
    "LayerNorm": lambda domain, g: LayerNorm(4, over="all"),
    "AdaptiveInstanceNorm": lambda domain, g: _Itself(AdaptiveInstanceNorm(4)),
    "GlobalIntegral": lambda domain, g: GlobalIntegral(),
    "InnerProduct": lambda domain, g: InnerProduct(4, parametric(domain, 12, degree=2, generator=g)),
    "InnerProduct, MLP": lambda domain, g: InnerProduct(4, parametric(domain, 12, hidden=(8,), generator=g)),
    "Modulate": lambda domain, g: Sequential(Modulate(parametric(domain, 4, degree=2, generator=g)), GlobalIntegral()),
    "Tokenize": lambda domain, g: Tokenize(4, 5, 2, degree=1, dim=domain.unit_dim, generator=g),
    "ChannelAttention": lambda domain, g: ChannelAttention(4, 3, domain, degree=2, generator=g),
    "PointAttention": lambda domain, g: PointAttention(4, 2, generator=g),
    "vision transformer": lambda domain, g: Sequential(
        Tokenize(4, 8, 2, degree=1, dim=domain.unit_dim, generator=g), PositionalEncoding(), TransformerBlock(8, 2, generator=g)
    ),
    "TransformerBlock": lambda domain, g: TransformerBlock(4, 2, generator=g),
}
SEEN = 16


class _Itself(torch.nn.Module):
    """Another field's style, that field being the square of this one."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, sampled):
        return self.layer(sampled, sampled.with_values(sampled.values**2))


def fields(x):
    a, b = x[:, 0], x.sum(1)
    first = torch.stack([torch.sin(b), torch.exp(-a), torch.cos(3 * a - b), a], 1)
    return torch.stack([first, first.flip(1) ** 2 - 0.5])


def even(domain, n):
    return sobol(domain, n, torch.Generator().manual_seed(3), dtype=DOUBLE)


def crowd(domain, n):
    """Points that crowd in the unit cube behind the domain, those of a region being kept."""
    envelope = domain.envelope
    points = crowded(envelope, n, power=1.5)
    kept = domain.contains(points.points)
    weights = points.weights[kept]
    density = domain.weigh(points.points[kept])
    if density is not None:
        weights = weights * density
    return Discretization(points.points[kept], weights * (domain.measure / weights.sum()), domain)


def at_places(layer, points):
    """Output at places of no weight, the same for all points; of a layer that leaves the domain, the whole output."""
    places = even(points.domain, SEEN).points
    joined = Discretization(
        torch.cat([places, points.points]), torch.cat([torch.zeros(SEEN, dtype=DOUBLE), points.weights]), points.domain
    )
    out = layer(Sampled(joined, fields(joined.points)))
    if not isinstance(out, Sampled):
        return out
    assert out.discretization.domain == points.domain
    return out.values[:, :SEEN]


@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.parametrize("domain", list(DOMAINS.values()), ids=list(DOMAINS))
@torch.no_grad()
def test_integrals_follow_the_weights(domain, name):
    layer = LAYERS[name](domain, torch.Generator().manual_seed(0)).double()
    truth = at_places(layer, even(domain, 1024))
    points = crowd(domain, 1024)
    scale = truth.abs().max()
    right = (at_places(layer, points) - truth).abs().max() / scale
    wrong = (at_places(layer, equally_weighted(points)) - truth).abs().max() / scale
    assert right < (0.15 if name in ("Tokenize", "vision transformer") else 0.05), (right, wrong)  # regions end with a jump
    assert wrong > 2 * right, (right, wrong)


@pytest.mark.parametrize("name", ["BatchNorm", "InstanceNorm", "GroupNorm", "LayerNorm"])
@pytest.mark.parametrize("domain", list(DOMAINS.values()), ids=list(DOMAINS))
@torch.no_grad()
def test_norms_leave_mean_0_and_deviation_1_under_the_weights(domain, name):
    points = crowd(domain, 500)
    sampled = Sampled(points, fields(points.points))
    out = LAYERS[name](domain, None).double()(sampled)
    mean = out.weights @ out.values
    square = out.weights @ out.values**2
    if name == "BatchNorm":
        mean, square = mean.mean(0), square.mean(0)
    if name == "GroupNorm":
        mean, square = mean.view(2, 2, 2).mean(2), square.view(2, 2, 2).mean(2)
    if name == "LayerNorm":
        mean, square = mean.mean(1), square.mean(1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-10)
    torch.testing.assert_close(square, torch.ones_like(square), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", list(LAYERS))
@torch.no_grad()
def test_half_precision(name):
    """The dtype follows the values; what is summed over points is summed in single precision."""
    layer = LAYERS[name](Sphere(), torch.Generator().manual_seed(0))
    points = crowd(Sphere(), 300).to(torch.float32)
    values = fields(points.points)
    expected = layer(Sampled(points, values))
    found = layer.bfloat16()(Sampled(points, values.bfloat16()))
    expected, found = (out.values if isinstance(out, Sampled) else out for out in (expected, found))
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
