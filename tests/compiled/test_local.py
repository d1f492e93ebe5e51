"""The compiled local operator equals its definition and its plain torch twin, at any sizes, on any number of threads."""

import pytest
import torch

from inrbridge.compiled import local, patches
from inrbridge.ops.compiled_local import CompiledLocal, PatchedStencil, compiled_local
from inrbridge.ops.dispatch import using
from inrbridge.ops.reference import local_dense
from inrbridge.ops.sparse import SparseRows
from inrbridge.stencils import Reconstruct, build_stencil, kernel_nodes

pytestmark = pytest.mark.skipif(not local.available(torch.zeros(1)), reason="there is no C++ compiler here")

SIZES = {  # b, n_in, n_out, k, c, o, groups
    "usual": (3, 60, 60, 9, 16, 24, 1),
    "many fields": (50, 30, 30, 3, 8, 8, 1),
    "many channels": (2, 40, 40, 5, 300, 20, 1),
    "one output channel": (2, 40, 40, 9, 16, 1, 1),
    "three channels": (1, 60, 60, 9, 3, 17, 1),
    "one of everything": (1, 1, 1, 1, 1, 1, 1),
    "one node": (4, 40, 50, 1, 12, 5, 1),
    "fewer outputs": (2, 90, 20, 4, 7, 9, 1),
    "more outputs": (2, 20, 90, 4, 7, 9, 1),
    "two groups": (3, 50, 50, 4, 12, 20, 2),
    "a group a channel": (3, 50, 50, 4, 10, 20, 10),
    "depth-wise": (5, 50, 50, 9, 20, 20, 20),
    "depth-wise, wide": (2, 50, 40, 4, 96, 96, 96),
    "depth-wise, one field": (1, 30, 30, 9, 33, 33, 33),
    "depth-wise, one channel": (9, 30, 30, 9, 1, 1, 1),
}


def operators(size, dtype, generator):
    """The compiled operator of a random stencil some of whose rows are empty, dense too; values, kernel and cotangent."""
    b, n, m, k, c, o, groups = size
    count = 1 + 4 * m * k
    rows = torch.randint(m * k, (count,), generator=generator)
    rows = rows[rows % 5 != 3] if m * k > 5 else rows
    columns = torch.randint(n, (len(rows),), generator=generator)
    matrix = SparseRows.from_entries(rows, columns, torch.randn(len(rows), dtype=torch.float64, generator=generator), m * k)
    dense = torch.zeros(m * k, n, dtype=torch.float64)
    dense.index_put_((matrix.rows(), matrix.columns), matrix.weights, accumulate=True)
    compiled = compiled_local(PatchedStencil(matrix, n, k), groups, torch.zeros(0, dtype=dtype))
    assert isinstance(compiled, CompiledLocal)
    arguments = (torch.randn(s, dtype=torch.float64, generator=generator).to(dtype)
                 for s in ((n, b, c), (k, c // groups, o), (m, b, o)))  # fmt: skip
    return compiled, dense.view(m, k, n), *arguments


def partials(operator, values, kernel, cotangent):
    return (operator.output(values, kernel), operator.values_gradient(kernel, cotangent),
            operator.kernel_gradient(values, cotangent), *operator.gradients(values, kernel, cotangent))  # fmt: skip


def definition(dense, groups, values, kernel, cotangent):
    """The same partial derivatives from the definition, in float64."""
    values, kernel, cotangent = (t.double().requires_grad_() for t in (values, kernel, cotangent))
    output = local_dense(values.transpose(0, 1), dense, kernel, groups).transpose(0, 1)
    gradients = torch.autograd.grad(output, (values, kernel), cotangent)
    return output.detach(), *gradients, *gradients


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-3)], ids=str)
def test_compiled_equals_the_definition(size, dtype, error, generator):
    compiled, dense, *arguments = operators(size, dtype, generator)
    for ours, truth in zip(partials(compiled, *arguments), definition(dense, size[-1], *arguments), strict=True):
        assert ours.dtype == dtype and ours.shape == truth.shape
        scale = float(truth.abs().max()) + 1e-30
        torch.testing.assert_close(ours.double() / scale, truth / scale, atol=error, rtol=0)


def test_half_numbers_are_summed_as_whole_ones(generator):
    size = SIZES["usual"]
    compiled, _, *arguments = operators(size, torch.bfloat16, generator)
    whole = CompiledLocal(compiled.stencil, 1, torch.float32)
    for half, exact in zip(partials(compiled, *arguments), partials(whole, *(t.float() for t in arguments)), strict=True):
        assert torch.equal(half, exact.bfloat16())


@pytest.mark.parametrize("name", ["usual", "many fields", "many channels", "depth-wise"])
def test_threads_do_not_change_a_bit(name, generator):
    compiled, _, *arguments = operators(SIZES[name], torch.float32, generator)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(partials(compiled, *arguments))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_arguments_may_lie_in_any_order(generator):
    compiled, _, values, kernel, cotangent = operators(SIZES["usual"], torch.float64, generator)
    turned = (values.transpose(0, 1).contiguous().transpose(0, 1), kernel.mT.contiguous().mT, cotangent.flip(0).flip(0))
    assert all(map(torch.equal, partials(compiled, values, kernel, cotangent), partials(compiled, *turned)))


def test_a_wrong_shape_or_dtype_is_refused(generator):
    compiled, _, values, kernel, cotangent = operators(SIZES["usual"], torch.float32, generator)
    for wrong in ((values[1:], kernel), (values[:, :, 1:], kernel), (values, kernel.double())):
        with pytest.raises(ValueError, match="Got"):
            compiled.output(*wrong)
    with pytest.raises(ValueError, match="other of shape"):
        compiled.gradients(values[:, 1:], kernel, cotangent)


def test_no_fields_give_no_output(generator):
    compiled, _, values, kernel, cotangent = operators(SIZES["usual"], torch.float32, generator)
    assert compiled.output(values[:, :0], kernel).shape == (60, 0, 24)
    assert not compiled.kernel_gradient(values[:, :0], cotangent[:, :0]).any()


def test_gradients_of_a_layer(box_stencil, generator):
    values = torch.randn(2, 50, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    kernel = torch.randn(9, 2, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    with using("compiled"):
        assert torch.autograd.gradcheck(lambda v, w: box_stencil.apply(v, w, 2), (values, kernel), fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda v, w: box_stencil.apply(v, w, 2), (values, kernel), fast_mode=True)


def test_both_paths_give_the_same_layer(box_stencil, generator):
    values = torch.randn(3, 50, 4, generator=generator)
    kernel = torch.randn(9, 4, 6, generator=generator)
    outputs = []
    for path in ("plain", "compiled"):
        with using(path):
            outputs.append(box_stencil.apply(values, kernel))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("size", [1, 7, 24, 100])
def test_patches_hold_the_stencil(box_stencil, size, exchanged):
    parts, dense = box_stencil.matrix[:3], box_stencil.dense()
    if exchanged:
        parts, dense = box_stencil.matrix.exchanged(9, 50)[:3], dense.permute(2, 1, 0)
    cut = patches.cut(*parts, 9, 50, torch.float64, size)
    assert torch.equal(cut.order.long().sort().values, torch.arange(50))
    found = torch.zeros_like(dense)
    for place in range(50 * 9):
        at, node = divmod(place, 9)
        halo = cut.halo[cut.halo_starts[at // size] : cut.halo_starts[at // size + 1]].long()
        assert len(halo.unique()) == len(halo)
        entries = slice(cut.starts[place], cut.starts[place + 1])
        found[cut.order[at], node].index_add_(0, halo[cut.index[entries].long()], cut.weight[entries])
    torch.testing.assert_close(found, dense, atol=1e-15, rtol=0)


def test_points_of_a_patch_read_few_columns(box_stencil):
    by_place = patches.cut(*box_stencil.matrix[:3], 9, 50, torch.float64, 10)
    drawn = torch.arange(50)  # Sobol points are all over the place
    reads = [len(box_stencil.dense()[some].flatten(0, 1).abs().sum(0).nonzero()) for some in drawn.split(10)]
    assert len(by_place.halo) < 0.8 * sum(reads)


@pytest.fixture
def box_stencil(generator):
    from inrbridge.domains import Box
    from inrbridge.sampling import sobol

    points = sobol(Box.centered(2), 50, generator, dtype=torch.float64)
    return build_stencil(Reconstruct(kernel_nodes((3, 3), (0.2, 0.2)), (0.2, 0.2)), points)
