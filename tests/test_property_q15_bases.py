"""Law Q15: bases are orthonormal, of any degree; vectors become fields and come back (Wang & Golland 2023, section 3.1)."""

import numpy as np
import pytest
import torch
from reference_rates import rates
from reference_rules import crowded, equally_weighted, rule

from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, Weighted
from inrbridge.domains.atlases import ring_torus
from inrbridge.nn import Decode, LegendreBasis, Sampled, ZernikeBasis, basis_for, expand, project
from inrbridge.sampling import lattice, sobol

DOUBLE = torch.float64
DOMAINS = [
    Box((-1.0,), (2.0,)),
    Box((-1.0, 0.0), (2.0, 0.5)),
    Box((-1.0, 0.0, 2.0), (2.0, 0.5, 3.0)),
    Ball((1.0,), 2.0),
    Ball((1.0, 0.0), 0.5),
    Ball((1.0, 0.0, -1.0), 2.0),
    Sphere(2.0, (1.0, 0.0, 0.0)),
    Torus((3.0,)),
    Torus((1.0, 3.0)),
    Product(Box.unit(1), Sphere()),
]
each_domain = pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: f"{type(d).__name__}{d.dim}")


def gram(basis, points, weights):
    values = basis(points)
    return torch.einsum("n,nk,nl->kl", weights, values, values)


def identity(k):
    return torch.eye(k, dtype=DOUBLE)


@each_domain
def test_gram_matrix_by_exact_quadrature(domain):
    basis = basis_for(domain, 4)
    torch.testing.assert_close(gram(basis, *rule(domain, 6)), identity(len(basis)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("domain", "degree"), [(Box.unit(1), 40), (Ball((0.0,), 1.0), 40), (Ball((0.0, 0.0), 1.0), 30), (Ball((0.0,) * 3, 1.0), 12),
                           (Sphere(), 20), (Torus((1.0,)), 40)], ids=str)  # fmt: skip
def test_gram_matrix_at_high_degree(domain, degree):
    basis = basis_for(domain, degree)
    torch.testing.assert_close(gram(basis, *rule(domain, degree + 2)), identity(len(basis)), rtol=0, atol=1e-10)


OTHERS = {
    "disc, its polynomials by quadrature": Region(Box.centered(2), lambda x: x.norm(dim=-1) < 1, measure=torch.pi),
    "mask": Region(Box.unit(2), np.tri(4, dtype=bool)),
    "part of a sphere": Region(Sphere(), lambda x: x[..., 2] < 0.5, measure=3 * torch.pi),
    "ball of 4 dimensions": Ball((0.0,) * 4, 1.0),
    "weighted": Weighted(Box.unit(2), lambda x: 0.5 + x[..., 0]),
    "ring in space": ring_torus(),
}


@pytest.mark.parametrize("domain", list(OTHERS.values()), ids=list(OTHERS))
def test_what_has_no_closed_form_is_orthonormal_to_the_error_of_quadrature(domain, generator):
    basis = basis_for(domain, 3)
    points = lattice(domain, 2**14, generator, dtype=DOUBLE)  # others than those that made it so
    weights = points.weights / points.weights.sum()
    assert (gram(basis, points.points, weights) - identity(len(basis))).abs().max() < (0.05 if domain.dim > 3 else 0.02)
    coefficients = torch.randn(1, 2, len(basis), generator=generator, dtype=DOUBLE)
    found = project(expand(coefficients, basis, points), basis)
    assert (found - coefficients).abs().max() < (0.15 if domain.dim > 3 else 0.05)
    # negative control: the functions of the domain around it are not orthonormal
    assert (gram(basis.basis, points.points, weights) - identity(len(basis.basis))).abs().max() > 0.1


@pytest.mark.parametrize("total", [False, True])
def test_gram_matrix_of_full_products(total):
    box = Box((-1.0, 0.0), (2.0, 0.5))
    basis = LegendreBasis(box, 5, total=total)
    torch.testing.assert_close(gram(basis, *rule(box, 6)), identity(len(basis)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_zernike_polynomials_include_the_constant(dim):
    basis = ZernikeBasis(Ball((0.0,) * dim, 1.0), 3)
    values = basis(rule(basis.domain, 3)[0])
    assert torch.equal(values[:, 0], torch.ones(len(values), dtype=DOUBLE))


@pytest.mark.parametrize("domain", [Ball((0.0, 0.0), 1.0), Ball((0.0,) * 3, 1.0)], ids=["disc", "ball"])
def test_negative_control_polynomials_of_the_box_are_not_orthonormal_on_the_ball(domain):
    basis = LegendreBasis.around(domain, 4, total=True)
    assert (gram(basis, *rule(domain, 6)) - identity(len(basis))).abs().max() > 0.1


@each_domain
def test_gram_matrix_at_the_rate_of_the_points(domain):
    """The error of <B_k, B_l> by scrambled Sobol points falls faster than 1 / N^0.8, by random points like 1 / sqrt(N)."""
    basis = basis_for(domain, 2)

    def output(source):
        return gram(basis, source.points, source.weights / domain.measure)

    slope, errors = rates(output, domain, "sobol", (128, 512, 2048), 8, truth=identity(len(basis)))
    random, others = rates(output, domain, "uniform", (128, 512, 2048), 8, truth=identity(len(basis)))
    assert slope <= -0.8, errors
    assert -0.65 <= random <= -0.35, others
    assert errors[-1] < others[-1] / 5


@each_domain
def test_coefficients_become_a_field_and_come_back(domain, generator):
    basis = basis_for(domain, 3)
    coefficients = torch.randn(2, 3, len(basis), generator=generator, dtype=DOUBLE)
    points, weights = rule(domain, 5)
    field = torch.einsum("nk,bck->bnc", basis(points), coefficients)
    found = torch.einsum("n,nk,bnc->bck", weights, basis(points), field)  # by exact quadrature
    torch.testing.assert_close(found, coefficients, rtol=0, atol=1e-10)
    errors = []
    for n in (2**9, 2**13):
        sampled = expand(coefficients, basis, sobol(domain, n, torch.Generator().manual_seed(0), dtype=DOUBLE))
        assert sampled.values.shape == (2, n, 3)
        errors.append((project(sampled, basis) - coefficients).square().mean().sqrt())
    assert errors[1] < 0.05 and errors[1] < errors[0] / 4
    energy = torch.einsum("n,bnc->bc", sampled.weights, sampled.values**2)  # Parseval
    torch.testing.assert_close(energy, (coefficients**2).sum(2), rtol=0.05, atol=0)


@each_domain
def test_a_decoded_vector_comes_back_from_crowded_points_by_their_weights(domain, generator):
    decode = Decode(basis_for(domain, 2), 2)
    vector = torch.randn(1, decode.features, generator=generator, dtype=DOUBLE)
    found = []
    for weigh in (lambda source: source, equally_weighted):
        source = weigh(crowded(domain, 2**14))
        found.append(project(decode(vector, source), decode.basis).flatten(1))
    weighted, unweighted = ((v - vector).abs().max() for v in found)
    assert weighted < 0.1 and unweighted > 5 * weighted  # the weights are what makes the inner product an integral


@pytest.mark.parametrize("domain", [Sphere(), Ball((0.0,) * 3, 1.0)], ids=["sphere", "ball"])
def test_a_turned_field_has_turned_coefficients_of_equal_energy_in_each_degree(domain, generator):
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=DOUBLE))
    basis = basis_for(domain, 3)
    points, weights = rule(domain, 6)
    coefficients = torch.randn(len(basis), generator=generator, dtype=DOUBLE)
    turned = torch.einsum("n,nk,n->k", weights, basis(points), basis(points @ turn) @ coefficients)
    sizes = [2 * j + 1 for j in range(4)] if isinstance(domain, Sphere) else [1, 3, 6, 10]
    for a, b in zip(coefficients.split(sizes), turned.split(sizes), strict=True):
        torch.testing.assert_close(a.norm(), b.norm(), rtol=0, atol=1e-10)
    assert (turned - coefficients).abs().max() > 0.1


def test_a_field_outside_the_span_leaves_its_projection():
    """What is left after a projection is orthogonal to the basis: the best approximation of its degree."""
    disc = Ball((0.0, 0.0), 1.0)
    basis = basis_for(disc, 4)
    points, weights = rule(disc, 30)
    field = torch.exp(points[:, :1])[None]
    coefficients = torch.einsum("n,nk,bnc->bck", weights, basis(points), field)
    rest = field - torch.einsum("nk,bck->bnc", basis(points), coefficients)
    assert torch.einsum("n,nk,bnc->bck", weights, basis(points), rest).abs().max() < 1e-12
    assert 1e-6 < rest.abs().max() < 1e-2
    sampled = sobol(disc, 2**14, dtype=DOUBLE)
    torch.testing.assert_close(
        project(Sampled(sampled, torch.exp(sampled.points[:, :1])[None]), basis), coefficients, rtol=0, atol=2e-3
    )
