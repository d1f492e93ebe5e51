"""integrate: sum_j w_j f(x_j), with every check of a query."""

import math

import numpy as np
import pytest
import torch

from inrbridge import quadrature, sampling
from inrbridge.domains import Ball, Box, Region, Sphere, Torus
from inrbridge.errors import ConfigError, NotFinite, OutsideDomain, ShapeMismatch, UnknownName
from inrbridge.field import FunctionField
from inrbridge.quadrature import integrate

SQUARE = Box.centered(2)


def field(function, domain=SQUARE, channels=1):
    return FunctionField(function, domain, channels)


def test_every_channel_is_integrated():
    found = integrate(field(lambda x: torch.stack([x[..., 0] ** 2, 1 + 0 * x[..., 0], x[..., 1]], -1), channels=3))
    torch.testing.assert_close(found, torch.tensor([4 / 3, 4.0, 0.0]), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["lattice", "sobol", "halton", "grid", "uniform"])
def test_samplers_are_named_or_passed(name):
    f = field(lambda x: x.square().sum(-1, keepdim=True))
    by_name = integrate(f, sampler=name, n=1024, generator=torch.Generator().manual_seed(1))
    passed = integrate(f, sampler=sampling.get_sampler(name), n=1024, generator=torch.Generator().manual_seed(1))
    given = integrate(f, discretization=sampling.get_sampler(name)(SQUARE, 1024, torch.Generator().manual_seed(1)))
    assert torch.equal(by_name, passed) and torch.equal(by_name, given)
    assert float(by_name) == pytest.approx(8 / 3, rel=0.05)
    with pytest.raises(UnknownName):
        integrate(f, sampler="latice")


@pytest.mark.parametrize(
    "domain, function, truth",
    [
        (Ball((0.0, 0.0, 0.0)), lambda x: x.square().sum(-1, keepdim=True), 4 * math.pi / 5),
        (Sphere(2.0), lambda x: x[..., 2:] ** 2, 16 * math.pi * 4 / 3),
        (Torus((2 * math.pi,) * 2), lambda x: x.sin().prod(-1, keepdim=True) ** 2, math.pi**2),
        (Region(SQUARE, lambda x: x.norm(dim=-1) < 1, math.pi), lambda x: x[..., :1] ** 2, math.pi / 4),
        (Region(SQUARE, np.array([[True, False], [False, False]])), lambda x: x[..., :1], -0.5),
    ],
    ids=["ball", "sphere", "torus", "disc", "mask"],
)
def test_integrals_over_each_domain(domain, function, truth):
    assert float(integrate(field(function, domain), n=8192)) == pytest.approx(truth, rel=3e-3)


def test_a_part_of_the_fields_domain_may_be_integrated():
    half = Box((-1, 0), (1, 1))
    assert float(integrate(field(lambda x: x[..., 1:]), half)) == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(OutsideDomain):
        integrate(field(lambda x: x[..., 1:]), Box.centered(2, 2.0))


def test_a_discretization_brings_its_own_domain():
    x = sampling.lattice(SQUARE, 64)
    f = field(lambda x: x[..., :1])
    assert torch.equal(integrate(f, SQUARE, discretization=x), integrate(f, discretization=x))
    with pytest.raises(ConfigError, match="pass only one"):
        integrate(f, Box((-1, 0), (1, 1)), discretization=x)


def test_chunks_do_not_change_the_result(monkeypatch):
    f = field(lambda x: x.exp().prod(-1, keepdim=True))
    whole = integrate(f, n=1000)
    monkeypatch.setattr(quadrature, "CHUNK", 64)
    torch.testing.assert_close(integrate(f, n=1000), whole)


def test_the_fields_answer_is_checked():
    with pytest.raises(NotFinite):
        integrate(field(lambda x: x[..., :1].log()))
    with pytest.raises(ShapeMismatch):
        integrate(field(lambda x: x))


def test_gradients_flow_to_the_fields_parameters():
    a = torch.tensor(2.0, requires_grad=True)
    integrate(field(lambda x: a * x[..., :1] ** 2), sampler="grid").sum().backward()
    assert float(a.grad) == pytest.approx(4 / 3, rel=1e-3)


def test_the_dtype_is_that_of_the_values():
    f = field(lambda x: x[..., :1] ** 2)
    x = sampling.grid(SQUARE, 4096, dtype=torch.float64)
    assert integrate(f, discretization=x).dtype == torch.float64 and integrate(f).dtype == torch.float32
