"""Geometry: each rule does what its definition says, at every border, and is computed once."""

import tracemalloc

import numpy as np
import pytest
import torch

from inrbridge.domains import Ball, Box, Region, Sphere, Torus
from inrbridge.errors import ShapeMismatch, SupportTooNarrow, UnknownName
from inrbridge.ops.sparse import SparseRows
from inrbridge.sampling import grid, lattice, points, sobol
from inrbridge.stencils import (  # fmt: skip
    BORDERS,
    Bins,
    BSpline,
    Cells,
    Gaussian,
    Polynomial,
    Quadrature,
    Reconstruct,
    build_stencil,
    kernel_nodes,
    reconstruct,
)
from inrbridge.stencils.bases import cardinal_bspline
from inrbridge.stencils.reconstruct import LEBESGUE_LIMIT, Samples, moving_least_squares

H = 2 / 16
SPACING = (H, H)
NODES = kernel_nodes((3, 3), SPACING)


def quadratic(x):
    return 1 + x[..., 0] - 2 * x[..., 1] + x[..., 0] ** 2 - 3 * x[..., 0] * x[..., 1] + 0.5 * x[..., 1] ** 2


@pytest.mark.parametrize("sampler", [lattice, sobol, grid])
@pytest.mark.parametrize("n", [256, 1024])
def test_reconstruction_is_exact_for_quadratics(sampler, n, generator):
    source = sampler(Box.centered(2), n, generator, dtype=torch.float64)
    dense = build_stencil(Reconstruct(NODES, SPACING), source).dense()
    nodes = source.points[:, None] + torch.tensor(NODES, dtype=torch.float64)
    inside = (nodes.abs() <= 1).all(-1)
    got = torch.einsum("ikj,j->ik", dense, quadratic(source.points))
    torch.testing.assert_close(got[inside], quadratic(nodes)[inside], atol=1e-7, rtol=1e-7)
    assert (got[~inside] == 0).all()  # zero padding: a node outside contributes nothing


@pytest.mark.parametrize("d", [1, 3])
def test_reconstruction_in_other_dimensions(d, generator):
    source = sobol(Box.centered(d), 512, generator, dtype=torch.float64)
    h = (0.1,) * d
    dense = build_stencil(Reconstruct(kernel_nodes((3,) * d, h), h), source).dense()
    nodes = source.points[:, None] + torch.tensor(kernel_nodes((3,) * d, h), dtype=torch.float64)
    inside = (nodes.abs() <= 1).all(-1)
    got = torch.einsum("ikj,j->ik", dense, (source.points**2).sum(-1))
    torch.testing.assert_close(got[inside], (nodes**2).sum(-1)[inside], atol=1e-7, rtol=1e-7)


def test_reconstruction_is_the_identity_on_the_points_themselves(generator):
    source = grid(Box.centered(2), (16, 16), dtype=torch.float64)
    dense = build_stencil(Reconstruct(NODES, SPACING), source).dense()
    torch.testing.assert_close(dense[:, 4], torch.eye(256, dtype=torch.float64))
    assert set(dense.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("seed", range(6))
def test_weights_stay_bounded_where_scattered_points_make_the_fit_singular(seed):
    generator = torch.Generator().manual_seed(seed)
    source = sobol(Box.centered(2), 512, generator, dtype=torch.float64)
    few = build_stencil(Reconstruct(NODES, SPACING, neighbors=6), source)  # as many as unknowns: singular somewhere
    assert few.dense().abs().sum(2).max() <= LEBESGUE_LIMIT


def test_points_on_a_line_lower_the_order_instead_of_failing():
    line = np.stack([np.linspace(-1, 1, 40), np.zeros(40)], 1)
    matrix, _ = moving_least_squares(Samples(line), np.array([[0.01, 0.0], [0.3, 0.1]]), order=2, neighbors=12)
    total = torch.zeros(2, dtype=torch.float64).index_add_(0, matrix.rows(), matrix.weights)
    assert matrix.weights.isfinite().all() and int(matrix.columns.max()) < 40
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_points_than_unknowns_still_give_finite_weights(n, generator):
    source = sobol(Box.centered(2), n, generator, dtype=torch.float64)
    dense = build_stencil(Reconstruct(kernel_nodes((3, 3), (0.9, 0.9)), (0.9, 0.9)), source).dense()
    assert dense.isfinite().all()
    torch.testing.assert_close(dense[:, 4].sum(1), torch.ones(n, dtype=torch.float64))


@pytest.mark.parametrize("border", BORDERS)
def test_borders_on_scattered_points(border, generator):
    source = lattice(Box.centered(2), 1024, generator, dtype=torch.float64)
    stencil = build_stencil(Reconstruct(NODES, SPACING), source, border=border)
    total = stencil.dense().sum(2)  # what a constant field gives at each node
    if border == "zeros":
        assert set(total.round(decimals=9).unique().tolist()) == {0.0, 1.0}
    elif border == "fading":
        assert bool((total >= 0).all()) and bool((total <= 1 + 1e-9).all())
        assert 0.05 < float(((total > 0.01) & (total < 0.99)).double().mean()) < 0.3 and float(total.min()) == 0.0
    elif border == "renormalize":
        torch.testing.assert_close(total.sum(1), torch.full((len(stencil.target),), 9.0, dtype=torch.float64))
    else:
        torch.testing.assert_close(total, torch.ones_like(total))
    if border == "valid":
        assert stencil.target.domain == Box.centered(2, 1 - H) and len(stencil.target) < 1024
        torch.testing.assert_close(stencil.target.weights.sum().item(), stencil.target.domain.measure)


def test_circular_border_sees_across_the_edge(generator):
    source = lattice(Box.centered(2), 1024, generator, dtype=torch.float64)
    wave = torch.sin(torch.pi * source.points[:, 0])
    dense = build_stencil(Reconstruct(NODES, SPACING), source, border="circular").dense()
    shifted = torch.sin(torch.pi * (source.points[:, None, 0] + torch.tensor(NODES, dtype=torch.float64)[:, 0]))
    torch.testing.assert_close(torch.einsum("ikj,j->ik", dense, wave), shifted, atol=2e-3, rtol=0)


def test_a_torus_is_circular_by_itself(generator):
    source = lattice(Torus((2.0, 2.0)), 256, generator, dtype=torch.float64)
    total = build_stencil(Reconstruct(NODES, SPACING), source).dense().sum(2)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("domain", [Ball((0.0, 0.0), 1.0), Region(Box.centered(2), lambda x: x[..., 0] < 0.2)])
def test_domains_with_curved_borders(domain, generator):
    source = sobol(domain, 512, generator, dtype=torch.float64)
    dense = build_stencil(Reconstruct(NODES, SPACING), source).dense()
    nodes = source.points[:, None] + torch.tensor(NODES, dtype=torch.float64)
    torch.testing.assert_close(dense.sum(2), domain.contains(nodes).double(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("rule", [Quadrature(BSpline((3, 3), SPACING), SPACING), Quadrature(Polynomial((0.2, 0.2)), (0.4, 0.4)),
                                  Quadrature(Gaussian((3, 3), SPACING), SPACING)])  # fmt: skip
def test_quadrature_is_the_sum_over_pairs(rule, generator):
    source = sobol(Box.centered(2), 128, generator, dtype=torch.float64)
    dense = build_stencil(rule, source).dense()
    low, high = (np.array(v) for v in rule.basis.support)
    expected = torch.zeros_like(dense)
    for i in range(128):
        for j in range(128):
            offset = (source.points[j] - source.points[i]).numpy()
            if ((offset >= low) & (offset <= high)).all():
                expected[i, :, j] = torch.from_numpy(rule.basis.evaluate(offset[None])[0]) * source.weights[j] / rule.basis.scale
    torch.testing.assert_close(dense, expected, atol=1e-12, rtol=1e-9)


def test_normalized_quadrature_integrates_constants_exactly(generator):
    source = sobol(Box.centered(2), 1024, generator, dtype=torch.float64)
    basis = BSpline((3, 3), SPACING)
    interior = (source.points.abs() < 1 - 2 * H).all(1)
    plain = build_stencil(Quadrature(basis, SPACING), source).dense().sum(2)[interior]
    exact = build_stencil(Quadrature(basis, SPACING, normalize=True), source).dense().sum(2)[interior]
    assert plain.std(0).max() > 0.02 and exact.std(0).max() < 1e-12


@pytest.mark.parametrize("border", ["zeros", "renormalize", "reflect", "circular"])
def test_a_constant_under_bins_keeps_the_covered_share(border, generator):
    source = lattice(Box.centered(2), 4096, generator, dtype=torch.float64)
    seeds = tuple(map(tuple, (lattice(Box.centered(2), 16, dtype=torch.float64).points * 0.2).tolist()))
    stencil = build_stencil(Bins(seeds, (0.2, 0.2)), source, border=border)
    total = stencil.dense().sum((1, 2))
    x = source.points.abs()
    share = ((0.2 + (1 - x).clamp(max=0.2)) / 0.4).prod(1)
    expected = share if border == "zeros" else torch.ones_like(share)
    torch.testing.assert_close(total, expected, atol=0.12, rtol=0)
    assert (total - expected).abs().mean() < 0.03


def test_bins_assign_each_pair_to_the_nearest_seed(generator):
    source = sobol(Box.centered(2), 200, generator, dtype=torch.float64)
    seeds = torch.rand(9, 2, dtype=torch.float64, generator=generator) * 0.6 - 0.3
    dense = build_stencil(Bins(tuple(map(tuple, seeds.tolist())), (0.3, 0.3), ball=True), source).dense()
    offset = source.points[None] - source.points[:, None]  # x_j - x_i
    inside = offset.norm(dim=-1) <= 0.3
    nearest = torch.cdist(offset.reshape(-1, 2), seeds).argmin(1).reshape(200, 200)
    i, j = inside.nonzero(as_tuple=True)
    expected = torch.zeros_like(dense)
    expected[i, nearest[i, j], j] = source.weights[j] / (np.pi * 0.3**2)
    torch.testing.assert_close(dense, expected)


def test_cells_average_each_cell(generator):
    source = sobol(Box.centered(2), 256, generator, dtype=torch.float64)
    stencil = build_stencil(Cells((2, 3)), source)
    dense = stencil.dense()[:, 0]
    torch.testing.assert_close(dense.sum(1), torch.ones(6, dtype=torch.float64))
    assert (dense > 0).sum(0).eq(1).all()  # the cells are disjoint and cover the domain
    values = source.points[None, :, :1]
    torch.testing.assert_close(stencil.interpolate(values)[0, :, 0].reshape(2, 3).mean(1),
                               torch.tensor([-0.5, 0.5], dtype=torch.float64), atol=0.03, rtol=0)  # fmt: skip


def test_bspline_basis_interpolates_and_the_cardinal_spline_is_a_partition_of_unity():
    for order in (1, 2, 3):
        x = np.linspace(-0.5, 0.5, 11)[:, None] + np.arange(-4, 5)
        np.testing.assert_allclose(cardinal_bspline(x, order).sum(1), 1.0)
    for size in ((3, 3), (4, 5)):
        basis = BSpline(size, SPACING, 3)
        np.testing.assert_allclose(basis.evaluate(np.array(kernel_nodes(size, SPACING))), np.eye(basis.count), atol=1e-12)


def test_polynomial_basis_is_orthonormal_on_its_support():
    basis = Polynomial((0.3, 0.1), degree=4)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    x = np.stack(np.meshgrid(nodes * 0.3, nodes * 0.1, indexing="ij"), -1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel() / 4
    values = basis.evaluate(x)
    np.testing.assert_allclose(values.T @ (w[:, None] * values), np.eye(basis.count), atol=1e-10)


def test_a_stencil_is_computed_once(generator):
    source = lattice(Box.centered(2), 256, generator)
    rule = Reconstruct(NODES, SPACING)
    assert build_stencil(rule, source) is build_stencil(Reconstruct(NODES, SPACING), source)
    assert build_stencil(rule, source, stride=2).target is source.thin(2)


def test_even_kernels_are_shifted_by_half_a_cell():
    assert kernel_nodes((4,), (1.0,)) == ((-1.0,), (0.0,), (1.0,), (2.0,))


def test_a_support_narrower_than_the_spacing_warns(generator):
    source = lattice(Box.centered(2), 1024, generator)
    with pytest.warns(SupportTooNarrow, match=r"0\.05 is narrower than the spacing 0\.0625 of 1024 points"):
        build_stencil(Bins(((0.0, 0.0),), (0.025, 0.025)), source)


def test_bad_requests_are_named(generator):
    source = lattice(Box.centered(2), 64, generator)
    with pytest.raises(UnknownName, match=r'border mode "zero".*Did you mean "zeros"'):
        build_stencil(Reconstruct(NODES, SPACING), source, border="zero")
    with pytest.raises(ShapeMismatch, match=r"kernel of 3 dimensions on Sphere.*expected 2, .*tangent plane.*dim=2"):
        build_stencil(Reconstruct(((0.0, 0.0, 0.0),), (1.0, 1.0, 1.0)), lattice(Sphere(), 64, generator))
    with pytest.raises(ShapeMismatch, match=r"kernel of 2 dimensions on Box.*expected 3; pass dim=3"):
        build_stencil(Reconstruct(NODES, SPACING), lattice(Box.centered(3), 64, generator))
    with pytest.raises(ShapeMismatch, match=r'border "reflect" on Sphere.*expected a Box'):
        build_stencil(Reconstruct(NODES, SPACING), lattice(Sphere(), 64, generator), border="reflect")
    with pytest.raises(ShapeMismatch, match="expected a Box"):
        build_stencil(Reconstruct(NODES, SPACING), lattice(Ball((0.0, 0.0), 1.0), 64, generator), border="reflect")


def test_a_users_own_points(generator):
    coords = torch.rand(300, 2, generator=generator, dtype=torch.float64) * 2 - 1
    dense = build_stencil(Reconstruct(NODES, SPACING), points(Box.centered(2), coords)).dense()
    torch.testing.assert_close(dense[:, 4], torch.eye(300, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("border", ["zeros", "renormalize", "circular"])
def test_many_nodes_are_read_in_parts(border, generator, monkeypatch):
    source = sobol(Box.centered(2), 128, generator, dtype=torch.float64)
    whole = build_stencil(Reconstruct(NODES, SPACING), source, border=border).matrix
    source.cache.clear()
    monkeypatch.setattr(reconstruct, "AT_ONCE", 7)
    parts = build_stencil(Reconstruct(NODES, SPACING), source, border=border).matrix
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_the_memory_of_a_stencil_is_that_of_its_entries(generator, monkeypatch):
    source = sobol(Box.centered(2), 2048, generator)

    def peak() -> float:
        source.cache.clear()
        tracemalloc.start()
        stencil = build_stencil(Reconstruct(NODES, SPACING), source)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / (16 * len(stencil.matrix.columns))  # 8 bytes for the column, 8 for the weight

    monkeypatch.setattr(reconstruct, "AT_ONCE", 256)
    assert peak() < 5
    monkeypatch.setenv("INRBRIDGE_COMPILED", "0")  # the compiled fit keeps its monomials in registers
    assert peak() < 5
    monkeypatch.setattr(reconstruct, "AT_ONCE", 2**30)
    assert peak() > 10  # all at once


def test_entries_of_a_sparse_matrix_come_in_any_order(generator):
    row, column, weight = torch.arange(60) // 3, torch.arange(60) % 7, torch.rand(60, generator=generator)
    shuffled = torch.randperm(60, generator=generator)
    dense = torch.zeros(25, 7).index_put((row, column), weight, accumulate=True)
    for entries in ((row, column, weight), (row[shuffled], column[shuffled], weight[shuffled])):
        matrix = SparseRows.from_entries(*entries, 25)
        torch.testing.assert_close(matrix.times(torch.eye(7)), dense)
