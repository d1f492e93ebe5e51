"""Cell lists find what trees find, in the same order; skipped where there is no compiler."""

import numpy as np
import pytest
import torch

from inrbridge.compiled import neighbours
from inrbridge.stencils.neighbours import PointSet

if not neighbours.available(np.zeros((1, 1))):
    pytest.skip("no C++ compiler", allow_module_level=True)


def clouds(d):
    """Points that are spread evenly, crowded, on a line, all in one place, and one alone."""
    rng = np.random.default_rng(d)
    even = rng.random((500, d))
    return {"even": even, "crowded": even**4, "line": even * (np.arange(d) == 0), "one place": np.zeros((7, d)), "one": even[:1]}


def by_trees(monkeypatch, call):
    with monkeypatch.context() as patch:
        patch.setenv("INRBRIDGE_COMPILED", "0")
        return call()


@pytest.mark.parametrize("name", ["even", "crowded", "line", "one place", "one"])
@pytest.mark.parametrize("ball", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_all_points_in_a_support(d, ball, name, monkeypatch):
    points = clouds(d)[name]
    queries = np.random.default_rng(9).random((60, d)) * 1.2 - 0.1
    skewed, half = (np.full(d, -0.05), np.linspace(0.1, 0.2, d)), np.linspace(0.1, 0.15, d)
    for asked, low, high in ((queries, *skewed), (points, -half, half), (queries[:0], *skewed)):
        found = PointSet(points).inside(asked, low, high, ball)
        expected = by_trees(monkeypatch, lambda: PointSet(points).inside(asked, low, high, ball))  # noqa: B023
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", ["even", "crowded", "line"])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_the_nearest_points(d, closed, name, monkeypatch):
    points = clouds(d)[name]
    periods = np.where(np.arange(d) < max(1, d - 1), 1.0, 0.0) if closed else None
    queries = np.concatenate([points[:20], np.random.default_rng(9).random((60, d)) * 1.4 - 0.2])
    for count in (1, 13, len(points)):
        ways, distances, index = PointSet(points, periods).nearest(queries, count)
        expected = by_trees(monkeypatch, lambda: PointSet(points, periods).nearest(queries, count))  # noqa: B023
        np.testing.assert_allclose(distances, expected[1], atol=1e-14)
        np.testing.assert_allclose(np.linalg.norm(ways, axis=2), distances, atol=1e-14)
        if name == "even":  # no two are equally far
            np.testing.assert_array_equal(index, expected[2])
            np.testing.assert_allclose(ways, expected[0], atol=1e-14)
    assert (np.sort(index, 1) == np.arange(len(points))).all()  # all of them, once


def test_of_equally_far_points_the_lower_number_comes_first():
    square = np.stack(np.meshgrid(*[np.arange(5.0)] * 2, indexing="ij"), -1).reshape(-1, 2)
    _, distances, index = PointSet(square).nearest(np.array([[2.0, 2.0], [1.5, 1.5]]), 9)
    assert index.tolist() == [[12, 7, 11, 13, 17, 6, 8, 16, 18], [6, 7, 11, 12, 1, 2, 5, 8, 10]]
    assert (np.diff(distances, axis=1) >= 0).all()


def test_results_do_not_depend_on_threads_or_on_how_queries_are_visited():
    rng = np.random.default_rng(0)
    points, half = rng.random((neighbours.MANY + 500, 2)), np.full(2, 0.02)
    threads = torch.get_num_threads()
    try:
        found = []
        for count, asked in ((1, points), (2, points), (2, points.copy())):  # a copy is sorted into the cells once more
            torch.set_num_threads(count)
            found.append((*PointSet(points).inside(asked, -half, half), *PointSet(points).nearest(asked, 9)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
    few = PointSet(points).inside(points[:50], -half, half)  # visited as they come
    assert all(np.array_equal(a[: len(b)], b) for a, b in zip(found[0], few, strict=False))
