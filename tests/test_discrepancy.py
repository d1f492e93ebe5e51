"""Discrepancies: against brute force, scipy, known values; on every domain; with weights."""

import itertools
import math

import numpy as np
import pytest
import torch
from reference_discrepancy import star_discrepancy_1d, star_discrepancy_2d
from scipy.stats import qmc

from inrbridge import discrepancy
from inrbridge.discrepancy import boxes, square_means
from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, Weighted
from inrbridge.domains.atlases import flat_torus, stereographic_sphere
from inrbridge.errors import ConfigError, NotFinite, OutsideDomain, ShapeMismatch
from inrbridge.sampling import get_sampler, grid, points, sobol

SCIPY = {"centered": "CD", "wraparound": "WD", "mixture": "MD", "l2": "L2-star"}


@pytest.fixture
def cloud(generator):
    return lambda n, d: torch.rand(n, d, dtype=torch.float64, generator=generator)


def worst_box(x, weights, anchored):
    """Brute force over all boxes whose sides pass through points, sides in or out: the slow twin of star and extreme."""
    worst, d = 0.0, x.shape[1]
    sides = []
    for a in range(d):
        values = [(v, closed) for v in x[:, a].tolist() for closed in (True, False)]
        lows = [(0.0, True)] if anchored else [(0.0, True), *values]
        sides.append([(low, high) for low in lows for high in [*values, (1.0, True)] if low[0] <= high[0]])
    for box in itertools.product(*sides):
        inside = torch.ones(len(x), dtype=torch.bool)
        for a, ((low, with_low), (high, with_high)) in enumerate(box):
            inside &= (x[:, a] >= low) if with_low else (x[:, a] > low)
            inside &= (x[:, a] <= high) if with_high else (x[:, a] < high)
        volume = math.prod(high[0] - low[0] for low, high in box)
        worst = max(worst, abs(float(weights[inside].sum()) - volume))
    return worst


@pytest.mark.parametrize("d", [1, 2, 3, 6])
@pytest.mark.parametrize("kind", SCIPY)
def test_square_means_are_those_of_scipy(cloud, kind, d):
    x = cloud(50, d)
    theirs = qmc.discrepancy(x.numpy(), method=SCIPY[kind])
    theirs = theirs if kind == "l2" else theirs**0.5  # scipy gives the square of all but one
    assert discrepancy.square_mean(x, kind=kind) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("kind", square_means.KINDS)
def test_square_means_are_those_of_their_definition(cloud, kind):
    """The kernel of the sum is the one whose integrals are the other two terms: int p(x, y) dy = s(x), int s = constant."""
    kernel = square_means.KINDS[kind]
    nodes, weights = (torch.as_tensor(t) for t in np.polynomial.legendre.leggauss(40))
    half = torch.cat([(nodes + 1) / 4, (nodes + 3) / 4]), torch.cat([weights, weights]) / 4
    assert float(half[1] @ kernel.single(half[0])) == pytest.approx(kernel.constant, abs=1e-12)
    for x in (0.1, 0.37, 0.8):
        ends = sorted({0.0, x, 0.5, 1.0})
        total = 0.0
        for a, b in itertools.pairwise(ends):
            y = a + (b - a) * (nodes + 1) / 2
            total += float(weights @ kernel.pair(torch.tensor(x, dtype=torch.float64), y)) * (b - a) / 2
        assert total == pytest.approx(float(kernel.single(torch.tensor(x))), abs=1e-6)


@pytest.mark.parametrize("kind", ["star", "extreme", *square_means.KINDS])
def test_weights_are_points_that_lie_together(cloud, kind):
    x = cloud(12, 2)
    repeated = x.repeat_interleave(torch.arange(1, 13), dim=0)
    weights = torch.arange(1, 13, dtype=torch.float64) / 78
    measure = getattr(discrepancy, kind, lambda *a: discrepancy.square_mean(*a, kind=kind))
    assert measure(x, weights) == pytest.approx(measure(repeated, None), abs=1e-12)
    assert measure(x, weights) != pytest.approx(measure(x, None), rel=1e-3)


@pytest.mark.parametrize("n", [1, 2, 7, 100, 5000])
def test_star_on_the_interval_for_any_number_of_points(cloud, n):
    x = cloud(n, 1)
    assert discrepancy.star(x) == pytest.approx(star_discrepancy_1d(x[:, 0]), abs=1e-12)


@pytest.mark.parametrize("block", [7, 100, 2**18])
def test_star_on_the_square_is_that_of_brute_force(cloud, block, monkeypatch):
    monkeypatch.setattr(boxes, "BLOCK", block)
    for x in (cloud(1, 2), cloud(40, 2), (cloud(30, 2) * 4).round() / 4):  # the last: many ties, also at 0 and 1
        assert discrepancy.star(x) == pytest.approx(star_discrepancy_2d(x), abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(6, 1), (3, 2), (1, 3)])
def test_star_and_extreme_are_those_of_brute_force(cloud, n, d):
    x = cloud(n, d)
    weights = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for w in (torch.full((n,), 1 / n, dtype=torch.float64), weights / weights.sum()):
        assert discrepancy.star(x, w) == pytest.approx(worst_box(x, w, anchored=True), abs=1e-12)
        assert discrepancy.extreme(x, w) == pytest.approx(worst_box(x, w, anchored=False), abs=1e-12)


def test_extreme_on_the_interval_is_between_star_and_twice_star(cloud):
    for n in (3, 50, 2000):
        x = cloud(n, 1)
        assert discrepancy.star(x) <= discrepancy.extreme(x) <= 2 * discrepancy.star(x) + 1e-12
        shifted = (x + 0.3) % 1.0
        assert discrepancy.extreme(x) == pytest.approx(discrepancy.extreme(shifted), abs=1.5 / n + 0.02)


@pytest.mark.parametrize(("n", "d"), [(200, 1), (200, 2), (60, 3), (20, 4)])
@pytest.mark.parametrize("corners", [10, 300, 2**20])
def test_bounds_hold_the_exact_value(cloud, n, d, corners):
    x = cloud(n, d)
    lower, upper = discrepancy.star_bounds(x, corners=corners)
    exact = discrepancy.star(x)
    assert lower <= exact + 1e-12 and exact <= upper + 1e-12
    if (n + 1) ** d <= corners:
        assert lower == upper == exact
    else:
        assert lower < upper


def test_finer_bounds_are_narrower_and_many_points_are_possible(cloud):
    x = sobol(Box.unit(2), 8_000, torch.Generator().manual_seed(0), dtype=torch.float64).points
    coarse, fine = discrepancy.star_bounds(x, corners=2**12), discrepancy.star_bounds(x, corners=2**18)
    assert coarse[0] <= fine[1] and fine[1] - fine[0] < (coarse[1] - coarse[0]) / 3
    assert fine[0] < 3e-3  # what low discrepancy means
    lower, upper = discrepancy.star_bounds(cloud(200, 10))
    assert 0.02 < lower < upper <= 1.0


def test_square_means_of_ten_thousand_points_in_blocks(monkeypatch):
    x = sobol(Box.unit(2), 10_000, torch.Generator().manual_seed(0), dtype=torch.float64).points
    whole = discrepancy.square_mean(x)
    assert whole < 1e-3
    monkeypatch.setattr(square_means, "BLOCK", 999)
    few = x[:500]
    assert discrepancy.square_mean(few) == pytest.approx(qmc.discrepancy(few.numpy(), method="CD") ** 0.5, rel=1e-6)


@pytest.mark.parametrize("domain", [Box((-1, 2), (3, 5)), Torus((1.0, 3.0)), Sphere(2.0), Ball((1.0, 0.0), 3.0),
                                    Product(Box.unit(1), Ball((0.0,)))], ids=lambda d: type(d).__name__)  # fmt: skip
@pytest.mark.parametrize("kind", discrepancy.kinds())
def test_points_of_a_domain_are_pulled_back_to_the_cube(domain, kind):
    even = sobol(domain, 64, torch.Generator().manual_seed(2), dtype=torch.float64)
    unit = sobol(Box.unit(2), 64, torch.Generator().manual_seed(2), dtype=torch.float64)
    assert discrepancy.of(even, kind) == pytest.approx(discrepancy.of(unit, kind), abs=1e-9)
    uneven = get_sampler("uniform")(domain, 64, torch.Generator().manual_seed(2), dtype=torch.float64)
    assert discrepancy.of(uneven, kind) > discrepancy.of(even, kind)


def test_on_a_manifold_the_worst_chart_counts():
    sphere = stereographic_sphere()
    even = sobol(sphere, 128, torch.Generator().manual_seed(0), dtype=torch.float64)
    north = points(sphere, torch.nn.functional.normalize(even.points + torch.tensor([0, 0, 2.0]), dim=1))  # pushed to the pole
    for kind in ("star", "extreme"):
        assert 4 * discrepancy.of(even, kind) < discrepancy.of(north, kind) < 1.0
    flat = flat_torus((1.0, 1.0))
    x = sobol(flat, 64, torch.Generator().manual_seed(0), dtype=torch.float64)
    # by hand: the boxes of the charts are boxes of the torus, 0.7 wide, of which an interval of the square holds at most four
    square = Discretization(x.points, x.weights, Box.unit(2))
    assert discrepancy.of(x, "extreme") <= 4 * discrepancy.of(square, "extreme") + 0.02
    with pytest.raises(ConfigError):
        discrepancy.of(x, "centered")


def test_the_measure_of_a_region_and_of_a_density_is_compared_with():
    disc = Region(Box.centered(2), lambda x: x.norm(dim=-1) < 0.8, math.pi * 0.64)
    even = sobol(disc, 128, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert discrepancy.of(even) < 0.05 < 0.3 < discrepancy.of(points(disc, torch.full((10, 2), 0.1, dtype=torch.float64)))
    slope = Weighted(Box.unit(1), lambda x: 2 * x[..., 0], 1.0)
    follows = points(slope, ((torch.arange(100, dtype=torch.float64) + 0.5) / 100).sqrt()[:, None],
                     weights=torch.full((100,), 0.01, dtype=torch.float64))  # fmt: skip
    even = torch.full((100,), 0.01, dtype=torch.float64)
    spread = points(slope, ((torch.arange(100, dtype=torch.float64) + 0.5) / 100)[:, None], weights=even)
    assert discrepancy.of(follows) == pytest.approx(1 / 200, abs=1e-3)
    assert discrepancy.of(spread) == pytest.approx(1 / 4, abs=1e-2)  # max of x - x^2
    with pytest.raises(ConfigError, match="whole of a uniform domain"):
        discrepancy.of(follows, "centered")


def test_a_region_that_is_everything_has_the_discrepancy_of_its_box(generator):
    box = Box.unit(2)
    whole = Region(box, lambda x: x[..., 0] < 2.0, 1.0)
    x = sobol(box, 32, generator, dtype=torch.float64)
    assert discrepancy.piecewise(x, whole) == pytest.approx(4 * discrepancy.of(x, "extreme"), abs=4 * 3 / 512)


def test_known_values():
    assert discrepancy.of(grid(Box.centered(1), 8)) == pytest.approx(1 / 16)
    assert discrepancy.of(grid(Box.unit(1), 8), "extreme") == pytest.approx(1 / 8)
    assert discrepancy.star(torch.tensor([[0.5, 0.5]])) == pytest.approx(0.75)
    assert discrepancy.square_mean(torch.tensor([[0.5]]), kind="l2") == pytest.approx((1 / 3 - 0.75 + 0.5) ** 0.5)


def test_bad_input_is_refused(cloud):
    with pytest.raises(OutsideDomain, match="from 0 to 1"):
        discrepancy.star(cloud(5, 2) + 1)
    with pytest.raises(ShapeMismatch, match="at least one"):
        discrepancy.star(torch.zeros(0, 2))
    with pytest.raises(ShapeMismatch, match="one for each point"):
        discrepancy.square_mean(cloud(5, 2), torch.ones(4))
    with pytest.raises(NotFinite):
        discrepancy.star(torch.full((2, 2), float("nan")))
    with pytest.raises(ConfigError, match="star_bounds"):
        discrepancy.star(cloud(2000, 4))
    with pytest.raises(ConfigError, match="fewer points"):
        discrepancy.extreme(cloud(2000, 3))
    with pytest.raises(ConfigError, match='Did you mean "centered"'):
        discrepancy.of(grid(Box.unit(2), 9), "centred")
    with pytest.raises(ConfigError, match="centered"):
        discrepancy.square_mean(cloud(5, 2), kind="star")
