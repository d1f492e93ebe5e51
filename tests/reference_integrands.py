"""Genz's test families on the unit cube with their exact integrals (Genz 1984, "Testing multidimensional integration routines").

Each integrand is drawn at random: where it peaks, bends or jumps, and how fast along each axis.
"""

import cmath
import itertools
import math

import torch
from scipy.special import erf

from inrbridge.domains import Box
from inrbridge.field import FunctionField

HARDNESS = {"oscillatory": 9.0, "product peak": 7.25, "corner peak": 1.85, "gaussian": 7.03, "continuous": 20.4, "jump": 4.3}
SMOOTH = ("oscillatory", "product peak", "corner peak", "gaussian")
FAMILIES = (*SMOOTH, "continuous", "jump")


def genz(family: str, d: int, generator: torch.Generator) -> tuple[FunctionField, float]:
    """Return a field on the unit cube and its integral."""
    a, w = torch.rand(2, d, generator=generator, dtype=torch.float64).unbind(0)
    a = a * (HARDNESS[family] / a.sum()) * max(1.0, d / 2)
    function, truth = _MADE[family](a, w, d)
    return FunctionField(lambda x: function(x)[..., None], Box.unit(d), 1), truth


def _oscillatory(a, w, d):
    phase = cmath.exp(2j * math.pi * float(w[0]))
    truth = phase * math.prod((cmath.exp(1j * k) - 1) / (1j * k) for k in a.tolist())
    return lambda x: torch.cos(2 * math.pi * w[0] + x @ a), truth.real


def _product_peak(a, w, d):
    truth = math.prod(k * (math.atan(k * (1 - u)) + math.atan(k * u)) for k, u in zip(a.tolist(), w.tolist(), strict=True))
    return lambda x: (1 / (a**-2 + (x - w) ** 2)).prod(-1), truth


def _corner_peak(a, w, d):
    corners = itertools.product((0, 1), repeat=d)
    total = sum((-1) ** sum(v) / (1 + sum(k for k, one in zip(a.tolist(), v, strict=True) if one)) for v in corners)
    return lambda x: (1 + x @ a) ** -(d + 1), total / (math.factorial(d) * math.prod(a.tolist()))


def _gaussian(a, w, d):
    pairs = zip(a.tolist(), w.tolist(), strict=True)
    truth = math.prod(math.sqrt(math.pi) / (2 * k) * float(erf(k * (1 - u)) + erf(k * u)) for k, u in pairs)
    return lambda x: torch.exp(-((a * (x - w)) ** 2).sum(-1)), truth


def _continuous(a, w, d):
    pairs = zip(a.tolist(), w.tolist(), strict=True)
    truth = math.prod((2 - math.exp(-k * u) - math.exp(-k * (1 - u))) / k for k, u in pairs)
    return lambda x: torch.exp(-(a * (x - w).abs()).sum(-1)), truth


def _jump(a, w, d):
    cut = min(d, 2)
    ends = [*w.tolist()[:cut], *[1.0] * (d - cut)]
    truth = math.prod((math.exp(k * u) - 1) / k for k, u in zip(a.tolist(), ends, strict=True))
    return lambda x: torch.exp(x @ a) * (x[..., :cut] <= w[:cut]).all(-1), truth


_MADE = {"oscillatory": _oscillatory, "product peak": _product_peak, "corner peak": _corner_peak, "gaussian": _gaussian,
         "continuous": _continuous, "jump": _jump}  # fmt: skip
