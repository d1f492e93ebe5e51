"""Floor 6: the continuous twin of a plain convolutional classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.models.net import INRNet, linear, node_spacing
from inrbridge.nn import (
    Activation,
    BasisConv,
    BatchNorm,
    Conv,
    Dropout,
    GlobalIntegral,
    InstanceNorm,
    LayerNorm,
    Resample,
    Sampled,
    Sequential,
)
from inrbridge.sampling import get_sampler

_NORMS = {"batch": BatchNorm, "instance": InstanceNorm, "layer": LayerNorm, "none": None}
_OWN_POINTS = ("none", "lattice", "grid", "sobol", "halton")


class ConvNet(INRNet):
    """Convolutions with normalization and activation, the global integral, a linear head.

    Kernel nodes lie one cell of a `resolution` grid apart, and twice as far after each stride of 2, as in a CNN on that
    grid; there the two are equal weight for weight. The kernel keeps its size in domain units at any number of points.

    Args:
        widths: channels of each convolution.
        strides: stride of each; None: none.
        resolution: cells along each axis of the grid that the kernel nodes are taken from.
        kernel_size: nodes along each axis.
        kernel: "reconstruct" (nodes, moving least squares), or a basis under the integral: "spline", "polynomial", "gaussian".
        order, neighbors: of the reconstruction.
        border: what a kernel sees beyond the domain (`stencils.borders`).
        norm: "batch", "instance", "layer" or "none".
        dropout: share of channels dropped before the head.
        points: size of the net's own discretization; None: one point for each grid cell.
        resample: "none": every layer lives on the points that are given. "lattice", "grid", "sobol" or "halton": the net's own
            discretization is of this sampler, and samples are first read onto it (`Resample`), so that number and kind of
            the given points matter little to any layer; on a grid all that follows is a CNN and costs as much.
    """

    name = "convnet"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (16, 32, 32, 64),
                 strides: Sequence[int] | None = None, resolution: int = 32, kernel_size: int = 3, kernel: str = "reconstruct",
                 order: int = 2, neighbors: int | None = None, border: str = "zeros", norm: str = "batch",
                 activation: str = "relu", dropout: float = 0.0, points: int | None = None,
                 resample: str = "none", generator: torch.Generator | None = None):  # fmt: skip
        strides = [1] * len(widths) if strides is None else list(strides)
        if len(strides) != len(widths):
            raise ConfigError(f"Got {len(widths)} widths and {len(strides)} strides, expected as many; give one stride a width.")
        if resample not in _OWN_POINTS:
            raise ConfigError(f'Got resample "{resample}", expected one of: {", ".join(_OWN_POINTS)}.')
        if norm not in _NORMS:
            raise ConfigError(f'Got norm "{norm}", expected one of: {", ".join(_NORMS)}.')
        options = {"widths": list(widths), "strides": strides, "resolution": resolution, "kernel_size": kernel_size,
                   "kernel": kernel, "order": order, "neighbors": neighbors, "border": border, "norm": norm,
                   "activation": activation, "dropout": dropout, "points": points, "resample": resample}  # fmt: skip
        super().__init__(domain, in_channels, classes, points or resolution**domain.intrinsic_dim, options)
        self.resample: nn.Module = nn.Identity()
        if resample != "none":
            self._own = get_sampler(resample)(domain, self.points)
            self.resample = Resample(self._own, order, neighbors)
        layers: list[nn.Module] = []
        times, channels = 1, in_channels
        for width, stride in zip(widths, strides, strict=True):
            place = {"spacing": node_spacing(domain, resolution, times), "stride": stride, "border": border,
                     "bias": norm == "none", "dim": domain.dim, "generator": generator}  # fmt: skip
            if kernel == "reconstruct":
                layers.append(Conv(channels, width, kernel_size, order=order, neighbors=neighbors, **place))
            else:
                layers.append(BasisConv(channels, width, kernel_size, basis=kernel, **place))
            if norm != "none":
                layers.append(_NORMS[norm](width))
            layers.append(Activation(activation))
            times, channels = times * stride, width
        self.trunk = Sequential(*layers)
        self.dropout = Dropout(dropout, channels=True) if dropout > 0 else nn.Identity()
        self.integral = GlobalIntegral()
        self.head = linear(channels, classes, generator)

    def compute(self, sampled: Sampled) -> Tensor:
        return self.head(self.integral(self.dropout(self.trunk(self.resample(sampled)))))
