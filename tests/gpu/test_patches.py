"""Patches hold the whole matrix, every point once, and read less than their points do one by one."""

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.gpu.patches import cut_patches
from inrbridge.ops.sparse import SparseRows
from inrbridge.sampling import sobol
from inrbridge.stencils import Reconstruct, build_stencil, kernel_nodes


@pytest.fixture(scope="module")
def stencil():
    h = 2 / 32
    points = sobol(Box.centered(2), 1000, torch.Generator().manual_seed(0), dtype=torch.float64)
    return build_stencil(Reconstruct(kernel_nodes((3, 3), (h, h)), (h, h)), points)


def cut(matrix: SparseRows, shape: tuple[int, int, int], size: int):
    rows = matrix.rows()
    return cut_patches(rows // shape[1], rows % shape[1], matrix.columns, matrix.weights, shape, size)


@pytest.mark.parametrize("size", [1, 8, 16])
def test_patches_hold_the_matrix(stencil, size):
    patches = cut(stencil.matrix, (1000, 9, 1000), size)
    used = patches.points >= 0
    assert sorted(patches.points[used].tolist()) == list(range(1000))
    dense = torch.zeros(1000, 9, 1000)
    for points, halo, weights in zip(patches.points.tolist(), patches.halo, patches.weights, strict=True):
        for place, point in enumerate(points):
            if point >= 0:
                dense[point].index_add_(1, halo.long(), weights[:, place])
            else:
                assert not weights[:, place].any()
    torch.testing.assert_close(dense.double(), stencil.dense(), atol=1e-6, rtol=0)


def test_patches_are_of_neighbouring_points(stencil):
    patches = cut(stencil.matrix, (1000, 9, 1000), 16)
    assert patches.halo.numel() < 7 * 1000  # one by one they read 32 each
    again = cut(stencil.matrix, (1000, 9, 1000), 16)
    assert all(torch.equal(getattr(patches, name), getattr(again, name)) for name in ("points", "halo", "weights"))


def test_halves_hold_what_a_node_sees_below_the_largest_value(stencil):
    patches = cut(stencil.matrix, (1000, 9, 1000), 16)
    half = patches.halved()
    assert half.weights.dtype == torch.float16 and 0.5 < float(half.weights.float().abs().sum(-1).max()) <= 1.001
    torch.testing.assert_close(half.weights.float() * half.gain, patches.weights, atol=2e-3, rtol=1e-3)


def test_parts_that_share_nothing_and_points_that_read_nothing():
    rows = torch.cat([torch.arange(20), torch.arange(40, 60)])
    matrix = SparseRows.from_entries(rows, rows // 2, torch.ones(40, dtype=torch.float64), 60)
    patches = cut(matrix, (60, 1, 30), 4)
    assert sorted(patches.points[patches.points >= 0].tolist()) == list(range(60))
    assert float(patches.weights.sum()) == 40


def test_no_patches_where_points_read_nearly_everything():
    everything = SparseRows.from_entries(
        torch.arange(3).repeat_interleave(2000), torch.arange(2000).repeat(3), torch.ones(6000, dtype=torch.float64), 3
    )
    assert cut(everything, (3, 1, 2000), 16) is None
    assert cut(SparseRows.from_entries(*(torch.zeros(0, dtype=torch.long),) * 2, torch.zeros(0), 0), (0, 1, 4), 16) is None
