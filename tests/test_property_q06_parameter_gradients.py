"""Q6 [Wang & Golland 2023, eq. 4, theorem 2]: gradients of the parameters converge as the integrals do, layer after layer."""

import pytest
import torch
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.models import build_model
from inrbridge.nn import Activation, BasisConv, Conv, GlobalIntegral, InstanceNorm, Linear, MLPConv, Sampled, Sequential
from inrbridge.sampling import get_sampler

BOX = Box.centered(2)
DOUBLE = torch.float64


def field(x):
    """Two smooth fields of two channels (2, n, 2)."""
    a, b = x.unbind(-1)
    return torch.stack([torch.stack([torch.sin(2 * a + b), a * b], -1), torch.stack([torch.cos(a - b), torch.exp(a) / 2], -1)])


class Chain(nn.Module):
    """Three layers, an integral and a loss: gradients reach the first parameters through a normalization's integrals."""

    def __init__(self, generator):
        super().__init__()
        self.layers = Sequential(Linear(2, 5, generator=generator), Activation("tanh"), InstanceNorm(5, affine=True),
                                 Linear(5, 3, generator=generator), Activation("tanh"), GlobalIntegral())  # fmt: skip
        self.double()

    def gradient(self, discretization):
        self.zero_grad()
        out = self.layers(Sampled(discretization, field(discretization.points)))
        (out**2).sum().backward()
        return torch.cat([p.grad.flatten() for p in self.parameters()])


def slope(net, sampler, sizes=(64, 256, 1024, 4096), scrambles=16):
    generator = torch.Generator().manual_seed(1)
    truth = torch.stack([net.gradient(get_sampler("sobol")(BOX, 2**16, generator, dtype=DOUBLE)) for _ in range(4)]).mean(0)
    errors = []
    for n in sizes:
        got = torch.stack([net.gradient(get_sampler(sampler)(BOX, n, generator, dtype=DOUBLE)) for _ in range(scrambles)])
        errors.append(((got - truth) ** 2).sum(1).mean().sqrt())
    x, y = torch.tensor(sizes, dtype=DOUBLE).log(), torch.stack(errors).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()), errors


@pytest.mark.parametrize(("sampler", "low", "high"), [("sobol", -3.0, -0.8), ("lattice", -3.0, -0.8), ("halton", -3.0, -0.8),
                                                      ("uniform", -0.65, -0.35)])  # fmt: skip
def test_the_rate_of_gradients_through_three_layers(sampler, low, high, generator):
    found, errors = slope(Chain(generator), sampler)
    assert low <= found <= high, (found, errors)


@pytest.mark.parametrize("layer", [
    lambda g: Conv(2, 3, spacing=0.1, generator=g), lambda g: MLPConv(2, 3, half_width=0.3, bins=16, generator=g),
    lambda g: BasisConv(2, 3, spacing=0.2, generator=g), lambda g: BasisConv(2, 3, spacing=0.2, basis="polynomial", generator=g),
])  # fmt: skip
def test_gradients_of_convolutions_converge(layer, generator):
    net = layer(generator).double()

    def gradient(n):
        net.zero_grad()
        source = get_sampler("lattice")(BOX, n, generator, dtype=DOUBLE)
        out = GlobalIntegral()(Activation("tanh")(net(Sampled(source, field(source.points)))))
        (out**2).sum().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    truth = gradient(2**12)
    coarse, fine = (torch.stack([gradient(n) - truth for _ in range(4)]).norm() for n in (256, 2048))
    assert fine < 0.3 * coarse and fine < 0.1 * truth.norm(), (coarse, fine, truth.norm())


@pytest.mark.parametrize("name", ["convnet", "inr-net-2", "inr-net-4"])
def test_gradients_of_whole_nets_are_those_of_finite_differences(name, generator):
    options = {"convnet": {"widths": [3, 4], "strides": [1, 2], "resolution": 8, "activation": "gelu"}}.get(
        name, {"widths": [3, 4], "hidden": [5], "head": 6, "bins": 8, "half_width": [0.3, 0.5, 0.8]}
    )
    net = build_model(name, BOX, 2, 3, generator=generator, **options).double()
    source = get_sampler("lattice")(BOX, 64, generator, dtype=DOUBLE)
    names, values = zip(*net.named_parameters(), strict=True)

    def run(*values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (Sampled(source, field(source.points)),))

    assert torch.autograd.gradcheck(run, values, fast_mode=True, eps=1e-7, atol=1e-4)


def test_negative_control_crowded_points_without_weights_give_another_gradient(generator):
    net = Chain(generator)
    truth = net.gradient(get_sampler("sobol")(BOX, 2**14, generator, dtype=DOUBLE))
    crowded = get_sampler("shrunk")(BOX, 4096, generator, dtype=DOUBLE, weights="density")
    equal = Discretization(crowded.points, torch.full_like(crowded.weights, BOX.measure / 4096), BOX)
    right, wrong = ((net.gradient(source) - truth).norm() / truth.norm() for source in (crowded, equal))
    assert right < 0.005 and wrong > 0.05, (right, wrong)
