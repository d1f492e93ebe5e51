"""Law Q3: |Q_N - I| <= V(f) D*(X) for every point set (Koksma-Hlawka; Wang & Golland 2023, equations 8 to 10)."""

import itertools
import math

import pytest
import torch
from reference_discrepancy import star_discrepancy_1d, star_discrepancy_2d

from inrbridge import discrepancy
from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Sphere, Torus
from inrbridge.field import FunctionField
from inrbridge.quadrature import integrate
from inrbridge.sampling import get_sampler

SAMPLERS = ["lattice", "sobol", "halton", "uniform", "grid", "shrunk"]

# On the interval: name -> (f, integral, total variation int |f'|)
INTERVAL = {
    "linear": (lambda x: x, 0.5, 1.0),
    "sine": (lambda x: (2 * math.pi * x).sin(), 0.0, 4.0),
    "peak": (lambda x: 1 / (1 + 100 * (x - 0.3) ** 2), (math.atan(7) + math.atan(3)) / 10, 2 - 1 / 10 - 1 / 50),
    "step": (lambda x: (x < 0.37).to(x), 0.37, 1.0),
}

# On the square, products g(x) h(y) of monotone functions: V_HK = |g||h| + |g| h(1) + g(1) |h|, with |g| the
# variation of g: the mixed term and the two edges anchored at (1, 1).
SQUARE = {
    "exp": (lambda x: x.exp().prod(-1, keepdim=True), (math.e - 1) ** 2, (math.e - 1) ** 2 + 2 * (math.e - 1) * math.e),
    "x y^2": (lambda x: x[..., :1] * x[..., 1:] ** 2, 1 / 6, 3.0),
}


def draw(sampler, dim, n, seed):
    return get_sampler(sampler)(Box.unit(dim), n, torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", INTERVAL)
def test_the_error_on_the_interval_is_at_most_variation_times_discrepancy(name, sampler):
    function, truth, variation = INTERVAL[name]
    field = FunctionField(function, Box.unit(1), 1)
    for n in (1, 7, 64, 1000):
        for seed in range(4):
            x = draw(sampler, 1, n, seed)
            error = abs(integrate(field, discretization=x).item() - truth)
            assert error <= variation * discrepancy.of(x) + 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", SQUARE)
def test_the_error_on_the_square_is_at_most_variation_times_discrepancy(name, sampler):
    function, truth, variation = SQUARE[name]
    field = FunctionField(function, Box.unit(2), 1)
    results = []
    for n in (4, 16, 64, 1024):
        x = draw(sampler, 2, n, seed=n)
        value, distance = integrate(field, discretization=x).item(), discrepancy.of(x)
        assert abs(value - truth) <= variation * distance + 1e-12
        results.append((value, distance))
    for (h_x, d_x), (h_y, d_y) in itertools.combinations(results, 2):  # so two discretizations differ by at most V (D(X) + D(Y))
        assert abs(h_x - h_y) <= variation * (d_x + d_y) + 1e-12


def test_the_slow_twins_agree_with_known_discrepancies():
    middles = (torch.arange(8) + 0.5) / 8
    assert star_discrepancy_1d(middles) == pytest.approx(1 / 16)  # the least possible of 8 points
    assert star_discrepancy_1d(torch.tensor([0.0])) == 1.0
    assert star_discrepancy_2d(torch.tensor([[1.0, 1.0]])) == 1.0
    assert star_discrepancy_2d(torch.tensor([[0.5, 0.5]])) == pytest.approx(0.75)
    # constant second coordinate 1: the boxes of full height reduce it to one dimension
    x = torch.rand(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    in_plane = torch.stack([x, torch.full_like(x, 1e-9)], dim=1)
    assert star_discrepancy_2d(in_plane) >= star_discrepancy_1d(x)
    for sampler in SAMPLERS:
        x = draw(sampler, 2, 25, 3).points
        assert discrepancy.star(x) == pytest.approx(star_discrepancy_2d(x), abs=1e-12)
        assert discrepancy.star(x[:, :1]) == pytest.approx(star_discrepancy_1d(x[:, 0]), abs=1e-12)


# On curved domains: the variation is that of the function pulled back to the cube (equations 13 and 14, one chart), the measure
# normalized. name -> (domain, f, mean, variation, equation 9 without its constant)
CURVED = {
    "height on the sphere": (Sphere(2.0), lambda x: x[..., 2:], 0.0, 4.0),  # 2 (1 - 2 u)
    "square of the height": (Sphere(), lambda x: x[..., 2:] ** 2, 1 / 3, 2.0),  # (1 - 2 u)^2 falls by 1, rises by 1
    "wave on the torus": (Torus((3.0, 1.0)), lambda x: (2 * math.pi * x[..., :1] / 3).cos(), 0.0, 4.0),
    "radius of a disc": (Ball((1.0, 0.0)), lambda x: (x[..., :1] - 1) ** 2 + x[..., 1:] ** 2, 1 / 2, 1.0),  # r^2 = u
}


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "halton", "uniform", "shrunk"])
@pytest.mark.parametrize("name", CURVED)
def test_the_error_on_a_curved_domain_is_at_most_the_variation_in_its_chart_times_discrepancy(name, sampler):
    domain, function, truth, variation = CURVED[name]
    field = FunctionField(function, domain, 1)
    for n in (8, 100, 500):
        x = get_sampler(sampler)(domain, n, torch.Generator().manual_seed(n), dtype=torch.float64)
        error = abs(float(integrate(field, discretization=x)) / domain.measure - truth)
        assert error <= variation * discrepancy.of(x) + 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_inequality_is_sharp(sampler):
    """The step at the worst box errs by V D: no smaller discrepancy, and no mean over boxes, would do."""
    x = draw(sampler, 1, 50, 1)
    share, distance = x.weights / x.weights.sum(), discrepancy.of(x)
    ends = x.points[:, 0]
    edges = torch.cat([ends, torch.nextafter(ends, torch.tensor(2.0, dtype=torch.float64))])
    errors = torch.stack([abs((share * (ends < edge)).sum() - edge) for edge in edges])
    assert float(errors.max()) == pytest.approx(distance, abs=1e-9)
    assert float(errors.max()) > 1.05 * discrepancy.of(x, "l2")


def test_the_discrepancy_of_other_points_or_without_the_weights_is_no_bound():
    """Negative controls."""
    function, truth, variation = INTERVAL["linear"]
    field = FunctionField(function, Box.unit(1), 1)
    even, random = draw("lattice", 1, 64, 0), draw("uniform", 1, 64, 3)
    assert abs(integrate(field, discretization=random).item() - truth) > variation * discrepancy.of(even)
    middles = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    squeezed = Discretization(middles[:, None] ** 2, 2 * middles / 64, Box.unit(1))  # the weights make up for the clusters
    plain = squeezed.points.mean().item()  # the mean over the points, clustered at 0
    assert abs(plain - truth) > variation * discrepancy.of(squeezed)
    assert abs(plain - truth) <= variation * discrepancy.star(squeezed.points)


def test_low_discrepancy_is_what_the_samplers_are_named_for():
    low = {name: discrepancy.of(draw(name, 2, 1024, 0)) for name in ("lattice", "sobol", "halton")}
    high = {name: discrepancy.star(draw(name, 2, 1024, 0).points) for name in ("uniform", "shrunk")}
    assert 2 * max(low.values()) < min(high.values())
