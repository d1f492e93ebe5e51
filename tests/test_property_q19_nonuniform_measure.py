"""Law Q19, the integrals' part: weights make clustered points converge to the *same* integral (appendices A and E.1).

Unweighted, shrunk points converge too, but to the integral over the density of the points: the negative control.
"""

import math

import pytest
import torch

from inrbridge.domains import Ball, Box, Region, Sphere
from inrbridge.field import FunctionField
from inrbridge.quadrature import integrate
from inrbridge.sampling import importance, points, shrunk, sobol

SQUARE = Box.centered(2)


def bump(x):
    return torch.exp(x[..., :1] - 2 * x.square().sum(-1, keepdim=True))


def relative_error(x, field):
    truth = integrate(field, sampler="sobol", n=2**16).item()
    return abs(integrate(field, discretization=x).item() / truth - 1)


@pytest.mark.parametrize("weights", ["density", "voronoi"])
@pytest.mark.parametrize(
    "domain",
    [SQUARE, Ball((0.0, 0.0)), Sphere(), Region(SQUARE, lambda x: x[..., 0] < x[..., 1])],
    ids=lambda d: type(d).__name__,
)
def test_weighted_shrunk_points_converge_to_the_same_integral(domain, weights):
    field = FunctionField(bump, domain, 1)
    errors = [relative_error(shrunk(domain, n, weights=weights, dtype=torch.float64), field) for n in (64, 512, 4096)]
    assert errors[-1] < 4e-3 and errors[-1] < errors[0] / 4


def test_negative_control_unweighted_shrunk_points_converge_elsewhere():
    field = FunctionField(bump, SQUARE, 1)
    errors = [relative_error(shrunk(SQUARE, n), field) for n in (512, 4096, 16384)]
    assert min(errors) > 0.3
    # their limit: t -> t^2 sgn(t) has density 1 / (4 sqrt(|x| |y|)) on the square
    clustered = FunctionField(lambda x: bump(x * x.abs()), SQUARE, 1)
    assert integrate(field, discretization=shrunk(SQUARE, 16384)).item() == pytest.approx(
        integrate(clustered, sampler="sobol", n=16384).item(), rel=1e-4
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_importance_points_converge_to_the_same_integral(seed):
    density = FunctionField(lambda x: 0.1 + torch.exp(-10 * (x - 0.4).square().sum(-1, keepdim=True)), SQUARE, 1)
    field = FunctionField(bump, SQUARE, 1)
    errors = []
    for n in (256, 16384):
        x = importance(SQUARE, n, torch.Generator().manual_seed(seed), density=density)
        errors.append(relative_error(x, field))
        assert float((x.points - 0.4).norm(dim=1).lt(0.4).double().mean()) > 0.25  # of the area: 0.13
    assert errors[-1] < 0.01


def test_importance_pays_where_the_field_follows_the_density():
    peak = FunctionField(lambda x: torch.exp(-200 * (x - 0.3).square().sum(-1, keepdim=True)), SQUARE, 1)
    truth = math.pi / 200
    rms = {}
    for name, options in (("uniform", {}), ("importance", {"density": peak, "floor": 0.2})):
        errors = []
        for seed in range(16):
            generator = torch.Generator().manual_seed(seed)
            x = importance(SQUARE, 512, generator, **options) if options else None
            found = integrate(peak, n=512, sampler=name, generator=generator) if x is None else integrate(peak, discretization=x)
            errors.append(found.item() / truth - 1)
        rms[name] = torch.tensor(errors).square().mean().sqrt()
    assert rms["importance"] < rms["uniform"] / 2


def test_voronoi_weights_mend_points_that_somebody_else_chose():
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(4000, 2, generator=generator) ** 2 * 2 - 1  # crowded in one corner
    field = FunctionField(bump, SQUARE, 1)
    assert relative_error(points(SQUARE, coords), field) > 0.1
    assert relative_error(points(SQUARE, coords, weights="voronoi"), field) < 0.01


def test_weighted_shrunk_points_and_even_points_agree_on_every_moment():
    x, even = shrunk(SQUARE, 2**14, weights="density", dtype=torch.float64), sobol(SQUARE, 2**14, dtype=torch.float64)
    for power in range(5):
        moments = [(d.weights @ d.points**power) for d in (x, even)]
        torch.testing.assert_close(moments[0], moments[1], atol=5e-3, rtol=0)
