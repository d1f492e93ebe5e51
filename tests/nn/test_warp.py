"""The warp of samples: exact for polynomials, the identity for u = 0, a translation for constant u, differentiable in f and u."""

import math

import pytest
import torch
from scipy.spatial import cKDTree

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, Weighted
from inrbridge.errors import ConfigError, NotFinite, ShapeMismatch
from inrbridge.nn import Gradient, Hessian, Linear, Sampled, Sequential, Warp
from inrbridge.nn.warp import interpolant
from inrbridge.sampling import get_sampler, lattice, sobol

DOUBLE = {"dtype": torch.float64}
HALF = Region(Box.unit(2), lambda x: x[..., 0] < 0.5)


def quadratics(x):
    a, b = x.unbind(-1)
    return torch.stack([1 + a - 2 * b, a * b + b**2, a**2], -1)


def shepard(sampled, query, neighbors):
    """The slow twin in two dimensions: blend the quadratics around the nearest samples, one query at a time."""
    points, values = sampled.discretization.points, sampled.values[0]
    slope, curve = Gradient(order=2)(sampled).values[0], Hessian(order=2)(sampled).values[0]
    distance, near = cKDTree(points.numpy()).query(query.numpy(), neighbors + 1)
    total, norm = 0.0, 0.0
    for r, j in zip(distance[:-1], near[:-1], strict=True):
        offset = query - points[j]
        local = values[j, 0] + slope[j] @ offset + offset @ curve[j].reshape(2, 2) @ offset / 2
        weight = (1 - (r / distance[-1]) ** 2) ** 2 / (r / distance[-1]) ** 2
        total, norm = total + weight * local, norm + weight
    return total / norm


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "uniform", "grid"])
def test_no_displacement_is_the_identity(sampler, generator):
    source = get_sampler(sampler)(Box.centered(2), 100, generator, **DOUBLE)
    f = Sampled(source, torch.randn(2, 100, 3, generator=generator, **DOUBLE))
    out = Warp()(f, f.with_values(torch.zeros(1, 100, 2, **DOUBLE)))
    torch.testing.assert_close(out.values, f.values, rtol=1e-9, atol=1e-9)
    assert out.discretization is source and out.values is not f.values


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_polynomials_are_warped_exactly(dim, generator):
    source = sobol(Box.centered(dim), 60 * dim, generator, **DOUBLE)
    x = source.points
    f = Sampled(source, torch.stack([x.sum(1) ** 2, x[:, 0] * x[:, -1] + 1], -1)[None])
    u = 0.3 * torch.sin(3 * x.flip(1)) * (1 - x**2)
    y = (x + u).clamp(-1, 1)
    expected = torch.stack([y.sum(1) ** 2, y[:, 0] * y[:, -1] + 1], -1)
    out = Warp()(f, Sampled(source, u[None]))
    torch.testing.assert_close(out.values[0], expected, rtol=1e-8, atol=1e-8)
    linear = Warp(order=1)(f, Sampled(source, u[None]))  # negative control: of degree 1 only, it is not exact
    assert float((linear.values[0] - expected).abs().max()) > 1e-3


def test_it_equals_the_blend_written_out(generator):
    source = sobol(Box.centered(2), 80, generator, **DOUBLE)
    f = Sampled(source, torch.randn(1, 80, 1, generator=generator, **DOUBLE))
    queries = 0.9 * (2 * torch.rand(12, 2, generator=generator, **DOUBLE) - 1)
    out = interpolant(f, queries[None])
    torch.testing.assert_close(out[0, :, 0], torch.stack([shepard(f, q, 5) for q in queries]))


def test_constant_displacements_translate():
    source = lattice(Torus((1.0, 2.0)), 1024, **DOUBLE)

    def f(x):
        return torch.sin(2 * math.pi * x[:, :1]) * torch.cos(math.pi * x[:, 1:])

    out = Warp((0.31, -0.77))(Sampled(source, f(source.points)[None])).values[0]
    expected = f(source.points + torch.tensor([0.31, -0.77], **DOUBLE))
    assert float((out - expected).abs().max()) < 5e-3
    step = source.points[5] - source.points[2]  # from sample to sample: exact
    values = torch.randn(1, 1024, 1, **DOUBLE)
    moved = Warp(step.tolist())(Sampled(source, values)).values[0]
    want = (source.points + step)[:, None] - source.points[None]
    want -= torch.tensor([1.0, 2.0]) * (want / torch.tensor([1.0, 2.0])).round()
    torch.testing.assert_close(moved, values[0, want.norm(dim=2).argmin(1)], rtol=1e-8, atol=1e-8)


def test_the_error_falls_with_the_spacing():
    errors = []
    for n in (256, 4096):
        source = sobol(Box.centered(2), n, **DOUBLE)
        u = 0.2 * (1 - source.points**2) * torch.sin(4 * source.points.flip(1))
        f = torch.sin(3 * source.points.sum(1))[None, :, None]
        out = Warp()(Sampled(source, f), Sampled(source, u[None])).values[0, :, 0]
        errors.append(float((out - torch.sin(3 * (source.points + u).sum(1))).square().mean().sqrt()))
    assert math.log(errors[1] / errors[0]) / math.log(1 / 4) > 2.3, errors  # about h^2.5


@pytest.mark.parametrize("border", ["clamp", "reflect", "circular", "zeros"])
def test_borders(border, generator):
    source = sobol(Box.centered(2), 120, generator, **DOUBLE)
    f = Sampled(source, quadratics(source.points)[None])
    out = Warp((0.8, 0.0), border=border)(f).values[0]
    y = source.points + torch.tensor([0.8, 0.0], **DOUBLE)
    inside = y[:, 0] < 1
    if border != "circular":  # whose neighbours reach across the edge, where f jumps
        torch.testing.assert_close(out[inside], quadratics(y[inside]), rtol=1e-8, atol=1e-8)
    expected = {"clamp": y.clamp(max=1), "reflect": torch.stack([2 - y[:, 0], y[:, 1]], 1)}.get(border)
    if expected is not None:
        torch.testing.assert_close(out[~inside], quadratics(expected[~inside]), rtol=1e-8, atol=1e-8)
    elif border == "zeros":
        assert bool((out[~inside] == 0).all())
    else:
        periodic = Sampled(source, torch.sin(math.pi * source.points).sum(1)[None, :, None])
        moved = Warp((2.8, -2.0), border=border)(periodic).values
        torch.testing.assert_close(moved, Warp((0.8, 0.0), border=border)(periodic).values, rtol=1e-6, atol=1e-6)


def test_a_product_wraps_along_its_torus_and_ends_along_its_box(generator):
    domain = Product(Torus((1.0,)), Box((0.0,), (2.0,)))
    source = sobol(domain, 400, generator, **DOUBLE)
    f = Sampled(source, (torch.sin(2 * math.pi * source.points[:, :1]) * source.points[:, 1:])[None])
    out = Warp((0.6, 0.5), border="zeros")(f).values[0, :, 0]
    y = source.points + torch.tensor([0.6, 0.5], **DOUBLE)
    inside = y[:, 1] < 2
    expected = torch.sin(2 * math.pi * y[:, 0]) * y[:, 1]
    assert bool((out[~inside] == 0).all()) and float((out - expected)[inside].abs().max()) < 0.03


def test_a_density_does_not_matter_to_what_is_read(generator):
    plain = sobol(Box.centered(2), 200, generator, **DOUBLE)
    dense = Discretization(plain.points, plain.weights, Weighted(plain.domain, lambda x: 2 + x[..., 0]))
    values = quadratics(plain.points)[None]
    first, second = (Warp((0.3, -0.2), border="reflect")(Sampled(d, values)).values for d in (plain, dense))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("border", ["clamp", "circular", "zeros"])
@pytest.mark.parametrize("batches", [(2, 2), (1, 2), (2, 1)])
def test_gradients_of_field_and_displacement(border, batches, generator):
    """Both at once, by finite differences: it is the derivative of the very interpolant, not of a smoother cousin."""
    source, asked = (sobol(Box.centered(2), n, generator, **DOUBLE) for n in (24, 5))
    values = torch.randn(batches[0], 24, 2, generator=generator, **DOUBLE).requires_grad_()
    u = (0.2 * torch.randn(batches[1], 5, 2, generator=generator, **DOUBLE)).requires_grad_()
    layer = Warp(border=border)
    out = layer(Sampled(source, values), Sampled(asked, u))
    assert out.values.shape == (2, 5, 2) and out.discretization is asked
    assert torch.autograd.gradcheck(lambda v, d: layer(Sampled(source, v), Sampled(asked, d)).values, (values, u))


def test_the_gradient_at_the_samples_themselves(generator):
    """u = 0, where learning starts: it is the slope of the local polynomial, and finite."""
    source = sobol(Box.centered(2), 60, generator, **DOUBLE)
    f = Sampled(source, quadratics(source.points)[None, :, 1:2])
    u = torch.zeros(1, 60, 2, **DOUBLE).requires_grad_()
    Warp()(f, Sampled(source, u)).values.sum().backward()
    a, b = source.points.unbind(1)
    torch.testing.assert_close(u.grad[0], torch.stack([b, a + 2 * b], 1), rtol=1e-6, atol=1e-6)


def test_a_displacement_is_learned(generator):
    """Registration: a net of coordinates, and one that sees the field, find the shift between two fields."""
    source = lattice(Box.centered(2), 256)
    f = torch.exp(-8 * source.points.square().sum(1))[None, :, None]
    goal = torch.exp(-8 * (source.points + torch.tensor([0.2, -0.1])).square().sum(1))[None, :, None]
    net = Warp(torch.nn.Linear(2, 2))
    seen = Sequential(Linear(1, 2, generator=generator))
    for parameters, run in (
        (net.parameters(), lambda: net(Sampled(source, f))),
        (seen.parameters(), lambda: Warp()(Sampled(source, f), seen(Sampled(source, f)))),
    ):
        parameters = list(parameters)
        for p in parameters:
            torch.nn.init.zeros_(p)
        optimizer = torch.optim.Adam(parameters, lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (run().values - goal).square().mean()
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 2e-4 and float(parameters[1].detach()[0]) == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f: Warp()(f), ConfigError, "a displacement too"),
        (lambda f: Warp()(f, f), ShapeMismatch, "expected 2 channels on the same domain"),
        (lambda f: Warp()(f, f.with_values(torch.zeros(3, 64, 2))), ShapeMismatch, "3 displacements for 2 fields"),
        (lambda f: Warp()(f, f.with_values(torch.full((2, 64, 2), torch.nan))), NotFinite, "displacements"),
        (lambda f: Warp(lambda x: x[:, :1])(f), ShapeMismatch, "1 channels"),
        (lambda f: Warp((0.1,))(f), ShapeMismatch, "1 channels"),
        (lambda f: Warp(border="mirror"), ConfigError, 'no border mode "mirror"'),
        (lambda f: Warp(order=0), ConfigError, "1 or more"),
        (lambda f: Warp((0.0,) * 3)(Sampled(sobol(Sphere(), 64), f.values)), ShapeMismatch, "flat domain"),
        (lambda f: Warp((0.0, 0.0))(Sampled(sobol(HALF, 64), f.values)), ConfigError, "leave"),
        (lambda f: Warp((0.0, 0.0), border="reflect")(Sampled(sobol(Ball((0.0, 0.0)), 64), f.values)), ConfigError, "clamp"),
    ],
)  # fmt: skip
def test_what_cannot_be_warped_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call(Sampled(sobol(Box.centered(2), 64), torch.zeros(2, 64, 3)))
