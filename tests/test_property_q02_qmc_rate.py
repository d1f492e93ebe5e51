"""Law Q2: integrals converge at the quasi-Monte Carlo rate (Wang & Golland 2023, appendix A).

Slopes of log RMS error against log N over 16 randomizations, N = 2^6..2^14. Theory: near -1 or steeper for smooth fields
on low-discrepancy points, about -3/4 for a field cut off at a curve in the plane, -1/2 for independent points.
"""

import math

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.field import FunctionField
from inrbridge.quadrature import integrate
from inrbridge.sampling import points

SQUARE = Box.unit(2)
SIZES = [2**m for m in range(6, 15)]
RANDOMIZATIONS = 16


def smooth(x):
    return x.sum(-1, keepdim=True).exp()


def cut_off(x):  # 1 on the disc of radius 0.4 around (0.5, 0.5)
    return ((x - 0.5).square().sum(-1, keepdim=True) < 0.16).to(x)


FIELDS = {
    "smooth": (FunctionField(smooth, SQUARE, 1), (math.e - 1) ** 2),
    "cut off": (FunctionField(cut_off, SQUARE, 1), 0.16 * math.pi),
}


@pytest.fixture(autouse=True)
def _in_double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rms_errors(kind: str, sampler: str) -> list[float]:
    field, truth = FIELDS[kind]
    errors = torch.zeros(RANDOMIZATIONS, len(SIZES))
    for seed in range(RANDOMIZATIONS):
        for k, n in enumerate(SIZES):
            generator = torch.Generator().manual_seed(1000 * seed + k)
            errors[seed, k] = integrate(field, n=n, sampler=sampler, generator=generator).item() - truth
    return errors.square().mean(0).sqrt().tolist()


def slope(sizes: list[int], errors: list[float]) -> float:
    x, y = torch.tensor(sizes).double().log(), torch.tensor(errors).log()
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / x.square().sum())


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "halton"])
@pytest.mark.parametrize("kind, steepest", [("smooth", -0.8), ("cut off", -0.65)])
def test_low_discrepancy_points_converge_faster_than_random_ones(kind, steepest, sampler):
    errors = rms_errors(kind, sampler)
    assert slope(SIZES, errors) <= steepest
    monte_carlo = rms_errors(kind, "uniform")
    assert -0.65 <= slope(SIZES, monte_carlo) <= -0.35
    assert errors[-1] < monte_carlo[-1] / 5


def test_negative_control_a_grid_with_end_points_converges_like_random_points():
    field, truth = FIELDS["smooth"]
    errors = []
    for n in SIZES[::2]:
        axis = torch.linspace(0, 1, math.isqrt(n))
        ends = points(SQUARE, torch.cartesian_prod(axis, axis))
        errors.append(abs(integrate(field, discretization=ends).item() - truth))
    assert -0.65 <= slope(SIZES[::2], errors) <= -0.4


def test_a_cell_centred_grid_is_the_midpoint_rule():
    field, truth = FIELDS["smooth"]
    errors = [abs(integrate(field, n=n, sampler="grid").item() - truth) for n in SIZES[::2]]
    assert slope(SIZES[::2], errors) == pytest.approx(-1, abs=0.02)  # h^2 = 1/N in the plane


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "halton"])
def test_points_without_randomization_converge_too(sampler):
    # RMS over a family of fields, exp(a x + b y), in place of one over shifts
    rates = torch.cartesian_prod(torch.linspace(-2, 2, 4), torch.linspace(-2, 2, 4))  # (16, 2)
    family = FunctionField(lambda x: (x @ rates.T).exp(), SQUARE, len(rates))
    truth = (rates.expm1() / rates).prod(-1)
    errors = [(integrate(family, n=n, sampler=sampler) - truth).square().mean().sqrt().item() for n in SIZES]
    assert slope(SIZES, errors) <= -0.8
