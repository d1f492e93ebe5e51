"""Q23: dropping points leaves integrals unbiased, whatever the weights; so does dropping values."""

import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.nn import Dropout, GlobalIntegral, PointDropout, Sampled
from inrbridge.sampling import lattice


def weighted(weights):
    even = lattice(Box.unit(2), len(weights), dtype=torch.float64)
    return Discretization(even.points, weights * even.domain.measure / weights.sum(), even.domain)


def weight_sets():
    n = 32
    uneven = torch.linspace(0, 1, n, dtype=torch.float64) ** 3  # the largest exceed 1 / (n (1 - p)): kept in every draw
    equal = torch.ones(n, dtype=torch.float64)
    return {"equal": equal, "uneven": uneven, "one heavy": 0.01 + torch.diag(equal)[3]}


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", list(weight_sets()))
def test_integrals_over_the_points_left_are_unbiased(kind, p, generator):
    points = weighted(weight_sets()[kind])
    values = torch.stack([points.points[:, 0] ** 2, torch.ones(len(points), dtype=torch.float64), points.points[:, 1] - 3], 1)
    x = Sampled(points, values[None])
    layer, integral = PointDropout(p, generator=generator), GlobalIntegral()
    draws = torch.stack([integral(layer(x))[0] for _ in range(2000)])
    error = (draws.mean(0) - integral(x)[0]).abs()
    assert bool((error <= 3.5 * draws.std(0) / 2000**0.5 + 1e-12).all())
    torch.testing.assert_close(draws[:, 1], torch.ones(2000, dtype=torch.float64))


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_equal_weights_stay_equal_and_the_count_is_fixed(p, generator):
    points = lattice(Box.unit(2), 64, dtype=torch.float64)
    x = Sampled(points, points.points[None])
    layer = PointDropout(p, generator=generator)
    kept = torch.zeros(64)
    for _ in range(200):
        out = layer(x)
        assert len(out.discretization) == round(64 * (1 - p))
        assert torch.equal(out.values[0], out.discretization.points)  # values stay with their points
        torch.testing.assert_close(out.discretization.weights, torch.full_like(out.discretization.weights, 1 / (64 * (1 - p))))
        kept += (out.discretization.points[:, None] == points.points[None]).all(-1).any(0)
    assert bool(((kept / 200 - (1 - p)).abs() < 4.5 * (p * (1 - p) / 200) ** 0.5).all())


@pytest.mark.parametrize("channels", [False, True])
def test_dropped_values_are_unbiased(channels, generator):
    points = lattice(Box.unit(2), 16, dtype=torch.float64)
    x = Sampled(points, 1 + torch.rand(3, 16, 4, generator=generator, dtype=torch.float64))
    layer = Dropout(0.3, channels=channels, generator=generator)
    draws = torch.stack([layer(x).values for _ in range(3000)])
    deviation = draws.std(0) / 3000**0.5
    assert bool(((draws.mean(0) - x.values).abs() <= 4.5 * deviation).all())
    ratio = draws / x.values
    assert bool(((ratio == 0) | ((ratio - 1 / 0.7).abs() < 1e-12)).all())
    whole = ((ratio > 0) == (ratio > 0)[:, :, :1]).all()
    assert bool(whole) == channels
