"""Layers of two fields: twins in torch, fields on different points, shared batches, and what does not fit."""

import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Sphere
from inrbridge.errors import ShapeMismatch
from inrbridge.nn import BilinearPair, ConcatPair, GlobalIntegral, InnerProductPair, Linear, ProductPair, Sampled, brought_to
from inrbridge.sampling import grid, lattice, shrunk, sobol

BOX, DOUBLE = Box.centered(2), {"dtype": torch.float64}


def samples(n, channels, b=2, seed=0, sampler=lattice, domain=BOX):
    generator = torch.Generator().manual_seed(seed)
    return Sampled(sampler(domain, n, generator, **DOUBLE), torch.randn(b, n, channels, generator=generator, **DOUBLE))


def test_a_layer_of_both(generator):
    f, g = samples(64, 2), samples(64, 3)
    layer = ConcatPair(Linear(5, 4, generator=generator), GlobalIntegral()).double()
    both = torch.cat([f.values, g.values], 2)
    expected = torch.nn.functional.linear(both, layer.body[0].weight, layer.body[0].bias).mean(1)
    torch.testing.assert_close(layer(f, g), expected)
    assert torch.equal(ConcatPair()(f, g).values, both)


def test_bilinear_is_that_of_torch(generator):
    twin = torch.nn.Bilinear(2, 3, 4, **DOUBLE)
    layer, f, g = BilinearPair.from_discrete(twin), samples(64, 2), samples(64, 3)
    torch.testing.assert_close(layer(f, g).values, twin(f.values, g.values), rtol=1e-12, atol=1e-12)
    plain = BilinearPair(2, 3, 4, bias=False, generator=generator).double()
    torch.testing.assert_close(plain(f, g).values, torch.einsum("kij,bni,bnj->bnk", plain.weight, f.values, g.values))
    again = BilinearPair(2, 3, 4, bias=False, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(again.weight, plain.weight) and float(plain.weight.detach().abs().max()) <= 2**-0.5
    v, w = f.values.clone().requires_grad_(), g.values.clone().requires_grad_()
    small = [Sampled(lattice(BOX, 64, **DOUBLE), t) for t in (v, w)]
    assert torch.autograd.grad(layer(*small).values.sum(), [v, w, layer.weight])[2].shape == (4, 2, 3)


def test_products(generator):
    f, mask = samples(64, 3), samples(64, 1, b=1)
    g = f.with_values(torch.randn(2, 64, 3, generator=generator, **DOUBLE))
    torch.testing.assert_close(ProductPair()(f, g).values, f.values * g.values)
    torch.testing.assert_close(ProductPair()(mask, f).values, mask.values * f.values)
    assert torch.equal(ProductPair()(f, g).values, ProductPair()(g, f).values)


def test_inner_products_are_integrals_on_crowded_points():
    """<x, x> = 1/3, <x, y> = 0, <y, x^2> = 0 under the normalized measure; without the weights they differ (negative control)."""
    source = shrunk(BOX, 4096, weights="density", **DOUBLE)
    a, b = source.points.unbind(1)
    f, g = Sampled(source, torch.stack([a, b], -1)[None]), Sampled(source, torch.stack([a, a**2], -1)[None])
    expected = torch.tensor([[[1 / 3, 0], [0, 0]]], **DOUBLE)
    torch.testing.assert_close(InnerProductPair()(f, g), expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(InnerProductPair(mean=False)(f, g), 4 * expected, rtol=0, atol=8e-3)
    torch.testing.assert_close(InnerProductPair(matched=True)(f, f), torch.full((1, 2), 1 / 3, **DOUBLE), rtol=0, atol=2e-3)
    equal = Discretization(source.points, torch.full((4096,), 4 / 4096, **DOUBLE), BOX)
    assert float((InnerProductPair()(Sampled(equal, f.values), Sampled(equal, g.values)) - expected).abs().max()) > 0.05


def test_the_second_field_comes_to_the_points_of_the_first():
    """Quadratics exactly, whatever points either has."""
    f, g = samples(100, 1, sampler=sobol), grid(BOX, (12, 12), **DOUBLE)
    quadratic = Sampled(g, torch.stack([g.points.prod(1), g.points[:, 0] ** 2], -1)[None])
    out = ConcatPair()(f, quadratic)
    assert out.discretization is f.discretization
    x = f.discretization.points
    expected = torch.stack([x.prod(1), x[:, 0] ** 2], -1).expand(2, -1, -1)
    torch.testing.assert_close(out.values[..., 1:], expected, rtol=1e-8, atol=1e-8)
    assert torch.equal(out.values[..., :1], f.values)
    torch.testing.assert_close(brought_to(quadratic, f.discretization).values, expected[:1], rtol=1e-8, atol=1e-8)


def test_equal_points_are_not_interpolated():
    f = samples(64, 2)
    copy = Discretization(f.discretization.points.clone(), f.discretization.weights, BOX)
    assert torch.equal(brought_to(f, copy).values, f.values)
    ball = samples(32, 2, sampler=sobol, domain=Sphere())  # where reconstruction does not reach, equal points still pair
    assert ConcatPair()(ball, ball).channels == 4


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda f: ConcatPair()(f, samples(64, 1, domain=Box.unit(2))), "expected one domain; rescale or restrict"),
        (lambda f: ConcatPair()(f, samples(64, 1, domain=Box.unit(3))), "expected one domain"),
        (lambda f: ConcatPair()(f, samples(64, 1, b=3)), "2 and 3 fields to pair"),
        (lambda f: ProductPair()(f, samples(64, 3)), "2 and 3 channels to multiply"),
        (lambda f: BilinearPair(1, 2, 3)(f, f), "2 channels in the first field of BilinearPair"),
        (lambda f: BilinearPair(2, 1, 3)(f, f), "2 channels in the second field of BilinearPair"),
        (lambda f: InnerProductPair(matched=True)(f, samples(64, 3)), "matched"),
        (lambda f: ConcatPair(Linear(3, 1))(f, f), "4 channels in Linear"),
    ],
)
def test_what_does_not_fit_is_said(call, text):
    with pytest.raises(ShapeMismatch, match=text):
        call(samples(64, 2))
