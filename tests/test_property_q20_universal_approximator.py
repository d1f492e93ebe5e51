"""Q20 [Wang & Golland 2023, appendix B.1]: the rectangle network of lemma 3 keeps its bound, and theorem 1 on small families.

(42) as printed does not: its ramps leave the rectangle (negative control). Norms are means over 2^12 Sobol' points.
"""

import math

import pytest
import torch
from reference_universal import algorithm_b1, as_printed

from inrbridge.domains import Box
from inrbridge.errors import ConfigError, NotFinite, ShapeMismatch
from inrbridge.field import FunctionField
from inrbridge.models.universal import (
    LARGEST_DELTA,
    RectangleNet,
    cover,
    partition_of_unity,
    ramp,
    rectangle_net,
    universal_approximator,
)
from inrbridge.sampling import grid, points, sobol

DOUBLE = {"dtype": torch.float64}


def gauss(f):
    return torch.exp(-8 * f.square().sum(-1))


FUNCTIONS = {  # J, low, high, eps
    "step": (lambda f: (f[..., 0] > 0.3).double(), [0.0], [1.0], 0.2),
    "bump": (gauss, [-1.0], [1.0], 0.2),
    "sign-changing": (lambda f: torch.sin(4 * f[..., 0]), [-1.0], [1.0], 0.4),
    "bump in the plane": (gauss, [-1.0, -1.0], [1.0, 1.0], 0.8),
    "disc": (lambda f: (f.square().sum(-1) < 0.5).double(), [-1.0, -1.0], [1.0, 1.0], 1.0),
    "sign-changing in the plane": (lambda f: f[..., 0] * torch.sin(3 * f[..., 1]), [-1.0, -1.0], [1.0, 1.0], 1.6),
}


def norm(function, low, high, n=2**12):
    """The L1 norm of a function on a box."""
    source = sobol(Box(low, high), n, torch.Generator().manual_seed(5), **DOUBLE)
    return float(source.weights @ function(source.points).abs())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lemma_3_the_network_is_within_half_of_eps(name):
    function, low, high, eps = FUNCTIONS[name]
    net = rectangle_net(function, low, high, eps)
    error = norm(lambda f: function(f) - net(f), low, high)
    assert error < eps / 2
    assert error > eps / 200  # it is an approximation, not the function itself
    outside = torch.tensor([[1.5] * len(low), [-2.0] * len(low)], **DOUBLE)
    assert bool((net(outside) == 0).all())


@pytest.mark.parametrize("name", ["bump", "sign-changing", "bump in the plane"])
def test_each_step_of_the_proof_is_within_its_share(name):
    """(34) and (38): the cover exceeds the graph by less than eps / 16 a sign; (49): the ramps cost less than eps / 4."""
    function, low, high, eps = FUNCTIONS[name]
    net = rectangle_net(function, low, high, eps)
    steps = RectangleNet(net.low, net.high, net.height, 1e-9)  # Y, up to ramps too thin to see
    assert norm(lambda f: function(f) - steps(f), low, high) < eps / 8
    assert norm(lambda f: steps(f) - net(f), low, high) < eps / 4
    for sign in (1, -1):
        part = cover(lambda f, sign=sign: (sign * function(f)).clamp(min=0), low, high, eps / 16)
        volume = (part.high - part.low).prod(1)
        assert 0 <= part.excess < eps / 16
        assert float(volume @ part.height) == pytest.approx(part.norm + part.excess)
        assert part.norm == pytest.approx(
            norm(lambda f, sign=sign: (sign * function(f)).clamp(min=0), low, high), rel=0.01, abs=1e-3
        )


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("delta", [0.01, 0.1, 0.4])
def test_one_ramp_stays_within_the_bound_44(n, delta):
    """||1_X - T||_1 <= (1 - (1 - 2 delta)^n) measure(X), T being 0 outside X and 1 on the inner rectangle (41)."""
    low, high = torch.tensor([[0.0, -0.3, 0.2][:n]], **DOUBLE), torch.tensor([[0.2, 0.5, 0.5][:n]], **DOUBLE)
    net, volume = RectangleNet(low, high, torch.ones(1, **DOUBLE), delta), float((high - low).prod())
    assert norm(lambda f: 1 - net(f), low[0].tolist(), high[0].tolist()) <= (1 - (1 - 2 * delta) ** n) * volume + 1e-9
    source = sobol(Box.centered(n), 4096, **DOUBLE).points
    inside = ((source > low) & (source < high)).all(1)
    width = delta * (high - low)
    inner = ((source > low + width) & (source < high - width)).all(1)
    out = net(source)
    assert bool((out[~inside] == 0).all()) and bool((out >= 0).all()) and bool((out <= 1 + 1e-9).all())
    torch.testing.assert_close(out[inner], torch.ones(int(inner.sum()), **DOUBLE))


def test_negative_control_eq_42_as_printed_misses_the_bound():
    """For [0, 0.2] and delta = 0.1: 0.8 outside, an error of 0.084 where (44) allows 0.040; the corrected form makes 0.020."""
    net = RectangleNet(torch.zeros(1, 1, **DOUBLE), torch.full((1, 1), 0.2, **DOUBLE), torch.ones(1, **DOUBLE), 0.1)
    x = grid(Box((-1.0,), (1.0,)), (20_000,), **DOUBLE)
    inside = ((x.points > 0) & (x.points < 0.2)).all(1).double()
    bound = (1 - (1 - 2 * 0.1)) * 0.2
    printed, right = as_printed(net, x.points), net(x.points)
    assert float(x.weights @ (inside - printed).abs()) == pytest.approx(0.084, abs=1e-3) and bound == pytest.approx(0.04)
    assert float(printed[inside == 0].max()) == pytest.approx(0.8, abs=1e-3)
    assert float(x.weights @ (inside - right).abs()) == pytest.approx(0.02, abs=1e-3) and bound > 0.03
    assert float(right[inside == 0].abs().max()) < 1e-9


def test_negative_control_eq_42_as_printed_misses_eps():
    """delta is a share: read as a length, it is wider than a function on a small box, and nothing is left of it."""
    function, eps = lambda f: 500 * ((f > 0) & (f < 0.002)).all(-1).double(), 0.2
    net = rectangle_net(function, [-0.001], [0.003], eps)
    for evaluate, holds in ((net, True), (lambda f: as_printed(net, f), False)):
        assert (norm(lambda f, k=evaluate: function(f) - k(f), [-0.001], [0.003]) < eps / 2) == holds


@pytest.mark.parametrize("name", ["sign-changing", "bump in the plane"])
def test_the_network_equals_algorithm_b1(name):
    function, low, high, eps = FUNCTIONS[name]
    net = rectangle_net(function, low, high, eps)
    f = sobol(Box(low, high), 8, torch.Generator().manual_seed(2), **DOUBLE).points
    registers = torch.tensor([algorithm_b1(net, x) for x in f], **DOUBLE)
    torch.testing.assert_close(net(f), registers, rtol=1e-9, atol=1e-9)
    printed = torch.tensor([algorithm_b1(net, x, as_printed=True) for x in f[:2]], **DOUBLE)
    torch.testing.assert_close(as_printed(net, f[:2]), printed, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("total", "eps", "n"), [(1.0, 0.2, 1), (3.0, 0.5, 2), (1.0, 0.5, 3)])
def test_delta_is_that_of_64_and_the_formula_of_the_algorithm_agrees_in_one_dimension_alone(total, eps, n):
    delta = ramp(total, eps, n)
    assert (1 - (1 - 2 * delta) ** n) * (total + eps / 16) == pytest.approx(eps / 8)  # what (63) needs
    printed = (1 - (1 - eps / (total + eps / 16)) ** (1 / n)) / 16
    assert (printed == pytest.approx(delta)) == (n == 1)


def test_delta_where_64_has_no_value_below_one_half():
    assert ramp(0.0, 0.2, 1) == ramp(0.01, 0.2, 2) == LARGEST_DELTA


def test_a_true_lipschitz_constant_makes_a_cover_for_certain():
    """Between the values looked at, a fast function stands above a cover that does not know its slope."""
    function = lambda f: 1 + torch.sin(64 * math.pi * f[..., 0] + 0.3)  # noqa: E731
    for constant, holds in ((64 * math.pi, True), (0.0, False)):
        part = cover(function, [0.0], [1.0], 0.9, lipschitz=constant)
        x = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0), **DOUBLE)
        cell = ((x >= part.low.T) & (x <= part.high.T)).double().argmax(1)
        assert bool((function(x) <= part.height[cell] + 1e-9).all()) == holds


LINE = Box.unit(1)


def lines(count=64):
    """A family of fields on the interval that two samples determine: a + b x, within [-1, 1]."""
    ends = 2 * torch.rand(2, count, generator=torch.Generator().manual_seed(4), **DOUBLE) - 1
    return FunctionField(lambda x: ends[0] + (ends[1] - ends[0]) * x, LINE, count)


def energy(field):
    """(c,): the integral of the square, by Gauss's rule of three points."""
    nodes, weights = torch.tensor([[0.5 - math.sqrt(0.15)], [0.5], [0.5 + math.sqrt(0.15)]], **DOUBLE), [5 / 18, 4 / 9, 5 / 18]
    return sum(w * value**2 for w, value in zip(weights, field(nodes), strict=True))


def smoothed_and_bent(field):
    """A Lipschitz map of fields: f -> x int f^2 + (1 - x) mean of f over [0, 1/2]."""
    left = field(torch.full((1, 1), 0.25, **DOUBLE))[0]  # of a line, that mean
    return FunctionField(lambda x: x * energy(field) + (1 - x) * left, LINE, field.channels)


def test_theorem_1_a_map_between_fields():
    ends = points(LINE, torch.tensor([[0.0], [1.0]], **DOUBLE))
    eps, family = 0.8, lines()
    net = universal_approximator(smoothed_and_bent, eps, points=ends, bound=1.0, outputs=ends)
    x = grid(LINE, (64,), **DOUBLE)
    truth, found = smoothed_and_bent(family)(x.points), net(family)(x.points)
    error = float((x.weights @ (truth - found).abs()).mean())  # nu: the family, equally likely
    assert error < eps and error < 0.25 * float(truth.abs().mean()), error
    swapped = points(LINE, torch.tensor([[1.0], [0.0]], **DOUBLE))  # negative control: samples taken for each other's
    net.points = swapped
    assert float((x.weights @ (truth - net(family)(x.points)).abs()).mean()) > 2 * error


def test_corollary_1_a_map_from_fields_to_numbers():
    ends = points(LINE, torch.tensor([[0.0], [1.0]], **DOUBLE))
    net = universal_approximator(lambda f: energy(f)[:, None], 0.3, points=ends, bound=1.0)
    family = lines()
    assert net(family).shape == (64, 1)
    assert float((net(family)[:, 0] - energy(family)).abs().mean()) < 0.3


def test_corollary_2_a_map_from_numbers_to_fields():
    """z -> the field |z| x."""
    ends = points(LINE, torch.tensor([[0.0], [1.0]], **DOUBLE))
    net = universal_approximator(lambda z: FunctionField(lambda x: x * z[:, 0].abs(), LINE, len(z)), 0.2, points=None,
                                 low=[-1.0], high=[1.0], outputs=ends)  # fmt: skip
    z, x = torch.linspace(-0.99, 0.99, 100, **DOUBLE)[:, None], grid(LINE, (64,), **DOUBLE)
    error = (x.weights @ (net(z)(x.points) - x.points * z[:, 0].abs()).abs()).mean()
    assert float(error) < 0.2


@pytest.mark.parametrize("d", [1, 2])
def test_the_partition_of_unity(d, generator):
    nodes = sobol(Box.unit(d), 9, generator, **DOUBLE)
    x = torch.rand(50, d, generator=generator, **DOUBLE)
    psi = partition_of_unity(nodes, x)
    torch.testing.assert_close(psi.sum(-1), torch.ones(50, **DOUBLE))
    assert bool((psi >= 0).all())
    torch.testing.assert_close(partition_of_unity(nodes, nodes.points), torch.eye(9, **DOUBLE))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: rectangle_net(gauss, [0.0], [0.0], 0.1), ConfigError, "low < high"),
        (lambda: rectangle_net(gauss, [-1.0] * 3, [1.0] * 3, 1e-3), ConfigError, "allow a larger error"),
        (lambda: rectangle_net(lambda f: f[..., 0].log(), [0.0], [1.0], 0.1), NotFinite, "expected finite"),
        (lambda: rectangle_net(gauss, [0.0], [1.0], 0.5)(torch.zeros(3, 2)), ShapeMismatch, r"\(..., 1\)"),
        (lambda: RectangleNet(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1), 0.5), ConfigError, "between 0 and 1/2"),
        (lambda: RectangleNet(torch.zeros(1, 1), torch.ones(1, 2), torch.ones(1), 0.1), ShapeMismatch, r"\(r, n\)"),
        (lambda: universal_approximator(energy, 0.1, points=None, bound=1.0), ConfigError, "low and high"),
        (lambda: universal_approximator(energy, 0.1, points=grid(LINE, (3,)), low=[0.0], high=[1.0]), ConfigError, "3 sample"),
    ],
)
def test_what_cannot_be_built_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()
