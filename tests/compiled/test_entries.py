"""Compiled entries of stencils equal those in numpy; skipped where there is no compiler."""

import numpy as np
import pytest
import torch

from inrbridge.compiled import entries
from inrbridge.domains import Box
from inrbridge.ops.sparse import SparseRows
from inrbridge.sampling import lattice, sobol
from inrbridge.stencils import Bins, BSpline, Gaussian, Polynomial, Quadrature, Radial, build_stencil

if not entries.available():
    pytest.skip("no C++ compiler", allow_module_level=True)

H = (0.17, 0.23)


@pytest.mark.parametrize("basis", [BSpline((3, 3), H), BSpline((4, 2), H, 3), BSpline((3, 2), H, 1), BSpline((3, 3), H, 0),
                                   Polynomial(H, 4), Gaussian((2, 3), H), Radial(2, 0.3), Radial(2, 0.3, 4, 3),
                                   Radial(2, 0.3, 2, 1), Radial(2, 0.3, 2, 0)])  # fmt: skip
@pytest.mark.parametrize("border", ["zeros", "renormalize"])
def test_basis_functions_at_pairs(basis, border, generator, monkeypatch):
    source = sobol(Box.centered(2), 200, generator, dtype=torch.float64)
    rule = Quadrature(basis, H, normalize=border == "renormalize")
    found = build_stencil(rule, source, border=border).matrix
    monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    source.cache.clear()
    expected = build_stencil(rule, source, border=border).matrix
    assert torch.equal(found.edges, expected.edges) and torch.equal(found.columns, expected.columns)
    torch.testing.assert_close(found.weights, expected.weights, atol=1e-12, rtol=1e-10)


def test_bins_of_pairs(generator, monkeypatch):
    source = lattice(Box.centered(2), 256, generator, dtype=torch.float64)
    seeds = (torch.rand(64, 2, generator=generator, dtype=torch.float64) - 0.5).mul(0.4)
    rule = Bins(tuple(map(tuple, seeds.tolist())), (0.2, 0.2))
    found = build_stencil(rule, source).dense()
    monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    source.cache.clear()
    torch.testing.assert_close(found, build_stencil(rule, source).dense(), atol=1e-12, rtol=1e-12)


def test_of_two_equally_near_seeds_the_lower_one_is_taken():
    seeds = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]])
    assert entries.nearest_seed(np.array([[0.0, 0.0], [-0.1, 5.0], [-0.1, 0.0]]), seeds).tolist() == [0, 2, 1]


def test_entries_of_a_key_stay_in_order(generator, monkeypatch):
    keys, columns = torch.randint(0, 50, (1000,), generator=generator), torch.arange(1000)
    found = SparseRows.from_entries(keys, columns, columns.double(), 60)
    offsets, order = entries.order_by_key(np.zeros(0, np.int64), 3)
    assert offsets.tolist() == [0, 0, 0, 0] and len(order) == 0
    monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    expected = SparseRows.from_entries(keys, columns, columns.double(), 60)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_stencil_with_inputs_and_outputs_exchanged(generator, monkeypatch):
    rows, columns = (torch.randint(0, high, (400,), generator=generator) for high in (3 * 40, 30))
    matrix = SparseRows.from_entries(rows, columns, torch.rand(400, generator=generator, dtype=torch.float64), 3 * 40)
    found = matrix.exchanged(3, 30)
    monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    assert all(torch.equal(a, b) for a, b in zip(found, matrix.exchanged(3, 30), strict=True))
    assert len(found.edges) == 91 and int(found.columns.max()) < 40
