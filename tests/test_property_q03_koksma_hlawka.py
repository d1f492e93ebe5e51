"""Law Q3: |Q_N - I| <= V(f) D*(X) for every point set (Koksma-Hlawka; Wang & Golland 2023, equations 8 to 10)."""

import math

import pytest
import torch
from reference_discrepancy import star_discrepancy_1d, star_discrepancy_2d

from inrbridge.domains import Box
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
            assert error <= variation * star_discrepancy_1d(x.points[:, 0]) + 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", SQUARE)
def test_the_error_on_the_square_is_at_most_variation_times_discrepancy(name, sampler):
    function, truth, variation = SQUARE[name]
    field = FunctionField(function, Box.unit(2), 1)
    results = []
    for n in (4, 16):
        x = draw(sampler, 2, n, seed=n)
        value, discrepancy = integrate(field, discretization=x).item(), star_discrepancy_2d(x.points)
        assert abs(value - truth) <= variation * discrepancy + 1e-12
        results.append((value, discrepancy))
    (h_x, d_x), (h_y, d_y) = results  # so two discretizations differ by at most V (D(X) + D(Y))
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


def test_low_discrepancy_is_what_the_samplers_are_named_for():
    low = {name: star_discrepancy_2d(draw(name, 2, 64, 0).points) for name in ("lattice", "sobol", "halton")}
    high = {name: star_discrepancy_2d(draw(name, 2, 64, 0).points) for name in ("uniform", "shrunk")}
    assert max(low.values()) < min(high.values())
