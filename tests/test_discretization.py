"""Discretizations: nested prefixes, thinning and refining, moves, and what they refuse."""

import pickle

import pytest
import torch

from inrbridge import sampling
from inrbridge.discretization import Discretization, Grid, Lattice
from inrbridge.domains import Box, Sphere
from inrbridge.errors import ConfigError, EmptyDiscretization, ShapeMismatch

NESTED = ["lattice", "sobol", "halton", "uniform", "shrunk"]


def draw(name="lattice", n=256, dim=2, **options):
    return sampling.get_sampler(name)(Box.centered(dim), n, torch.Generator().manual_seed(0), **options)


def test_length_and_spacing():
    x = draw(n=256)
    assert len(x) == 256
    assert x.spacing == pytest.approx(2 / 16)
    assert sampling.sobol(Sphere(), 100).spacing == pytest.approx((4 * torch.pi / 100) ** 0.5)


@pytest.mark.parametrize("name", NESTED)
def test_a_prefix_is_a_coarser_discretization(name):
    x = draw(name)
    coarse = x.prefix(100)
    assert torch.equal(coarse.points, x.points[:100]) and coarse.finer is x
    assert float(coarse.weights.sum()) == pytest.approx(4.0)
    assert x.prefix(256) is x and x.prefix(100) is coarse
    assert torch.equal(coarse.extend_to(256).points, x.points)


def test_a_prefix_of_a_lattice_of_two_to_the_m_points_is_a_lattice():
    x = draw("lattice")
    assert x.prefix(64).structure == x.structure and isinstance(x.structure, Lattice)
    assert x.prefix(65).structure is None
    assert torch.equal(x.prefix(64).points, draw("lattice", 64).points)


@pytest.mark.parametrize("n", [0, -1, 257])
def test_a_prefix_of_no_or_too_many_points_is_refused(n):
    with pytest.raises(EmptyDiscretization, match="between 1 and 256"):
        draw().prefix(n)


@pytest.mark.parametrize("stride", [2, 3])
def test_thinning_a_grid_keeps_every_stride_th_point_of_each_axis(stride):
    x = draw("grid", (6, 9))
    thin = x.thin(stride)
    image = x.points.reshape(6, 9, 2)[::stride, ::stride]
    assert torch.equal(thin.points, image.reshape(-1, 2))
    assert thin.structure.shape == image.shape[:2]
    # the structure tells the same coordinates
    grid = thin.structure
    assert isinstance(grid, Grid)
    axes = [a + h * torch.arange(s) for a, h, s in zip(grid.start, grid.step, grid.shape, strict=True)]
    torch.testing.assert_close(torch.cartesian_prod(*axes), thin.points)
    assert float(thin.weights.sum()) == pytest.approx(4.0)
    assert thin.refine(stride) is x


@pytest.mark.parametrize(
    "name, dim, stride, left", [("lattice", 2, 2, 64), ("sobol", 3, 2, 32), ("halton", 2, 4, 16), ("uniform", 1, 3, 85)]
)
def test_thinning_a_sequence_keeps_one_point_in_stride_to_the_d(name, dim, stride, left):
    x = draw(name, 256, dim)
    assert len(x.thin(stride)) == left
    assert x.thin(stride) is x.thin(stride)
    assert x.thin(1) is x and x.refine(1) is x
    assert len(x.thin(1000)) == 1


def test_refine_finds_its_way_back_over_several_steps():
    for x in (draw("lattice"), draw("grid")):
        assert x.thin(2).thin(2).refine(2) is x.thin(2)
        assert x.thin(2).thin(2).refine(4) is x


def test_refine_extends_the_sequence_and_thin_undoes_it():
    x = draw("sobol", 64)
    finer = x.refine(2)
    assert len(finer) == 256 and torch.equal(finer.points[:64], x.points)
    assert finer.thin(2) is x and x.refine(2) is finer


def test_a_prefix_of_own_points_is_refined_to_where_it_came_from():
    x = sampling.points(Box.unit(1), torch.rand(64, 1))
    assert x.prefix(32).refine(2) is x
    with pytest.raises(ShapeMismatch, match="cannot be extended to 128"):
        x.refine(2)


def test_a_grid_that_was_not_thinned_cannot_be_refined():
    with pytest.raises(ShapeMismatch, match="expected one made by a nested sampler"):
        draw("grid").refine(2)


@pytest.mark.parametrize("stride", [0, -2, 1.5, (2, 2)])
def test_a_stride_that_is_none_is_refused(stride):
    for step in (draw().thin, draw().refine):
        with pytest.raises(ConfigError, match="stride"):
            step(stride)


def test_a_move_that_changes_nothing_returns_itself():
    x = draw()
    assert x.to("cpu") is x and x.to(torch.float32) is x and x.to(torch.zeros(1)) is x


@pytest.mark.parametrize("name", ["lattice", "grid"])
def test_a_moved_discretization_keeps_its_relations(name):
    x = draw(name)
    moved = x.to(torch.float64)
    assert moved.points.dtype == moved.weights.dtype == torch.float64
    assert moved is x.to(torch.float64) and moved.structure == x.structure and not moved.cache
    coarse = x.thin(2).to(torch.float64)
    assert coarse.refine(2).points.dtype == torch.float64
    assert torch.equal(coarse.refine(2).points, x.points.double())


def test_extension_of_a_moved_discretization_keeps_its_points():
    moved = draw("sobol", 64).to(torch.float64)
    assert torch.equal(moved.refine(2).points[:64], moved.points)


def test_cached_geometry_stays_out_of_pickles():
    x = draw()
    x.thin(2).cache["stencil"] = object()
    again = pickle.loads(pickle.dumps(x))
    assert again.cache == {} and torch.equal(again.points, x.points)
    assert "stencil" in x.thin(2).cache


@pytest.mark.parametrize(
    "points, weights, error",
    [
        (torch.rand(3), torch.rand(3), ShapeMismatch),
        (torch.rand(3, 1), torch.rand(3), ShapeMismatch),
        (torch.rand(3, 2), torch.rand(2), ShapeMismatch),
        (torch.rand(3, 2), torch.rand(3, 1), ShapeMismatch),
        (torch.zeros(3, 2, dtype=torch.long), torch.rand(3), ShapeMismatch),
        (torch.rand(0, 2), torch.rand(0), EmptyDiscretization),
    ],
)
def test_what_is_no_discretization_is_refused(points, weights, error):
    with pytest.raises(error, match="expected"):
        Discretization(points, weights, Box.unit(2))
