"""The chunked local operator equals its definition, gradients included, whatever the grouping."""

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.ops import plain
from inrbridge.ops.dispatch import using
from inrbridge.ops.reference import local_dense
from inrbridge.sampling import sobol
from inrbridge.stencils import Bins, Reconstruct, build_stencil, kernel_nodes

BOX = Box.centered(2)


@pytest.fixture
def stencil(generator):
    nodes = kernel_nodes((3, 3), (0.2, 0.2))
    return build_stencil(Reconstruct(nodes, (0.2, 0.2)), sobol(BOX, 60, generator, dtype=torch.float64), stride=2)


@pytest.mark.parametrize(("groups", "channels", "out"), [(1, 4, 6), (2, 4, 6), (4, 4, 4), (4, 4, 8)])
@pytest.mark.parametrize("chunk", [1, 300, 1 << 18])
def test_chunks_equal_the_dense_definition(stencil, generator, monkeypatch, groups, channels, out, chunk):
    monkeypatch.setattr(plain, "_CHUNK", chunk)
    values = torch.randn(3, 60, channels, dtype=torch.float64, generator=generator)
    kernel = torch.randn(9, channels // groups, out, dtype=torch.float64, generator=generator)
    with using("plain"):
        applied = stencil.apply(values, kernel, groups)
    torch.testing.assert_close(applied, local_dense(values, stencil.dense(), kernel, groups))


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_the_chunks(stencil, generator, monkeypatch, groups):
    monkeypatch.setattr(plain, "_CHUNK", 500)
    values = torch.randn(2, 60, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    kernel = torch.randn(9, 2 // groups, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    with using("plain"):
        assert torch.autograd.gradcheck(lambda v, w: stencil.apply(v, w, groups), (values, kernel), fast_mode=True)


def test_bins_equal_the_dense_definition_with_gradients(generator):
    points = sobol(BOX, 50, generator, dtype=torch.float64)
    seeds = tuple(map(tuple, (torch.rand(7, 2, generator=generator) * 0.8 - 0.4).tolist()))
    stencil = build_stencil(Bins(seeds, (0.4, 0.4)), points)
    values = torch.randn(2, 50, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    kernel = torch.randn(7, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    torch.testing.assert_close(stencil.apply(values, kernel), local_dense(values, stencil.dense(), kernel))
    assert torch.autograd.gradcheck(stencil.apply, (values, kernel), fast_mode=True)


def test_float32_agrees_with_float64(stencil, generator):
    values = torch.randn(3, 60, 4, dtype=torch.float64, generator=generator)
    kernel = torch.randn(9, 4, 6, dtype=torch.float64, generator=generator)
    single = stencil.apply(values.float(), kernel.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), stencil.apply(values, kernel), atol=1e-4, rtol=1e-4)


def test_output_lies_points_first_so_that_the_next_layer_copies_nothing(stencil):
    out = stencil.apply(torch.zeros(3, 60, 4, dtype=torch.float64), torch.zeros(9, 4, 6, dtype=torch.float64))
    assert out.transpose(0, 1).is_contiguous()
