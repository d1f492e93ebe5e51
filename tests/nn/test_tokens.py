"""Tokens equal torch's patch embedding on grids (Q8), their slow twin elsewhere; the partition's laws are Q13."""

from dataclasses import replace

import pytest
import torch
from reference_rules import DOUBLE, crowded, shuffled
from torch import nn

from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus
from inrbridge.domains.atlases import ring_torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import AdaptiveAvgPool, Sampled, Tokenize, tokens
from inrbridge.nn.reading import read
from inrbridge.sampling import grid, lattice, sobol
from inrbridge.stencils import Cells

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CELLS, PATCH = (3, 2, 4), (4, 5, 2)


def boxed(dim):
    return Box((-1.0, 0.0, 2.0)[:dim], (1.0, 3.0, 4.0)[:dim])


def embed(conv, sampled):
    """What torch makes of the values on a grid: (b, tokens, out), flattened as a vision transformer does."""
    image = sampled.values.unflatten(1, sampled.discretization.structure.shape).movedim(-1, 1)
    return conv(image).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("structured", [True, False], ids=["grid", "any points"])
@pytest.mark.parametrize("rule", ["reconstruct", "quadrature"])
def test_equals_a_patch_embedding_on_a_grid(rule, structured, dim, dtype, bias, generator):
    conv = CONVOLUTIONS[dim](3, 6, PATCH[:dim], PATCH[:dim], bias=bias).to(dtype)
    layer = Tokenize.from_discrete(conv, CELLS[:dim], rule)
    points = grid(boxed(dim), tuple(a * b for a, b in zip(CELLS[:dim], PATCH[:dim], strict=True)), dtype=dtype)
    values = torch.randn(2, len(points), 3, generator=generator, dtype=dtype)
    expected = embed(conv, Sampled(points, values))
    if not structured:  # the same places without being told that they are a grid
        points = replace(points, structure=None, cache={})
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    out = layer(Sampled(points, ours))
    torch.testing.assert_close(out.values, expected, rtol=0, atol=TOLERANCE[dtype])
    slope = torch.randn(expected.shape, generator=generator, dtype=dtype)
    (out.values * slope).sum().backward()
    structured_points = grid(boxed(dim), tuple(a * b for a, b in zip(CELLS[:dim], PATCH[:dim], strict=True)), dtype=dtype)
    (embed(conv, Sampled(structured_points, theirs)) * slope).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=10 * TOLERANCE[dtype])
    torch.testing.assert_close(layer.weight.grad, conv.weight.grad, rtol=0, atol=100 * TOLERANCE[dtype])
    torch.testing.assert_close(out.discretization.points, grid(boxed(dim), CELLS[:dim], dtype=dtype).points)


@pytest.mark.parametrize("domain", [Box((0.0, 1.0), (2.0, 4.0)), Torus((1.0, 3.0))], ids=["box", "torus"])
@pytest.mark.parametrize("options", [{"degree": 3}, *({"patch": p, "rule": "quadrature"} for p in ((3, 4), (6, 4)))], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_fast_path_of_grids_equals_the_stencil(stride, options, domain, generator):
    points = grid(domain, (12, 16), dtype=DOUBLE).thin(stride)  # thinned, the points are off the centres of their cells
    values = torch.randn(2, len(points), 3, generator=generator, dtype=DOUBLE)
    layer = Tokenize(3, 5, (2, 4), generator=generator, **options).double()
    fast = layer(Sampled(points, values))
    slow = layer(Sampled(replace(points, structure=None, cache={}), values))
    assert tokens._patch_matrix(points, Cells(layer.shape, layer.functions)) is not None
    torch.testing.assert_close(fast.values, slow.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(fast.discretization.points, slow.discretization.points)
    torch.testing.assert_close(fast.discretization.weights, slow.discretization.weights)


def test_a_grid_that_the_regions_do_not_divide_takes_the_stencil(generator):
    points = grid(Box.unit(2), (7, 8), dtype=DOUBLE)
    values = torch.randn(1, 56, 2, generator=generator, dtype=DOUBLE)
    layer = Tokenize(2, 3, (2, 4), generator=generator).double()
    torch.testing.assert_close(layer(Sampled(points, values)).values,
                               layer(Sampled(replace(points, structure=None, cache={}), values)).values)  # fmt: skip
    weights = torch.rand(64, generator=generator, dtype=DOUBLE)
    even = grid(Box.unit(2), (8, 8), dtype=DOUBLE)
    weighted = replace(even, weights=weights / weights.sum(), cache={})  # nor one whose points do not weigh the same
    values = torch.randn(1, 64, 2, generator=generator, dtype=DOUBLE)
    torch.testing.assert_close(layer(Sampled(weighted, values)).values,
                               layer(Sampled(replace(weighted, structure=None, cache={}), values)).values)  # fmt: skip


def reference(layer, sampled):
    """Token by token, point by point: sum_ik W_ik (sum_j w_j f_ij B_k(u_j)) / (sum_j w_j) over the points j of a region."""
    points, domain = sampled.discretization, sampled.discretization.domain
    unit = domain.envelope.to_unit(points.points)
    out = []
    for cell in torch.cartesian_prod(*(torch.arange(n) for n in layer.shape)).reshape(-1, len(layer.shape)).tolist():
        low = torch.tensor([a / n for a, n in zip(cell, layer.shape, strict=True)], dtype=DOUBLE)
        high = torch.tensor([(a + 1) / n for a, n in zip(cell, layer.shape, strict=True)], dtype=DOUBLE)
        token = torch.zeros(len(sampled.values), layer.out_channels, dtype=DOUBLE)
        total = 0.0
        for j in range(len(points)):
            if bool(((unit[j] >= low) & (unit[j] < high)).all()):
                functions = layer.functions(((unit[j] - low) / (high - low))[None])[0]
                kernel = torch.einsum("oik,k->oi", layer.weight.flatten(2), functions)
                token += points.weights[j] * sampled.values[:, j] @ kernel.T
                total += float(points.weights[j])
        scale = 1 if layer.patch is None else layer.functions.shape[0] * layer.functions.shape[-1]
        out.append(layer.bias + scale * token / total if total else layer.bias.expand_as(token))
    return torch.stack(out, 1)


@pytest.mark.parametrize("options", [{"degree": 2}, {"patch": 3, "rule": "quadrature"}], ids=str)
@pytest.mark.parametrize(
    "domain",
    [Box((0.0, 1.0), (2.0, 4.0)), Ball((1.0, 0.0), 2.0), Sphere(2.0), Torus((1.0, 3.0)),
     Region(Box.unit(2), lambda x: x[..., 0] + x[..., 1] < 0.8, measure=0.32)],
    ids=lambda d: type(d).__name__,
)  # fmt: skip
@torch.no_grad()
def test_equals_the_slow_twin_on_any_domain(domain, options, generator):
    points = sobol(domain, 50, generator, dtype=DOUBLE)
    weights = torch.rand(50, generator=generator, dtype=DOUBLE) + 0.1
    points = replace(points, weights=weights * domain.measure / weights.sum())
    field = Sampled(points, torch.randn(2, 50, 3, generator=generator, dtype=DOUBLE))
    layer = Tokenize(3, 4, (2, 3), generator=generator, **options).double()
    out = layer(field)
    torch.testing.assert_close(out.values, reference(layer, field))
    torch.testing.assert_close(out.discretization.weights.sum(), torch.tensor(domain.measure, dtype=DOUBLE))
    others, order = shuffled(points)
    torch.testing.assert_close(layer(Sampled(others, field.values[:, order])).values, out.values)
    torch.testing.assert_close(layer(field.with_values(field.values[1:])).values, out.values[1:])


@pytest.mark.parametrize("domain", [Box((0.0, 1.0), (2.0, 4.0)), Torus((1.0, 3.0))], ids=["box", "torus"])
@torch.no_grad()
def test_patches_of_the_reconstructed_field(domain, generator):
    """Slow twin: the field read at every node by itself, then the convolution's sum."""
    points = sobol(domain, 200, generator, dtype=DOUBLE)
    field = Sampled(points, torch.randn(2, 200, 3, generator=generator, dtype=DOUBLE))
    layer = Tokenize(3, 4, (2, 3), patch=(3, 2), generator=generator).double()
    expected = torch.zeros(2, 6, 4, dtype=DOUBLE)
    for token, (i, j) in enumerate((i, j) for i in range(2) for j in range(3)):
        for a in range(3):
            for b in range(2):
                unit = torch.tensor([[(i + (a + 0.5) / 3) / 2, (j + (b + 0.5) / 2) / 3]], dtype=DOUBLE)
                expected[:, token] += read(field, domain.from_unit(unit))[:, 0] @ layer.weight[:, :, a, b].T
    torch.testing.assert_close(layer(field).values, expected + layer.bias)
    others, order = shuffled(points)
    torch.testing.assert_close(layer(Sampled(others, field.values[:, order])).values, layer(field).values)
    torch.testing.assert_close(layer(field.with_values(field.values[1:])).values, layer(field).values[1:])


def test_nodes_outside_a_region_give_nothing(generator):
    corner = Region(Box.unit(2), lambda x: x[..., 0] + x[..., 1] < 0.5, measure=0.125)
    layer = Tokenize(1, 2, 2, patch=4, generator=generator).double()
    out = layer(Sampled(points := sobol(corner, 200, dtype=DOUBLE), torch.ones(1, 200, 1, dtype=DOUBLE)))
    inside = (torch.arange(4)[:, None] + torch.arange(4) + 1) / 8 < 0.5  # of the nodes of the first region
    torch.testing.assert_close(out.values[0, 0], (layer.weight[:, 0] * inside).sum((1, 2)) + layer.bias)
    torch.testing.assert_close(out.values[0, 1:], layer.bias.expand(3, 2))
    assert out.discretization.domain is points.domain


def test_regions_in_space(generator):
    for domain in (Ball((0.0,) * 3, 1.0), Product(Box.unit(1), Sphere())):
        points = sobol(domain, 64, dtype=DOUBLE)
        field = Sampled(points, torch.randn(1, 64, 2, generator=generator, dtype=DOUBLE))
        layer = Tokenize(2, 3, 2, dim=3, degree=1, generator=generator).double()
        with torch.no_grad():
            torch.testing.assert_close(layer(field).values, reference(layer, field))


def test_parts_of_regions_weigh_what_they_measure():
    """A region of the envelope without points is the bias and weighs nothing, so that later layers do not see it."""
    corner = Region(Box.unit(2), lambda x: x[..., 0] + x[..., 1] < 0.5, measure=0.125)
    points = sobol(corner, 2048, dtype=DOUBLE)
    out = Tokenize(1, 2, 2).double()(Sampled(points, torch.ones(1, 2048, 1, dtype=DOUBLE)))
    torch.testing.assert_close(out.weights, torch.tensor([1.0, 0, 0, 0], dtype=DOUBLE))
    quarter = Tokenize(1, 2, 4).double()(Sampled(points, torch.ones(1, 2048, 1, dtype=DOUBLE))).discretization.weights
    torch.testing.assert_close(quarter[[0, 1, 4]], torch.tensor([1 / 16, 1 / 32, 1 / 32], dtype=DOUBLE), rtol=0.03, atol=0)


@pytest.mark.parametrize("options", [{"degree": 1}, {"patch": 2, "rule": "quadrature"}, {"patch": 2}], ids=str)
@pytest.mark.parametrize("sampler", [lattice, grid])
def test_gradients(sampler, options, generator):
    points = sampler(Box.unit(2), 16, dtype=DOUBLE)
    layer = Tokenize(2, 2, 2, generator=generator, **options).double()
    values = torch.randn(1, 16, 2, generator=generator, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, *_: layer(Sampled(points, v)).values, (values, *layer.parameters()))


def test_geometry_is_computed_once(generator):
    points = crowded(Sphere(), 64)
    layer = Tokenize(1, 2, 2, generator=generator)
    first = layer(Sampled(points, torch.randn(1, 64, 1, generator=generator)))
    assert layer(Sampled(points, torch.randn(1, 64, 1, generator=generator))).discretization is first.discretization
    assert AdaptiveAvgPool(2)(Sampled(points, torch.zeros(1, 64, 1))).discretization is first.discretization  # all share tokens


def test_averages_are_tokens_of_degree_0(generator):
    for domain in (Sphere(), Ball((0.0, 0.0), 1.0), Torus((1.0, 2.0))):
        field = Sampled(crowded(domain, 64), torch.randn(2, 64, 3, generator=generator, dtype=DOUBLE))
        layer = Tokenize(3, 3, (2, 3), degree=0, bias=False).double()
        with torch.no_grad():
            layer.weight.copy_(torch.eye(3, dtype=DOUBLE)[..., None])
        torch.testing.assert_close(layer(field).values, AdaptiveAvgPool((2, 3))(field).values)


def test_weights_come_from_the_generator():
    first, second = (Tokenize(3, 4, 2, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


def test_errors(generator):
    field = Sampled(lattice(Box.unit(2), 16), torch.zeros(1, 16, 3))
    with pytest.raises(ShapeMismatch, match="Got 3 channels in Tokenize"):
        Tokenize(2, 4, 2)(field)
    with pytest.raises(ShapeMismatch, match="one number of regions for each axis"):
        Tokenize(3, 4, (2, 2, 2))(field)
    with pytest.raises(ShapeMismatch, match="expected 2 numbers of at least 1"):
        AdaptiveAvgPool((2, 2, 2))(field)
    ring = Sampled(lattice(ring_torus(), 16), torch.zeros(1, 16, 3))
    with pytest.raises(ConfigError, match="whose map from the unit cube can be inverted"):
        Tokenize(3, 4, (2, 2, 2))(ring)
    with pytest.raises(ConfigError, match="regions along each axis"):
        Tokenize(3, 4, 0)
    with pytest.raises(ConfigError, match="regions along each axis"):
        Tokenize(3, 4, ())
    with pytest.raises(ConfigError, match="expected a patch embedding"):
        Tokenize.from_discrete(nn.Conv2d(3, 4, 3, 2), 2)
    with pytest.raises(ConfigError, match="expected a patch embedding"):
        Tokenize.from_discrete(nn.Conv2d(3, 4, 2, 2, padding=1), 2)
    with pytest.raises(ConfigError, match="expected a patch embedding"):
        Tokenize.from_discrete(nn.Conv2d(4, 4, 2, 2, groups=2), 2)
    with pytest.raises(ConfigError, match='no rule of patches "cubic"'):
        Tokenize(3, 4, 2, patch=2, rule="cubic")
    with pytest.raises(ConfigError, match="degree of -1"):
        Tokenize(3, 4, 2, degree=-1)
