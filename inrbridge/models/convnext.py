"""Floor 6: the continuous twin of a ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.models.layers import Convolutions, require_counts, require_lists
from inrbridge.models.net import INRNet, linear
from inrbridge.nn import Activation, Dropout, GlobalIntegral, LayerNorm, Linear, Residual, Sampled, Sequential

_EPS = 1e-6  # of the norms, as published


class LayerScale(nn.Module):
    """Multiply each channel by a learned number (`weight`, (c,)) that starts small, so that a block starts near the identity."""

    def __init__(self, channels: int, start: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(start)))

    def forward(self, sampled: Sampled) -> Sampled:
        return sampled.with_values(sampled.values * self.weight)


class ConvNeXt(INRNet):
    """Stages of blocks: a wide convolution of each channel, LayerNorm, a pointwise network, layer scale, the input added.

    A strided convolution whose kernel is as large as its stride stands before each stage; the first is the stem. After the
    last stage come the global integral, a LayerNorm and a linear head. On the grid of `resolution` cells it is the
    discrete net, weight for weight.

    Args:
        widths: channels of each stage. blocks: how many each has. strides: of the convolution before each.
        expansion: width of the pointwise network, in channels of its block. layer_scale: where its factors start.
        resolution: cells along each axis of the grid that the kernel nodes are taken from.
        kernel_size: of the channelwise convolutions. order, neighbors: of the reconstruction at kernel nodes.
        border: what a kernel sees beyond the domain: "zeros", "reflect", "circular", "renormalize" (`stencils.borders`).
        dropout: share of channels dropped before the integral.
        points: size of the net's own discretization; None: one point for each grid cell.
        resample: "none": the layers live on the points that are given; "lattice", "grid", "sobol" or "halton": on the net's own,
            of this sampler, onto which samples are read first (`INRNet.resampling`).
    """

    name = "convnext"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (32, 64, 128),
                 blocks: Sequence[int] = (2, 2, 2), strides: Sequence[int] = (2, 2, 2), expansion: int = 4,
                 layer_scale: float = 1e-6, resolution: int = 32, kernel_size: int = 7, order: int = 2,
                 neighbors: int | None = None, border: str = "zeros", activation: str = "gelu", dropout: float = 0.0,
                 points: int | None = None, resample: str = "none", generator: torch.Generator | None = None):  # fmt: skip
        require_lists(self.name, widths=widths, blocks=blocks, strides=strides)
        require_counts(self.name, resolution=resolution, kernel_size=kernel_size, neighbors=neighbors, points=points,
                       expansion=expansion)  # fmt: skip
        if not len(widths) == len(blocks) == len(strides):
            raise ConfigError(
                f"Got {len(widths)} widths, {len(blocks)} blocks and {len(strides)} strides, expected as many; give one a stage."
            )
        options = {"widths": list(widths), "blocks": list(blocks), "strides": list(strides), "expansion": expansion,
                   "layer_scale": layer_scale, "resolution": resolution, "kernel_size": kernel_size, "order": order,
                   "neighbors": neighbors, "border": border, "activation": activation, "dropout": dropout,
                   "points": points, "resample": resample}  # fmt: skip
        super().__init__(domain, in_channels, classes, points or resolution**domain.intrinsic_dim, options)
        self.resample = self.resampling(resample, order, neighbors)
        convolve = Convolutions(domain, resolution, kernel_size, order=order, neighbors=neighbors, border=border,
                                generator=generator)  # fmt: skip
        convolve.require_kept_domain(self.name)

        def block(width: int, times: int) -> Residual:
            return Residual(
                convolve(width, width, times=times, groups=width),
                LayerNorm(width, eps=_EPS),
                Linear(width, expansion * width, generator=generator),
                Activation(activation),
                Linear(expansion * width, width, generator=generator),
                LayerScale(width, layer_scale),
            )

        layers: list[nn.Module] = []
        channels, times = in_channels, 1
        for width, count, stride in zip(widths, blocks, strides, strict=True):
            entry = convolve(channels, width, times=times, stride=stride, size=stride)
            layers += [LayerNorm(channels, eps=_EPS), entry] if layers else [entry, LayerNorm(width, eps=_EPS)]
            times *= stride
            layers += [block(width, times) for _ in range(count)]
            channels = width
        self.require_points(times**domain.intrinsic_dim)
        self.trunk = Sequential(*layers)
        self.dropout = Dropout(dropout, channels=True) if dropout > 0 else nn.Identity()
        self.integral = GlobalIntegral()
        self.head = nn.Sequential(nn.LayerNorm(channels, eps=_EPS), linear(channels, classes, generator))

    def compute(self, sampled: Sampled) -> Tensor:
        return self.head(self.integral(self.dropout(self.trunk(self.resample(sampled)))))
