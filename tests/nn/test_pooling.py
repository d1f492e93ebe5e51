"""Pooling equals torch's on grids (Q8) and its slow twin anywhere else."""

import itertools
import math

import pytest
import torch
from reference_pooling import pool
from torch.nn import functional

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Sphere, Torus
from inrbridge.errors import ConfigError
from inrbridge.nn import AvgPool, GlobalIntegral, LogMeanExpPool, MaxPool, NormPool, Sampled
from inrbridge.sampling import grid, lattice, sobol

MAXIMA = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
AVERAGES = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
STEP = 0.3


def on_grid(shape, generator, dtype=torch.float64, domain=None):
    domain = domain or Box((-1.0,) * len(shape), tuple(-1 + STEP * n for n in shape))
    points = grid(domain, shape, dtype=dtype)
    return Sampled(points, torch.randn(2, len(points), 3, generator=generator, dtype=dtype))


def image(sampled):
    return sampled.values.unflatten(1, sampled.discretization.structure.shape).movedim(-1, 1)


def points_of(img):
    return img.movedim(1, -1).flatten(1, img.ndim - 2)


def scattered(domain, generator, n=64, weighted=True):
    points = sobol(domain, n, generator, dtype=torch.float64)
    weights = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1 if weighted else points.weights
    points = Discretization(points.points, weights * domain.measure / weights.sum(), domain, extend_to=points.extend_to)
    return Sampled(points, torch.randn(2, n, 3, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(8,), (7,), (6, 7), (4, 5, 6)], ids=str)
def test_equals_torch_on_grids_borders_included(shape, generator):
    x, d = on_grid(shape, generator), len(shape)
    for kernel, stride in itertools.product((1, 2, 3, 4), (1, 2, 3)):
        for padding in range((kernel - 1) // 2 + 1):
            place = (kernel, STEP, stride, padding)
            out = MaxPool.from_kernel(*place)(x)
            expected = points_of(MAXIMA[d - 1](image(x), kernel, stride, padding))
            torch.testing.assert_close(out.values, expected, rtol=0, atol=1e-10)
            plain = MaxPool.from_kernel(*place, correction=False)(x)
            torch.testing.assert_close(plain.values, expected, rtol=0, atol=0)
            for include in (True, False):
                out = AvgPool.from_kernel(*place, count_include_pad=include)(x)
                expected = AVERAGES[d - 1](image(x), kernel, stride, padding, count_include_pad=include)
                torch.testing.assert_close(out.values, points_of(expected), rtol=0, atol=1e-10)


def test_equals_torch_in_float32_with_uneven_kernels(generator):
    x = on_grid((9, 12), generator, dtype=torch.float32)
    out = AvgPool.from_kernel((3, 2), STEP, 2, (1, 0))(x)
    torch.testing.assert_close(out.values, points_of(functional.avg_pool2d(image(x), (3, 2), 2, (1, 0))), rtol=0, atol=1e-5)
    out = MaxPool.from_kernel((3, 5), (STEP, STEP), 2, (1, 2))(x)
    torch.testing.assert_close(out.values, points_of(functional.max_pool2d(image(x), (3, 5), 2, (1, 2))), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [6, 7])
def test_ceil_mode_keeps_every_output_point(size, generator):
    x = on_grid((size, size), generator)
    out = MaxPool.from_kernel(2, STEP, padding=None)(x)
    torch.testing.assert_close(out.values, points_of(functional.max_pool2d(image(x), 2, ceil_mode=True)), rtol=0, atol=1e-10)
    assert out.discretization is x.discretization.thin(2)


def test_even_strided_pooling_loses_no_part_of_the_domain(generator):
    x = on_grid((6, 6), generator)
    assert AvgPool.from_kernel(2, STEP)(x).discretization is x.discretization.thin(2)
    scatter = scattered(Box.unit(2), generator)
    assert AvgPool.from_kernel(2, 1 / 8)(scatter).discretization is scatter.discretization.thin(2)


def test_no_padding_shrinks_the_domain(generator):
    x = on_grid((6,), generator)
    out = AvgPool.from_kernel(3, STEP, 1, 0)(x).discretization
    assert out.domain.measure == pytest.approx(4 * STEP)
    torch.testing.assert_close(out.weights.sum(), torch.tensor(4 * STEP, dtype=torch.float64))
    scatter = scattered(Box.unit(1), generator)
    kept = AvgPool.from_kernel(3, 1 / 8, 1, 0)(scatter).discretization.points
    assert kept.min() >= 1 / 8 and kept.max() <= 7 / 8


DOMAINS = [Box.centered(1), Box.centered(2), Torus((2.0, 2.0)), Ball((0.0, 0.0), 1.0), Box.centered(3)]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@pytest.mark.parametrize(("width", "shift"), [(0.7, 0.0), (0.5, 0.125)])
def test_equals_the_slow_twin_on_scattered_points(domain, width, shift, generator):
    x = scattered(domain, generator)
    low, high = shift - width / 2, shift + width / 2
    outputs = x.discretization.thin(2).points
    layers = {
        AvgPool: lambda v, w: w @ v,
        MaxPool: lambda v, w: v.amax(1),
        LogMeanExpPool: lambda v, w: ((w[:, None] * (3 * v).exp()).sum(1)).log() / 3,
        NormPool: lambda v, w: (w[:, None] * v.abs() ** 3).sum(1) ** (1 / 3),
    }
    options = {AvgPool: {}, MaxPool: {"correction": False}, LogMeanExpPool: {"sharpness": 3}, NormPool: {"p": 3}}
    for kind, reduce in layers.items():
        out = kind(width, 2, shift=shift, **options[kind])(x)
        expected = pool(x.values, x.discretization, outputs, low, high, reduce)
        assert out.discretization is x.discretization.thin(2)
        torch.testing.assert_close(out.values, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dim", [1, 2])
def test_grid_path_equals_the_neighbour_lists(dim, generator):
    for domain in (Box.centered(dim), Torus((2.0,) * dim)):
        x = on_grid((8,) * dim, generator, domain=domain)
        unstructured = Sampled(Discretization(x.discretization.points, x.discretization.weights, domain), x.values)
        for layer in (AvgPool(0.6), AvgPool(0.6, count_include_pad=True), MaxPool(0.5, shift=0.125), MaxPool(0.9, matches=3)):
            torch.testing.assert_close(layer(x).values, layer(unstructured).values, rtol=0, atol=1e-10)


def test_torus_windows_reach_around_the_edge(generator):
    x = on_grid((6,), generator, domain=Torus((6 * STEP,)))
    expected = functional.max_pool1d(functional.pad(image(x), (1, 1), mode="circular"), 3, 2)
    for padding in (None, 0, 1):
        out = MaxPool.from_kernel(3, STEP, 2, padding, correction=False)(x)
        assert torch.equal(out.values, points_of(expected))
    with pytest.raises(ConfigError, match="narrow it"):
        MaxPool(2.0)(scattered(Torus((1.0,)), generator))


def test_windows_on_a_sphere_are_balls(generator):
    x = scattered(Sphere(), generator)
    out = MaxPool(1.0, correction=False)(x)
    distance = torch.cdist(x.discretization.points, x.discretization.points)
    expected = torch.stack([x.values[:, row].amax(1) for row in distance <= 2 * math.sin(0.25)], 1)  # an arc of 0.5
    assert torch.equal(out.values, expected)
    with pytest.raises(ConfigError, match="a window is a ball"):
        MaxPool(1.0, shift=0.2)(x)


def test_empty_windows_take_the_nearest_point(generator):
    x = scattered(Box.unit(2), generator, n=4)
    for layer in (MaxPool(1e-3, shift=0.3), AvgPool(1e-3, shift=0.3), NormPool(1e-3, shift=0.3), LogMeanExpPool(1e-3, shift=0.3)):
        out = layer(x).values
        centres = x.discretization.points + 0.3
        nearest = torch.cdist(centres, x.discretization.points).argmin(1)
        expected = x.values[:, nearest]
        torch.testing.assert_close(out, expected.abs() if isinstance(layer, NormPool) else expected, rtol=0, atol=1e-12)
    single = on_grid((1,), generator)
    assert torch.equal(MaxPool(STEP)(single).values, single.values)


@pytest.mark.parametrize("make", [AvgPool, MaxPool, LogMeanExpPool, NormPool])
@pytest.mark.parametrize("on", ["grid", "scatter"])
def test_gradients(make, on, generator):
    x = on_grid((4, 3), generator) if on == "grid" else scattered(Box.centered(2), generator, n=12)
    layer = make(0.8, 2, shift=0.1)
    assert torch.autograd.gradcheck(lambda v: layer(x.with_values(v)).values, x.values.requires_grad_())


def test_no_norm_or_exponential_overflows(generator):
    x = scattered(Box.unit(2), generator)
    for scale in (1e-200, 1.0, 1e200):
        values = (x.values * scale).requires_grad_()
        for layer in (NormPool(0.4, p=16.0), LogMeanExpPool(0.4, sharpness=50.0)):
            out = layer(x.with_values(values)).values
            out.sum().backward()
            assert out.isfinite().all() and values.grad.isfinite().all()
    zeros = torch.zeros_like(x.values, requires_grad=True)
    NormPool(0.4)(x.with_values(zeros)).values.sum().backward()
    assert zeros.grad.isfinite().all()


def test_integral_pools_converge():
    """On the prefixes of one lattice the error at the same outputs falls; the plain maximum of a window is no integral."""
    points = lattice(Box.unit(2), 4**7, dtype=torch.float64)
    x, y = points.points.unbind(1)
    values = torch.stack([torch.sin(9 * x) * torch.cos(7 * y), x - y**2], 1)[None]
    for pool_of in (AvgPool, LogMeanExpPool, NormPool):
        sizes = {4**4: 4, 4**5: 8, 4**7: 32}  # points, and the stride that leaves 16 outputs
        outputs = [pool_of(0.25, stride)(Sampled(points.prefix(n), values[:, :n])).values for n, stride in sizes.items()]
        coarse, fine = (float((out - outputs[-1]).pow(2).mean().sqrt()) for out in outputs[:2])
        assert fine < coarse / 2 < 0.05


def test_global_integral(generator):
    domain = Box((0.0, 0.0), (2.0, 3.0))
    points = lattice(domain, 4096, dtype=torch.float64)
    x, y = points.points.unbind(1)
    sampled = Sampled(points, torch.stack([x * y, torch.ones_like(x)], 1)[None])
    means = torch.tensor([[1.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(GlobalIntegral()(sampled), means, rtol=2e-3, atol=0)
    torch.testing.assert_close(GlobalIntegral(mean=False)(sampled), 6 * means, rtol=2e-3, atol=0)
    x = on_grid((3, 4), generator)
    expected = functional.adaptive_avg_pool2d(image(x), 1).flatten(1)
    torch.testing.assert_close(GlobalIntegral()(x), expected, rtol=0, atol=1e-12)


def test_crowded_points_with_weights_give_the_same_integral():
    """Q19, with the unweighted mean as negative control."""
    even = lattice(Box.unit(1), 1024, dtype=torch.float64).points
    points, weights = even**3, 3 * even[:, 0] ** 2
    values = torch.exp(points)[None]
    weighted = GlobalIntegral()(Sampled(Discretization(points, weights / weights.sum(), Box.unit(1)), values))
    plain = GlobalIntegral()(Sampled(Discretization(points, torch.full_like(weights, 1 / 1024), Box.unit(1)), values))
    truth = torch.e - 1
    assert abs(float(weighted) - truth) < 1e-2 < 0.2 < abs(float(plain) - truth)


def test_arguments_that_torch_would_take_differently_are_refused():
    with pytest.raises(ConfigError, match="one number"):
        MaxPool.from_kernel(3, STEP, (1, 2))
    with pytest.raises(ConfigError, match="at most"):
        MaxPool.from_kernel(2, STEP, 2, 1)
    with pytest.raises(ConfigError, match="above 0"):
        AvgPool(0.0)


def test_geometry_is_found_once_and_values_are_not_mutated(generator):
    x = scattered(Box.unit(2), generator)
    before = x.values.clone()
    first, second = MaxPool(0.3), MaxPool(0.3)
    first(x)
    known = dict(x.discretization.cache)
    second(x)
    assert x.discretization.cache.keys() == known.keys()
    for layer in (AvgPool(0.3), NormPool(0.3), LogMeanExpPool(0.3), second):
        layer(x)
    assert torch.equal(x.values, before)


def test_the_integral_of_points_first_values_is_the_same_and_so_lies_its_gradient(generator):
    x = sobol(Box.unit(2), 64, generator, dtype=torch.float64)
    rows = torch.randn(64, 3, 5, generator=generator, dtype=torch.float64)
    slope = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    first = rows.transpose(0, 1).requires_grad_()
    plain = rows.transpose(0, 1).contiguous().requires_grad_()
    ours, expected = (GlobalIntegral()(Sampled(x, values)) for values in (first, plain))
    torch.testing.assert_close(ours, expected)
    (to_first,), (to_plain,) = (torch.autograd.grad(out, values, slope) for out, values in ((ours, first), (expected, plain)))
    torch.testing.assert_close(to_first, to_plain)
    assert to_first.transpose(0, 1).is_contiguous()
