"""The operator of bins by its paths: equal to its definition and to each other, the same numbers for any number of threads."""

import pytest
import torch

from inrbridge.compiled import bins
from inrbridge.domains import Box
from inrbridge.ops import binned, mixed_compiled
from inrbridge.ops.binned import binned_operator
from inrbridge.ops.dispatch import using
from inrbridge.ops.mixed_compiled import CompiledMixture, compiled_mixture
from inrbridge.ops.mixed_plain import PlainKernels, PlainMixture
from inrbridge.ops.pairs import Pairs
from inrbridge.ops.reference import local_dense
from inrbridge.sampling import lattice, sobol
from inrbridge.stencils import Bins, Pairwise, build_stencil

BOX = Box.centered(2)
DOUBLE = {"dtype": torch.float64}
SIZES = [(3, 5, 10, 9), (48, 32, 64, 5), (8, 16, 32, 64), (1, 1, 1, 100), (7, 33, 17, 3)]  # b, c, o, nodes

compiled = pytest.mark.skipif(not bins.available(torch.empty(0)), reason="no C++ compiler here, or INRBRIDGE_COMPILED=0")


@pytest.fixture(params=[pytest.param("compiled", marks=compiled), "plain"])
def path(request):
    with using(request.param):
        yield request.param


def drawn(b, c, o, nodes, generator, dtype=torch.float64):
    """Pairs of 50 and 40 points, two of them alone, with values, a kernel and a cotangent."""
    count, m, n = 300, 50, 40
    i, j, k = (torch.randint(top, (count,), generator=generator) for top in (m - 1, n - 1, nodes))
    weight = torch.rand(count, generator=generator, **DOUBLE)
    places = (torch.rand(m, 2, generator=generator), torch.rand(n, 2, generator=generator))
    shapes = (n, b, c), (nodes, c, o), (m, b, o)
    return Pairs(i, j, k, weight, (m, nodes, n), places), *(torch.randn(s, generator=generator, dtype=dtype) for s in shapes)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("sizes", SIZES)
def test_both_paths_equal_the_definition(sizes, dtype, tolerance, generator):
    pairs, *given = drawn(*sizes, generator, dtype)
    values, kernel, cotangent = (t.double() for t in given)
    expected = local_dense(values.transpose(0, 1), pairs.dense(), kernel).transpose(0, 1)
    flow = torch.einsum("ikj,ibo->jkbo", pairs.dense(), cotangent)
    back = torch.einsum("jkbo,kco->jbc", flow, kernel), torch.einsum("jkbo,jbc->kco", flow, values)
    for made in binned_operator(pairs).paths.values():
        operator = made(torch.empty(0, dtype=dtype))
        if operator is None:
            continue
        values, kernel, cotangent = given
        single = operator.values_gradient(kernel, cotangent), operator.kernel_gradient(values, cotangent)
        found = (operator.output(values, kernel), *single, *operator.gradients(*given))
        for ours, true in zip(found, (expected, *back, *back), strict=True):
            assert ours.dtype == dtype
            torch.testing.assert_close(ours.double(), true, rtol=tolerance, atol=tolerance * float(true.abs().max()))


@compiled
def test_the_compiled_path_serves_float32_and_float64_on_the_cpu(generator):
    operator = binned_operator(drawn(*SIZES[0], generator)[0])
    kinds = {
        dtype: type(operator.beside(torch.empty(0, dtype=dtype))) for dtype in (torch.float32, torch.float64, torch.bfloat16)
    }
    assert list(kinds.values()) == [binned.CompiledBins, binned.CompiledBins, binned.PlainBins]


def test_without_compiled_kernels_the_plain_path_serves(generator, monkeypatch):
    monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    pairs = drawn(*SIZES[0], generator)[0]
    assert type(binned_operator(pairs).beside(torch.empty(0))) is binned.PlainBins
    assert compiled_mixture(pairs, torch.empty(0)) is None


@pytest.mark.parametrize("chunk", [1, 500])
def test_chunks_of_the_plain_path(chunk, generator, monkeypatch):
    monkeypatch.setattr(binned, "_CHUNK", chunk)
    pairs, values, kernel, _ = drawn(*SIZES[0], generator)
    expected = local_dense(values.transpose(0, 1), pairs.dense(), kernel).transpose(0, 1)
    torch.testing.assert_close(binned.PlainBins(pairs).output(values, kernel), expected)


def test_derivatives_of_bins(path, generator):
    stencil = build_stencil(Bins(((-0.2, 0.0), (0.2, 0.1), (0.0, 0.2)), (0.4, 0.4)), sobol(BOX, 40, generator, **DOUBLE))
    values = torch.randn(2, 40, 3, generator=generator, requires_grad=True, **DOUBLE)
    kernel = torch.randn(3, 3, 4, generator=generator, requires_grad=True, **DOUBLE)
    assert torch.autograd.gradcheck(stencil.apply, (values, kernel), fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(stencil.apply, (values, kernel), fast_mode=True)


def everything(threads):
    """What layers in bins and pair by pair compute, with all gradients, in float32."""
    generator = torch.Generator().manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seeds = tuple(map(tuple, (torch.rand(9, 2, generator=generator) - 0.5).tolist()))
        mixed, found = [(None, 5), (5, 16, 24)], []
        for sampler, rule, learned, b in ((sobol, Bins(seeds, (0.3, 0.3)), [(9, 16, 24)], 3),
                                          (sobol, Pairwise((0.3, 0.3)), mixed, 3), (sobol, Pairwise((0.1, 0.1)), mixed, 40),
                                          (lattice, Pairwise((0.1, 0.1)), mixed, 3)):  # fmt: skip
            stencil = build_stencil(rule, sampler(BOX, 256, generator))
            tensors = [torch.randn(b, 256, 16, generator=generator)]
            tensors += [torch.randn([stencil.nodes if s is None else s for s in shape], generator=generator) for shape in learned]
            tensors = [t.requires_grad_() for t in tensors]
            out = stencil.apply(*tensors)
            found += [out, *torch.autograd.grad(out.square().sum(), tensors)]
        return found
    finally:
        torch.set_num_threads(before)


def test_results_do_not_depend_on_the_number_of_threads():
    once = everything(1)
    for threads in (1, 2, 3):
        assert all(torch.equal(a, b) for a, b in zip(once, everything(threads), strict=True))


@compiled
@pytest.mark.parametrize("makes_kernels", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("h", [1, 4, 17])
def test_both_orders_of_mixing_equal_the_plain_ones(h, sizes, makes_kernels, generator, monkeypatch):
    monkeypatch.setattr(mixed_compiled.CompiledMixture, "_makes_kernels", lambda *_: makes_kernels)
    pairs, values, _, cotangent = drawn(*sizes, generator)
    features = torch.randn(pairs.shape[1], h, generator=generator, **DOUBLE)
    kernel = torch.randn(h, values.shape[2], cotangent.shape[2], generator=generator, **DOUBLE)
    found = []
    for operator in (compiled_mixture(pairs, values), PlainMixture(pairs), PlainKernels(binned.PlainBins(pairs))):
        found.append([operator.output(values, features, kernel), operator.values_gradient(features, kernel, cotangent),
                      operator.features_gradient(values, kernel, cotangent),
                      operator.kernel_gradient(values, features, cotangent),
                      *operator.gradients(values, features, kernel, cotangent)])  # fmt: skip
    assert isinstance(compiled_mixture(pairs, values), CompiledMixture)
    for ours, summed, kernels in zip(*found, strict=True):
        torch.testing.assert_close(ours, summed, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(kernels, summed, rtol=1e-10, atol=1e-10)
