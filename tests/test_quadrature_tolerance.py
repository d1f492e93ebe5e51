"""integrate(tol=): a value with a bound, on every domain; failures are said, bad input refused."""

import math

import numpy as np
import pytest
import torch
from reference_fields import SineField

from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, Weighted
from inrbridge.domains.atlases import stereographic_sphere
from inrbridge.errors import ConfigError, NotConverged, NotFinite, OutsideDomain
from inrbridge.field import FunctionField
from inrbridge.quadrature import Integral, integrate, pullback

SQUARE = Box.centered(2)


def field(function, domain=SQUARE, channels=1):
    return FunctionField(function, domain, channels)


ON_DOMAINS = {
    "box": (Box((0, 1), (2, 3)), lambda x: x.exp().prod(-1, keepdim=True), (math.e**2 - 1) * (math.e**3 - math.e)),
    "interval ball": (Ball((1.0,), 2.0), lambda x: x**2, 28 / 3),
    "disc": (Ball((0.0, 0.0)), lambda x: x[..., :1] ** 2 + x[..., 1:], math.pi / 4),
    "ball": (Ball((0.0, 0.0, 0.0)), lambda x: x.square().sum(-1, keepdim=True), 4 * math.pi / 5),
    "sphere": (Sphere(2.0), lambda x: x[..., 2:] ** 2 + x[..., :1], 16 * math.pi * 4 / 3),
    "torus": (Torus((2 * math.pi,) * 2), lambda x: x.sin().prod(-1, keepdim=True) ** 2, math.pi**2),
    "sphere of two charts": (stereographic_sphere(), lambda x: x[..., 2:] ** 2 + x[..., :1], 4 * math.pi / 3),
    "density": (Weighted(Box.unit(2), lambda x: 2 * x[..., 0]), lambda x: x[..., :1] * x[..., 1:], 1 / 3),
    "product": (Product(Box.unit(1), Sphere()), lambda x: x[..., :1] * x[..., 3:] ** 2, 2 * math.pi / 3),
}


@pytest.mark.parametrize("name", ON_DOMAINS)
def test_the_bound_holds_on_every_domain(name):
    domain, function, truth = ON_DOMAINS[name]
    tol = 1e-2 if name == "sphere of two charts" else 1e-4
    found = integrate(field(function, domain), tol=tol)
    assert found.converged and float(found.bound) <= tol and abs(float(found.value) - truth) <= float(found.bound)


def test_kinks_of_the_maps_cost_little():
    # r = u^(1/2) bends at the centre without end; only boxes that touch it are cut, and only across the radius
    found = integrate(field(lambda x: x[..., :1] ** 2, Ball((0.0, 0.0))), tol=1e-8, max_evaluations=200_000)
    assert found.converged and abs(float(found.value) - math.pi / 4) < 1e-8


def test_every_channel_has_its_own_bound():
    waves = field(
        lambda x: torch.cat([x[..., :1] ** 2, (40 * x[..., :1]).sin().abs(), torch.ones_like(x[..., :1])], -1), channels=3
    )
    found = integrate(waves, tol=1e-5)
    bumps = 40 / math.pi  # |sin| over [-40, 40] has whole half waves and a rest
    rest = 40 - math.pi * math.floor(bumps)
    truth = torch.tensor([4 / 3, 4 * (2 * math.floor(bumps) + 1 - math.cos(rest)) / 40, 4.0], dtype=torch.float64)
    assert found.converged and found.value.shape == found.bound.shape == (3,)
    assert bool(((found.value - truth).abs() <= found.bound).all())
    assert float(found.bound[2]) < 1e-12 < float(found.bound[1])


def test_polynomials_of_the_degree_of_the_rule_are_exact_at_once():
    line = integrate(field(lambda x: x**30, Box.unit(1)), tol=1e-6)
    assert float(line.value) == pytest.approx(1 / 31, abs=1e-15)
    plane = integrate(field(lambda x: x[..., :1] ** 2 * x[..., 1:] ** 4, Box.unit(2)), tol=1e-2)
    assert float(plane.value) == pytest.approx(1 / 15, abs=1e-15) and plane.evaluations == 16 * 21


def test_the_tolerance_may_be_relative():
    big = field(lambda x: 1e6 * x.exp().prod(-1, keepdim=True))
    found = integrate(big, tol=0.0, rtol=1e-4)
    truth = 1e6 * (math.e - 1 / math.e) ** 2
    assert found.converged and abs(float(found.value) - truth) <= float(found.bound) <= 1e-4 * truth * (1 + 1e-6)
    assert integrate(big, tol=1.0).evaluations > found.evaluations


@pytest.mark.parametrize(
    ("region", "truth"),
    [
        (Region(SQUARE, lambda x: x.norm(dim=-1) < 0.8, math.pi * 0.64), 0.64 * math.pi + 0.64**2 * math.pi / 4),
        (Region(SQUARE, np.array([[True, False], [True, True]])), 3 + 1.0),
        (Region.polygon([(0, 0), (1, 0), (0, 1)]), 1 / 2 + 1 / 12),
    ],
    ids=["disc", "mask", "polygon"],
)
def test_regions_are_jumps_and_their_measure_is_not_trusted(region, truth):
    def function(x):
        assert bool(region.contains(x).all())  # never asked outside
        return 1 + x[..., :1] ** 2

    found = integrate(field(function, region), tol=2e-2)
    assert found.converged and abs(float(found.value) - truth) <= float(found.bound)
    wrong = Region(region.domain, region.indicator, 1.0)  # a measure that is not the region's
    assert float(integrate(field(function, wrong), tol=2e-2).value) == pytest.approx(float(found.value))


def test_a_budget_that_does_not_suffice_is_said():
    step = field(lambda x: (x.norm(dim=-1, keepdim=True) < 0.7).to(x))
    with pytest.warns(NotConverged, match="2000 evaluations were not enough"):
        found = integrate(step, tol=1e-6, max_evaluations=2000)
    assert not found.converged and found.evaluations <= 2000
    assert 1e-6 < abs(float(found.value) - math.pi * 0.49) <= float(found.bound)
    assert "not converged" in repr(found)


def test_a_tolerance_below_rounding_is_said_and_does_not_spend_the_budget():
    with pytest.warns(NotConverged, match="rounding"):
        found = integrate(field(lambda x: 1e3 * x.exp(), Box.unit(1)), tol=1e-14)
    assert found.evaluations < 10_000 and abs(float(found.value) - 1e3 * (math.e - 1)) <= float(found.bound)


def test_a_share_of_an_integral_that_vanishes_cannot_be_met():
    with pytest.warns(NotConverged):
        found = integrate(field(lambda x: x[..., :1] ** 3 * (1 + x[..., 1:] ** 8)), tol=0.0, rtol=1e-3, max_evaluations=50_000)
    assert abs(float(found.value)) <= float(found.bound) < 1e-3
    assert integrate(field(lambda x: 0 * x[..., :1]), tol=0.0, rtol=1e-3).converged  # nothing to err about


def test_many_dimensions_are_integrated_by_independent_randomizations():
    box = Box.unit(8)
    smooth = field(lambda x: (1 + (x - 0.5) / 4).prod(-1, keepdim=True), box)
    found = integrate(smooth, tol=1e-3, generator=torch.Generator().manual_seed(1))
    assert found.converged and abs(float(found.value) - 1) <= float(found.bound) <= 1e-3
    again = integrate(smooth, tol=1e-3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.value, found.value) and again.evaluations == found.evaluations
    with pytest.warns(NotConverged, match="evaluations were not enough"):
        integrate(smooth, tol=1e-9, max_evaluations=10_000)


def test_the_randomized_bound_covers_jumps_in_few_evaluations():
    covered = 0
    for seed in range(12):
        disc = field(lambda x: (x.norm(dim=-1, keepdim=True) < 0.7).to(x))
        found = integrate(disc, tol=1e-2, method="randomized", generator=torch.Generator().manual_seed(seed))
        covered += abs(float(found.value) - math.pi * 0.49) <= float(found.bound)
        assert found.converged and found.evaluations < 100_000
    assert covered == 12


@pytest.mark.parametrize("method", ["adaptive", "randomized"])
def test_gradients_flow_to_the_fields_parameters(method):
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    found = integrate(field(lambda x: (a * x[..., :1]).exp()), tol=1e-5, method=method)
    (slope,) = torch.autograd.grad(found.value.sum(), a)
    # 2 int e^(a x) over [-1, 1] = 4 sinh(a) / a
    assert float(slope) == pytest.approx(4 * (math.cosh(2) / 2 - math.sinh(2) / 4), rel=1e-4)
    with torch.no_grad():
        assert not integrate(field(lambda x: (a * x[..., :1]).exp()), tol=1e-3, method=method).value.requires_grad


def test_a_network_is_integrated_to_the_tolerance():
    net = SineField(seed=3)
    found = integrate(net, tol=1e-6)
    finer = integrate(net, tol=1e-9)
    assert found.converged and finer.converged and finer.evaluations > found.evaluations
    assert abs(float((found.value - finer.value).detach())) <= float(found.bound)


def test_a_network_in_single_precision(generator):
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, -1, 1, generator=generator)
    with torch.no_grad():
        with pytest.raises(ConfigError, match=r"pass dtype=torch\.float32"):
            integrate(field(net), tol=1e-4)
        single = integrate(field(net), tol=1e-4, dtype=torch.float32)
        with pytest.warns(NotConverged):
            finest = integrate(field(net), tol=1e-9, dtype=torch.float32, max_evaluations=200_000)
        truth = integrate(field(net.double()), tol=1e-9)
    assert single.converged and truth.converged and single.value.dtype == torch.float64
    for found in (single, finest):
        assert abs(float(found.value - truth.value)) <= float(found.bound)


def test_blocks_of_points_do_not_change_the_result(monkeypatch):
    f = field(lambda x: torch.cos(9 * x[..., :1] * x[..., 1:]))
    whole = integrate(f, tol=1e-4)
    monkeypatch.setattr(pullback, "CHUNK", 999)
    monkeypatch.setattr("inrbridge.quadrature.adaptive.CHUNK", 999)
    parts = integrate(f, tol=1e-4)
    assert parts.evaluations == whole.evaluations
    torch.testing.assert_close(parts.value, whole.value)


def test_all_boxes_of_a_round_are_one_question_to_the_field():
    asked = []

    def counted(x):
        asked.append(len(x))
        return torch.cos(30 * x[..., :1] * x[..., 1:])

    with torch.no_grad():
        found = integrate(field(counted), tol=1e-5)
    assert found.evaluations == sum(asked) and len(asked) < 30 < 1000 < found.evaluations / 21


def test_answers_and_arguments_are_checked():
    f = field(lambda x: x[..., :1])
    with pytest.raises(ConfigError, match="together with n, sampler"):
        integrate(f, tol=1e-3, n=100)
    with pytest.raises(ConfigError, match="without tol"):
        integrate(f, rtol=1e-3)
    for tol in (-1.0, 0.0, "1e-3"):
        with pytest.raises(ConfigError, match="numbers of at least 0"):
            integrate(f, tol=tol)
    with pytest.raises(ConfigError, match='"adaptive" or "randomized"'):
        integrate(f, tol=1e-3, method="exact")
    with pytest.raises(ConfigError, match="at most 6"):
        integrate(field(lambda x: x[..., :1], Box.unit(7)), tol=1e-3, method="adaptive")
    with pytest.raises(OutsideDomain):
        integrate(f, Box.centered(2, 2.0), tol=1e-3)
    with pytest.raises(NotFinite):
        integrate(field(lambda x: x[..., :1].log()), tol=1e-3)
    assert isinstance(integrate(f, tol=1e-3), Integral)
