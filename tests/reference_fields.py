"""Slow twins: fields one after the other, and interpolation one point, one axis, one sample at a time."""

import copy
import itertools
import math

import torch
from torch import nn

from inrbridge.domains import Box


def loop(fields, coords):
    """Evaluate fields one by one: coords (n, d) or (b, n, d) -> (b, n, c)."""
    return torch.stack([field(coords if coords.ndim == 2 else coords[i]) for i, field in enumerate(fields)])


def interpolate(samples, domain, point, interpolation, align_corners):
    """Interpolate samples (*shape, c) at one point (d,) by the definition of the kernel."""
    kernel = {"linear": _hat, "cubic": _keys}[interpolation]
    *shape, channels = samples.shape
    near = []  # for each axis the (index, weight) of all samples, those outside standing for the border
    for count, low, size, x in zip(shape, domain.low, domain.size, point.tolist(), strict=True):
        unit = (x - low) / size
        place = unit * (count - 1) if align_corners else unit * count - 0.5
        around = range(math.floor(place) - 2, math.floor(place) + 4)
        near.append([(min(max(i, 0), count - 1), kernel(place - i)) for i in around])
    total = torch.zeros(channels, dtype=samples.dtype)
    for taps in itertools.product(*near):
        total = total + samples[tuple(i for i, _ in taps)] * math.prod(w for _, w in taps)
    return total


def _hat(t):
    return max(0.0, 1 - abs(t))


def _keys(t, a=-0.5):  # Keys 1981, eq. 4
    t = abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    if t < 2:
        return a * (t**3 - 5 * t**2 + 8 * t - 4)
    return 0.0


class SineField(nn.Module):
    """A sine net, the smallest honest INR: sin(omega (W x + b)) layers and a linear readout."""

    format = "sine"

    def __init__(self, width=8, dim=2, channels=1, omega=5.0, seed=0, dtype=torch.float64, domain=None):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [dim, width, width, channels]
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=dtype) for a, b in itertools.pairwise(sizes))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.5, 0.5, generator=generator)
        self.domain, self.channels, self.omega, self.width = domain or Box.centered(dim), channels, omega, width
        self.channel_names = tuple(f"value{i}" for i in range(channels))

    @property
    def architecture(self):
        return {"width": self.width, "omega": self.omega}

    def forward(self, coords):
        for layer in self.layers[:-1]:
            coords = torch.sin(self.omega * layer(coords))
        return self.layers[-1](coords)


class BatchedSineField(SineField):
    """The same with its own batched evaluation."""

    def evaluate_stack(self, states, coords):
        for i in range(len(self.layers)):
            weight, bias = states[f"layers.{i}.weight"], states[f"layers.{i}.bias"]
            coords = coords @ weight.mT + bias[:, None]
            coords = torch.sin(self.omega * coords) if i < len(self.layers) - 1 else coords
        return coords


def permute_hidden(field, order):
    """Return the same function with the hidden units of the first layer in another order."""
    twin = copy.deepcopy(field)
    with torch.no_grad():
        first, second = twin.layers[0], twin.layers[1]
        first.weight.copy_(first.weight[order].clone())
        first.bias.copy_(first.bias[order].clone())
        second.weight.copy_(second.weight[:, order].clone())
    return twin


def flip_signs(field, units):
    """Return the same function with some hidden units negated before and after their sine, which is odd."""
    twin = copy.deepcopy(field)
    with torch.no_grad():
        for tensor in (twin.layers[0].weight, twin.layers[0].bias):
            tensor[units] *= -1
        twin.layers[1].weight[:, units] *= -1
    return twin
