"""The local operator is an operator of torch: recorded, mapped over, cast and differentiated as torch's own."""

import gc
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from inrbridge.domains import Box
from inrbridge.errors import ConfigError, UnknownName
from inrbridge.nn import Conv, MLPConv, Sampled, Sequential
from inrbridge.ops import custom
from inrbridge.ops.dispatch import PATHS, Paths, using
from inrbridge.sampling import sobol
from inrbridge.stencils import Bins, Reconstruct, build_stencil, kernel_nodes

BOX = Box.centered(2)
SEEDS = ((-0.3, 0.0), (0.3, 0.1), (0.0, -0.3))
RULES = {
    "reconstruct": Reconstruct(kernel_nodes((3, 3), (0.4, 0.4)), (0.4, 0.4)),
    "bins": Bins(SEEDS, (0.6, 0.6)),
}
PARTIAL, GRADIENTS = torch.ops.inrbridge.partial.default, torch.ops.inrbridge.gradients.default


def made(kind, generator, groups=1, dtype=torch.float64):
    """A stencil with as many outputs as half its points, its form, and values, kernel and cotangent, points first."""
    stencil = build_stencil(RULES[kind], sobol(BOX, 32, generator, dtype=torch.float64).thin(1), sobol(BOX, 16, generator))
    form = stencil.operator(groups).form
    values = torch.randn(32, 2, 4, dtype=dtype, generator=generator)
    kernel = torch.randn(stencil.nodes, 4 // groups, 6, dtype=dtype, generator=generator)
    return stencil, form, (values, kernel, torch.randn(16, 2, 6, dtype=dtype, generator=generator))


@pytest.mark.parametrize(("kind", "groups"), [("reconstruct", 1), ("reconstruct", 2), ("bins", 1)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_torchs_own_checks_of_the_partials(kind, groups, place, generator):
    _, form, stands = made(kind, generator, groups)
    given = [t for at, t in enumerate(stands) if at != place]
    results = torch.library.opcheck(PARTIAL, (given, form.number, place))
    assert set(results.values()) == {"SUCCESS"}
    assert PARTIAL(given, form.number, place).shape == stands[place].shape


@pytest.mark.parametrize(("kind", "groups"), [("reconstruct", 1), ("reconstruct", 2), ("bins", 1)])
def test_torchs_own_checks_of_both_gradients(kind, groups, generator):
    _, form, (values, kernel, cotangent) = made(kind, generator, groups)
    assert set(torch.library.opcheck(GRADIENTS, ([values, kernel], cotangent, form.number)).values()) == {"SUCCESS"}
    both = GRADIENTS([values, kernel], cotangent, form.number)
    torch.testing.assert_close(both[0], PARTIAL([kernel, cotangent], form.number, 0))
    torch.testing.assert_close(both[1], PARTIAL([values, cotangent], form.number, 1))


def test_a_number_of_nothing_is_refused(generator):
    number = made("reconstruct", generator)[1].number
    gc.collect()  # the stencil is gone
    with pytest.raises(UnknownName, match="does not exist"):
        custom.numbered(number)


def test_fake_tensors_need_no_kernel_and_no_numbers(generator, monkeypatch):
    stencil, _, (values, kernel, _) = made("reconstruct", generator)
    monkeypatch.setattr(type(stencil.operator(1)), "beside", lambda *_: pytest.fail("a kernel was asked for"))
    inputs = (values.transpose(0, 1), kernel)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:  # reading a number of a fake tensor raises
        fields, weight = (mode.from_tensor(t).requires_grad_() for t in inputs)
        out = stencil.apply(fields, weight)
        to_fields, to_weight = torch.autograd.grad(out.sum(), (fields, weight))
    assert out.shape == (2, 16, 6) and to_fields.shape == fields.shape and to_weight.shape == weight.shape


def test_a_recorded_graph_holds_one_node_for_each_pass(generator):
    stencil, _, (values, kernel, _) = made("reconstruct", generator)

    def step(fields, weight):
        out = stencil.apply(fields, weight)
        return torch.autograd.grad(out.square().sum(), (fields, weight))

    inputs = [t.requires_grad_() for t in (values.transpose(0, 1), kernel)]
    graph = make_fx(step)(*inputs)
    targets = [node.target for node in graph.graph.nodes if "inrbridge" in str(node.target)]
    assert targets == [PARTIAL, GRADIENTS]
    for recorded, direct in zip(graph(*inputs), step(*inputs), strict=True):
        torch.testing.assert_close(recorded, direct)


@pytest.mark.parametrize("kind", ["reconstruct", "bins"])
@pytest.mark.parametrize("dims", [(0, None), (2, None), (None, 0), (1, 2)])
def test_vmap_equals_the_loop(kind, dims, generator):
    stencil, _, (values, kernel, _) = made(kind, generator)
    fields = values.transpose(0, 1)
    copies = [t if dim is None else torch.stack([t, 2 * t, -t], dim) for t, dim in zip((fields, kernel), dims, strict=True)]
    slices = [[t] * 3 if dim is None else t.unbind(dim) for t, dim in zip(copies, dims, strict=True)]
    expected = torch.stack([stencil.apply(v, w) for v, w in zip(*slices, strict=True)])
    torch.testing.assert_close(torch.func.vmap(stencil.apply, dims)(*copies), expected)


def test_gradients_of_each_field_by_vmap(generator):
    stencil, _, (values, kernel, _) = made("reconstruct", generator)

    def loss(weight, field):
        return stencil.apply(field[None], weight).square().sum()

    fields = values.transpose(0, 1)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(kernel, fields)
    torch.testing.assert_close(each, torch.stack([torch.func.grad(loss)(kernel, field) for field in fields]))


def test_copies_of_values_are_one_call(generator, monkeypatch):
    stencil, _, (values, kernel, _) = made("reconstruct", generator)
    calls, operator = [], stencil.operator(1).beside(values)
    monkeypatch.setattr(type(operator), "output", lambda self, v, w: calls.append(v.shape) or v.new_zeros(16, v.shape[1], 6))
    torch.func.vmap(stencil.apply, (0, None))(torch.stack([values.transpose(0, 1)] * 5), kernel)
    assert calls == [(32, 10, 4)]


@pytest.mark.parametrize("layer", ["conv", "mlp", "pairwise"])
def test_autocast_casts_as_it_does_for_a_convolution(layer, generator):
    width = {"spacing": 0.4} if layer == "conv" else {"half_width": 0.5, "bins": 16 if layer == "mlp" else None}
    conv = (Conv if layer == "conv" else MLPConv)(3, 5, **width, generator=generator)
    sampled = Sampled(sobol(BOX, 64, generator), torch.randn(2, 64, 3, generator=generator, requires_grad=True))
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(sampled).values
        assert conv(sampled.with_values(sampled.values.bfloat16())).values.dtype == torch.bfloat16
    (slope,) = torch.autograd.grad(out.square().sum(), sampled.values)
    assert out.dtype == torch.bfloat16 and slope.dtype == torch.float32
    # eight bits of mantissa: relative to the largest value
    single = conv(sampled).values.detach()
    assert float((out.detach().float() - single).abs().max()) < 0.03 * float(single.abs().max())


def test_a_path_is_forced_and_refused_by_name(generator):
    stencil, _, (values, kernel, _) = made("reconstruct", generator)
    fields = values.transpose(0, 1)
    free = stencil.apply(fields, kernel)
    with using("plain"):
        torch.testing.assert_close(stencil.apply(fields, kernel), free)
    with pytest.raises(ConfigError, match="gpu, compiled, plain"), using("fast"):
        pass
    operator = stencil.operator(1)
    assert set(operator.paths) <= set(PATHS)
    with using("gpu"), pytest.raises(ConfigError, match="does not serve"):
        stencil.apply(fields, kernel)  # in float64
    torch.testing.assert_close(stencil.apply(fields, kernel), free)  # and all is as before


def test_what_is_asked_again_is_neither_made_nor_moved_again(generator, monkeypatch):
    stencil, _, (values, kernel, _) = made("reconstruct", generator)
    stencil.apply(values.transpose(0, 1), kernel)
    monkeypatch.setattr(Paths, "_make", lambda *_: pytest.fail("an operator was made again"))
    stencil.apply(values.transpose(0, 1), kernel)


def test_layers_with_recorded_operators_are_pickled(generator):
    points = sobol(BOX, 64, generator)
    net = Sequential(Conv(1, 2, spacing=0.4, generator=generator))
    values = torch.randn(2, 64, 1, generator=generator)
    out = net(Sampled(points, values)).values
    again_net, again_points = pickle.loads(pickle.dumps((net, points)))
    torch.testing.assert_close(again_net(Sampled(again_points, values)).values, out)
