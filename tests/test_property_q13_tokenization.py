"""Law Q13: tokens are integrals over disjoint regions of equal measure that cover the domain (Wang & Golland 2023, app. C)."""

import numpy as np
import pytest
import torch
from reference_rates import rates
from reference_rules import DOUBLE, crowded, equally_weighted, rule
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus
from inrbridge.nn import AdaptiveAvgPool, GlobalIntegral, LegendreBasis, Sampled, SplineBasis, Tokenize
from inrbridge.sampling import grid, lattice, sobol, uniform
from inrbridge.stencils import Cells, build_stencil
from inrbridge.stencils.cells import cell_nodes

DOMAINS = [
    Box((0.0,), (2.0,)),
    Box((0.0, 1.0), (2.0, 4.0)),
    Box.centered(3),
    Ball((1.0, 0.0), 2.0),
    Ball((0.0,) * 3, 1.0),
    Sphere(2.0),
    Torus((1.0, 3.0)),
    Product(Box.unit(1), Sphere()),
]
each_domain = pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: f"{type(d).__name__}{d.dim}")


def shape_on(domain):
    return (3, 2, 2)[: domain.unit_dim]


def token_values(layer, points, function):
    return layer(Sampled(points, function(points.points))).values


@each_domain
def test_regions_are_disjoint_cover_the_domain_and_are_of_equal_measure(domain):
    shape = shape_on(domain)
    count = int(np.prod(shape))
    points = uniform(domain, 4096, torch.Generator().manual_seed(0), dtype=DOUBLE)
    member = build_stencil(Cells(shape), points).dense()[:, 0] > 0  # (regions, points)
    assert member.sum(0).eq(1).all()
    # by random points, drawn on the domain itself, whose number in a region is binomial: within 4 standard deviations
    share = member.double().mean(1)
    assert (share - 1 / count).abs().max() < 4 * (1 / count * (1 - 1 / count) / 4096) ** 0.5
    centres = build_stencil(Cells(shape), points).target
    assert domain.contains(centres.points).all()
    torch.testing.assert_close(centres.weights, torch.full((count,), domain.measure / count, dtype=DOUBLE))
    own = build_stencil(Cells(shape), centres).dense()[:, 0]
    torch.testing.assert_close(own, torch.eye(count, dtype=DOUBLE))  # each centre lies in its own region


def test_negative_control_cells_of_the_box_around_a_ball_are_not_of_equal_measure():
    disc = Ball((0.0, 0.0), 1.0)
    points = sobol(disc, 4096, dtype=DOUBLE)
    around = Discretization(points.points, points.weights * 4 / np.pi, Box.centered(2))
    share = (build_stencil(Cells((4, 4)), around).dense()[:, 0] > 0).double().mean(1)
    assert share.max() > 2 * share.min()


@each_domain
def test_constants_are_exact_on_any_points(domain, generator):
    """The mean of a constant is that constant in every region, however few or crowded the points are."""
    layer = Tokenize(2, 3, shape_on(domain), degree=0, generator=generator).double()
    constant = torch.tensor([0.3, -2.0], dtype=DOUBLE)
    for points in (crowded(domain, 300), sobol(domain, 257, generator, dtype=DOUBLE)):
        tokens = token_values(layer, points, lambda x: constant.expand(1, len(x), 2))
        expected = layer.weight[..., 0] @ constant + layer.bias
        torch.testing.assert_close(tokens, expected.expand_as(tokens), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"degree": 3}, {"patch": (4, 3), "rule": "quadrature"}], ids=str)
@torch.no_grad()
def test_a_token_is_the_integral_of_the_field_times_the_weight_function(options, generator):
    """token_j = int_(omega_j) f w / |omega_j|, by Gauss rules on each region and the functions written out."""
    box, shape = Box((0.0, 1.0), (2.0, 4.0)), (2, 3)
    layer = Tokenize(1, 2, shape, generator=generator, **options).double()

    def function(x):
        return torch.exp(x[..., :1] * 0.7) * torch.sin(2 * x[..., 1:])

    basis = LegendreBasis(Box.unit(2), 3, total=True) if "degree" in options else SplineBasis(Box.unit(2), (4, 3))
    pieces = 24  # splines are made of pieces that end at these fractions of a region
    place, weights = rule(Box.unit(2), 6)
    corners = torch.cartesian_prod(torch.arange(pieces), torch.arange(pieces)).to(DOUBLE)
    place = ((corners[:, None] + place) / pieces).flatten(0, 1)
    weights = weights.repeat(pieces**2) / pieces**2
    w = basis(place) @ layer.weight.flatten(1).T * (12 if "patch" in options else 1)
    expected = []
    for i in range(2):
        for j in range(3):
            x = torch.stack([(i + place[:, 0]) * 1.0, 1 + (j + place[:, 1]) * 1.0], 1)
            expected.append((weights[:, None] * function(x) * w).sum(0) + layer.bias)
    expected = torch.stack(expected)[None]
    found = [token_values(layer, sobol(box, n, dtype=DOUBLE), lambda x: function(x)[None]) for n in (2**8, 2**14)]
    errors = [(tokens - expected).abs().max() for tokens in found]
    assert errors[1] < 0.01 * expected.abs().max() and errors[1] < errors[0] / 8
    crowd = crowded(box, 2**14)
    assert (token_values(layer, crowd, lambda x: function(x)[None]) - expected).abs().max() < 0.01 * expected.abs().max()
    # negative control: the crowd without its weights
    unweighted = token_values(layer, equally_weighted(crowd), lambda x: function(x)[None])
    assert (unweighted - expected).abs().max() > 0.05 * expected.abs().max()


@each_domain
def test_token_integrals_sum_to_the_global_integral(domain, generator):
    """Over the weight that each region's points have it is an identity; with the equal measures it holds where they agree."""
    shape = shape_on(domain)

    def function(x):
        return torch.cos(x.sum(-1, keepdim=True))[None] + 2

    for points in (crowded(domain, 500), sobol(domain, 300, generator, dtype=DOUBLE)):
        sampled = Sampled(points, function(points.points))
        tokens = AdaptiveAvgPool(shape)(sampled)
        member = (build_stencil(Cells(shape), points).dense()[:, 0] > 0).double()
        held = member @ points.weights
        torch.testing.assert_close(held @ tokens.values[0], GlobalIntegral(mean=False)(sampled)[0], rtol=0, atol=1e-10)
    errors = []
    for n in (2**8, 2**12):
        sampled = Sampled(points := sobol(domain, n, dtype=DOUBLE), function(points.points))
        difference = GlobalIntegral()(AdaptiveAvgPool(shape)(sampled)) - GlobalIntegral()(sampled)
        errors.append(float(difference.abs().max()))
    assert errors[1] < 5e-3 and errors[1] <= errors[0]


def test_token_integrals_of_a_region_sum_exactly():
    """Its tokens weigh what their parts measure, so that nothing of the field is lost or counted twice."""
    region = Region(Box.unit(2), lambda x: (x - 0.5).norm(dim=-1) < 0.45, measure=np.pi * 0.45**2)
    points = crowded(Box.unit(2), 2000)
    kept = region.contains(points.points)
    weights = points.weights[kept] * region.measure / points.weights[kept].sum()
    sampled = Sampled(Discretization(points.points[kept], weights, region), points.points[None, kept] ** 2)
    torch.testing.assert_close(GlobalIntegral()(AdaptiveAvgPool(4)(sampled)), GlobalIntegral()(sampled))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_adaptive_pooling_flattens_as_torch(dim, generator):
    cells = (2, 3, 2)[:dim]
    points = grid(Box.centered(dim), tuple(4 * n for n in cells), dtype=DOUBLE)
    values = torch.randn(2, len(points), 3, generator=generator, dtype=DOUBLE)
    image = values.unflatten(1, points.structure.shape).movedim(-1, 1)
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dim - 1]
    expected = torch.flatten(pool(cells)(image), 1)
    found = AdaptiveAvgPool(cells)(Sampled(points, values)).values.transpose(1, 2).flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    points_first = AdaptiveAvgPool(cells)(Sampled(points, values)).values.flatten(1)
    assert (points_first - expected).abs().max() > 1e-3  # negative control: the other order is another vector


def waves(x):
    """A smooth field of one channel on coordinates of any dimension."""
    return torch.sin(2 * x[None, :, :1] + x[None, :, 1:2])


@torch.no_grad()
def test_a_patch_embedding_means_the_same_off_the_grid(generator):
    """A pre-trained embedding on a smooth field: on other points it says what it says on the pixels it was made for.

    The field at the nodes converges fast, even for weights that oscillate; it does so on points that crowd, too.
    """
    conv = nn.Conv2d(1, 4, 4, 4).double()
    nn.init.normal_(conv.weight, generator=generator)
    layer, box = Tokenize.from_discrete(conv, 4), Box.centered(2)
    truth = token_values(layer, grid(box, 256, dtype=DOUBLE), waves)  # on the pixels: torch's own (tests/nn/test_tokens.py)
    scale = truth.abs().max()
    for draw in (lattice, sobol, uniform, crowded):
        errors = [
            (token_values(layer, draw(box, n), lambda x: waves(x.double())) - truth).abs().max() / scale for n in (2**8, 2**12)
        ]
        assert errors[1] < 0.02 and errors[1] < errors[0] / 10, (draw, errors)
    exchanged = token_values(layer, lattice(box, 2**12, dtype=DOUBLE), lambda x: waves(x.flip(-1)))
    assert (exchanged - truth).abs().max() > 0.1 * scale  # negative control: axes exchanged, it is another embedding


@torch.no_grad()
@pytest.mark.parametrize(
    "domain", [Sphere(), Ball((0.0, 0.0), 1.0), Torus((6.283185307179586,) * 2)], ids=["sphere", "ball", "torus"]
)
def test_patches_on_other_domains_converge_to_the_field_at_their_nodes(domain, generator):
    layer = Tokenize(1, 4, (2, 3), patch=3, generator=generator).double()
    points = [lattice(domain, n, dtype=DOUBLE) for n in (2**8, 2**12)]
    nodes = cell_nodes(points[0], (2, 3), (3, 3)).points
    expected = torch.einsum("tp,op->to", waves(nodes).view(6, 9), layer.weight.flatten(1)) + layer.bias
    errors = [(token_values(layer, p, waves)[0] - expected).abs().max() for p in points]
    assert errors[1] < 0.01 and errors[1] < errors[0] / 4, errors


def test_the_spline_of_a_patch_embedding_is_one_operator_at_every_resolution():
    """Under the integral: equal on the pixels it was made for; on finer grids and other points it converges to one limit."""
    conv = nn.Conv2d(1, 4, 4, 4).double()
    with torch.no_grad():
        ramp = torch.linspace(-1, 1, 4, dtype=DOUBLE)
        rows, columns = torch.meshgrid(ramp, ramp, indexing="ij")
        conv.weight.copy_(torch.stack([rows, columns, rows * columns, 1 - columns**2])[:, None])
        layer, box = Tokenize.from_discrete(conv, 4, "quadrature"), Box.centered(2)
        on_pixels, double, finest = (token_values(layer, grid(box, n * n, dtype=DOUBLE), waves) for n in (16, 32, 512))
        scale = finest.abs().max()
        assert (double - finest).abs().max() < 0.05 * scale and (on_pixels - finest).abs().max() < 0.2 * scale
        errors = [
            (token_values(layer, lattice(box, n, dtype=DOUBLE), waves) - finest).abs().max() / scale for n in (2**10, 2**14)
        ]
        assert errors[1] < 0.02 and errors[1] < errors[0] / 4

        def one(x):
            return torch.ones(1, len(x), 1, dtype=DOUBLE)

        # constants are embedded alike at every resolution
        on_grid, others = (token_values(layer, p, one) for p in (grid(box, 256, dtype=DOUBLE), lattice(box, 2**14, dtype=DOUBLE)))
        assert (on_grid - others).abs().max() < 0.01 * conv.weight.abs().sum((1, 2, 3)).max()
        fine = grid(box, 128**2, dtype=DOUBLE)  # a quarter of a node wide: exact
        torch.testing.assert_close(token_values(layer, fine, one), on_grid, rtol=0, atol=0.02)


@pytest.mark.parametrize("domain", [Box.centered(2), Ball((0.0, 0.0), 1.0), Sphere()], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("options", [{"degree": 2}, {"patch": 3, "rule": "quadrature"}], ids=str)
def test_rate(options, domain):
    """Q2: a region ends with a jump, so that the integrand is piecewise smooth; independent points are slower."""
    layer = Tokenize(1, 3, 3, generator=torch.Generator().manual_seed(0), **options).double()

    def output(points):
        return token_values(layer, points, lambda x: torch.exp(x[None, :, :1] * x[None, :, 1:2]))

    slope, errors = rates(output, domain, "sobol", scrambles=10)
    random, others = rates(output, domain, "uniform", scrambles=10)
    assert slope <= -0.65, errors
    assert -0.65 <= random <= -0.35, others
    assert errors[-1] < others[-1] / 2
