"""Law Q18: integrals on the sphere and the torus (Wang & Golland 2023, equations 13 and 14)."""

import functools
import math

import pytest
import torch

from inrbridge.domains import Box, FunctionChart, Manifold, Sphere, Torus
from inrbridge.domains.atlases import cube_sphere, flat_torus, ring_torus, stereographic_sphere
from inrbridge.field import FunctionField
from inrbridge.quadrature import integrate
from inrbridge.sampling import get_sampler, lattice, points, sobol

# Real spherical harmonics of degree 1 to 4, up to a factor, as polynomials in x, y, z.
HARMONICS = {
    "l=1": lambda x, y, z: z,
    "l=2 m=0": lambda x, y, z: 3 * z**2 - 1,
    "l=2 m=1": lambda x, y, z: x * z,
    "l=2 m=2": lambda x, y, z: x**2 - y**2,
    "l=3 m=0": lambda x, y, z: 5 * z**3 - 3 * z,
    "l=3 m=3": lambda x, y, z: x * (x**2 - 3 * y**2),
    "l=4 m=0": lambda x, y, z: 35 * z**4 - 30 * z**2 + 3,
}


def on_sphere(function):
    return FunctionField(lambda x: function(*x.unbind(-1))[..., None], Sphere(), 1)


def rms(field, sampler, n, truth=0.0):
    errors = []
    for seed in range(8):
        x = get_sampler(sampler)(field.domain, n, torch.Generator().manual_seed(seed), dtype=torch.float64)
        errors.append(integrate(field, discretization=x).item() - truth)
    return torch.tensor(errors).square().mean().sqrt().item()


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "halton", "uniform"])
def test_the_integral_of_one_is_the_area(sampler):
    assert rms(on_sphere(lambda x, y, z: torch.ones_like(x)), sampler, 100, 4 * math.pi) < 1e-9


@pytest.mark.parametrize("sampler", ["lattice", "sobol"])
@pytest.mark.parametrize("name", HARMONICS)
def test_harmonics_vanish_at_the_quasi_monte_carlo_rate(name, sampler):
    field = on_sphere(HARMONICS[name])
    coarse, fine = rms(field, sampler, 256), rms(field, sampler, 4096)
    assert fine < coarse / 16**0.8 or fine < 1e-6
    assert fine < rms(field, "uniform", 4096) / 5


def test_a_rotated_field_has_the_same_integral():
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))

    def bump(x):
        return torch.exp(2 * x[..., :1] - x[..., 1:2] ** 2)

    plain, turned = FunctionField(bump, Sphere(), 1), FunctionField(lambda x: bump(x @ turn), Sphere(), 1)
    found = [rms(field, "lattice", 2**13) for field in (plain, turned)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_lattice_on_a_torus_integrates_trigonometric_polynomials_exactly():
    # all but those whose frequency lies in the dual lattice, h . z = 0 (mod n)
    torus = Torus((1.0, 2.0))
    for h in [(1, 0), (0, 1), (3, -2), (5, 5), (-7, 4)]:
        wave = FunctionField(lambda x, h=h: torch.cos(2 * math.pi * (h[0] * x[..., :1] + h[1] * x[..., 1:] / 2) + 0.3), torus, 1)
        assert rms(wave, "lattice", 256) < 1e-12
        assert rms(wave, "uniform", 256) > 1e-2


def strip(first):
    """One of two charts of a Moebius strip of width 1."""

    def chart(u):
        turn, across = 2 * math.pi * (first + 0.7 * u[:, 0]), u[:, 1] - 0.5
        out = 1 + across * torch.cos(turn / 2)
        return torch.stack([out * turn.cos(), out * turn.sin(), across * torch.sin(turn / 2)], -1)

    return FunctionChart(chart, ("open", "edge"))


def ellipsoid(sign):
    """One of two charts of an ellipsoid, without an inverse of its own."""

    def chart(u):
        plane = (2 * u - 1) * 1.5
        square = plane.square().sum(-1, keepdim=True)
        directions = torch.cat([2 * plane, sign * (1 - square)], -1) / (1 + square)
        return directions * torch.tensor([1.0, 0.8, 0.5], dtype=u.dtype)

    return chart


MANIFOLDS = {
    "cube": cube_sphere,
    "stereographic": stereographic_sphere,
    "ring": ring_torus,
    "flat": lambda: flat_torus((1.0, 2.0)),
    "moebius": lambda: Manifold([strip(0.0), strip(0.5)]),
}
made = functools.cache(lambda name: MANIFOLDS[name]())


@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_partition_of_unity_sums_to_one_and_each_part_stays_in_its_chart(name):
    manifold = made(name)
    coords = sobol(manifold, 600, torch.Generator().manual_seed(0), dtype=torch.float64).points[:200]
    parts = manifold.parts(coords)
    torch.testing.assert_close(parts.sum(1), torch.ones(200, dtype=torch.float64), atol=1e-12, rtol=0)
    assert parts.min() >= 0 and bool(manifold.contains(coords).all())
    for k, chart in enumerate(manifold.charts):
        u = torch.rand(50, 2, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        for axis, end in enumerate(chart.ends):
            if end == "open":  # psi_k falls smoothly to 0 at the ends of its chart
                edge = u.clone()
                edge[:, axis] = 0.01
                assert manifold.parts(chart(edge))[:, k].max() < 1e-6


@pytest.mark.parametrize("name", MANIFOLDS)
def test_weights_sum_to_the_measure_and_quadrature_of_the_charts_agrees(name):
    manifold = made(name)
    exact = {"ring": 4 * math.pi**2 * 0.4, "flat": 2.0, "moebius": 6.35327}.get(name, 4 * math.pi)
    assert manifold.measure == pytest.approx(exact, rel=1e-5)
    assert Manifold(manifold.charts, periods=manifold.periods).measure == pytest.approx(exact, rel=1e-5)
    for n in (7, 100, 1000):
        assert sobol(manifold, n).weights.sum().item() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("sampler", ["lattice", "sobol"])
@pytest.mark.parametrize("name", ["cube", "stereographic"])
def test_the_integral_does_not_depend_on_the_atlas(name, sampler):
    """int exp(z) (1 + x) over the sphere = 2 pi (e - 1 / e), in every atlas, at the quasi-Monte Carlo rate."""
    truth = 2 * math.pi * (math.e - 1 / math.e)
    field = FunctionField(lambda x: (torch.exp(x[..., 2]) * (1 + x[..., 0]))[..., None], made(name), 1)
    coarse, fine = rms(field, sampler, 128, truth), rms(field, sampler, 2048, truth)
    assert fine < 6e-3 * truth and fine < coarse / 16**0.6
    assert fine < rms(field, "uniform", 2048, truth)


def chart_sum(manifold, f, n, with_parts=True, with_stretch=True):
    """sum_k int psi_k f J_k du, written out; without a factor the weights are scaled to the measure all the same."""
    total, mass = 0.0, 0.0
    for k, chart in enumerate(manifold.charts):
        u = sobol(Box.unit(2), n, torch.Generator().manual_seed(k), dtype=torch.float64).points
        x = chart(u)
        weight = manifold.parts(x)[:, k] if with_parts else torch.ones(n, dtype=torch.float64)
        weight = weight * chart.stretch(u) if with_stretch else weight
        total, mass = total + float(weight @ f(x)), mass + float(weight.sum())
    return total / mass * manifold.measure


@pytest.mark.parametrize("name", ["ring", "stereographic"])
def test_negative_control_without_the_partition_or_the_jacobian_the_atlas_shows(name):
    """On the ring cos + 2 cos^2 of the angle around the tube, on the sphere z^2, both in closed form."""

    def f(x):
        cosine = (x[:, :2].norm(dim=1) - 1) / 0.4
        return x[:, 2] ** 2 if name == "stereographic" else cosine + 2 * cosine**2

    truth = 4 * math.pi / 3 if name == "stereographic" else 2 * math.pi**2 * 0.4 * (2 + 0.4)
    assert chart_sum(made(name), f, 2048) == pytest.approx(truth, rel=2e-3)
    wrong = [chart_sum(made(name), f, 2048, **without) for without in ({"with_parts": False}, {"with_stretch": False})]
    assert all(abs(value / truth - 1) > 0.05 for value in wrong), (wrong, truth)


def test_charts_of_a_user_without_an_inverse():
    """An ellipsoid; its area by the elliptic integral of a surface of revolution is not known for three axes, but Thomsen's
    formula is within 1.1 %, and the flux of the field x through the surface is three times the volume."""
    body = Manifold([ellipsoid(1), ellipsoid(-1)])
    a, b, c, p = 1.0, 0.8, 0.5, 1.6075
    thomsen = 4 * math.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)
    assert body.measure == pytest.approx(thomsen, rel=0.011)
    x = sobol(body, 2048, dtype=torch.float64)
    normal = x.points / torch.tensor([a * a, b * b, c * c], dtype=torch.float64)
    flux = (x.points * normal).sum(1) / normal.norm(dim=1)
    assert float(x.weights @ flux) == pytest.approx(4 * math.pi * a * b * c, rel=5e-3)


def test_a_prefix_is_spread_over_all_charts():
    x = lattice(made("cube"), 4096, dtype=torch.float64)
    for n in (64, 256, 1024):
        prefix = x.prefix(n)
        assert torch.equal(prefix.points, lattice(made("cube"), n, dtype=torch.float64).points)
        # as many points on each side of every plane through the centre, by weight
        for direction in torch.eye(3, dtype=torch.float64):
            above = prefix.weights[prefix.points @ direction > 0].sum() / prefix.weights.sum()
            assert abs(float(above) - 0.5) < 2 / n**0.5


def test_periodicity_on_the_torus():
    """Shifted points of a flat torus integrate alike, and its atlas agrees with it."""
    torus, atlas = Torus((1.0, 2.0)), made("flat")

    def f(x):
        return torch.exp(torch.sin(2 * math.pi * x[..., :1]) + torch.cos(math.pi * x[..., 1:]))

    whole = integrate(FunctionField(f, torus, 1), n=4096).item()
    x = lattice(torus, 4096, dtype=torch.float64)
    moved = points(torus, torus.exp_map(x.points, torch.tensor([0.3, 1.7], dtype=torch.float64)))
    assert integrate(FunctionField(f, torus, 1), discretization=moved).item() == pytest.approx(whole, rel=1e-5)
    assert integrate(FunctionField(f, atlas, 1), n=16384).item() == pytest.approx(whole, rel=2e-3)
