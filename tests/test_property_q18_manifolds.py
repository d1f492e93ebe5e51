"""Law Q18: integrals on the sphere and the torus (Wang & Golland 2023, equations 13 and 14)."""

import math

import pytest
import torch

from inrbridge.domains import Sphere, Torus
from inrbridge.field import FunctionField
from inrbridge.quadrature import integrate
from inrbridge.sampling import get_sampler

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


def test_charts_with_a_partition_of_unity_give_the_same_integral_for_every_atlas():
    def f(x, y, z):
        return torch.exp(z) * (1 + x)

    whole = integrate(on_sphere(f), n=2**14).item()
    for sharpness in (1.0, 5.0):  # two charts, north and south, blended over the equator
        north = on_sphere(lambda x, y, z, s=sharpness: f(x, y, z) * torch.sigmoid(s * z))
        south = on_sphere(lambda x, y, z, s=sharpness: f(x, y, z) * torch.sigmoid(-s * z))
        assert integrate(north, n=2**14).item() + integrate(south, n=2**14).item() == pytest.approx(whole, rel=1e-5)
