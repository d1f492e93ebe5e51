"""Floor 6: nets from vectors to fields (Wang & Golland 2023, section 3.1: R^n -> L2, and Algorithm 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.models.layers import Convolutions
from inrbridge.models.net import INRNet
from inrbridge.nn import Activation, Decode, LayerNorm, Sampled, Upsample, basis_for
from inrbridge.nn.reading import read

SLOPE = 0.2  # of the rectifiers below 0
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # which keeps the variance through them (He et al. 2015)
_RANGES = {"identity": torch.positive, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": nn.functional.softplus}


class Generator(INRNet):
    """A net that makes a field of a vector.

    The vector becomes coefficients of an orthonormal basis on the coarsest points, and a scale and shift of the channels at
    every level. Each level convolves; from one to the next the points of the sequence grow by 2 in each direction and the
    kernel nodes come half as far apart. What the finest level gives is read at any coordinates, and mapped to the channels
    by a pointwise head.

    Args:
        classes: channels of the fields that are made (`in_channels` is the same).
        latent: length of the vector.
        widths: channels of each level, coarsest first.
        resolution: cells along each axis of the grid that the kernel nodes of the finest level are taken from.
        degree: highest total degree of the basis (`nn.basis_for`: Legendre polynomials on a box, ...).
        hidden: width of the two layers that the vector goes through first.
        convolutions: number of convolutions in each level.
        kernel_size, order, neighbors, border: of the convolutions.
        upsample: "nearest" or "linear", between the levels.
        head: width of the hidden layer of the head.
        output: range of the values: "identity", "sigmoid" (0 to 1), "tanh" (-1 to 1) or "softplus" (above 0).
        points: size of the net's own discretization; None: one point for each cell of the finest level.
    """

    name = "generator"
    kind = "generation"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, latent: int = 64, widths: Sequence[int] = (64, 32, 16),
                 resolution: int = 32, degree: int = 7, hidden: int = 128, convolutions: int = 1, kernel_size: int = 3,
                 order: int = 2, neighbors: int | None = None, border: str = "zeros", upsample: str = "nearest", head: int = 32,
                 output: str = "identity", activation: str = "leaky_relu", points: int | None = None,
                 generator: torch.Generator | None = None):  # fmt: skip
        if not widths or min(latent, hidden, convolutions, head, *widths) < 1:
            raise ConfigError(
                f"Got latent={latent}, widths={list(widths)}, hidden={hidden}, convolutions={convolutions} and head={head}, "
                "expected at least one width, and all of them at least 1."
            )
        if output not in _RANGES:
            raise ConfigError(f'Got output "{output}", expected one of: {", ".join(_RANGES)}.')
        options = {"latent": latent, "widths": list(widths), "resolution": resolution, "degree": degree, "hidden": hidden,
                   "convolutions": convolutions, "kernel_size": kernel_size, "order": order, "neighbors": neighbors,
                   "border": border, "upsample": upsample, "head": head,
                   "output": output, "activation": activation, "points": points}  # fmt: skip
        super().__init__(domain, in_channels, classes, points or resolution**domain.intrinsic_dim, options)
        self.latent, self.output = latent, output
        self.mapping = nn.Sequential(_linear(latent, hidden, GAIN, generator), nn.LeakyReLU(SLOPE),
                                     _linear(hidden, hidden, GAIN, generator), nn.LeakyReLU(SLOPE))  # fmt: skip
        basis = basis_for(domain, degree)
        self.decode = Decode(basis, widths[0], hidden, generator=generator)
        _draw(self.decode.mix, len(basis) ** -0.5, generator)
        convolve = Convolutions(domain, resolution, kernel_size, order=order, neighbors=neighbors, border=border,
                                generator=generator)  # fmt: skip
        convolve.require_kept_domain(self.name)
        self.levels = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            layers = nn.ModuleList()
            for _ in range(convolutions):
                conv = convolve(before, width, times=2 ** (len(widths) - 1 - level))
                layers.append(_Modulated(conv, width, hidden, activation, generator))
                before = width
            self.levels.append(layers)
        self.upsample = Upsample(2, upsample)
        self.head = nn.Sequential(_linear(before, head, GAIN, generator), nn.LeakyReLU(SLOPE),
                                  _linear(head, classes, 1.0, generator))  # fmt: skip

    def features(self, latents: Tensor, discretization: Discretization | None = None) -> Sampled:
        """Return the features (b, n, widths[-1]) of vectors (b, latent) on the discretization; None: the net's own."""
        if latents.ndim != 2 or latents.shape[1] != self.latent:
            raise ShapeMismatch(
                f"Got vectors of shape {tuple(latents.shape)}, expected (fields, {self.latent}): one row for each field."
            )
        points = (self.own_discretization() if discretization is None else discretization).to(latents)
        steps = [points]
        for _ in self.levels[1:]:
            steps.append(steps[-1].thin(2))
        code = self.mapping(latents)
        sampled = self.decode(code, steps[-1])
        for place, layers in zip(reversed(steps), self.levels, strict=True):
            sampled = self.upsample(sampled, place)
            for layer in layers:
                sampled = layer(sampled, code)
        return sampled

    def read(self, features: Sampled, coords: Tensor) -> Tensor:
        """Evaluate the fields at coords (m, d), or (b, m, d) with points of its own for each -> (b, m, classes)."""
        return _RANGES[self.output](self.head(read(features, coords)))

    def forward(self, latents: Tensor, discretization: Discretization | None = None) -> Sampled:
        """Return the fields of vectors (b, latent) on a discretization, where the layers work too."""
        features = self.features(latents, discretization)
        return features.with_values(self.read(features, features.discretization.points))


class _Modulated(nn.Module):
    """A convolution whose output, normalized over the channels of each point, is scaled and shifted as a vector says."""

    def __init__(self, conv: nn.Module, width: int, hidden: int, activation: str, generator: torch.Generator | None):
        super().__init__()
        self.conv, self.norm = conv, LayerNorm(width, elementwise_affine=False)
        self.style = _linear(hidden, 2 * width, 0.5, generator)
        self.activation = Activation(activation)

    def forward(self, sampled: Sampled, code: Tensor) -> Sampled:
        sampled = self.norm(self.conv(sampled))
        scale, shift = self.style(code)[:, None].chunk(2, dim=-1)  # (b, 1, c)
        return self.activation(sampled.with_values(sampled.values * (1 + scale) + shift))


def _linear(inputs: int, outputs: int, gain: float, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    _draw(layer, gain, generator)
    return layer


def _draw(layer: nn.Module, gain: float, generator: torch.Generator | None) -> None:
    """Draw the weights of a layer so that inputs of variance 1 give outputs of variance gain^2, and nothing but the inputs does:
    fields that differ little from each other at the start are slow to part."""
    nn.init.normal_(layer.weight, std=gain * layer.weight.shape[1] ** -0.5, generator=generator)
    nn.init.zeros_(layer.bias)
