"""The local operator by Triton equals plain torch, gradients included, whatever the blocks."""

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.gpu.launching import Blocks
from inrbridge.gpu.precision import interprets
from inrbridge.ops.gpu_local import CutStencil, GpuLocal
from inrbridge.ops.ordered import Ordered
from inrbridge.ops.plain import LocalOperator
from inrbridge.ops.reference import local_dense
from inrbridge.ops.sparse import SparseRows
from inrbridge.sampling import sobol
from inrbridge.stencils import Reconstruct, build_stencil, kernel_nodes

pytestmark = pytest.mark.gpu
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
SMALL = Blocks(fields=2, channels=16, outputs=16)
CASES = {
    "narrow": (3, 5, 7, 1, None),
    "held": (3, 16, 16, 1, SMALL),
    "lengthwise": (3, 16, 16, 1, Blocks(fields=2, channels=16, outputs=16, across=False)),
    "blocks of channels": (2, 40, 24, 1, SMALL),
    "in a pipeline": (3, 16, 16, 1, Blocks(fields=4, channels=16, outputs=16, nodes=2, hold=False)),
    "patches of 8": (3, 16, 16, 1, Blocks(points=8, fields=2, channels=16, outputs=16, nodes=8)),
    "patches of 64": (2, 16, 16, 1, Blocks(points=64, nodes=1, fields=1, channels=16, outputs=16, hold=False, across=False)),
    "many channels": (1, 72, 8, 1, None),
    "groups": (3, 12, 8, 2, SMALL),
    "depth-wise": (3, 20, 20, 20, None),
    "depth-wise, twice": (2, 5, 10, 5, None),
}


@pytest.fixture(scope="module")
def stencil():
    points = sobol(Box.centered(2), 60, torch.Generator().manual_seed(0), dtype=torch.float64)
    return build_stencil(Reconstruct(kernel_nodes((3, 3), (0.25, 0.25)), (0.25, 0.25)), points, stride=2)


def differs(got, expected) -> float:
    return float((got.double().cpu() - expected).norm() / expected.norm())


@pytest.mark.parametrize("case", CASES)
def test_the_operator_and_its_gradients(stencil, generator, device, dtype, case):
    if interprets() and dtype != torch.float32 and case not in ("held", "depth-wise"):
        pytest.skip("interpreted in one dtype only, for the time it takes")
    b, c, o, groups, blocks = CASES[case]
    matrix, m = stencil.matrix, len(stencil.target)
    ordered = Ordered.along(matrix, 9, 60, torch.arange(m))
    twin = LocalOperator(ordered, ordered.exchanged, groups)
    fast = GpuLocal(CutStencil(matrix, 60, 9), groups, None, blocks)
    shapes = {"values": (60, b, c), "kernel": (9, c // groups, o), "cotangent": (m, b, o)}
    given = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    for name, of in (("output", ("values", "kernel")), ("values_gradient", ("kernel", "cotangent")),
                     ("kernel_gradient", ("values", "cotangent"))):  # fmt: skip
        got = getattr(fast, name)(*(given[part].to(device) for part in of))
        expected = getattr(twin, name)(*(given[part].double() for part in of))
        assert got.shape == expected.shape and got.dtype == dtype
        assert differs(got, expected) < TOLERANCE[dtype], name


@pytest.fixture
def allows_tf32():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("allows_tf32")
@pytest.mark.parametrize("groups", [1, 8])
def test_products_of_tf32_where_torch_allows_them(stencil, generator, device, groups):
    fast = GpuLocal(CutStencil(stencil.matrix, 60, 9), groups, None)
    values = 1e-6 * torch.randn(2, 60, 8, generator=generator)  # far below what float16 holds by itself
    kernel = 1e6 * torch.randn(9, 8 // groups, 8, generator=generator)
    leaves = [t.double().requires_grad_() for t in (values, kernel)]
    expected = local_dense(leaves[0], stencil.dense(), leaves[1], groups)
    grad = torch.randn(expected.shape, generator=generator)
    to_values, to_kernel = torch.autograd.grad(expected, leaves, grad.double())
    v, w, g = (t.to(device) for t in (values.transpose(0, 1), kernel, grad.transpose(0, 1)))
    assert differs(fast.output(v, w).transpose(0, 1), expected.detach()) < 1e-3
    assert differs(fast.values_gradient(w, g).transpose(0, 1), to_values) < 1e-3
    assert differs(fast.kernel_gradient(v, g), to_kernel) < 1e-3


def test_the_same_numbers_every_time(stencil, generator, device):
    fast = GpuLocal(CutStencil(stencil.matrix, 60, 9), 1, None)
    values, grad = torch.randn(60, 2, 8, generator=generator), torch.randn(len(stencil.target), 2, 8, generator=generator)
    first, second = (fast.kernel_gradient(values.to(device), grad.to(device)) for _ in range(2))
    assert torch.equal(first, second)


def test_what_has_no_patches_is_left_to_plain_torch(generator, device):
    rows = torch.arange(2).repeat_interleave(600)
    matrix = SparseRows.from_entries(rows, torch.arange(600).repeat(2), torch.ones(1200, dtype=torch.float64), 2)
    values, kernel = torch.randn(600, 2, 4, generator=generator).to(device), torch.randn(1, 4, 3, generator=generator).to(device)
    ordered = Ordered.along(matrix, 1, 600, torch.arange(2))
    plain = LocalOperator(ordered.to(values), lambda: ordered.exchanged().to(values), 1)
    stencil = CutStencil(matrix, 600, 1)
    assert stencil.patches(values, back=False) is None
    assert torch.equal(GpuLocal(stencil, 1, plain).output(values, kernel), plain.output(values, kernel))


def test_a_value_that_is_not_finite_stays_where_it_is_read(generator, device):
    rows = torch.arange(100).repeat_interleave(2)
    matrix = SparseRows.from_entries(
        rows, (rows + torch.tensor([0, 1]).repeat(100)) % 100, torch.rand(200, generator=generator).double(), 100
    )
    fast = GpuLocal(CutStencil(matrix, 100, 1), 1, None)
    values, kernel = torch.randn(100, 2, 4, generator=generator), torch.randn(1, 4, 4, generator=generator)
    values[0] = torch.nan
    spoilt = fast.output(values.to(device), kernel.to(device)).isnan().flatten(1).any(1)
    assert spoilt[[0, 99]].all() and int(spoilt.sum()) <= 32


def test_the_layer_uses_it_and_trains_in_mixed_precision(device, generator):
    if device.type != "cuda":
        pytest.skip("autocast to half precision is of GPUs")
    from inrbridge.nn import Conv, Sampled

    points = sobol(Box.centered(2), 256, generator)
    layer = Conv(8, 16, spacing=0.125, generator=generator).to(device)
    values = torch.randn(4, 256, 8, generator=generator).to(device).requires_grad_()
    with torch.autocast("cuda", torch.bfloat16):
        out = layer(Sampled(points, values)).values
    out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16 and values.grad.isfinite().all() and layer.weight.grad.dtype == torch.float32


def test_a_recorded_graph_replays_it(stencil, device, generator):
    if device.type != "cuda":
        pytest.skip("graphs are recorded on GPUs")
    fast = GpuLocal(CutStencil(stencil.matrix, 60, 9), 1, None)
    values, kernel = torch.randn(60, 2, 8, generator=generator).to(device), torch.randn(9, 8, 8, generator=generator).to(device)
    expected = fast.output(values, kernel)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fast.output(values, kernel)
    out.zero_()
    graph.replay()
    assert torch.equal(out, expected)
