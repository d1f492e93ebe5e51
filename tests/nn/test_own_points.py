"""Resample reads a field onto points of the net's own, and what follows no longer depends on the points of the input."""

import pytest
import torch

from inrbridge.domains import Ball, Box
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.models import build_model
from inrbridge.nn import Resample, Sampled
from inrbridge.sampling import grid, lattice, shrunk, sobol

BOX = Box.centered(2)
EXACT = {"dtype": torch.float64}


def samples(points, function):
    return Sampled(points, function(points.points)[None])


def quadratic(x):
    return torch.stack([1 + x[:, 0] - 2 * x[:, 1] + x[:, 0] * x[:, 1], x[:, 0] ** 2 - 3 * x[:, 1] ** 2], 1)


def waves(x):
    return torch.sin(4 * x[:, :1] + 1) * torch.cos(3 * x[:, 1:])


@pytest.mark.parametrize("domain", [BOX, Ball((0.0, 0.0)), Box((0.0,), (2.0,)), Box.unit(3)], ids=str)
def test_polynomials_up_to_the_order_are_exact(domain, generator):
    own, source = lattice(domain, 128, **EXACT), sobol(domain, 512, generator, **EXACT)
    direction = torch.arange(1.0, domain.dim + 1, **EXACT)
    for order in (1, 2):
        for power in range(order + 1):
            out = Resample(own, order=order)(samples(source, lambda x, power=power: (x @ direction)[:, None] ** power))
            assert out.discretization is own
            torch.testing.assert_close(out.values[0, :, 0], (own.points @ direction) ** power, rtol=0, atol=1e-8)


def test_negative_control_order_1_is_not_exact_on_quadratics(generator):
    own, source = lattice(BOX, 128, **EXACT), sobol(BOX, 512, generator, **EXACT)
    out = Resample(own, order=1)(samples(source, quadratic))
    assert (out.values[0] - quadratic(own.points)).abs().max() > 1e-4


def test_points_of_its_own_keep_their_values(generator):
    fine = lattice(BOX, 256, generator, **EXACT)
    x = Sampled(fine, torch.randn(3, 256, 2, generator=generator, **EXACT))
    assert Resample(fine)(x) is x
    torch.testing.assert_close(Resample(fine.prefix(64))(x).values, x.values[:, :64], rtol=0, atol=1e-12)


def test_error_falls_with_the_order_plus_one():
    own = lattice(BOX, 256, **EXACT)
    for order, slope in ((1, -1.0), (2, -1.5)):  # of log error against log n: -(order + 1) / d, within noise
        sizes, errors = (256, 1024, 4096, 16384), []
        for n in sizes:
            runs = [sobol(BOX, n, torch.Generator().manual_seed(seed), **EXACT) for seed in range(3)]
            out = [Resample(own, order=order)(samples(x, waves)).values[0] - waves(own.points) for x in runs]
            errors.append(torch.stack(out).square().mean().sqrt().log2())
        found = (errors[-1] - errors[0]) / 6
        assert found < 0.8 * slope, (order, [float(e) for e in errors])


def test_gradient_flows_to_the_values(generator):
    own, source = lattice(BOX, 16, **EXACT), sobol(BOX, 32, generator, **EXACT)
    values = torch.randn(2, 32, 2, generator=generator, requires_grad=True, **EXACT)
    assert torch.autograd.gradcheck(lambda v: Resample(own)(Sampled(source, v)).values, values)


def test_precision_follows_the_input():
    source = sobol(BOX, 64)
    out = Resample(lattice(BOX, 32, **EXACT))(samples(source, waves))
    assert out.values.dtype == out.discretization.points.dtype == torch.float32


def test_another_domain_is_refused():
    with pytest.raises(ShapeMismatch, match="align the fields"):
        Resample(lattice(Box.unit(2), 16))(samples(sobol(BOX, 64), waves))


@pytest.mark.parametrize("resample", ["lattice", "grid", "none"])
def test_a_net_of_its_own_points_hardly_sees_the_sampler(resample, generator):
    """Shrunk points (appendix E.1) with equal weights move the output of a net that lives on them, of this one hardly."""
    options = {"widths": (8, 8), "strides": (1, 2), "resolution": 12, "points": 256, "resample": resample, "norm": "instance"}
    net = build_model("convnet", BOX, 1, 4, generator=generator, **options).eval()
    with torch.no_grad():
        truth = net(samples(lattice(BOX, 4096), waves))
        spread = net(samples(lattice(BOX, 4096), lambda x: waves(x[:, [1, 0]]))) - truth  # of two different fields
        for points in (grid(BOX, (32, 32)), sobol(BOX, 1024, generator), shrunk(BOX, 1024, generator)):
            error = (net(samples(points, waves)) - truth).norm() / spread.norm()
            if resample != "none":
                assert error < 0.02, (points.sampler, float(error))
    if resample == "none":  # the negative control; the last points are the shrunk ones
        assert error > 0.2, float(error)


def test_a_net_keeps_its_weights_with_or_without(generator):
    make = lambda resample: build_model(  # noqa: E731
        "convnet", BOX, 1, 3, widths=(4,), resolution=8, resample=resample, generator=generator
    ).eval()
    own, free = make("grid"), make("none")
    free.load_state_dict(own.state_dict())
    x = samples(own.own_discretization(), waves)
    assert torch.equal(own(x), free(x))
    rebuilt = build_model(own.name, BOX, 1, 3, **own.config()["options"])
    assert isinstance(rebuilt.resample, Resample) and rebuilt.own_discretization().sampler == "grid"


def test_unknown_points_of_its_own_are_refused():
    with pytest.raises(ConfigError, match='Got resample "shrunk", expected one of: none, lattice'):
        build_model("convnet", BOX, 1, 3, resample="shrunk")
