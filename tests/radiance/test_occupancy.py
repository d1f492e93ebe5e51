"""Occupancy grids find all matter; points drawn by them integrate without bias, and far better than uniform ones."""

import math

import pytest
import torch
from reference_radiance import ball

from inrbridge import Box, FunctionField, Product, Sphere, integrate, sampling
from inrbridge.errors import ConfigError, EmptyDiscretization
from inrbridge.radiance import Occupancy, OccupancySampler

MASS = 3.0 * 4 / 3 * math.pi * 0.5**3  # of the ball
density = FunctionField(lambda x: ball(directions=False)(x)[..., 3:], Box.centered(3), 1, ("density",))


def test_a_grid_holds_all_cells_with_matter():
    grid = Occupancy.of(ball(), 32, margin=False)
    points = Box.centered(3).from_unit(torch.rand(20000, 3, generator=torch.Generator().manual_seed(1)))
    inside = points.norm(dim=-1) < 0.5
    assert grid.contains(points)[inside].float().mean() > 0.98
    assert not grid.contains(points)[points.norm(dim=-1) > 0.5 + math.sqrt(3) / 16].any()
    wide = Occupancy.of(ball(), 32)
    assert wide.contains(points)[inside].all() and wide.mask.sum() > grid.mask.sum()
    low, high = grid.bounds()
    assert all(-0.57 < a < -0.43 for a in low) and all(0.43 < b < 0.57 for b in high)


def test_axes_are_those_of_coordinates():
    """A slab in x, off centre, in a box of unequal sides."""
    slab = FunctionField(lambda x: (x[..., :1] > 2).to(x), Box((0, 0, 0), (4, 1, 2)), 1, ("density",))
    grid = Occupancy.of(slab, 8, margin=False)
    assert grid.mask[4:].all() and not grid.mask[:4].any()
    assert grid.bounds()[0][0] == pytest.approx(2.0) and grid.bounds()[1] == pytest.approx((4.0, 1.0, 2.0))


def test_several_fields_share_a_grid_and_nothing_global_is_drawn():
    state = torch.get_rng_state()
    left = FunctionField(lambda x: (x[..., :1] < -0.5).to(x), Box.centered(3), 1, ("density",))
    right = FunctionField(lambda x: (x[..., :1] > 0.5).to(x), Box.centered(3), 1, ("density",))
    both = Occupancy.of([left, right], 16, margin=False).mask
    one, two = (Occupancy.of(field, 16, margin=False).mask for field in (left, right))
    assert torch.equal(both, one | two) and torch.equal(state, torch.get_rng_state())


def test_weights_sum_to_the_measure_and_prefixes_are_coarser():
    sampler = OccupancySampler(ball(), 24)
    for n in (1, 2, 7, 1000):
        points = sampler(Box.centered(3), n)
        assert len(points) == n and float(points.weights.sum()) == pytest.approx(8.0, rel=1e-5)
        assert bool(Box.centered(3).contains(points.points).all()) and bool((points.weights > 0).all())
    coarse, fine = (sampler(Box.centered(3), n, torch.Generator().manual_seed(5)) for n in (256, 2048))
    assert torch.equal(coarse.points, fine.prefix(256).points)
    assert torch.equal(coarse.extend_to(2048).points, fine.points)
    rays = sampler(Product(Box.centered(3), Sphere()), 512)
    assert float(rays.weights.sum()) == pytest.approx(8 * 4 * math.pi, rel=1e-5)


def test_integrals_are_unbiased_and_far_better_than_uniform_ones():
    """Mass of a ball that fills 1/15 of the box; 64 random sets of 512 points each."""
    sampler = OccupancySampler(ball(), 32)
    errors = {}
    for name, make in (("occupancy", sampler), ("uniform", sampling.uniform), ("sobol", sampling.sobol)):
        found = torch.stack(
            [integrate(density, n=512, sampler=make, generator=torch.Generator().manual_seed(i)) for i in range(64)]
        )
        mean, spread = float(found.mean()), float(found.std())
        assert abs(mean - MASS) < 4 * spread / 8 + 1e-3 * MASS
        errors[name] = math.sqrt(float((found - MASS).square().mean())) / MASS
    assert errors["occupancy"] < errors["uniform"] / 5 and errors["occupancy"] < errors["sobol"] / 1.5, errors


def test_what_the_grid_has_missed_is_counted_without_bias():
    """A grid of another field, the matter being elsewhere: no more precise, but right on average."""
    corner = FunctionField(lambda x: (x.amin(-1, keepdim=True) > 0.5).to(x), Box.centered(3), 1, ("density",))
    sampler = OccupancySampler(corner, 16, share=0.3)
    seeds = [torch.Generator().manual_seed(i) for i in range(64)]
    found = torch.stack([integrate(density, n=2000, sampler=sampler, generator=seed) for seed in seeds])
    assert abs(float(found.mean()) - MASS) < 4 * float(found.std()) / 8


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_and_a_full_box_have_points_everywhere(value):
    field = FunctionField(lambda x: 0 * x[..., :1] + value, Box.centered(3), 1, ("density",))
    points = OccupancySampler(field, 8)(Box.centered(3), 4096)
    assert torch.allclose(points.weights, points.weights[:1].expand(4096)) and points.points.mean(0).abs().max() < 0.02


def test_mistakes():
    sampler = OccupancySampler(ball(), 8)
    with pytest.raises(ConfigError, match="make a sampler for each domain"):
        sampler(Box.unit(3), 10)
    with pytest.raises(EmptyDiscretization):
        sampler(Box.centered(3), 0)
    with pytest.raises(ConfigError, match="share=0"):
        OccupancySampler(ball(), share=0)
    with pytest.raises(ConfigError, match=r"sampling\.importance"):
        Occupancy(Box.centered(2))
    with pytest.raises(ConfigError, match="resolution=1"):
        Occupancy(Box.centered(3), 1)
    with pytest.raises(ConfigError, match="one box"):
        Occupancy.of([ball(), ball(box=Box.unit(3))])
