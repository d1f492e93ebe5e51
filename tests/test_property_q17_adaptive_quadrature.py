"""Law Q17: adaptive quadrature meets its tolerance, and its bound holds (Wang & Golland 2023, section 3.2 and footnote 4)."""

import warnings

import pytest
import torch
from reference_integrands import FAMILIES, SMOOTH, genz

from inrbridge.domains import Box
from inrbridge.errors import NotConverged
from inrbridge.field import FunctionField
from inrbridge.quadrature import integrate
from inrbridge.quadrature.rules import rule_of
from inrbridge.sampling import lattice

TOLERANCE = {1: 1e-7, 2: 1e-4, 3: 1e-3}  # relative
CASES = {1: 20, 2: 12, 3: 8}


MANY = {1: 200, 2: 120, 3: 60}


def outcomes(family, d, tol, cases, budget=300_000, seed=17):
    """(error, bound, allowed, evaluations, converged) of integrands of a family, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(cases):
        field, truth = genz(family, d, generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConverged)
            answer = integrate(field, tol=tol * abs(truth), max_evaluations=budget)
        error = abs(float(answer.value) - truth)
        found.append((error, float(answer.bound), tol * abs(truth), answer.evaluations, answer.converged))
    return found


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_bound_holds_whether_or_not_it_met_the_tolerance(family, d):
    found = outcomes(family, d, TOLERANCE[d], CASES[d])
    held = sum(error <= bound for error, bound, *_ in found)
    assert held >= 0.99 * len(found)
    for error, bound, allowed, _, converged in found:
        assert converged == (bound <= allowed) and (not converged or error <= allowed)
    if family in SMOOTH:
        assert sum(converged for *_, converged in found) >= 0.9 * len(found)


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_bound_holds_for_many_of_each_family(family, d):
    found = outcomes(family, d, TOLERANCE[d], MANY[d], seed=1717)
    assert sum(error <= bound for error, bound, *_ in found) >= 0.99 * len(found)


@pytest.mark.parametrize(("family", "d"), [("gaussian", 2), ("continuous", 1), ("continuous", 2), ("jump", 1), ("jump", 2)])
def test_work_grows_as_the_tolerance_falls(family, d):
    tolerances = (1e-1, 1e-3, 1e-5) if d == 2 else (1e-2, 1e-8, 1e-14)
    work = [sum(evaluations for *_, evaluations, _ in outcomes(family, d, tol, 5)) for tol in tolerances]
    assert work[0] <= work[1] <= work[2] and work[0] < work[2]


def test_points_go_where_the_field_needs_them():
    needle = FunctionField(lambda x: 1 / (1e-5 + (x - 0.3) ** 2), Box.unit(1), 1)
    seen = []
    counted = FunctionField(lambda x: seen.append(x) or needle(x), Box.unit(1), 1)
    assert integrate(counted, tol=1e-6).converged
    points = torch.cat(seen)
    near = ((points - 0.3).abs() < 0.05).double().mean()
    assert float(near) > 0.4  # of the points in a tenth of the interval


def test_the_difference_of_two_rules_alone_is_no_bound_for_jumps():
    """Negative control: over one box |K - G| is too small by luck, or blind beyond the last node, too often for the law."""
    rule, generator = rule_of(1), torch.Generator().manual_seed(4)
    points, held = (rule.nodes + 1) / 2, 0
    for _ in range(300):
        field, truth = genz("jump", 1, generator)
        values = field(points)[:, 0]
        held += abs(float(rule.mean @ values) - truth) <= abs(float((rule.mean - rule.lesser) @ values))
    assert held < 0.97 * 300


@pytest.mark.parametrize("family", ["gaussian", "continuous", "jump"])
def test_a_fixed_number_of_points_misses_the_tolerance(family):
    """Negative control: as many points as the adaptive rule uses, on a lattice."""
    generator, missed = torch.Generator().manual_seed(5), 0
    for _ in range(10):
        field, truth = genz(family, 2, generator)
        adaptive = integrate(field, tol=TOLERANCE[2] * truth)
        points = lattice(field.domain, adaptive.evaluations, dtype=torch.float64)
        missed += abs(float(integrate(field, discretization=points)) - truth) > TOLERANCE[2] * truth
    assert missed > 5  # the bound of the adaptive rule: never
