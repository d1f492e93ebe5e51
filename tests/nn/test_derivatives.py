"""Derivatives of samples: exact for polynomials, equal to a plain fit at each point, and to differences on a grid."""

import itertools
import math

import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Region, Sphere, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import Derivative, Divergence, Gradient, Hessian, Laplacian, Sampled
from inrbridge.sampling import get_sampler, grid, lattice, sobol
from inrbridge.stencils.derivatives import derivative_stencil

DOUBLE = {"dtype": torch.float64}
ON_A_LINE = Discretization(torch.arange(50.0)[:, None] * torch.tensor([0.01, 0.01]), torch.full((50,), 0.02), Box.unit(2))


def monomials(order, dim):
    return [p for p in itertools.product(range(order + 1), repeat=dim) if sum(p) <= order]


def derived(power, alpha, x):
    """D^alpha of x^power, in closed form."""
    value = torch.ones(len(x), **DOUBLE)
    for a, (p, q) in enumerate(zip(power, alpha, strict=True)):
        value = value * (math.perm(p, q) * x[:, a] ** (p - q) if p >= q else 0.0)
    return value


def fitted(source, query, powers, order, count):
    """The slow twin: D^alpha at one point of the polynomial fitted to its nearest samples, in plain monomials."""
    distance, near = (source.points - query).norm(dim=1).sort()
    rho = distance[:count] / distance[count]
    root = (1 - rho**2).clamp(min=0)  # of the weight
    terms = monomials(order, len(query))
    offset = source.points[near[:count]] - query
    vander = torch.stack([(offset ** torch.tensor(power)).prod(1) for power in terms], 1)
    weights = torch.linalg.lstsq(root[:, None] * vander, torch.diag(root)).solution  # coefficients by samples
    out = torch.zeros(len(powers), len(source), **DOUBLE)
    for row, alpha in enumerate(powers):
        out[row, near[:count]] = weights[terms.index(alpha)] * math.prod(math.factorial(p) for p in alpha)
    return out


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "uniform", "grid"])
@pytest.mark.parametrize(("dim", "order"), [(1, 2), (1, 4), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)])
def test_polynomials_are_differentiated_exactly_up_to_the_edges(sampler, dim, order, generator):
    source = get_sampler(sampler)(Box.centered(dim), 216 if dim == 3 else 144, generator, **DOUBLE)
    powers = [alpha for alpha in monomials(min(order, 2), dim) if any(alpha)]
    family = monomials(order, dim)
    values = torch.stack([derived(power, (0,) * dim, source.points) for power in family], -1)[None]
    out = Derivative(powers, order=order)(Sampled(source, values)).values[0].unflatten(1, (len(family), len(powers)))
    for i, power in enumerate(family):
        for k, alpha in enumerate(powers):
            torch.testing.assert_close(out[:, i, k], derived(power, alpha, source.points), rtol=1e-6, atol=1e-6)


def test_beyond_the_order_they_are_not_exact(generator):
    """Negative control: the test above can fail."""
    source = sobol(Box.centered(2), 144, generator, **DOUBLE)
    out = Gradient(order=2)(Sampled(source, source.points[None, :, :1] ** 3)).values[0, :, 0]
    assert float((out - 3 * source.points[:, 0] ** 2).abs().max()) > 1e-2


@pytest.mark.parametrize("dim", [1, 2])
def test_weights_equal_a_plain_fit_at_each_point(dim, generator):
    source = sobol(Box.centered(dim), 40, generator, **DOUBLE)
    powers, count = [alpha for alpha in monomials(2, dim) if any(alpha)], 16
    dense = derivative_stencil(powers, source, order=2, neighbors=count).dense()
    for i in range(0, 40, 3):
        torch.testing.assert_close(dense[i], fitted(source, source.points[i], powers, 2, count), rtol=1e-7, atol=1e-7)


def test_three_neighbours_on_a_line_are_central_differences():
    source = grid(Box((0.0,), (3.0,)), (12,), **DOUBLE)
    dense = derivative_stencil([(1,), (2,)], source, order=2, neighbors=3).dense()[1:-1]
    step = 3 / 12
    for i, (first, second) in enumerate(dense):
        expected = torch.zeros(2, 12, **DOUBLE)
        expected[0, [i, i + 2]] = torch.tensor([-0.5, 0.5], **DOUBLE) / step
        expected[1, [i, i + 1, i + 2]] = torch.tensor([1.0, -2.0, 1.0], **DOUBLE) / step**2
        torch.testing.assert_close(torch.stack([first, second]), expected)


@pytest.mark.parametrize(("layer", "rate"), [(Gradient(), 2), (Gradient(order=3), 3), (Laplacian(), 2)])
def test_the_error_falls_with_the_spacing(layer, rate):
    errors = []
    for n in (256, 4096):
        source = lattice(Box.centered(2), n, **DOUBLE)
        a, b = source.points.unbind(1)
        f = torch.sin(2 * a + b)
        truth = -5 * f[:, None] if isinstance(layer, Laplacian) else torch.cos(2 * a + b)[:, None] * torch.tensor([2, 1])
        errors.append(float((layer(Sampled(source, f[None, :, None])).values[0] - truth).square().mean().sqrt()))
    assert math.log(errors[1] / errors[0]) / math.log(1 / 4) > rate - 0.4, errors


def test_named_layers_are_their_derivatives(generator):
    source = sobol(Box.centered(2), 100, generator, **DOUBLE)
    f = Sampled(source, torch.randn(2, 100, 2, generator=generator, **DOUBLE))

    def by_hand(powers, order):
        return Derivative(powers, order=order)(f).values.unflatten(2, (2, -1))

    first, second = by_hand([(1, 0), (0, 1)], 2), by_hand([(2, 0), (1, 1), (0, 2)], 3)
    torch.testing.assert_close(Gradient()(f).values, first.flatten(2))
    torch.testing.assert_close(Divergence()(f).values[..., 0], first[..., 0, 0] + first[..., 1, 1])
    torch.testing.assert_close(Laplacian()(f).values, second[..., 0] + second[..., 2])
    torch.testing.assert_close(Hessian()(f).values, second[..., [0, 1, 1, 2]].flatten(2))
    kept = Gradient(keep=True)(f)
    assert torch.equal(kept.values[..., :2], f.values) and kept.channels == 6 and kept.discretization is source


@pytest.mark.parametrize("layer", [Gradient(keep=True), Laplacian(), Hessian(), Divergence()])
def test_gradients_of_the_values(layer, generator):
    source = sobol(Box.centered(2), 20, generator, **DOUBLE)
    values = torch.randn(2, 20, 2, generator=generator, **DOUBLE).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: layer(Sampled(source, v)).values, values)


@pytest.mark.parametrize("closed", ["torus", "circular box"])
def test_closed_domains_have_no_edge(closed, generator):
    domain = Torus((1.0, 2.0)) if closed == "torus" else Box((0.0, 0.0), (1.0, 2.0))
    source = lattice(domain, 1024, generator, **DOUBLE)
    a, b = source.points.unbind(1)
    f = torch.sin(2 * math.pi * a) * torch.cos(math.pi * b)
    out = Laplacian(order=3, circular=closed != "torus")(Sampled(source, f[None, :, None])).values[0, :, 0]
    error = (out + 5 * math.pi**2 * f).abs()
    edge = ((a < 0.05) | (a > 0.95)) | ((b < 0.05) | (b > 1.95))
    assert float(error[edge].max()) < 1.5 * float(error[~edge].max()) < 5.0
    one_sided = Laplacian(order=3)(Sampled(lattice(Box((0.0, 0.0), (1.0, 2.0)), 1024), f[None, :, None]))
    assert float((one_sided.values[0, :, 0] + 5 * math.pi**2 * f).abs()[edge].max()) > 2 * float(error[edge].max())


def test_other_flat_domains(generator):
    for domain in (Ball((0.0, 0.0)), Region(Box.centered(2), lambda x: x[..., 0] < 0.4)):
        source = sobol(domain, 200, generator, **DOUBLE)
        out = Gradient()(Sampled(source, source.points.prod(1)[None, :, None])).values[0]
        torch.testing.assert_close(out, source.points.flip(1), atol=1e-6, rtol=1e-6)


def test_single_precision_and_new_values():
    source = lattice(Box.centered(2), 100)
    values = source.points.prod(1)[None, :, None]
    out = Gradient()(Sampled(source, values))
    assert out.values.dtype == torch.float32 and out.values is not values
    torch.testing.assert_close(out.values[0], source.points.flip(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("layer", "source", "error", "text"),
    [
        (Gradient(), sobol(Sphere(), 64), ShapeMismatch, "flat domain"),
        (Gradient(), sobol(Box.unit(2), 4), ShapeMismatch, r"4 points .* degree 2 \(6 terms"),
        (Gradient(), ON_A_LINE, ShapeMismatch, "spread in every direction"),
        (Derivative([(1,)]), sobol(Box.unit(2), 64), ConfigError, "multi-indices of 2"),
        (Derivative([(2, 0)], order=1), sobol(Box.unit(2), 64), ConfigError, "at least 2"),
        (Divergence(), sobol(Box.unit(3), 64), ShapeMismatch, "expected 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_differentiated_is_said(layer, source, error, text):
    with pytest.raises(error, match=text):
        layer(Sampled(source, torch.zeros(1, len(source), 1)))
