"""Spline surfaces: they pass through the values at the cells' centres, and their ends mirror."""

import itertools

import numpy as np
import pytest
import torch
from reference_rules import DOUBLE, rule

from inrbridge.domains import Ball, Box
from inrbridge.errors import ConfigError
from inrbridge.nn import BasisFunction, SplineBasis
from inrbridge.sampling import grid
from inrbridge.stencils import BSpline

BOX = Box((-1.0, 0.0), (2.0, 0.5))


@pytest.mark.parametrize("order", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 2), (3, 3), (5, 8)])
def test_each_is_one_at_its_own_centre_and_zero_at_the_others(shape, order):
    basis = SplineBasis(BOX, shape, order)
    values = basis(grid(BOX, shape, dtype=DOUBLE).points)
    torch.testing.assert_close(values, torch.eye(len(basis), dtype=DOUBLE), rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_constants_are_kept_up_to_the_edge(order, generator):
    basis = SplineBasis(BOX, (4, 5), order)
    places = BOX.from_unit(torch.rand(200, 2, generator=generator, dtype=DOUBLE))
    places[0], places[1] = torch.tensor(BOX.low), torch.tensor(BOX.high)
    torch.testing.assert_close(basis(places).sum(1), torch.ones(200, dtype=DOUBLE))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_integral_of_a_surface_is_the_mean_of_its_values(order, generator):
    shape = (3, 4)
    values = torch.randn(12, generator=generator, dtype=DOUBLE)
    nodes = np.arange(3 * 4 * 2 + 1) / (3 * 4 * 2)  # the pieces of the splines end at these fractions
    total = 0.0
    for a, b in itertools.pairwise(nodes):
        for c, d in itertools.pairwise(nodes):
            points, weights = rule(Box((a, c), (b, d)), 3)
            total += (weights @ SplineBasis(Box.unit(2), shape, order)(points) @ values) / (len(nodes) - 1) ** 2
    torch.testing.assert_close(total, values.mean())


def test_far_from_the_edge_it_is_the_spline_of_a_kernel():
    kernel = BSpline((21,), (1 / 21,), 3)
    offsets = np.linspace(-0.1, 0.1, 50)[:, None]
    ours = SplineBasis(Box.centered(1, 0.5), (21,))(torch.from_numpy(offsets))
    np.testing.assert_allclose(ours.numpy(), kernel.evaluate(offsets), atol=1e-5)


def test_gradients_of_coordinates(generator):
    coords = BOX.from_unit(torch.rand(6, 2, generator=generator, dtype=DOUBLE)).requires_grad_()
    assert torch.autograd.gradcheck(SplineBasis(BOX, (4, 5)), coords)


def test_positions_learned_for_tokens_become_a_function(generator):
    """What a vision transformer adds to each token, as a surface: on the tokens it is the table itself."""
    table = torch.randn(6, 12, generator=generator)
    surface = BasisFunction(SplineBasis(BOX, (3, 4)), 6)
    with torch.no_grad():
        surface.coefficients.copy_(table)
    torch.testing.assert_close(surface.at(grid(BOX, (3, 4)), table), table.T, rtol=0, atol=1e-6)


def test_errors():
    with pytest.raises(ConfigError, match="expected a Box and one number for each axis"):
        SplineBasis(BOX, (3,))
    with pytest.raises(ConfigError, match="expected a Box and one number for each axis"):
        SplineBasis(Ball((0.0, 0.0), 1.0), (3, 3))
    with pytest.raises(ConfigError, match="expected 0, 1, 2 or 3"):
        SplineBasis(BOX, (3, 3), 4)
