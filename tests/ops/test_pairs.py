"""The operator of pairs, each with the kernel of its own offset, equals its definition, on any points, with all its gradients."""

import pytest
import torch
from small_models import small, smooth
from torch.autograd import gradcheck, gradgradcheck

from inrbridge.compiled import pairs
from inrbridge.domains import Box, Sphere
from inrbridge.nn import MLPConv, Sampled
from inrbridge.ops import mixed_plain as plain
from inrbridge.ops.dispatch import using
from inrbridge.ops.reference import local_dense
from inrbridge.sampling import grid, lattice, sobol
from inrbridge.stencils import Pairwise, build_stencil

BOX = Box.centered(2)


@pytest.fixture(params=["compiled", "plain"], autouse=True)
def path(request):
    """Every test by every path."""
    if request.param == "compiled" and not pairs.available(torch.empty(0)):
        pytest.skip("there is no C++ compiler here, or INRBRIDGE_COMPILED=0")
    with using(request.param):
        yield request.param


DOUBLE = {"dtype": torch.float64}


def learned(stencil, generator, channels=(3, 4), h=5, **options):
    """Features and a kernel for the nodes of a stencil."""
    features = torch.randn(stencil.nodes, h, generator=generator, **DOUBLE, **options)
    return features, torch.randn(h, *channels, generator=generator, **DOUBLE, **options)


def dense(stencil, values, features, kernel):
    return local_dense(values, stencil.dense(), torch.einsum("uh,hco->uco", features, kernel))


@pytest.mark.parametrize("chunk", [1, 2000, 1 << 18])
@pytest.mark.parametrize("sampler", [sobol, lattice])
@pytest.mark.parametrize(("border", "stride", "ball"), [("zeros", 1, False), ("renormalize", 2, True), ("circular", 1, True),
                                                       ("reflect", 1, False), ("valid", 1, False)])  # fmt: skip
def test_pairs_equal_the_dense_definition(border, stride, ball, sampler, chunk, generator, monkeypatch):
    monkeypatch.setattr(plain, "_CHUNK", chunk)
    x = sampler(BOX, 64, generator, **DOUBLE)
    stencil = build_stencil(Pairwise((0.4, 0.5), ball), x, border=border, stride=stride)
    values = torch.randn(2, 64, 3, generator=generator, **DOUBLE)
    factors = learned(stencil, generator)
    torch.testing.assert_close(stencil.apply(values, *factors), dense(stencil, values, *factors), rtol=1e-10, atol=1e-10)


def test_pairs_on_a_curved_domain(generator):
    x = sobol(Sphere(), 64, generator, **DOUBLE)
    stencil = build_stencil(Pairwise((0.6, 0.6), ball=True), x)
    values, factors = torch.randn(2, 64, 3, generator=generator, **DOUBLE), learned(stencil, generator)
    torch.testing.assert_close(stencil.apply(values, *factors), dense(stencil, values, *factors), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sampler", [sobol, lattice])
def test_gradients_of_every_factor(sampler, generator, monkeypatch):
    monkeypatch.setattr(plain, "_CHUNK", 500)
    x = sampler(BOX, 32, generator, **DOUBLE)
    stencil = build_stencil(Pairwise((0.3, 0.4)), x, stride=2)
    values = torch.randn(2, 32, 2, generator=generator, requires_grad=True, **DOUBLE)
    factors = learned(stencil, generator, (2, 3), 3, requires_grad=True)
    assert gradcheck(stencil.apply, (values, *factors), fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(stencil.apply, (values, *factors), fast_mode=True)


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_gradients_asked_for_alone_together_and_with_a_graph_are_equal(wanted, generator):
    x = sobol(BOX, 32, generator, **DOUBLE)
    stencil = build_stencil(Pairwise((0.3, 0.4)), x)
    tensors = (torch.randn(2, 32, 3, generator=generator, **DOUBLE), *learned(stencil, generator))
    tensors = [t.requires_grad_(bool(w)) for t, w in zip(tensors, wanted, strict=True)]
    asked = [t for t in tensors if t.requires_grad]
    loss = stencil.apply(*tensors).square().sum()
    plainly = torch.autograd.grad(loss, asked, retain_graph=True)
    graphed = torch.autograd.grad(loss, asked, create_graph=True)
    expected = torch.autograd.grad(dense(stencil, *tensors).square().sum(), asked)
    torch.testing.assert_close(plainly, tuple(g.detach() for g in graphed), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(plainly, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_that_repeat_their_offsets_share_nodes(dtype, generator):
    for x, most in ((grid(BOX, (16, 16), dtype=dtype), 9), (lattice(BOX, 256, generator, dtype=dtype), 30)):
        stencil = build_stencil(Pairwise((0.2, 0.2)), x)
        assert stencil.nodes <= most < 256 < len(stencil.pairs.node)
        found = x.points.double()[stencil.pairs.source] - x.points.double()[stencil.pairs.target]
        torch.testing.assert_close(stencil.offsets[stencil.pairs.node], found, rtol=0, atol=20 * torch.finfo(dtype).eps)
    scattered = build_stencil(Pairwise((0.2, 0.2)), sobol(BOX, 256, generator, dtype=dtype))
    assert scattered.nodes == len(scattered.pairs.node)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sampler", [sobol, lattice])
@pytest.mark.parametrize("hidden", [(), (7,), (16, 16)])
def test_a_layer_without_bins_is_the_sum_over_all_pairs(hidden, sampler, dtype, tolerance, generator):
    x = sampler(BOX, 128, generator, dtype=dtype)
    layer = MLPConv(3, 4, half_width=0.3, bins=None, hidden=hidden, generator=generator).to(dtype)
    values = torch.randn(2, 128, 3, generator=generator, dtype=dtype)
    found = layer(Sampled(x, values)).values
    assert layer.bins is None and found.dtype == dtype
    offsets = x.points.double()[None] - x.points.double()[:, None]  # (i, j, d)
    inside = (offsets.abs() <= 0.3 + 1e-9).all(-1)
    kernel = layer.double().kernel(offsets) * (inside * x.weights.double() / 0.36)[..., None, None]
    expected = torch.einsum("ijco,bjc->bio", kernel, values.double()) + layer.bias
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_many_bins_come_near_to_none(generator):
    x = sobol(BOX, 256, generator, **DOUBLE)
    layer = MLPConv(2, 3, half_width=0.3, bins=None, bias=False, generator=generator).double().requires_grad_(False)
    values = torch.sin(3 * x.points)[None]
    exact = layer(Sampled(x, values)).values
    errors = []
    for bins in (16, 256, 4096):
        layer.bins = bins
        errors.append(float((layer(Sampled(x, values)).values - exact).norm() / exact.norm()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.02, errors


def test_a_layer_without_bins_has_gradients_of_all_its_weights(generator):
    x = sobol(BOX, 32, generator, **DOUBLE)
    layer = MLPConv(2, 3, half_width=0.4, bins=None, hidden=(4,), generator=generator).double()
    values = torch.randn(2, 32, 2, generator=generator, requires_grad=True, **DOUBLE)
    names, tensors = zip(*layer.named_parameters(), strict=True)

    def run(values, *tensors):
        return torch.func.functional_call(layer, dict(zip(names, tensors, strict=True)), (Sampled(x, values),)).values

    assert gradcheck(run, (values, *tensors), fast_mode=True)


@pytest.mark.parametrize("name", ["inr-net-2", "inr-net-3", "inr-net-4", "inr-net-5"])
def test_the_nets_of_the_paper_do_without_bins(name, generator):
    net = small(name, generator, BOX, bins=None)
    layers = [layer for layer in net.modules() if isinstance(layer, MLPConv)]
    assert len(layers) >= 2 and all(layer.bins is None for layer in layers)
    values = smooth(sobol(BOX, 64, generator))
    out = net(values)
    out = out.values if isinstance(out, Sampled) else out
    out.square().sum().backward()
    assert all(layer.kernel_net[0].weight.grad.abs().max() > 0 for layer in layers)
