"""Law Q16, the coordinates' part: scales are nested (Wang & Golland 2023, section 4.1, "Multi-scale architectures")."""

import pytest
import torch
from reference_discrepancy import star_discrepancy_1d, star_discrepancy_2d

from inrbridge.domains import Ball, Box, Region, Sphere, Torus
from inrbridge.sampling import get_sampler, points

DOMAINS = [Box.centered(1), Box.centered(2), Box.centered(3), Torus((1.0, 2.0)), Ball((0.0, 0.0)), Sphere()]
REGION = Region(Box.centered(2), lambda x: x.norm(dim=-1) < 0.8)


def draw(name, domain, n, seed=0, **options):
    if name == "importance":
        options["density"] = lambda x: torch.exp(-x.square().sum(-1))
    return get_sampler(name)(domain, n, torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("domain", [*DOMAINS, REGION], ids=lambda d: type(d).__name__ + str(d.dim))
@pytest.mark.parametrize("name", ["lattice", "sobol", "halton", "uniform", "shrunk", "importance"])
@pytest.mark.parametrize("stride", [2, 3])
def test_down_then_up_returns_the_same_coordinates(name, domain, stride):
    x = draw(name, domain, 540)
    assert x.thin(stride).refine(stride) is x
    assert torch.equal(x.thin(stride).points, x.points[: len(x.thin(stride))])


@pytest.mark.parametrize("domain", [*DOMAINS, REGION], ids=lambda d: type(d).__name__ + str(d.dim))
@pytest.mark.parametrize("name", ["lattice", "sobol", "halton", "uniform", "shrunk", "importance"])
def test_up_then_down_returns_the_same_coordinates(name, domain):
    x = draw(name, domain, 60)
    finer = x.refine(2)
    assert torch.equal(finer.points[:60], x.points)
    assert finer.thin(2) is x


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (1, 5)])
def test_grids_go_down_and_up_too(shape):
    x = get_sampler("grid")(Box.centered(2), shape)
    for stride in (2, 3):
        assert x.thin(stride).refine(stride) is x


def test_own_points_go_down_and_up_too():
    x = points(Box.unit(2), torch.rand(37, 2, generator=torch.Generator().manual_seed(0)))
    assert x.thin(2).thin(2).refine(2).refine(2) is x


@pytest.mark.parametrize("name", ["lattice", "sobol", "halton"])
@pytest.mark.parametrize("n", [64, 128, 200])
def test_a_prefix_is_as_even_as_a_fresh_set(name, n):
    # against the median of several fresh sets: a single one may be lucky
    seeds = range(1, 6)
    for dim, twin in ((1, lambda x: star_discrepancy_1d(x[:, 0])), (2, star_discrepancy_2d)):
        prefix = draw(name, Box.unit(dim), n).prefix(n // 4)
        fresh = torch.tensor([twin(draw(name, Box.unit(dim), n // 4, seed).points) for seed in seeds]).median()
        assert twin(prefix.points) <= 2 * float(fresh)


def test_negative_control_the_first_quarter_of_a_grid_is_no_coarser_grid():
    x = get_sampler("grid")(Box.unit(2), (16, 16))
    assert star_discrepancy_2d(x.prefix(64).points) > 0.7
    assert star_discrepancy_2d(x.thin(2).points) < 0.3


def test_scales_of_one_discretization_are_shared_objects():
    # so that a skip connection meets the very points it left, and geometry is computed once
    x = draw("sobol", Box.centered(2), 256)
    half, quarter = x.thin(2), x.thin(2).thin(2)
    assert x.thin(2) is half and quarter.refine(2) is half and half.refine(2) is x
