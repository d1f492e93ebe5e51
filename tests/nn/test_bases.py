"""Bases: recurrences against closed forms, gradients at poles and centres, coefficients there and back, errors.

Orthonormality is law Q15, in test_property_q15_bases.py.
"""

import numpy as np
import pytest
import torch
from reference_rules import rule

from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, Weighted
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import (
    FourierBasis,
    LegendreBasis,
    OrthonormalizedBasis,
    ProductBasis,
    Sampled,
    SphericalHarmonics,
    ZernikeBasis,
    basis_for,
    expand,
    legendre,
    project,
)
from inrbridge.sampling import lattice

DOUBLE = torch.float64
DOMAINS = [
    Box((-1.0, 0.0), (2.0, 0.5)),
    Ball((1.0,), 2.0),
    Ball((1.0, 0.0), 0.5),
    Ball((1.0, 0.0, -1.0), 2.0),
    Sphere(2.0, (1.0, 0.0, 0.0)),
    Torus((1.0, 3.0)),
    Product(Torus((2.0,)), Sphere()),
]


def points(domain, n, generator):
    return domain.from_unit(torch.rand(n, domain.unit_dim, generator=generator, dtype=DOUBLE))


def test_legendre_recurrence_at_high_degree():
    x = torch.linspace(-1, 1, 50, dtype=DOUBLE)
    expected = np.polynomial.legendre.legvander(x.numpy(), 40) * np.sqrt(2 * np.arange(41) + 1)
    torch.testing.assert_close(legendre(x, 40), torch.from_numpy(expected), rtol=0, atol=1e-10)
    assert legendre(x, 0).shape == (50, 1)


def test_zernike_closed_forms(generator):
    x, y = (place := points(Ball((0.0, 0.0), 1.0), 20, generator)).unbind(1)
    rho2 = x**2 + y**2
    values = ZernikeBasis(Ball((0.0, 0.0), 1.0), 4)(place)
    # order: 00, 11c, 11s, 20, 22c, 22s, 31c, 31s, 33c, 33s, 40, ...
    expected = {
        0: torch.ones_like(x),
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


def test_zernike_polynomials_on_an_interval_are_legendre_polynomials(generator):
    interval = Ball((0.5,), 2.0)
    place = points(interval, 20, generator)
    torch.testing.assert_close(ZernikeBasis(interval, 9)(place), LegendreBasis(Box(*interval.bounds), 9)(place))


def test_zernike_polynomials_in_space_closed_forms(generator):
    x, y, z = (place := points(Ball((0.0,) * 3, 1.0), 20, generator)).unbind(1)
    values = ZernikeBasis(Ball((0.0,) * 3, 1.0), 2)(place)
    rho2 = x**2 + y**2 + z**2
    # order: 1; z, x, y; then of degree 2 the radial one and the harmonics of degree 2
    expected = {
        1: 5**0.5 * z,
        2: 5**0.5 * x,
        4: (7 / 3) ** 0.5 * (5 * rho2 - 3) / 2,
        6: 35**0.5 * x * z,
        8: 35**0.5 * (x**2 - y**2) / 2,
    }
    for k, value in expected.items():
        torch.testing.assert_close(values[:, k], value, rtol=0, atol=1e-12)


def test_spherical_harmonics_closed_forms(generator):
    x, y, z = (place := points(Sphere(), 20, generator)).unbind(1)
    values = SphericalHarmonics(Sphere(), 3)(place)
    expected = {
        0: torch.ones_like(x),
        1: 3**0.5 * z,
        2: 3**0.5 * x,
        3: 3**0.5 * y,
        4: 5**0.5 * (3 * z**2 - 1) / 2,
        5: 15**0.5 * x * z,
        8: 15**0.5 * x * y,
        9: 7**0.5 * (5 * z**3 - 3 * z) / 2,
        14: (35 / 8) ** 0.5 * x * (x**2 - 3 * y**2),
    }
    for k, value in expected.items():
        torch.testing.assert_close(values[:, k], value, rtol=0, atol=1e-12)


def test_spherical_harmonics_obey_the_addition_theorem_at_high_degree(generator):
    """sum_m Y_lm(x) Y_lm(y) = (2 l + 1) P_l(x . y) for every l: so also turned axes give the same spaces."""
    degree = 60
    x, y = points(Sphere(), 30, generator), points(Sphere(), 30, generator)
    x[0], y[0], y[1] = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, -1]), x[1]
    products = SphericalHarmonics(Sphere(), degree)(x) * SphericalHarmonics(Sphere(), degree)(y)
    sums = torch.stack([part.sum(1) for part in products.split([2 * j + 1 for j in range(degree + 1)], dim=1)], 1)
    expected = legendre((x * y).sum(1), degree) * (2 * torch.arange(degree + 1, dtype=DOUBLE) + 1).sqrt()
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-9)


def test_fourier_basis_closed_forms(generator):
    torus = Torus((1.0, 3.0))
    u, v = (2 * torch.pi * (place := points(torus, 20, generator)) / torch.tensor([1.0, 3.0], dtype=DOUBLE)).unbind(1)
    values = FourierBasis(torus, 2)(place)
    assert values.shape == (20, 25) and len(FourierBasis(torus, 2)) == 25
    torch.testing.assert_close(values[:, 5 * 1 + 4], 2 * u.cos() * (2 * v).sin())  # place 1: cos 1, place 4: sin 2
    torch.testing.assert_close(FourierBasis(torus, 2)(place + torch.tensor([1.0, 3.0])), values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: f"{type(d).__name__}{d.dim}")
def test_every_basis_has_gradients_of_coordinates(domain, generator):
    coords = points(domain, 4, generator)
    if isinstance(domain, Ball):  # the centre has no direction
        coords[0] = torch.tensor(domain.center, dtype=DOUBLE)
    if isinstance(domain, Sphere):  # nor a pole a longitude
        coords[0] = torch.tensor([1.0, 0.0, 2.0], dtype=DOUBLE)
    basis = basis_for(domain, 3)
    assert basis.domain == domain and basis(coords).shape == (4, len(basis))
    assert torch.autograd.gradcheck(basis, coords.requires_grad_())


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: f"{type(d).__name__}{d.dim}")
def test_half_precision_points_and_leading_axes(domain, generator):
    coords = points(domain, 6, generator)
    basis = basis_for(domain, 2)
    torch.testing.assert_close(basis(coords.view(2, 3, -1)).flatten(0, 1), basis(coords))
    assert basis(coords.float()).dtype == torch.float32


def test_values_on_a_discretization_are_computed_once(generator):
    source = lattice(Box.unit(2), 64)
    basis, calls = LegendreBasis(Box.unit(2), 3), []
    coefficients = torch.randn(1, 2, 16, generator=generator)
    expand(coefficients, basis, source)
    kept = dict(vars(source.kept))
    expand(coefficients, LegendreBasis(Box.unit(2), 3), source)  # an equal basis is the same one
    assert vars(source.kept) == kept and len(kept) == 1

    def own(coords):
        calls.append(1)
        return basis(coords)

    for _ in range(2):  # a function of unknown inside is asked each time
        expand(coefficients, own, source)
    assert len(calls) == 2


def test_half_precision_is_summed_in_single(generator):
    source = lattice(Box.unit(2), 4096)
    values = torch.rand(1, 4096, 1, generator=generator) + 10
    basis = LegendreBasis(Box.unit(2), 1)
    half = project(Sampled(source, values.half()), basis)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), project(Sampled(source, values), basis), rtol=1e-3, atol=1e-2)


def test_what_is_made_orthonormal_on_other_domains():
    region = Region(Box.unit(2), lambda x: x[..., 0] + x[..., 1] < 1, measure=0.5)
    assert basis_for(region, 3) == OrthonormalizedBasis(LegendreBasis(Box.unit(2), 3, total=True), region)
    part = Region(Sphere(), lambda x: x[..., 2] > 0, measure=2 * torch.pi)
    assert basis_for(part, 3) == OrthonormalizedBasis(SphericalHarmonics(Sphere(), 3), part)
    weighted = Weighted(Torus((1.0,)), lambda x: 1 + x[..., 0])
    assert basis_for(weighted, 3) == OrthonormalizedBasis(FourierBasis(Torus((1.0,)), 3, total=True), weighted)
    far = Ball((0.0,) * 4, 1.0)
    assert basis_for(far, 2) == OrthonormalizedBasis(LegendreBasis.around(far, 2, total=True), far)
    assert basis_for(Product(Sphere(), region), 1) == ProductBasis(basis_for(Sphere(), 1), basis_for(region, 1))


def test_dependent_functions_are_left_out():
    """On a sphere, polynomials of the coordinates of degree 3 span the harmonics of degree 3, 16 of 20; all of them are kept."""
    basis = OrthonormalizedBasis(LegendreBasis.around(Sphere(), 3, total=True), Sphere())
    assert len(basis.basis) == 20 and len(basis) == 16
    x, w = rule(Sphere(), 6)
    harmonics = SphericalHarmonics(Sphere(), 3)(x)
    shared = torch.einsum("n,nk,nl->kl", w, basis(x), harmonics)
    torch.testing.assert_close(torch.linalg.svdvals(shared), torch.ones(16, dtype=DOUBLE), rtol=0, atol=5e-3)


def test_the_order_of_degrees_is_kept():
    """The first functions span the polynomials of lower degree: the constant is 1."""
    assert [sum(d) for d in LegendreBasis(Box.unit(3), 3, total=True).degrees] == [0] + 3 * [1] + 6 * [2] + 10 * [3]
    region = Region(Box.unit(2), lambda x: x[..., 0] + x[..., 1] < 1, measure=0.5)
    basis = basis_for(region, 2)
    place = lattice(region, 64, dtype=DOUBLE).points
    torch.testing.assert_close(basis(place)[:, 0], torch.ones(64, dtype=DOUBLE))
    assert torch.linalg.matrix_rank(torch.cat([basis(place)[:, :3], torch.ones(64, 1), place], 1), atol=1e-6) == 3


def test_errors():
    with pytest.raises(ConfigError, match="expected a Box"):
        LegendreBasis(Ball((0.0, 0.0), 1.0), 2)
    with pytest.raises(ConfigError, match="1, 2 or 3 dimensions"):
        ZernikeBasis(Ball((0.0,) * 4, 1.0), 2)
    with pytest.raises(ConfigError, match="expected a Sphere"):
        SphericalHarmonics(Box.unit(3), 2)
    with pytest.raises(ConfigError, match="expected a Torus"):
        FourierBasis(Box.unit(3), 2)
    for basis, domain in ((LegendreBasis, Box.unit(1)), (ZernikeBasis, Ball((0.0,), 1.0)), (SphericalHarmonics, Sphere()),
                          (FourierBasis, Torus((1.0,)))):  # fmt: skip
        with pytest.raises(ConfigError, match="degree of -1"):
            basis(domain, -1)
        assert len(basis(domain, 0)) == 1
    points = lattice(Box.unit(1), 8)
    with pytest.raises(ShapeMismatch, match="one number for each function"):
        expand(torch.zeros(1, 2, 5), LegendreBasis(Box.unit(1), 3), points)
    assert isinstance(expand(torch.zeros(1, 2, 4), LegendreBasis(Box.unit(1), 3), points), Sampled)
