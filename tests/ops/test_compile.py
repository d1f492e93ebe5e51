"""A net on a fixed discretization is one graph: torch.compile finds nothing to break it at, forward and in training."""

import gc
import shutil

import pytest
import torch

from inrbridge.domains import Box, Sphere
from inrbridge.models import build_model
from inrbridge.nn import (
    Activation,
    AvgPool,
    BasisConv,
    Conv,
    GlobalIntegral,
    MaxPool,
    MLPConv,
    Sampled,
    Sequential,
    Upsample,
)
from inrbridge.sampling import get_sampler, lattice, sobol

BOX = Box.centered(2)
NETS = {
    "inr-net-4": {"widths": (4, 6), "bins": 8, "hidden": (4,), "head": 6, "half_width": (0.3, 0.4, 0.5)},
    "resnet": {"widths": (4, 6), "blocks": (1, 1), "resolution": 16},
    "unet": {"widths": (4, 6), "convs": 1, "resolution": 16},
}


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def made(name, generator):
    net = build_model(name, domain=BOX, in_channels=1, classes=3, generator=generator, **NETS[name])
    return net, torch.randn(2, 256, 1, generator=generator)


def output(net, discretization, values):
    result = net(Sampled(discretization, values))
    return result if isinstance(result, torch.Tensor) else result.values


def step(net, discretization, values, run=output):
    """Loss and gradients of a training step."""
    net.zero_grad()
    loss = run(net, discretization, values).square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in net.parameters())]


@pytest.mark.parametrize(("name", "warm"), [("inr-net-4", True), ("inr-net-4", False), ("resnet", False), ("unet", False)])
def test_nothing_breaks_the_graph_of_a_net(name, warm, generator):
    net, values = made(name, generator)
    points = lattice(BOX, 256, generator)
    if warm:
        output(net, points, values)
    found = torch._dynamo.explain(output)(net, points, values)
    assert found.graph_break_count == 0 and found.graph_count == 1, found.break_reasons


@pytest.mark.parametrize(("name", "sampler"), [("inr-net-4", "lattice"), ("resnet", "grid"), ("unet", "lattice")])
def test_a_training_step_is_that_of_the_net_itself(name, sampler, generator):
    net, values = made(name, generator)
    points = get_sampler(sampler)(BOX, 256 if sampler == "lattice" else (16, 16), generator)
    compiled = torch.compile(output, backend="aot_eager", fullgraph=True)
    for got, expected in zip(step(net, points, values, compiled), step(net, points, values), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def small(generator):
    return Sequential(
        Conv(1, 3, spacing=0.3, generator=generator), Activation("relu"), Conv(3, 2, spacing=0.3, generator=generator)
    )


def test_other_points_compile_again_and_are_never_mistaken_for_the_first(generator):
    net, values, graphs = small(generator), torch.randn(2, 64, 1, generator=generator), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(output, backend=count, fullgraph=True)
    first, second = lattice(BOX, 64, generator), sobol(BOX, 64, generator)
    for points in (first, second, first, second):
        torch.testing.assert_close(compiled(net, points, values), output(net, points, values))
    assert len(graphs) == 2
    assert not torch.allclose(output(net, first, values), output(net, second, values), atol=1e-5)


@pytest.mark.parametrize("layer", [
    BasisConv(2, 3, spacing=0.3), MLPConv(2, 3, half_width=0.4, bins=None), AvgPool(0.4, 2), MaxPool(0.4, 2),
    Upsample(2, "linear"), Conv(2, 2, spacing=0.3, groups=2, stride=2),
], ids=lambda layer: type(layer).__name__)  # fmt: skip
def test_layers_on_new_geometry(layer, generator):
    net = Sequential(layer, Activation("tanh"), GlobalIntegral())
    points, values = sobol(BOX, 64, generator), torch.randn(2, 64, 2, generator=generator)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(Sampled(points, values)), net(Sampled(points, values)))


def test_a_curved_domain(generator):
    net = build_model("convnet", domain=Sphere(), in_channels=1, classes=2, widths=(3, 4), resolution=8, generator=generator)
    points, values = lattice(Sphere(), 128, generator), torch.randn(2, 128, 1, generator=generator)
    compiled = torch.compile(output, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(net.eval(), points, values), output(net, points, values))


def test_a_graph_outlives_the_points_it_was_recorded_on(generator):
    net, values = small(generator), torch.randn(2, 64, 1, generator=generator)
    compiled = torch.compile(output, backend="aot_eager", fullgraph=True)
    loss = compiled(net, lattice(BOX, 64, torch.Generator().manual_seed(1)), values).square().mean()
    gc.collect()
    loss.backward()  # the points are nobody's now
    got = [p.grad.clone() for p in net.parameters()]
    expected = step(net, lattice(BOX, 64, torch.Generator().manual_seed(1)), values)[1:]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_any_number_of_fields_shares_one_graph(generator):
    net, points = small(generator), lattice(BOX, 64, generator)
    compiled = torch.compile(output, backend="aot_eager", fullgraph=True, dynamic=True)
    for b in (2, 3):
        values = torch.randn(b, 64, 1, generator=generator)
        torch.testing.assert_close(compiled(net, points, values), output(net, points, values))


def test_autocast_inside_a_graph(generator):
    net, points, values = small(generator), lattice(BOX, 64, generator), torch.randn(2, 64, 1, generator=generator)

    def cast(net, points, values):
        with torch.autocast("cpu", torch.bfloat16):
            return output(net, points, values)

    compiled = torch.compile(cast, backend="aot_eager", fullgraph=True)(net, points, values)
    assert compiled.dtype == torch.bfloat16
    torch.testing.assert_close(compiled, cast(net, points, values))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_trains_the_same_net(generator):
    net, values = made("inr-net-4", generator)
    points = lattice(BOX, 256, generator)
    compiled = torch.compile(output, backend="inductor", fullgraph=True)
    for got, expected in zip(step(net, points, values, compiled), step(net, points, values), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
