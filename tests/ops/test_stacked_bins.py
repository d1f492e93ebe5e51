"""Bins as batched products: equal to the definition, whatever the length of a block and the memory."""

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.nn import MLPConv, Sampled
from inrbridge.ops import stacked_bins
from inrbridge.ops.dispatch import using
from inrbridge.ops.pairs import Pairs
from inrbridge.ops.reference import local_dense
from inrbridge.ops.stacked_bins import StackedBins
from inrbridge.sampling import sobol


def drawn(b, c, o, nodes, generator, count=300, m=50, n=40):
    """Pairs of which most are in one bin, and some bins and points are empty."""
    target, source = (torch.randint(top - 1, (count,), generator=generator) for top in (m, n))
    node = torch.where(torch.rand(count, generator=generator) < 0.7, 0, torch.randint(nodes, (count,), generator=generator))
    weight = torch.rand(count, generator=generator, dtype=torch.float64)
    shapes = (n, b, c), (nodes, c, o), (m, b, o)
    tensors = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return Pairs(target, source, node, weight, (m, nodes, n)), *tensors


def agree(operator, pairs, values, kernel, cotangent, tolerance):
    dense, wide = pairs.dense(), [t.double() for t in (values, kernel, cotangent)]
    flow = torch.einsum("ikj,ibo->jkbo", dense, wide[2])
    back = torch.einsum("jkbo,kco->jbc", flow, wide[1]), torch.einsum("jkbo,jbc->kco", flow, wide[0])
    output = local_dense(wide[0].transpose(0, 1), dense, wide[1]).transpose(0, 1)
    found = operator.output(values, kernel), *operator.gradients(values, kernel, cotangent)
    for ours, true in zip(found, (output, *back), strict=True):
        assert ours.dtype == values.dtype and ours.device == values.device
        torch.testing.assert_close(ours.double(), true, rtol=tolerance, atol=tolerance * float(true.abs().max()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("length", [1, 7, 64])
@pytest.mark.parametrize("sizes", [(3, 5, 10, 9), (1, 1, 1, 400), (7, 33, 17, 3)])
def test_blocks_equal_the_definition(sizes, length, dtype, tolerance, generator):
    pairs, *given = drawn(*sizes, generator)
    like = torch.empty(0, dtype=dtype)
    agree(StackedBins.of(pairs, like, length), pairs, *(t.to(dtype) for t in given), tolerance)


def test_memory_is_bounded_by_fields(generator, monkeypatch):
    monkeypatch.setattr(stacked_bins, "_MEMORY", 1)
    pairs, *given = drawn(5, 4, 6, 9, generator)
    agree(StackedBins.of(pairs, given[0]), pairs, *given, 1e-10)


def test_no_pairs_give_zeros(generator):
    empty, *given = drawn(2, 3, 4, 5, generator, count=0)
    agree(StackedBins.of(empty, given[0]), empty, *given, 1e-10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bins", [64, None])
def test_a_layer_on_a_gpu_equals_the_plain_path(bins, generator):
    box = Box.centered(2)
    layer = MLPConv(4, 6, half_width=0.2, bins=bins, stride=2, generator=generator).cuda().double()
    points = sobol(box, 256, generator).to("cuda")
    values = torch.randn(3, 256, 4, generator=generator, dtype=torch.float64).cuda().requires_grad_()
    weight = torch.randn(3, 64, 6, generator=generator, dtype=torch.float64).cuda()

    def run():
        found = layer(Sampled(points, values)).values
        return found, *torch.autograd.grad(found, [values, *layer.parameters()], weight)

    with using("plain"):
        expected = run()
    found = run()
    for ours, true in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-9, atol=1e-9 * float(true.detach().abs().max()))
    assert all(torch.equal(ours, again) for ours, again in zip(found[:2], run()[:2], strict=True))
