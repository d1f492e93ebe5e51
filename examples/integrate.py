"""Integrate fields over a box, a ball, a sphere and a region, and compare with the closed form.

Points of low discrepancy (lattice, sobol, halton) beat independent ones (uniform) on every domain. With a tolerance, points
are put where the field needs them, until a bound of the error is met.
Run: python integrate.py
"""

import math

import torch

from inrbridge import Ball, Box, FunctionField, Region, Sphere, integrate
from inrbridge.errors import ConfigError

SAMPLERS = ["lattice", "sobol", "halton", "grid", "uniform"]

quarter = Region(Box.unit(2), lambda x: x.norm(dim=-1) < 1, measure=math.pi / 4)

# title, domain, function of the coordinates (..., d) -> (..., 1), exact integral
CASES = [
    ("exp(x + y) on the box [-1, 1]^2", Box.centered(2), lambda x: x.sum(-1, True).exp(), (2 * math.sinh(1)) ** 2),
    ("|x|^2 in the unit ball", Ball((0, 0, 0)), lambda x: x.square().sum(-1, True), 4 * math.pi / 5),
    ("exp(z) on the unit sphere", Sphere(), lambda x: x[..., 2:].exp(), 4 * math.pi * math.sinh(1)),
    ("x y in a quarter disc", quarter, lambda x: x.prod(-1, True), 1 / 8),
]


def relative_error(field: FunctionField, exact: float, sampler: str, n: int) -> str:
    """Return the root mean square of the relative error over 8 draws of the points; "-" where the sampler cannot serve."""
    errors = []
    for seed in range(8):
        try:
            value = integrate(field, n=n, sampler=sampler, generator=torch.Generator().manual_seed(seed))
        except ConfigError:  # a grid needs a box
            return "-"
        errors.append((float(value) - exact) / exact)
    return f"{math.sqrt(sum(e * e for e in errors) / len(errors)):.0e}"


for title, domain, function, exact in CASES:
    field = FunctionField(function, domain, 1)
    print(f"\n{title}: exactly {exact:.6f}. Relative error:")
    print(f"{'points':>8}" + "".join(f"{sampler:>10}" for sampler in SAMPLERS))
    for n in (256, 1024, 4096):
        print(f"{n:8}" + "".join(f"{relative_error(field, exact, sampler, n):>10}" for sampler in SAMPLERS))
    found = integrate(field, tol=1e-3)
    error = abs(float(found.value) - exact)
    print(f"{found.evaluations:8}  chosen for 1e-3: {float(found.value):.6f}, bound {float(found.bound):.0e}, error {error:.0e}")
