"""Q21: steps of the paper's proofs that do not hold as printed, each with the example that breaks it. They are not promised.

Named in tests/README.md; what does hold is a bound on |f - g| itself, by its own variation (Koksma-Hlawka, Q3).
"""

import math

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.field import FunctionField
from inrbridge.models.universal import cover
from inrbridge.quadrature import integrate
from inrbridge.sampling import grid, points

LINE, DOUBLE = Box.unit(1), {"dtype": torch.float64}


def norm(function):
    return float(integrate(FunctionField(lambda x: function(x).abs(), LINE, 1), discretization=grid(LINE, (4096,), **DOUBLE)))


@pytest.mark.parametrize("n", [4, 16, 64])
def test_equal_norms_and_equal_samples_do_not_make_functions_close(n):
    """From (21) to (22): f and -f have one norm and one projection, yet lie 2 ||f|| apart: norms do not bound a distance."""
    f = lambda x: torch.sin(2 * math.pi * n * x)  # noqa: E731
    samples = torch.arange(n, **DOUBLE)[:, None] / n
    assert float(f(samples).abs().max()) < 1e-12 * n  # pi f = pi (-f) = 0
    assert norm(f) == norm(lambda x: -f(x)) == pytest.approx(2 / math.pi, rel=1e-3)
    assert norm(lambda x: 2 * f(x)) == pytest.approx(4 / math.pi, rel=1e-3)


@pytest.mark.parametrize("n", [4, 16, 64])
def test_the_variation_of_the_difference_does_bound_it(n):
    """What (22) needs: Koksma-Hlawka for |f - g|. The functions above have V(|f - g|) = 8 n, and 8 n D(X) is no small number."""
    difference = lambda x: 2 * torch.sin(2 * math.pi * n * x).abs()  # noqa: E731
    x = points(LINE, (torch.arange(n, **DOUBLE)[:, None] + 0.5) / n)
    error = abs(float(integrate(FunctionField(difference, LINE, 1), discretization=x)) - norm(difference))
    assert error <= 8 * n / (2 * n) + 1e-9  # D* = 1 / (2 n)


def test_36_has_the_wrong_sign():
    """The rectangles exceed the graph by less than eps / 8 with a minus, not with the plus of (36)."""
    eps = 0.2
    part = cover(lambda f: 1 + torch.sin(3 * f[..., 0]), [0.0], [1.0], eps / 8)
    total = float(((part.high - part.low).prod(1) * part.height).sum())
    assert total - part.norm < eps / 8 < total + part.norm


def test_the_gradient_by_one_sample_tends_to_zero():
    """(85), (104): finite, for it is O(1 / N); nothing can be learned from the limit itself. Q7 tests what it should say."""
    largest = []
    for n in (64, 256, 1024):
        x = grid(LINE, (n,), **DOUBLE)
        values = torch.sin(3 * x.points[:, 0]).requires_grad_()
        (x.weights @ values**2).backward()
        largest.append(float(values.grad.abs().max()))
    assert largest == pytest.approx([largest[0], largest[0] / 4, largest[0] / 16], rel=0.01)
