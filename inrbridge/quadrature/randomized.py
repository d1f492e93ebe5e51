"""Floor 4: randomized quasi-Monte Carlo with a confidence bound, for many dimensions and for jumps (Owen 1997; L'Ecuyer 2018).

The estimates on independently scrambled Sobol' points are unbiased and independent, so that their spread tells the error
of their mean, whatever the integrand.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrbridge.domains import Box
from inrbridge.quadrature.pullback import Pullback
from inrbridge.quadrature.result import Integral, Target
from inrbridge.sampling import sobol

REPLICATES = 16
CONFIDENCE = 0.999
FIRST = 64  # points of each replicate to begin with


@torch.no_grad()
def integrate_randomly(integrand: Pullback, target: Target, max_evaluations: int,
                       generator: torch.Generator | None) -> tuple[Integral, Tensor]:  # fmt: skip
    """Return the mean of 16 randomizations, whose points are doubled until the bound meets the tolerance, and all the points.

    The bound holds with a probability of about 99.9 % for each channel: Student's quantile times the standard error.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    sets = [sobol(Box.unit(integrand.dim), FIRST, generator, dtype=torch.float64) for _ in range(REPLICATES)]
    sums, n = [0.0] * REPLICATES, 0
    while True:
        for i, points in enumerate(sets):
            sums[i] = sums[i] + integrand(points.points[n:]).sum(0)
        n = len(sets[0])
        estimates = torch.stack(sums) / n  # (r, c)
        value, bound = estimates.mean(0), _half_width(estimates, integrand.rounding)
        if bool((bound <= target.allowed(value)).all()):
            said = f"{REPLICATES} randomizations of {n} points agree within the tolerance"
            return Integral(value, bound, integrand.evaluations, True, said), torch.cat([x.points for x in sets])
        if integrand.evaluations + n * REPLICATES > max_evaluations:
            said = f"{max_evaluations} evaluations were not enough"
            return Integral(value, bound, integrand.evaluations, False, said), torch.cat([x.points for x in sets])
        sets = [points.extend_to(2 * n) for points in sets]


def mean_on(points: Tensor, integrand: Pullback) -> Tensor:
    """Return the integral (c,) on given points as a mean that gradients flow through."""
    return integrand(points).mean(0)


def _half_width(estimates: Tensor, rounding: float) -> Tensor:
    """Half the width of the confidence interval of the mean of independent estimates (r, c)."""
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(estimates) - 1, (1 + CONFIDENCE) / 2))
    return quantile * estimates.std(0) / math.sqrt(len(estimates)) + rounding * estimates.abs().amax(0)
