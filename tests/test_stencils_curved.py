"""Stencils on curved domains and on domains of which only some coordinates repeat: equal to their definition, pair by pair."""

import math

import numpy as np
import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, Weighted
from inrbridge.domains.atlases import cube_sphere, ring_torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import (
    AdaptiveAvgPool,
    AvgPool,
    BasisConv,
    Conv,
    LogMeanExpPool,
    MaxPool,
    MLPConv,
    NormPool,
    Resample,
    Sampled,
    Upsample,
)
from inrbridge.nn.reading import read
from inrbridge.sampling import halton, lattice, sobol, uniform
from inrbridge.stencils import (
    Bins,
    BSpline,
    Cells,
    Gaussian,
    Polynomial,
    Quadrature,
    Radial,
    Reconstruct,
    build_stencil,
    kernel_nodes,
)
from inrbridge.stencils.bases import cardinal_bspline

DOUBLE = {"dtype": torch.float64}
H = 0.3
CURVED = {
    "sphere": Sphere(1.5, (0.0, 1.0, 0.0)),
    "ring": ring_torus(),
    "cube": cube_sphere(),
    "cap": Region(Sphere(), lambda x: x[..., 2] > -0.3),
    "weighted": Weighted(Sphere(), lambda x: 2 + x[..., 0]),
    "product": Product(Torus((2.0,)), Sphere()),
}
named = pytest.mark.parametrize("name", CURVED)


def offsets_of(source):
    """x_j as seen from x_i, one output at a time: (n, n, intrinsic dimension)."""
    return torch.stack([source.domain.log_map(x[None], source.points) for x in source.points])


def seen(basis_or_half, offsets, dim):
    low, high = (-basis_or_half, basis_or_half) if isinstance(basis_or_half, float) else basis_or_half.support
    low, high = (torch.as_tensor(v, **DOUBLE) for v in (low, high))
    return ((offsets >= low - 1e-12) & (offsets <= high + 1e-12)).all(-1)


@named
@pytest.mark.parametrize("kind", ["spline", "polynomial", "gaussian", "radial"])
def test_quadrature_is_the_sum_over_pairs(name, kind, generator):
    source = sobol(CURVED[name], 120, generator, **DOUBLE)
    d = source.domain.intrinsic_dim
    made = {"spline": lambda: BSpline((3,) * d, (H,) * d), "polynomial": lambda: Polynomial((0.5,) * d),
            "gaussian": lambda: Gaussian((2,) * d, (H,) * d), "radial": lambda: Radial(d, 0.7, 2)}  # fmt: skip
    basis = made[kind]()
    dense = build_stencil(Quadrature(basis, (H,) * d), source).dense()
    offsets = offsets_of(source)
    i, j = seen(basis, offsets, d).nonzero(as_tuple=True)
    expected = torch.zeros_like(dense)
    values = torch.from_numpy(basis.evaluate(offsets[i, j].numpy())) * source.weights[j, None] / basis.scale
    expected[i, :, j] = values
    torch.testing.assert_close(dense, expected, atol=1e-11, rtol=1e-9)


@named
def test_bins_take_each_pair_to_the_nearest_seed(name, generator):
    source = halton(CURVED[name], 120, generator, **DOUBLE)
    d = source.domain.intrinsic_dim
    seeds = torch.rand(9, d, generator=generator, **DOUBLE) - 0.5
    rule = Bins(tuple(map(tuple, seeds.tolist())), (0.6,) * d, ball=True)
    dense = build_stencil(rule, source).dense()
    offsets = offsets_of(source)
    i, j = (offsets.norm(dim=-1) <= 0.6).nonzero(as_tuple=True)
    expected = torch.zeros_like(dense)
    expected[i, torch.cdist(offsets[i, j], seeds).argmin(1), j] = source.weights[j] / rule.measure
    torch.testing.assert_close(dense, expected)


@named
def test_reconstruction_is_exact_on_quadratics_of_the_tangent_plane(name, generator):
    """f(x) = q(log_p(x)) with a quadratic q is met at the nodes around p itself, and samples are met everywhere."""
    source = sobol(CURVED[name], 1500 if name == "product" else 400, generator, **DOUBLE)
    d, domain = source.domain.intrinsic_dim, source.domain
    centre = Discretization(source.points[:1], source.weights[:1], domain)
    rule = Reconstruct(((0.0,) * d,), (1.0,) * d)
    dense = build_stencil(rule, source).dense()[:, 0]
    torch.testing.assert_close(dense, torch.eye(len(source), **DOUBLE), atol=1e-6, rtol=0)
    rng = np.random.default_rng(0)
    linear, square = torch.from_numpy(rng.normal(size=d)), torch.from_numpy(rng.normal(size=(d, d)))

    def quadratic(v):
        return v @ linear + ((v @ square) * v).sum(-1)

    keep = torch.arange(len(source)) > 0  # without the sample at p, so that the fit has to speak
    others = Discretization(source.points[keep], source.weights[keep], domain)
    weights = build_stencil(Reconstruct(((0.0,) * d,), (1.0,) * d, neighbors=30), others, centre).dense()[0, 0]
    assert float(weights @ quadratic(domain.log_map(centre.points, others.points))) == pytest.approx(0.0, abs=1e-6)


def test_a_node_beyond_the_edge_of_a_cap_counts_as_nothing(generator):
    cap = CURVED["cap"]
    source = sobol(cap, 400, generator, **DOUBLE)
    nodes = kernel_nodes((3, 3), (0.2, 0.2))
    rule = Reconstruct(nodes, (0.2, 0.2))
    places = cap.exp_map(source.points[:, None], torch.tensor(nodes, **DOUBLE)[None])
    inside = cap.contains(places).double()
    torch.testing.assert_close(build_stencil(rule, source).dense().sum(2), inside, atol=1e-6, rtol=0)
    again = build_stencil(rule, source, border="renormalize").dense().sum((1, 2))
    torch.testing.assert_close(again, torch.full_like(again, 9.0), atol=1e-5, rtol=0)


def test_only_the_coordinates_that_repeat_are_wrapped(generator):
    """A cylinder, Product(Torus, Box): what the box of the same size with a circular border does along one axis."""
    cylinder, box = Product(Torus((2.0,)), Box((0.0,), (1.0,))), Box((0.0, 0.0), (2.0, 1.0))
    x = sobol(cylinder, 300, generator, **DOUBLE)
    flat = Discretization(x.points, x.weights, box)
    nodes = kernel_nodes((3, 3), (0.1, 0.1))
    rules = [Reconstruct(nodes, (0.1, 0.1)), Quadrature(BSpline((3, 3), (0.1, 0.1)), (0.1, 0.1))]
    for rule in rules:
        dense, plain, around = (build_stencil(rule, s, border=b).dense()
                                for s, b in ((x, "zeros"), (flat, "zeros"), (flat, "circular")))  # fmt: skip
        middle = (x.points[:, 0] - 1).abs() < 0.4  # far from the seam: as on the box, its edges along the other axis included
        torch.testing.assert_close(dense[middle], plain[middle], atol=1e-8, rtol=1e-8)
        inner = (x.points[:, 1] - 0.5).abs() < 0.15  # far from the edges: as on the torus
        torch.testing.assert_close(dense[inner], around[inner], atol=1e-8, rtol=1e-8)
        assert float((dense - plain).abs().max()) > 1e-3 and float((dense - around).abs().max()) > 1e-3
    half = Region(Torus((2.0, 1.0)), lambda p: p[..., 1] < 0.5)
    y = sobol(half, 300, generator, **DOUBLE)
    total = build_stencil(rules[0], y).dense().sum(2)
    place = half.domain.exp_map(y.points[:, None], torch.tensor(nodes, **DOUBLE)[None])
    torch.testing.assert_close(total, half.contains(place).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_radial_functions_are_rings_of_integral_one(dim, order):
    basis = Radial(dim, 0.8, 3, order)
    edges = np.linspace(0, 0.8, 4001)
    middle = (edges[1:] + edges[:-1]) / 2
    shell = np.diff(edges**dim) * basis.measure / 0.8**dim
    along = np.stack([middle] + [0 * middle] * (dim - 1), 1)
    np.testing.assert_allclose(shell @ basis.evaluate(along), np.ones(3), rtol=1e-5)
    turned = np.zeros((1, dim))
    turned[0, -1] = -0.3
    np.testing.assert_allclose(basis.evaluate(turned), basis.evaluate(np.eye(1, dim) * 0.3))
    assert np.abs(basis.evaluate(np.eye(1, dim) * 0.8)).max() < 1e-12
    # together a partition of unity inside the last ring, as B-splines are
    step = 0.8 / (2 + (order + 1) / 2)
    inner = middle[middle < (3 - (order + 1) / 2) * step, None] / step
    mirrored = np.where(np.arange(3) > 0, cardinal_bspline(inner + np.arange(3), order), 0)
    rings = cardinal_bspline(inner - np.arange(3), order) + mirrored
    np.testing.assert_allclose(rings.sum(1), 1.0, atol=1e-12)


def test_a_radial_layer_on_a_box_commutes_with_a_quarter_turn(generator):
    layer = BasisConv(1, 2, 5, spacing=0.1, basis="radial", order=3, generator=generator).double()
    assert layer.weight.shape == (2, 1, 3)
    source = sobol(Box.centered(2), 300, generator, **DOUBLE)
    turned = Discretization(torch.stack([-source.points[:, 1], source.points[:, 0]], 1), source.weights, source.domain)
    values = torch.randn(1, 300, 1, generator=generator, **DOUBLE)
    torch.testing.assert_close(layer(Sampled(source, values)).values, layer(Sampled(turned, values)).values)


# Windows


@pytest.mark.parametrize("name", ["sphere", "ring", "cap", "weighted"])
def test_pools_see_the_points_no_further_than_half_the_window_along_the_domain(name, generator):
    x = sobol(CURVED[name], 200, generator, **DOUBLE)
    values = torch.randn(2, 200, 3, generator=generator, **DOUBLE)
    near = offsets_of(x).norm(dim=-1) <= 0.4
    weight = near * x.weights / (near * x.weights).sum(1, keepdim=True)
    mean = torch.einsum("ij,bjc->bic", weight, values)
    top = torch.stack([values[:, row].amax(1) for row in near], 1)
    soft = torch.einsum("ij,bjc->bic", weight, torch.exp(3 * values)).log() / 3
    norm = torch.einsum("ij,bjc->bic", weight, values.abs() ** 2).sqrt()
    pools = (AvgPool(0.8), mean), (MaxPool(0.8, correction=False), top), (LogMeanExpPool(0.8, sharpness=3.0), soft)
    for layer, expected in (*pools, (NormPool(0.8, p=2.0), norm)):
        torch.testing.assert_close(layer(Sampled(x, values)).values, expected)


def test_negative_control_a_chord_is_not_an_arc(generator):
    x = sobol(Sphere(), 2000, generator, **DOUBLE)
    arcs = offsets_of(Discretization(x.points[:200], x.weights[:200], x.domain)).norm(dim=-1) <= 2.0
    chords = torch.cdist(x.points[:200], x.points[:200]) <= 2.0
    assert chords.all() and not arcs.all()


def test_a_cap_of_the_sphere_has_its_area():
    """Weights within an arc r of a point sum to 2 pi (1 - cos r), the area of the cap."""
    x, asked = lattice(Sphere(), 4096, **DOUBLE), uniform(Sphere(), 300, **DOUBLE)
    stencil = build_stencil(Bins(((0.0, 0.0),), (0.5, 0.5), ball=True), x, asked)
    area = math.pi * 0.25 * stencil.apply(torch.ones(1, 4096, 1, **DOUBLE), torch.ones(1, 1, 1, **DOUBLE))
    assert float(area.mean()) == pytest.approx(2 * math.pi * (1 - math.cos(0.5)), rel=3e-3)


@pytest.mark.parametrize("name", ["sphere", "ring", "product"])
def test_a_sampled_function_is_read_anywhere_on_the_domain(name, generator):
    x = sobol(CURVED[name], 2000, generator, **DOUBLE)
    asked = uniform(CURVED[name], 100, generator, **DOUBLE).points

    def f(p):
        return torch.sin(p[:, -3:] @ torch.tensor([[0.5], [1.0], [-0.7]], **DOUBLE))

    found = read(Sampled(x, f(x.points)[None]), asked)[0]
    assert float((found - f(asked)).abs().mean()) < (2e-3 if name == "product" else 2e-4)
    assert torch.equal(read(Sampled(x, f(x.points)[None]), x.points)[0], f(x.points))


@pytest.mark.parametrize("which", range(3))
def test_gradients_through_curved_layers(which, generator):
    x = sobol(Sphere(), 48, generator, **DOUBLE)
    layer = [Conv(2, 2, spacing=0.6, generator=generator), BasisConv(2, 2, spacing=0.6, basis="radial", generator=generator),
             MLPConv(2, 2, half_width=0.8, bins=8, generator=generator)][which].double()  # fmt: skip
    values = torch.randn(1, 48, 2, generator=generator, requires_grad=True, **DOUBLE)
    names, tensors = zip(*layer.named_parameters(), strict=True)

    def run(values, *tensors):
        return torch.func.functional_call(layer, dict(zip(names, tensors, strict=True)), (Sampled(x, values),)).values

    assert torch.autograd.gradcheck(run, (values, *tensors), fast_mode=True)


def test_pools_and_samples_keep_their_points(generator):
    x = lattice(Sphere(), 256, generator, **DOUBLE)
    values = (x.points[:, :1] * x.points[:, 1:2])[None]
    assert AvgPool(0.5, stride=2)(Sampled(x, values)).discretization is x.thin(2)
    up = Upsample(2, "linear")(Sampled(x.thin(2), values[:, :64]))
    assert up.discretization is x and float((up.values - values).abs().mean()) < 0.1
    fine = sobol(Sphere(), 512, generator, **DOUBLE)
    again = Resample(fine)(Sampled(x, values))
    expected = (fine.points[:, :1] * fine.points[:, 1:2])[None]
    assert float((again.values - expected).abs().max()) < 0.02
    assert AdaptiveAvgPool((2, 4))(Sampled(x, values)).values.shape == (1, 8, 1)


# Requests that do not fit


ON_SPHERE = lattice(Sphere(), 256)


@pytest.mark.parametrize(
    "layer, source, error, text",
    [
        (
            Conv(1, 1, 3, spacing=0.2, dim=3),
            ON_SPHERE,
            ShapeMismatch,
            "kernel of 3 dimensions on Sphere.*expected 2.*tangent plane",
        ),
        (BasisConv(1, 1, spacing=0.2, dim=3), ON_SPHERE, ShapeMismatch, "kernel of 3 dimensions"),
        (MLPConv(1, 1, half_width=0.4, dim=1), ON_SPHERE, ShapeMismatch, "kernel of 1 dimensions.*pass dim=2"),
        (
            Conv(1, 1, spacing=0.2),
            lattice(Box.unit(3), 64),
            ShapeMismatch,
            "kernel of 2 dimensions on Box.*expected 3; pass dim=3",
        ),
        (Conv(1, 1, spacing=0.2, border="reflect"), ON_SPHERE, ShapeMismatch, 'border "reflect" on Sphere.*expected a Box'),
        (Conv(1, 1, spacing=0.2, border="circular"), ON_SPHERE, ShapeMismatch, 'border "circular".*"zeros" or "renormalize"'),
        (
            BasisConv(1, 1, spacing=0.2, border="valid"),
            lattice(cube_sphere(), 256),
            ShapeMismatch,
            'border "valid" on cube_sphere',
        ),
        (AvgPool((0.3, 0.4)), ON_SPHERE, ConfigError, "expected one width and no shift"),
        (MaxPool(0.3, shift=0.1), ON_SPHERE, ConfigError, "a window is a ball"),
        (MaxPool(0.3, padding=0.0), ON_SPHERE, ConfigError, "no sides to pad"),
        (AdaptiveAvgPool(2), lattice(cube_sphere(), 64), ConfigError, "map from the unit cube can be inverted"),
    ],
)
def test_layers_refuse_domains_that_do_not_fit(layer, source, error, text):
    with pytest.raises(error, match=text):
        layer(Sampled(source, torch.zeros(1, len(source), 1)))


def test_a_radial_kernel_has_one_size():
    with pytest.raises(ConfigError, match=r"radial kernel of size.*expected one number"):
        BasisConv(1, 1, (3, 5), spacing=0.1, basis="radial")
    with pytest.raises(ConfigError, match='"gaussian" or "radial"'):
        BasisConv(1, 1, spacing=0.1, basis="rings")


def test_cells_of_a_ball_and_a_sphere_are_of_equal_measure(generator):
    for domain in (Sphere(), Ball((0.0, 0.0))):
        x = sobol(domain, 1024, generator, **DOUBLE)
        stencil = build_stencil(Cells((4, 4)), x)
        torch.testing.assert_close(stencil.target.weights, torch.full((16,), domain.measure / 16, **DOUBLE))


def test_a_real_field_on_the_globe(shared_data):
    """Topography at 1 degree: a radial mean keeps the global mean, smooths, and knows no seam at longitude 0 or the poles."""
    data = np.load(shared_data / "data" / "globe.npz")
    heights = torch.from_numpy(data["topography_m"].astype(np.float64))
    x = sobol(Sphere(), 4096, **DOUBLE)
    row = (torch.rad2deg(torch.asin(x.points[:, 2])) + 90).floor().long().clamp(0, 179)
    column = (torch.rad2deg(torch.atan2(x.points[:, 1], x.points[:, 0])) % 360).floor().long().clamp(0, 359)
    values = heights[row, column][None, :, None]
    layer = BasisConv(1, 1, 5, spacing=0.08, basis="radial", normalize=True, bias=False).double()
    layer.weight.data.fill_(1 / 3)
    out = layer(Sampled(x, values)).values.detach()
    assert float(out.mean()) == pytest.approx(float(values.mean()), abs=30) and out.std() < 0.95 * values.std()
    quarter = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], **DOUBLE)
    moved = Discretization(x.points @ quarter.T, x.weights, x.domain)  # the poles become equatorial points
    torch.testing.assert_close(layer(Sampled(moved, values)).values.detach(), out, atol=1e-6, rtol=1e-9)
