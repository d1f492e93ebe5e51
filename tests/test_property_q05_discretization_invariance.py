"""Q5: whole nets do not depend on their points: E |T_X - T_Y| tends to 0 for every kind of points with its weights.

Negative controls: what is tied to the points, a plain maximum over a window or a mean over the k nearest points, does not
agree between few and many points; nor do crowded points without their weights.
"""

import itertools
import math

import pytest
import torch
from scipy.spatial import cKDTree
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.nn import Activation, AvgPool, Conv, GlobalIntegral, InstanceNorm, Linear, MaxPool, MLPConv, Sampled, Sequential
from inrbridge.sampling import get_sampler, shrunk

BOX, DOUBLE = Box.centered(2), {"dtype": torch.float64}
OCTAVES = (64, 128, 256, 512, 1024)


def fields(x):
    """Three smooth fields of two channels (3, n, 2)."""
    a, b = x.unbind(-1)
    first = torch.stack([torch.sin(2 * a + b), torch.exp(a * b)], -1)
    second = torch.stack([torch.cos(3 * a), a - b**2], -1)
    return torch.stack([first, second, first * second])


def mlp_net(generator):
    return Sequential(MLPConv(2, 6, half_width=0.3, bins=12, ball=True, generator=generator), Activation("tanh"),
                      Linear(6, 8, generator=generator), InstanceNorm(8), Activation("tanh"),
                      AvgPool(0.5), Linear(8, 6, generator=generator), GlobalIntegral()).double()  # fmt: skip


def conv_net(generator):
    return Sequential(Conv(2, 6, 3, spacing=0.25, generator=generator), Activation("gelu"),
                      Conv(6, 8, 3, spacing=0.25, generator=generator), InstanceNorm(8), Activation("gelu"),
                      Conv(8, 6, 3, spacing=0.25, generator=generator), GlobalIntegral()).double()  # fmt: skip


NETS = {"MLP kernels": mlp_net, "nodes": conv_net}


def draw(kind, n, generator):
    if kind == "shrunk":
        return shrunk(BOX, n, generator, weights="density", **DOUBLE)
    return get_sampler(kind)(BOX, n, generator, **DOUBLE)


@torch.no_grad()
def distance(net, first, second, pairs=4):
    """E |T_X - T_Y| relative to the size of T, X and Y drawn by the two functions of a generator."""
    generator = torch.Generator().manual_seed(8)
    total, size = 0.0, 0.0
    for _ in range(pairs):
        x, y = (make(generator) for make in (first, second))
        out = [net(Sampled(d, fields(d.points))) for d in (x, y)]
        total, size = total + float((out[0] - out[1]).abs().mean()), size + float(out[0].abs().mean())
    return total / size


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("kind", "steepest"), [("sobol", -0.5), ("lattice", -0.5), ("uniform", -0.3), ("shrunk", -0.35)])
def test_outputs_of_two_draws_meet(name, kind, steepest, generator):
    net = NETS[name](generator)
    errors = [distance(net, *[lambda g, n=n: draw(kind, n, g)] * 2) for n in OCTAVES]
    assert math.log(errors[-1] / errors[0]) / math.log(OCTAVES[-1] / OCTAVES[0]) <= steepest, errors
    assert all(after < 1.4 * before for before, after in itertools.pairwise(errors)), errors  # within noise
    assert errors[-1] < (0.2 if kind == "uniform" else 0.08), errors


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("first", "second"), [("sobol", "lattice"), ("sobol", "shrunk"), ("lattice", "grid")])
def test_kinds_of_points_meet_each_other(name, first, second, generator):
    net = NETS[name](generator)
    coarse, fine = (distance(net, lambda g, n=n: draw(first, n, g), lambda g, n=n: draw(second, n, g), 3) for n in (64, 1024))
    assert fine < coarse / 2 and fine < 0.08, (coarse, fine)


@pytest.mark.parametrize("name", NETS)
def test_negative_control_crowded_points_without_weights_stay_away(name, generator):
    net = NETS[name](generator)

    def unweighted(g):
        x = shrunk(BOX, 1024, g, **DOUBLE)
        return Discretization(x.points, torch.full_like(x.weights, BOX.measure / 1024), BOX)

    assert distance(net, lambda g: draw("sobol", 1024, g), unweighted, 2) > 0.08


class NearestMean(nn.Module):
    """The mean of the k nearest points: a window that shrinks as points are added (appendix C warns of it)."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, sampled):
        x = sampled.discretization.points.numpy()
        near = torch.from_numpy(cKDTree(x).query(x, self.k)[1])
        return sampled.with_values(sampled.values[:, near].mean(2))


def rough(x):
    """A triangular wave finer than any of the point sets here: its samples are as good as independent, uniform in [-1, 1]."""
    return torch.sin(617.3 * x[:, :1] + 411.9 * x[:, 1:] + 93.1 * x[:, :1] * x[:, 1:]).asin()[None] * 2 / math.pi


@pytest.mark.parametrize(
    ("layer", "field", "invariant"),
    [
        (MaxPool(0.7), rough, True),  # scaled by (N + 1) / (N - 1)
        (MaxPool(0.7, correction=False), rough, False),
        (AvgPool(0.7), lambda x: torch.sin(3 * x.sum(1, keepdim=True))[None], True),
        (NearestMean(16), lambda x: torch.sin(3 * x.sum(1, keepdim=True))[None], False),
    ],
    ids=["maximum, scaled", "maximum, plain", "mean of a window", "mean of the nearest"],
)
def test_few_points_and_many_agree_or_do_not(layer, field, invariant):
    """The mean of the layer's output, squared where it would vanish, from 128 points and from 2048."""
    means = []
    for n in (128, 2048):
        generator, found = torch.Generator().manual_seed(1), []
        for _ in range(6):
            x = draw("sobol", n, generator)
            out = layer(Sampled(x, field(x.points)))
            out = out if isinstance(layer, MaxPool) else out.with_values(out.values**2)
            found.append(float(GlobalIntegral()(out)))
        means.append(sum(found) / len(found))
    drift = abs(means[1] / means[0] - 1)
    assert drift < 0.06 if invariant else drift > 0.1, means
