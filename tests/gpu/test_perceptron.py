"""Networks by Triton equal plain torch in float64, gradients included."""

import itertools
import math

import pytest
import torch

from inrbridge.compiled.perceptron import Layer
from inrbridge.gpu import perceptron

pytestmark = pytest.mark.gpu
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 5e-2}


def layers_of(widths, kind, bias, dtype, device, generator) -> list[Layer]:
    layers = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        bound = 1 / inputs if index == 0 else math.sqrt(6 / inputs) / 30
        weight = (torch.rand(2, outputs, inputs, generator=generator) * 2 - 1) * bound
        shift = (torch.rand(2, outputs, generator=generator) * 2 - 1) / math.sqrt(inputs) if bias else None
        last = index == len(widths) - 2
        place = (device, dtype)
        layers.append(Layer(weight.to(*place), None if shift is None else shift.to(*place), "identity" if last else kind, 30.0))
    return layers


def plain(x, layers):
    for layer in layers:
        z = x @ layer.weight.mT + (0 if layer.bias is None else layer.bias[:, None])
        x = {"sine": lambda z, omega=layer.omega: torch.sin(omega * z), "relu": torch.relu, "identity": lambda z: z}[layer.kind](
            z
        )
    return x


@pytest.mark.parametrize("kind", ["sine", "relu"])
@pytest.mark.parametrize(("widths", "bias", "shared"), [((2, 40, 33, 3), True, True), ((20, 17, 1), False, False)])
def test_networks_and_their_gradients(generator, device, dtype, kind, widths, bias, shared):
    layers = layers_of(widths, kind, bias, dtype, device, generator)
    x = (torch.rand(*((70,) if shared else (2, 70)), widths[0], generator=generator) * 2 - 1).to(device)
    if widths[0] > 8:
        x = x.to(dtype)
    assert perceptron.available(x, layers)
    y, kept = perceptron.forward(x, layers, True)
    quiet, _ = perceptron.forward(x, layers, False)
    assert torch.equal(y, quiet) and y.dtype == dtype

    wide = [Layer(*(None if t is None else t.double().cpu().requires_grad_() for t in layer[:2]), *layer[2:]) for layer in layers]
    leaf = x.double().cpu().expand(2, 70, -1).clone().requires_grad_()
    expected = plain(leaf, wide)
    leaves = [leaf, *(layer.weight for layer in wide), *(layer.bias for layer in wide if bias)]
    grad = torch.randn(expected.shape, generator=generator).to(dtype)
    truth = torch.autograd.grad(expected, leaves, grad.double())
    to_x, to_weights, to_biases = perceptron.backward(x, layers, kept, grad.to(device), True, True)
    got = [to_x, *to_weights, *(to_biases if bias else [])]
    for ours, theirs in zip([y, *got], [expected.detach(), *truth], strict=True):
        assert float((ours.double().cpu() - theirs).norm() / theirs.norm()) < TOLERANCE[dtype]


def test_large_phases_keep_their_precision(device, generator):
    layers = [Layer(torch.full((1, 1, 1), 1.0, device=device), None, "sine", 30.0)]
    x = (torch.rand(500, 1, generator=generator) * 200 - 100).to(device)
    y, _ = perceptron.forward(x, layers, False)
    expected = torch.sin((30.0 * x).double())  # of the rounded phase
    assert float((y[0].double() - expected).abs().max()) < 5e-4  # half a unit of a phase of 3000
