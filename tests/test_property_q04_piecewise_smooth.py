"""Law Q4: Koksma-Hlawka for functions that jump at the border of a region (Wang & Golland 2023, equations 11 and 12).

|sum_j w_j f(x_j) 1_Omega(x_j) - int_Omega f| <= V(f) D(X), with V the sum of 2^(d - |a|) int |d^a f| over the whole square and D
2^d times the worst box of Omega.
"""

import math

import numpy as np
import pytest
import torch

from inrbridge import discrepancy
from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Region
from inrbridge.field import FunctionField
from inrbridge.quadrature import integrate
from inrbridge.sampling import get_sampler

BOX = Box.unit(2)
SAMPLERS = ["lattice", "sobol", "halton", "uniform", "grid", "shrunk"]
MASK = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=bool)
CENTER, RADIUS = (0.45, 0.55), 0.35

REGIONS = {
    "disc": Region(BOX, lambda x: (x - torch.tensor(CENTER).to(x)).norm(dim=-1) < RADIUS, math.pi * RADIUS**2),
    "triangle": Region.polygon([(0, 0), (1, 0), (0, 1)], domain=BOX),
    "mask": Region(BOX, MASK),
}


def over_cells(f):
    """Sum an integral over [x, x + 1/4] [y, y + 1/4] over the cells of the mask."""
    return sum(f(i / 4, j / 4) for i, j in np.argwhere(MASK))


# name -> (f, V of equation 11, integral over each region); V(xy^2) = 4/6 + 2/3 + 2/2 + 1, V(e^(x+y)) = 9 (e-1)^2
AREA = math.pi * RADIUS**2
FUNCTIONS = {
    "1": (lambda x: torch.ones_like(x[..., :1]), 4.0, {"disc": AREA, "triangle": 0.5, "mask": MASK.sum() / 16}),
    "x y^2": (
        lambda x: x[..., :1] * x[..., 1:] ** 2,
        10 / 3,
        {
            "disc": CENTER[0] * (CENTER[1] ** 2 * AREA + math.pi * RADIUS**4 / 4),
            "triangle": 1 / 60,
            "mask": over_cells(lambda x, y: ((x + 0.25) ** 2 - x**2) * ((y + 0.25) ** 3 - y**3) / 6),
        },
    ),
    "exp(x + y)": (
        lambda x: x.exp().prod(-1, keepdim=True),
        9 * (math.e - 1) ** 2,
        {
            "triangle": 1.0,
            "mask": over_cells(lambda x, y: (math.exp(x + 0.25) - math.exp(x)) * (math.exp(y + 0.25) - math.exp(y))),
        },
    ),
}
PAIRS = [(name, region) for name, (_, _, truths) in FUNCTIONS.items() for region in truths]


def draw(sampler, domain, n, seed):
    return get_sampler(sampler)(domain, n, torch.Generator().manual_seed(seed), dtype=torch.float64)


def cut(function, region):
    """f 1_Omega on the whole square."""
    return FunctionField(lambda x: function(x) * region.contains(x)[..., None], BOX, 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("name", "region"), PAIRS)
def test_the_error_is_at_most_variation_times_discrepancy(name, region, sampler):
    function, variation, truths = FUNCTIONS[name]
    for n in (4, 49):
        x = draw(sampler, BOX, n, seed=n)
        error = abs(integrate(cut(function, REGIONS[region]), discretization=x).item() - truths[region])
        assert error <= variation * discrepancy.piecewise(x, REGIONS[region])


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "uniform"])
@pytest.mark.parametrize(("name", "region"), PAIRS)
def test_points_drawn_in_the_region_itself_obey_it_too(name, region, sampler):
    function, variation, truths = FUNCTIONS[name]
    domain = REGIONS[region]
    for n in (10, 64):
        x = draw(sampler, domain, n, seed=n)
        error = abs(integrate(FunctionField(function, domain, 1), discretization=x).item() - truths[region])
        assert error <= variation * discrepancy.piecewise(x)


def slope(sampler, field, truth):
    """Of log RMS error over log n, 16 randomizations, n = 2^6 to 2^12."""
    sizes, errors = [2**m for m in range(6, 13)], []
    for n in sizes:
        found = [integrate(field, discretization=draw(sampler, BOX, n, seed)).item() - truth for seed in range(16)]
        errors.append(float(np.sqrt(np.mean(np.square(found)))))
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "halton"])
@pytest.mark.parametrize("region", ["disc", "triangle"])
def test_integrals_converge_faster_than_monte_carlo(region, sampler):
    function, _, truths = FUNCTIONS["x y^2"]
    assert slope(sampler, cut(function, REGIONS[region]), truths[region]) <= -0.65


def test_monte_carlo_converges_like_one_over_the_root():
    """Negative control of the rate."""
    function, _, truths = FUNCTIONS["x y^2"]
    assert -0.65 <= slope("uniform", cut(function, REGIONS["disc"]), truths["disc"]) <= -0.35


@pytest.mark.parametrize("region", REGIONS)
def test_the_discrepancy_of_a_region_falls_with_the_number_of_points(region):
    for sampler in ("lattice", "sobol"):
        found = [discrepancy.piecewise(draw(sampler, BOX, n, 0), REGIONS[region]) for n in (16, 64, 256)]
        assert found[2] < found[1] < found[0] and found[2] < found[0] / 4
    even = draw("lattice", BOX, 256, 0)
    clustered = Discretization(even.points**2, even.weights, BOX)  # negative control: equal weights on clustered points
    assert discrepancy.piecewise(clustered, REGIONS[region]) > 5 * found[2]


def test_the_variation_of_the_smooth_part_alone_is_no_bound():
    """Negative control: f = 1 does not vary at all on the square; its jump at the border does (the factor 2^d of equation 11)."""
    x = draw("lattice", BOX, 64, 0)
    error = abs(integrate(cut(FUNCTIONS["1"][0], REGIONS["disc"]), discretization=x).item() - AREA)
    assert error > 1e-4 > 0.0 * discrepancy.of(x)
    assert error <= FUNCTIONS["1"][1] * discrepancy.piecewise(x, REGIONS["disc"])


def test_the_discrepancy_of_the_square_is_no_bound_for_its_parts():
    """Negative control: a set that is even in boxes may be uneven in a region; D of equation 12 looks into the region."""
    stripes = Region(BOX, lambda x: (64 * x[..., 0]).long() % 2 == 0, 0.5)
    x = draw("grid", BOX, 32 * 32, 0)  # all centres fall into odd stripes
    error = abs(integrate(cut(FUNCTIONS["1"][0], stripes), discretization=x).item() - 0.5)
    assert error > 4 * discrepancy.of(x) and error == pytest.approx(0.5)
    few = draw("grid", BOX, 16 * 16, 0)
    error = abs(integrate(cut(FUNCTIONS["1"][0], stripes), discretization=few).item() - 0.5)
    assert 4 * discrepancy.of(few) < error <= 4 * discrepancy.piecewise(few, stripes)
