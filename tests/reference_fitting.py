"""Slow twin of fitting: one field, one step after the other, by the plainest optimizer; and a format to fit."""

import math

import torch
from torch import nn

from inrbridge import Format, read_native


def fit_alone(field, pool, targets, order, lr):
    """Fit one module: pool (blocks, n, d), targets (blocks, n, c); Adam written out, cosine schedule."""
    parameters = [p for p in field.parameters() if p.requires_grad]
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for step, block in enumerate(order):
        loss = (field(pool[block]) - targets[block]).square().mean()
        rate = 0.5 * lr * (1 + math.cos(math.pi * step / len(order)))
        with torch.no_grad():
            for p, gradient, m, v in zip(parameters, torch.autograd.grad(loss, parameters), first, second, strict=True):
                m.mul_(0.9).add_(0.1 * gradient)
                v.mul_(0.999).add_(0.001 * gradient**2)
                p -= rate * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
    return field


class SwellField(nn.Module):
    """Random features with a linear readout: f(x) = W sin(B x + p); B is a buffer, and stays as it was drawn."""

    format = "swell"

    def __init__(self, domain, channels, width, pitch, generator):
        super().__init__()
        self.domain, self.channels, self.width, self.pitch, self.channel_names = domain, channels, width, pitch, None
        self.register_buffer("frequencies", pitch * torch.randn(width, domain.dim, generator=generator))
        self.phase = nn.Parameter(6.3 * torch.rand(width, generator=generator))
        self.readout = nn.Parameter(0.1 * torch.randn(channels, width, generator=generator))

    @property
    def architecture(self):
        return {"width": self.width, "pitch": self.pitch}

    def forward(self, coords):
        return torch.sin(coords @ self.frequencies.mT + self.phase) @ self.readout.mT

    def evaluate_stack(self, states, coords):
        x = coords.expand(len(states["phase"]), *coords.shape[-2:])
        waves = torch.baddbmm(states["phase"].unsqueeze(1), x, states["frequencies"].mT).sin()
        return torch.bmm(waves, states["readout"].mT)


class SwellFormat(Format):
    api, name = 1, "swell"

    def recognizes(self, probe):
        return probe.native.get("format") == self.name

    def open(self, path):
        return read_native(path, self)

    def build(self, domain, channels, *, generator=None, width: int = 24, pitch: float = 4.0):
        return SwellField(domain, channels, width, pitch, generator or torch.Generator().manual_seed(0))

    def fit_defaults(self):
        return {"steps": 60, "lr": 3e-2}
