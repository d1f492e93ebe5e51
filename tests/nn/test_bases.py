"""Bases: orthonormality by Gauss quadrature, recurrences against closed forms, coefficients there and back (Q15)."""

import numpy as np
import pytest
import torch

from inrbridge.domains import Ball, Box
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import LegendreBasis, Sampled, ZernikeBasis, expand, legendre, project
from inrbridge.sampling import lattice


def gauss(n):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights / 2)


def disc_rule(n):
    """Points and weights on the unit disc, exact for polynomials of degree < n, weights sum to 1."""
    nodes, weights = gauss(n)
    radius, angle = ((nodes + 1) / 2).sqrt(), 2 * torch.pi * torch.arange(2 * n, dtype=torch.float64) / (2 * n)
    points = torch.stack([radius[:, None] * angle.cos(), radius[:, None] * angle.sin()], -1).reshape(-1, 2)
    return points, (weights[:, None] / (2 * n)).expand(-1, 2 * n).reshape(-1)


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_legendre_products_are_orthonormal(dim, total):
    domain = Box((-1.0, 0.0, 2.0)[:dim], (2.0, 0.5, 3.0)[:dim])
    basis = LegendreBasis(domain, 4, total=total)
    nodes, weights = gauss(6)
    points = torch.stack(torch.meshgrid(*[nodes] * dim, indexing="ij"), -1).reshape(-1, dim)
    rule = torch.stack(torch.meshgrid(*[weights] * dim, indexing="ij"), -1).reshape(-1, dim).prod(1)
    values = basis(domain.from_unit((points + 1) / 2))
    gram = torch.einsum("n,nk,nl->kl", rule, values, values)
    torch.testing.assert_close(gram, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-10)


def test_legendre_recurrence_at_high_degree():
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    expected = np.polynomial.legendre.legvander(x.numpy(), 40) * np.sqrt(2 * np.arange(41) + 1)
    torch.testing.assert_close(legendre(x, 40), torch.from_numpy(expected), rtol=0, atol=1e-10)
    assert legendre(x, 0).shape == (50, 1)


def test_zernike_polynomials_are_orthonormal_with_z00():
    points, weights = disc_rule(24)
    disc = Ball((0.5, -1.0), 2.0)
    basis = ZernikeBasis(disc, 10)
    values = basis(2 * points + torch.tensor([0.5, -1.0], dtype=torch.float64))
    gram = torch.einsum("n,nk,nl->kl", weights, values, values)
    torch.testing.assert_close(gram, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-10)
    assert torch.equal(values[:, 0], torch.ones(len(points), dtype=torch.float64))
    assert len(basis) == 66 == values.shape[1]


def test_zernike_closed_forms():
    points, _ = disc_rule(5)
    x, y = points.unbind(1)
    rho2 = x**2 + y**2
    values = ZernikeBasis(Ball((0.0, 0.0), 1.0), 4)(points)
    # order: 00, 11c, 11s, 20, 22c, 22s, 31c, 31s, 33c, 33s, 40, ...
    expected = {
        1: 2 * x,
        2: 2 * y,
        3: 3**0.5 * (2 * rho2 - 1),
        4: 6**0.5 * (x**2 - y**2),
        5: 6**0.5 * 2 * x * y,
        6: 8**0.5 * (3 * rho2 - 2) * x,
        10: 5**0.5 * (6 * rho2**2 - 6 * rho2 + 1),
    }
    for k, value in expected.items():
        torch.testing.assert_close(values[:, k], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "basis",
    [LegendreBasis(Box.centered(2), 3), ZernikeBasis(Ball((0.0, 0.0), 1.0), 5)],
)
def test_gradients_of_coordinates(basis, generator):
    coords = 0.8 * torch.rand(5, 2, generator=generator, dtype=torch.float64) - 0.4
    coords[0] = 0  # the centre of the disc has no angle
    assert torch.autograd.gradcheck(basis, coords.requires_grad_())


@pytest.mark.parametrize("basis", [LegendreBasis(Box((0.0, 0.0), (2.0, 1.0)), 3), ZernikeBasis(Ball((1.0, 0.0), 0.5), 3)])
def test_coefficients_there_and_back(basis, generator):
    coefficients = torch.randn(2, 3, len(basis), generator=generator, dtype=torch.float64)
    errors = []
    for n in (2**8, 2**12):
        sampled = expand(coefficients, basis, lattice(basis.domain, n, dtype=torch.float64))
        assert sampled.values.shape == (2, n, 3)
        errors.append(float((project(sampled, basis) - coefficients).abs().max()))
    assert errors[1] < 0.05 and errors[1] < errors[0] / 4
    energy = torch.einsum("n,bnc->bc", sampled.weights, sampled.values**2)  # Parseval
    torch.testing.assert_close(energy, (coefficients**2).sum(2), rtol=0.02, atol=0.02)


def test_errors():
    with pytest.raises(ConfigError, match="expected a Box"):
        LegendreBasis(Ball((0.0, 0.0), 1.0), 2)
    with pytest.raises(ConfigError, match="1, 2 or 3 dimensions"):
        ZernikeBasis(Ball((0.0,) * 4, 1.0), 2)
    points = lattice(Box.unit(1), 8)
    with pytest.raises(ShapeMismatch, match="one number for each function"):
        expand(torch.zeros(1, 2, 5), LegendreBasis(Box.unit(1), 3), points)
    assert isinstance(expand(torch.zeros(1, 2, 4), LegendreBasis(Box.unit(1), 3), points), Sampled)
