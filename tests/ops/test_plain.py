"""The plain torch operator equals its definition in any chunks, dtypes and order of points; grids in any layout of memory."""

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.nn import Conv, Sampled
from inrbridge.ops import plain
from inrbridge.ops.ordered import Ordered
from inrbridge.ops.plain import LocalOperator
from inrbridge.ops.reference import local_dense
from inrbridge.ops.sparse import SparseRows
from inrbridge.sampling import grid

N, M, K, B = 40, 30, 4, 5
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def made(generator, dtype, groups, c, o):
    """The operator of a random stencil in a random order, its dense form, values, kernel and cotangent."""
    dense = torch.randn(M, K, N, generator=generator, dtype=torch.float64)
    dense *= torch.rand(M, K, N, generator=generator) < 0.2
    dense[3] = 0  # a point that reads nothing
    rows, columns = dense.flatten(0, 1).nonzero(as_tuple=True)
    matrix = SparseRows.from_entries(rows, columns, dense.flatten(0, 1)[rows, columns], M * K)
    ordered = Ordered.along(matrix, K, N, torch.randperm(M, generator=generator))
    like = torch.zeros(0, dtype=dtype)
    given = [torch.randn(shape, generator=generator).to(dtype) for shape in ((N, B, c), (K, c // groups, o), (M, B, o))]
    return LocalOperator(ordered.to(like), lambda: ordered.exchanged().to(like), groups), dense, *given


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("groups", "c", "o"), [(1, 6, 8), (1, 3, 40), (1, 40, 3), (2, 6, 4), (6, 6, 6), (6, 6, 12)])
@pytest.mark.parametrize("chunk", [1, 1 << 19])
def test_all_partial_derivatives_equal_those_of_the_definition(generator, monkeypatch, dtype, groups, c, o, chunk):
    monkeypatch.setattr(plain, "_CHUNK", chunk)
    operator, dense, values, kernel, cotangent = made(generator, dtype, groups, c, o)
    v, w = values.double().requires_grad_(), kernel.double().requires_grad_()
    output = local_dense(v.transpose(0, 1), dense, w, groups).transpose(0, 1)
    back, total = torch.autograd.grad(output, (v, w), cotangent.double())
    pairs = [(operator.output(values, kernel), output), (operator.values_gradient(kernel, cotangent), back),
             (operator.kernel_gradient(values, cotangent), total),
             *zip(operator.gradients(values, kernel, cotangent), (back, total), strict=True)]  # fmt: skip
    for got, expected in pairs:
        assert got.dtype == dtype and got.shape == expected.shape
        assert float((got.double() - expected.detach()).norm() / expected.detach().norm()) < TOLERANCE[dtype]


def test_the_order_of_points_changes_nothing_but_rounding(generator):
    operator, dense, values, kernel, _ = made(generator, torch.float64, 1, 6, 8)
    rows, columns = dense.flatten(0, 1).nonzero(as_tuple=True)
    matrix = SparseRows.from_entries(rows, columns, dense.flatten(0, 1)[rows, columns], M * K)
    natural = LocalOperator(Ordered.along(matrix, K, N, torch.arange(M)), None, 1)
    torch.testing.assert_close(operator.output(values, kernel), natural.output(values, kernel), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("border", ["zeros", "circular", "reflect"])
def test_a_grid_takes_values_in_any_layout(generator, border):
    points = grid(Box.centered(2), (6, 8))
    layer = Conv(3, 4, spacing=(1 / 3, 1 / 4), border=border, generator=generator)
    values = torch.randn(2, 48, 3, generator=generator)
    expected = layer(Sampled(points, values)).values
    points_first = values.transpose(0, 1).contiguous().transpose(0, 1)
    channels_first = values.transpose(1, 2).contiguous().transpose(1, 2)
    for other in (points_first, channels_first):
        torch.testing.assert_close(layer(Sampled(points, other)).values, expected, rtol=1e-5, atol=1e-6)
    if border == "zeros":  # torch's circular padding has a layout of its own
        assert layer(Sampled(points, points_first)).values.is_contiguous()
