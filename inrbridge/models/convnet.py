"""Floor 6: the continuous twin of a plain convolutional classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.models.layers import Convolutions, normalization, one_each, require_counts, require_lists
from inrbridge.models.net import INRNet, linear
from inrbridge.nn import Activation, Dropout, GlobalIntegral, Sampled, Sequential


class ConvNet(INRNet):
    """Convolutions with normalization and activation, the global integral, a linear head.

    Kernel nodes lie one cell of a `resolution` grid apart, and twice as far after each stride of 2, as in a CNN on that
    grid; there the two are equal weight for weight. The kernel keeps its size in domain units at any number of points.

    Args:
        widths: channels of each convolution.
        strides: stride of each; None: none.
        resolution: cells along each axis of the grid that the kernel nodes are taken from.
        kernel_size: nodes along each axis. kernel: "reconstruct" (nodes, moving least squares), or a basis under the integral:
            "spline", "polynomial" or "gaussian". order, neighbors: of the reconstruction.
        border: what a kernel sees beyond the domain: "zeros", "reflect", "circular", "renormalize", "valid"
            (`stencils.borders`).
        norm: "batch", "instance", "layer" or "none".
        dropout: share of channels dropped before the head.
        points: size of the net's own discretization; None: one point for each grid cell.
        resample: "none": the layers live on the points that are given; "lattice", "grid", "sobol" or "halton": on the net's own,
            of this sampler, onto which samples are read first (`INRNet.resampling`).
    """

    name = "convnet"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (16, 32, 32, 64),
                 strides: Sequence[int] | None = None, resolution: int = 32, kernel_size: int = 3, kernel: str = "reconstruct",
                 order: int = 2, neighbors: int | None = None, border: str = "zeros", norm: str = "batch",
                 activation: str = "relu", dropout: float = 0.0, points: int | None = None,
                 resample: str = "none", generator: torch.Generator | None = None):  # fmt: skip
        require_lists(self.name, widths=widths, strides=strides)
        require_counts(self.name, resolution=resolution, kernel_size=kernel_size, neighbors=neighbors, points=points)
        strides = one_each(strides, widths, 1, "strides")
        options = {"widths": list(widths), "strides": strides, "resolution": resolution, "kernel_size": kernel_size,
                   "kernel": kernel, "order": order, "neighbors": neighbors, "border": border, "norm": norm,
                   "activation": activation, "dropout": dropout, "points": points, "resample": resample}  # fmt: skip
        super().__init__(domain, in_channels, classes, points or resolution**domain.intrinsic_dim, options)
        self.resample = self.resampling(resample, order, neighbors)
        convolve = Convolutions(domain, resolution, kernel_size, kernel, order, neighbors, border, generator)
        layers: list[nn.Module] = []
        times, channels = 1, in_channels
        for width, stride in zip(widths, strides, strict=True):
            layers.append(convolve(channels, width, times=times, stride=stride, bias=norm == "none"))
            layers += [*normalization(norm, width), Activation(activation)]
            times, channels = times * stride, width
        self.require_points(times**domain.intrinsic_dim)
        self.trunk = Sequential(*layers)
        self.dropout = Dropout(dropout, channels=True) if dropout > 0 else nn.Identity()
        self.integral = GlobalIntegral()
        self.head = linear(channels, classes, generator)

    def compute(self, sampled: Sampled) -> Tensor:
        return self.head(self.integral(self.dropout(self.trunk(self.resample(sampled)))))
