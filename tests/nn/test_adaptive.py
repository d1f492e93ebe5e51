"""Adaptive instance normalization gives the means and deviations that a vector or another field asks for."""

import pytest
import torch
from reference_rules import DOUBLE, crowded, equally_weighted, shuffled

from inrbridge.domains import Box, Sphere
from inrbridge.errors import ShapeMismatch
from inrbridge.nn import AdaptiveInstanceNorm, InstanceNorm, Sampled
from inrbridge.sampling import grid, sobol


def field(points, channels, generator, fields=2):
    waves = torch.randn(fields, points.points.shape[1], channels, generator=generator, dtype=DOUBLE)
    return Sampled(points, torch.sin(points.points @ waves) + torch.randn(fields, 1, channels, generator=generator, dtype=DOUBLE))


def moments(sampled):
    mean = sampled.weights @ sampled.values
    return mean, (sampled.weights @ (sampled.values - mean[:, None]) ** 2).sqrt()


def test_equals_eq_130(generator):
    layer = AdaptiveInstanceNorm(3, 5, generator=generator).double()
    sampled = field(crowded(Sphere(), 50), 3, generator)
    vector = torch.randn(2, 5, generator=generator, dtype=DOUBLE)
    scale, mean = (vector @ layer.style.weight.T + layer.style.bias).chunk(2, 1)
    mu, sigma = moments(sampled)
    expected = (sampled.values - mu[:, None]) / (sigma[:, None] ** 2 + 1e-5).sqrt() * (1 + scale[:, None]) + mean[:, None]
    out = layer(sampled, vector)
    torch.testing.assert_close(out.values, expected)
    assert out.discretization is sampled.discretization
    torch.testing.assert_close(layer(sampled.with_values(sampled.values[1:]), vector[1:]).values, expected[1:])
    points, order = shuffled(sampled.discretization)
    torch.testing.assert_close(layer(Sampled(points, sampled.values[:, order]), vector).values, expected[:, order])


def test_takes_the_style_of_another_field_on_other_points(generator):
    content, style = field(crowded(Sphere(), 60), 3, generator), field(sobol(Box.unit(2), 80, dtype=DOUBLE), 3, generator)
    for wanted in (style, style.with_values(style.values[:1])):  # one style for each field, or for all
        out = AdaptiveInstanceNorm(3, eps=0.0)(content, wanted)
        for found, expected in zip(moments(out), moments(wanted), strict=True):
            torch.testing.assert_close(found, expected.expand_as(found))
    assert not list(AdaptiveInstanceNorm(3).parameters())


def test_a_field_in_its_own_style_is_itself(generator):
    sampled = field(crowded(Sphere(), 60), 3, generator)
    torch.testing.assert_close(AdaptiveInstanceNorm(3)(sampled, sampled).values, sampled.values)


def test_equals_torch_on_a_grid(generator):
    points = grid(Box.unit(2), (6, 5), dtype=DOUBLE)
    content, style = field(points, 3, generator), field(points, 3, generator)
    image, other = (s.values.unflatten(1, (6, 5)).movedim(-1, 1) for s in (content, style))
    plain = torch.nn.functional.instance_norm(image)
    deviation = (other.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    expected = (plain * deviation + other.mean((2, 3), keepdim=True)).movedim(1, -1).flatten(1, 2)
    torch.testing.assert_close(AdaptiveInstanceNorm(3)(content, style).values, expected)


def test_weights_make_the_style_of_crowded_points_that_of_the_field():
    """Negative control: without weights, the crowd at one place decides the style."""

    def output(points):
        style = Sampled(points, points.points[None, :, :1] ** 2)
        return AdaptiveInstanceNorm(1)(content, style).values

    content = Sampled(even := sobol(Box.unit(2), 4096, dtype=DOUBLE), even.points[None, :, 1:])
    crowd = crowded(Box.unit(2), 4096)
    truth = output(even)
    assert (output(crowd) - truth).abs().max() < 1e-2
    assert (output(equally_weighted(crowd)) - truth).abs().max() > 0.1


@pytest.mark.parametrize("features", [None, 3])
def test_gradients(features, generator):
    layer = AdaptiveInstanceNorm(2, features, generator=generator).double()
    points = crowded(Sphere(), 5)
    values = field(points, 2, generator).values.requires_grad_()
    condition = torch.randn(2, 3, generator=generator, dtype=DOUBLE) if features else field(points, 2, generator).values
    condition.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v, c, *_: layer(Sampled(points, v), c if features else Sampled(points, c)).values,
        (values, condition, *layer.parameters()),
    )


def test_starts_near_instance_normalization(generator):
    layer = AdaptiveInstanceNorm(3, 4, generator=generator).double()
    sampled = field(crowded(Sphere(), 50), 3, generator)
    with torch.no_grad():
        layer.style.bias.zero_()
    none = layer(sampled, torch.zeros(2, 4, dtype=DOUBLE)).values
    torch.testing.assert_close(none, InstanceNorm(3)(sampled).values)


def test_errors(generator):
    sampled = field(crowded(Sphere(), 10), 3, generator)
    with pytest.raises(ShapeMismatch, match=r"expected vectors \(fields, 4\)"):
        AdaptiveInstanceNorm(3, 4).double()(sampled, torch.zeros(2, 5, dtype=DOUBLE))
    with pytest.raises(ShapeMismatch, match="Got a Sampled as the condition"):
        AdaptiveInstanceNorm(3, 4).double()(sampled, sampled)
    with pytest.raises(ShapeMismatch, match="Got a Tensor as the condition"):
        AdaptiveInstanceNorm(3)(sampled, torch.zeros(2, 4))
    with pytest.raises(ShapeMismatch, match="3 conditions for 2 fields"):
        AdaptiveInstanceNorm(3, 4).double()(sampled, torch.zeros(3, 4, dtype=DOUBLE))
    with pytest.raises(ShapeMismatch, match="in the style of"):
        AdaptiveInstanceNorm(3)(sampled, sampled.with_values(sampled.values[:, :, :2]))
    with pytest.raises(ShapeMismatch, match="Got 3 channels in AdaptiveInstanceNorm"):
        AdaptiveInstanceNorm(2)(sampled, sampled)
