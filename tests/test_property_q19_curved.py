"""Law Q19 for nets: weights make clustered points give the *same* output of a small net, local layers included, on curved
domains too (Wang & Golland 2023, appendices A and E.1); and densities weigh every layer that integrates."""

import pytest
import torch

from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, Weighted
from inrbridge.domains.atlases import ring_torus
from inrbridge.errors import ConfigError, EmptyDiscretization, NotFinite, ShapeMismatch
from inrbridge.field import FunctionField
from inrbridge.nn import Activation, AvgPool, BasisConv, Conv, GlobalIntegral, InstanceNorm, Sampled, Sequential
from inrbridge.quadrature import integrate
from inrbridge.sampling import grid, halton, importance, lattice, points, shrunk, sobol

DOUBLE = {"dtype": torch.float64}
SQUARE = Box.centered(2)
DOMAINS = {
    "box": (SQUARE, 0.25),
    "sphere": (Sphere(), 0.4),
    "torus": (Torus((2.0, 2.0)), 0.25),
    "ring": (ring_torus(), 0.4),
    "cap": (Region(Sphere(), lambda x: x[..., 2] > -0.2), 0.3),
}


def net(spacing):
    """Two convolutions under the integral, a norm, and the mean: an output (b, 3) that depends on nothing but the field."""
    generator = torch.Generator().manual_seed(0)
    kernel = {"spacing": spacing, "basis": "radial", "generator": generator}
    return Sequential(
        BasisConv(2, 4, **kernel), Activation("gelu"), AvgPool(0.3), BasisConv(4, 3, **kernel), GlobalIntegral()
    ).double()


def field(x):
    return torch.stack([torch.exp(x[:, 0] - x[:, 1] ** 2), torch.sin(2 * x[:, -1])], -1)


def output(layers, x):
    return layers(Sampled(x, field(x.points)[None])).detach()


@pytest.mark.parametrize("name", DOMAINS)
def test_a_net_on_weighted_clustered_points_gives_what_it_gives_on_even_ones(name):
    """Negative control: with equal weights it settles on another output."""
    domain, spacing = DOMAINS[name]
    layers = net(spacing)
    truth = output(layers, sobol(domain, 2048, torch.Generator().manual_seed(3), **DOUBLE))

    def error(n, weights):
        x = shrunk(domain, n, torch.Generator().manual_seed(1), weights=weights, **DOUBLE)
        return float((output(layers, x) - truth).norm() / truth.norm())

    errors = {weights: (error(128, weights), error(1024, weights)) for weights in ("density", "voronoi")}
    assert all(fine < 0.05 and fine < coarse for coarse, fine in errors.values()), errors
    assert error(1024, "equal") > max(0.06, 2.5 * errors["density"][1]), errors


@pytest.mark.parametrize("domain", [Ball((0.0, 0.0)), Torus((1.0, 2.0)), Product(Box.unit(1), Sphere()), ring_torus()], ids=repr)
def test_voronoi_weights_mend_points_on_every_domain(domain):
    """Points crowded at one end of the first coordinate of the unit cube."""
    u = torch.rand(3000, domain.unit_dim, generator=torch.Generator().manual_seed(0), **DOUBLE)
    first = 1 if isinstance(domain, type(ring_torus())) else 0
    u[:, first] = u[:, first] ** 2
    coords = domain.from_unit(u)
    bump = FunctionField(lambda x: torch.exp(x[..., :1] + 0.5 * x[..., -1:]), domain, 1)
    truth = integrate(bump, n=2**14, sampler="sobol").item()
    plain, mended = (
        integrate(bump, discretization=points(domain, coords, weights=w)).item() / truth - 1 for w in (None, "voronoi")
    )
    assert abs(mended) < 0.015 and abs(mended) < abs(plain) / 3, (plain, mended)


def rho(x):
    return 1 + x[..., 0] + x[..., -1] ** 2


WEIGHTED = [SQUARE, Sphere(), Torus((1.0, 2.0)), ring_torus(), Region(SQUARE, lambda x: x[..., 0] > 0), Ball((0.0, 0.0))]


@pytest.mark.parametrize("domain", WEIGHTED, ids=lambda d: repr(d).partition(" at 0x")[0])
def test_a_density_weighs_every_integral(domain):
    """int f under rho dx = int f rho under dx, for every sampler."""

    def density(x):
        return 2 + rho(x)  # above 0 on all of these

    weighted = Weighted(domain, density)
    both = FunctionField(lambda x: (torch.exp(x[..., 1]) * density(x))[..., None], domain, 1)
    truth = integrate(both, n=2**14, sampler="sobol").item()
    plain = FunctionField(lambda x: torch.exp(x[..., 1:2]), weighted, 1)
    makers = [lattice, sobol, halton, lambda d, n: shrunk(d, n, weights="density"), lambda d, n: shrunk(d, n, weights="voronoi"),
              lambda d, n: importance(d, n, density=density)]  # fmt: skip
    if isinstance(domain, Box | Torus):
        makers.append(grid)
    for make in makers:
        x = make(weighted, 2048)
        assert float(x.weights.sum()) == pytest.approx(weighted.measure, rel=1e-4)
        assert integrate(plain, discretization=x).item() == pytest.approx(truth, rel=0.015)
    unweighted = integrate(FunctionField(lambda x: torch.exp(x[..., 1:2]), domain, 1), n=4096).item()
    assert abs(unweighted / truth - 1) > 0.1


def test_importance_under_its_own_density_leaves_the_weights_equal():
    x = importance(Weighted(SQUARE, lambda x: 3 + rho(x)), 512, density=lambda x: 3 + rho(x))
    torch.testing.assert_close(x.weights, torch.full_like(x.weights, x.weights.mean()), atol=0, rtol=1e-4)


def test_layers_that_average_do_so_under_the_density():
    plain = sobol(SQUARE, 1024, **DOUBLE)
    weighted = sobol(Weighted(SQUARE, lambda x: 3 + rho(x)), 1024, **DOUBLE)
    assert torch.equal(plain.points, weighted.points) and plain.spacing == weighted.spacing
    values = field(plain.points)[None]
    density = (3 + rho(plain.points)) / (3 + rho(plain.points)).mean()
    mean = GlobalIntegral()(Sampled(weighted, values))[0]
    torch.testing.assert_close(mean, (density[:, None] * values[0]).mean(0))
    normal = InstanceNorm(2).double()(Sampled(weighted, values))
    torch.testing.assert_close(GlobalIntegral()(normal), torch.zeros(1, 2, **DOUBLE), atol=1e-6, rtol=0)
    # a scale of the density changes nothing that is normalized
    layer = BasisConv(2, 1, spacing=0.2, border="renormalize", generator=torch.Generator().manual_seed(0)).double()
    scaled = sobol(Weighted(SQUARE, lambda x: 7 * (3 + rho(x))), 1024, **DOUBLE)
    torch.testing.assert_close(layer(Sampled(scaled, values)).values, layer(Sampled(weighted, values)).values)


def test_a_field_is_a_density_and_a_product_multiplies():
    density = FunctionField(lambda x: 1 + x[..., :1] ** 2, Box.unit(1), 1)
    part = Weighted(Box.unit(1), density)
    assert part.measure == pytest.approx(4 / 3, rel=1e-4)
    both = Product(part, Sphere())
    assert both.measure == pytest.approx(4 / 3 * Sphere().measure, rel=1e-4) and both.ground == Product(Box.unit(1), Sphere())
    x = sobol(both, 1024, **DOUBLE)
    expected = (1 + x.points[:, 0] ** 2) / (1 + x.points[:, 0] ** 2).sum() * both.measure
    torch.testing.assert_close(x.weights, expected)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: Weighted(SQUARE, 2.0), ConfigError, "a function of coords"),
        (lambda: Weighted(SQUARE, lambda x: 0 * x[..., 0]), ConfigError, "0 wherever it was asked"),
        (lambda: Weighted(SQUARE, lambda x: x[..., 0]), NotFinite, "negative, NaN or infinite"),
        (lambda: Weighted(SQUARE, lambda x: x), ShapeMismatch, "choose one channel"),
        (lambda: Weighted(SQUARE, lambda x: 3 + rho(x)).to_config(), ConfigError, "cannot be written to a file"),
        (
            lambda: Region(Weighted(SQUARE, lambda x: 3 + rho(x)), lambda x: x[..., 0] > 0),
            ConfigError,
            "weigh the region instead",
        ),
        (lambda: sobol(Weighted(SQUARE, lambda x: (x[..., 0] > 0.999).float()), 4), EmptyDiscretization, "all weigh 0"),
    ],
)
def test_what_is_no_density_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_a_discrete_kernel_on_weighted_points_is_that_of_the_plain_ones():
    """Reconstruction evaluates the field, which no density changes."""
    layer = Conv(2, 1, spacing=0.1, generator=torch.Generator().manual_seed(0)).double()
    plain, weighted = sobol(SQUARE, 512, **DOUBLE), sobol(Weighted(SQUARE, lambda x: 3 + rho(x)), 512, **DOUBLE)
    values = field(plain.points)[None]
    torch.testing.assert_close(layer(Sampled(plain, values)).values, layer(Sampled(weighted, values)).values)
