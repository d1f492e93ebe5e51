"""The compiled fits of moving least squares equal those in numpy; skipped where there is no compiler."""

import numpy as np
import pytest
import torch

from inrbridge.compiled import squares
from inrbridge.stencils.reconstruct import LEBESGUE_LIMIT, Samples, fit_in_numpy, monomial_powers, moving_least_squares

if not squares.available():
    pytest.skip("no C++ compiler", allow_module_level=True)


def neighbourhoods(d, count, queries=61, seed=0):
    points = np.random.default_rng(seed).random((400, d))
    asked = np.concatenate([points[:3], np.random.default_rng(seed + 1).random((queries - 3, d))])
    return Samples(points).nearest(asked, count)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_fits_equal_their_twin(d, order):
    powers = np.array(monomial_powers(order, d))
    ways, distances, _ = neighbourhoods(d, 2 * len(powers) + 6)
    for widen in (1.0, 1.2):
        weights, sizes = squares.fit(ways, distances, powers, widen)
        expected, their_sizes = fit_in_numpy(ways, distances, powers, widen)
        sound = their_sizes <= LEBESGUE_LIMIT
        assert sound.mean() > 0.7 and ((sizes <= LEBESGUE_LIMIT) == sound).all()
        np.testing.assert_allclose(weights[sound], expected[sound], atol=1e-10)
        np.testing.assert_allclose(sizes[sound], their_sizes[sound], atol=1e-10)


def test_a_fit_that_fails_says_so():
    powers = np.array(monomial_powers(2, 2))
    ways, distances, _ = neighbourhoods(2, len(powers) - 2)  # fewer samples than unknowns
    for fit in (squares.fit, fit_in_numpy):
        sizes = fit(ways, distances, powers, 1.0)[1]
        assert np.isinf(sizes[3:]).all() and (sizes[:3] == 1).all()  # the first three are samples themselves
    ways[5] = np.nan
    assert np.isinf(squares.fit(ways, distances, powers, 1.0)[1][5])


def test_a_fit_does_not_depend_on_its_company_or_on_threads():
    powers = np.array(monomial_powers(2, 3))
    ways, distances, _ = neighbourhoods(3, 25)
    whole = squares.fit(ways, distances, powers, 1.0)
    for first in (0, 1, 7, 60):
        alone = squares.fit(ways[first : first + 1], distances[first : first + 1], powers, 1.0)
        assert all(np.array_equal(a[first], b[0]) for a, b in zip(whole, alone, strict=True))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert all(np.array_equal(a, b) for a, b in zip(whole, squares.fit(ways, distances, powers, 1.0), strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("neighbors", "error"), [(12, 1e-10), (6, 1e-8)])  # as many as unknowns: nearly singular, often widened
def test_whole_matrices_equal_those_in_numpy(neighbors, error, monkeypatch):
    rng = np.random.default_rng(0)
    samples, queries = rng.random((300, 2)), rng.random((200, 2))
    found, radius = moving_least_squares(Samples(samples), queries, 2, neighbors)
    monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    expected, their_radius = moving_least_squares(Samples(samples), queries, 2, neighbors)
    np.testing.assert_allclose(radius, their_radius, rtol=1e-12)
    assert torch.equal(found.edges, expected.edges) and torch.equal(found.columns, expected.columns)
    torch.testing.assert_close(found.weights, expected.weights, atol=error, rtol=0)
