"""The rules under adaptive integration: exact for polynomials of their degree, and the tables they are known by."""

import itertools
import math

import numpy as np
import pytest
import torch

from inrbridge.quadrature.rules import gauss_kronrod, rule_of

# QUADPACK's tables (Piessens et al. 1983): node and weight
KNOWN = {
    10: [(0.995657163025808080735527280689003, 0.011694638867371874278064396062192), (0.0, 0.149445554002916905664936468389821)],
    7: [(0.991455371120812639206854697526329, 0.022935322010529224963732008058970), (0.0, 0.209482141084727828012999174891714)],
}


@pytest.mark.parametrize("n", KNOWN)
def test_nodes_and_weights_are_the_tabulated_ones_in_double_precision(n):
    nodes, weights, gauss = gauss_kronrod(n)
    for node, weight in KNOWN[n]:
        at = int(np.abs(nodes - node).argmin())
        assert abs(nodes[at] - node) < 1e-15 and abs(weights[at] - weight) < 1e-15
    assert (weights > 0).all() and weights.sum() == pytest.approx(2.0, abs=1e-14)
    known, known_weights = np.polynomial.legendre.leggauss(n)
    np.testing.assert_allclose(nodes[1::2], known, atol=1e-15)
    np.testing.assert_allclose(gauss, known_weights, atol=1e-15)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 6])
def test_rules_are_exact_up_to_their_degree_and_no_further(d):
    rule = rule_of(d)

    def monomials(total):
        return (e for e in itertools.product(range(total + 1), repeat=d) if sum(e) == total and list(e) == sorted(e))

    def values(e):
        return (rule.nodes ** torch.tensor(e, dtype=torch.float64)).prod(1)

    def mean(e):
        return math.prod(0.0 if k % 2 else 1 / (k + 1) for k in e)

    for total in range(rule.degree + 1):
        for e in monomials(total):
            assert float(rule.mean @ values(e)) == pytest.approx(mean(e), abs=1e-13)
            if total <= (15 if d == 1 else 5):
                assert float(rule.lesser @ values(e)) == pytest.approx(mean(e), abs=1e-13)
                assert float((rule.fine @ values(e)).abs().max()) < 1e-12
    beyond = [e for e in monomials(rule.degree + 1) if all(k % 2 == 0 for k in e)]
    assert max(abs(float(rule.mean @ values(e)) - mean(e)) for e in beyond) > 1e-13
    assert all(float((rule.coarse @ values((0,) * (d - 1) + (k,))).norm()) > 1e-3 for k in ((8,) if d == 1 else (4,)))


@pytest.mark.parametrize("d", [2, 3, 6])
def test_fourth_differences_see_their_own_axis_alone_and_no_cubics(d):
    rule = rule_of(d)
    for axis in range(d):
        x = rule.nodes[:, axis]
        assert float((rule.curvature @ x**3).abs().max()) < 1e-14 and float((rule.curvature @ x**2).abs().max()) < 1e-14
        bends = rule.curvature @ x**4
        assert float(bends[axis].abs()) > 0.1 and float(bends.abs().sum() - bends[axis].abs()) < 1e-14


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_jump_that_only_the_corners_see_does_not_pass_unnoticed(d):
    rule = rule_of(d)
    inner = rule.nodes.abs().amin(1) < 0.999  # all but the corners
    last = float(rule.nodes[inner, 0].max())
    step = (rule.nodes[:, 0] > (last + 1) / 2).to(torch.float64)
    hidden = (1 - last) / 4  # the share of the box behind a jump in the middle of the gap
    assert float(rule.mean @ step) == 0.0 and float((rule.mean - rule.lesser) @ step) == 0.0  # negative control
    assert float(rule.fine.mm(step[:, None]).norm()) / len(rule.nodes) ** 0.5 > hidden
