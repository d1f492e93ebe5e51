"""Floor 6: the continuous twin of a residual classifier (He et al. 2016, "Deep Residual Learning for Image Recognition")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.models.layers import Convolutions, normalization, one_each, require_counts, require_lists
from inrbridge.models.net import INRNet, linear
from inrbridge.nn import Activation, Downsample, Dropout, GlobalIntegral, Linear, Residual, Sampled, Sequential


class ResNet(INRNet):
    """A convolution, stages of residual blocks of two convolutions each, the global integral, a linear head.

    Kernel nodes lie one cell of a `resolution` grid apart, and further by the strides before them; on that grid the net is
    the discrete one, weight for weight. A block that changes points or channels has a pointwise shortcut with a
    normalization of its own; all others add their input.

    Args:
        widths: channels of each stage. blocks: residual blocks of each stage: the depth.
        strides: of the first block of each stage; None: 1, then 2 for each further stage.
        resolution: cells along each axis of the grid that the kernel nodes are taken from.
        kernel_size: nodes along each axis. kernel: "reconstruct" (nodes, moving least squares), or a basis under the integral:
            "spline", "polynomial" or "gaussian". order, neighbors: of the reconstruction.
        border: what a kernel sees beyond the domain: "zeros", "reflect", "circular", "renormalize" (`stencils.borders`).
        norm: "batch", "instance", "layer" or "none".
        dropout: share of channels dropped before the head.
        points: size of the net's own discretization; None: one point for each grid cell.
        resample: "none": the layers live on the points that are given; "lattice", "grid", "sobol" or "halton": on the net's own,
            of this sampler, onto which samples are read first (`INRNet.resampling`).
    """

    name = "resnet"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (16, 32, 64),
                 blocks: Sequence[int] = (2, 2, 2), strides: Sequence[int] | None = None, resolution: int = 32,
                 kernel_size: int = 3, kernel: str = "reconstruct", order: int = 2, neighbors: int | None = None,
                 border: str = "zeros", norm: str = "batch", activation: str = "relu", dropout: float = 0.0,
                 points: int | None = None, resample: str = "none", generator: torch.Generator | None = None):  # fmt: skip
        require_lists(self.name, widths=widths, blocks=blocks, strides=strides)
        require_counts(self.name, resolution=resolution, kernel_size=kernel_size, neighbors=neighbors, points=points)
        strides = one_each(strides, widths, 2, "strides")
        if len(blocks) != len(widths):
            raise ConfigError(f"Got {len(widths)} widths and {len(blocks)} blocks, expected as many; give one number a stage.")
        options = {"widths": list(widths), "blocks": list(blocks), "strides": strides, "resolution": resolution,
                   "kernel_size": kernel_size, "kernel": kernel, "order": order, "neighbors": neighbors, "border": border,
                   "norm": norm, "activation": activation, "dropout": dropout, "points": points,
                   "resample": resample}  # fmt: skip
        super().__init__(domain, in_channels, classes, points or resolution**domain.intrinsic_dim, options)
        self.resample = self.resampling(resample, order, neighbors)
        convolve = Convolutions(domain, resolution, kernel_size, kernel, order, neighbors, border, generator)
        convolve.require_kept_domain(self.name)

        def normalized(inputs: int, outputs: int, times: int, stride: int = 1) -> list[nn.Module]:
            conv = convolve(inputs, outputs, times=times, stride=stride, bias=norm == "none")
            return [conv, *normalization(norm, outputs)]

        layers: list[nn.Module] = [*normalized(in_channels, widths[0], 1), Activation(activation)]
        channels, times = widths[0], 1
        for width, count, first in zip(widths, blocks, strides, strict=True):
            for stride in [first] + [1] * (count - 1):
                shortcut = None
                if stride > 1 or width != channels:
                    mix = Linear(channels, width, bias=norm == "none", generator=generator)
                    shortcut = Sequential(Downsample(stride), mix, *normalization(norm, width))
                body = [*normalized(channels, width, times, stride), Activation(activation)]
                times *= stride
                body += normalized(width, width, times)
                layers += [Residual(*body, shortcut=shortcut), Activation(activation)]
                channels = width
        self.require_points(times**domain.intrinsic_dim)
        self.trunk = Sequential(*layers)
        self.dropout = Dropout(dropout, channels=True) if dropout > 0 else nn.Identity()
        self.integral = GlobalIntegral()
        self.head = linear(channels, classes, generator)

    def compute(self, sampled: Sampled) -> Tensor:
        return self.head(self.integral(self.dropout(self.trunk(self.resample(sampled)))))
