"""Floor 6: the classifiers of Wang & Golland 2023, appendix D.1, with MLP kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.models.net import INRNet, linear
from inrbridge.nn import Activation, BatchNorm, GlobalIntegral, MLPConv, Residual, Sampled, Sequential


class INRNet2(INRNet):
    """INR-Net-2: two strided MLP convolutions, the global integral, two fully connected layers.

    Args:
        widths: channels after the first and the second convolution.
        half_width: half the side of the kernel supports, as a share of half the domain's side, one for each convolution.
        bins: Voronoi cells of a support (section 4.3). hidden: widths of the kernel networks.
        head: width between the two fully connected layers.
        points: size of the net's own discretization.
    """

    name = "inr-net-2"
    blocks = 0

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (32, 64),
                 half_width: Sequence[float] = (0.1, 0.2, 0.3), bins: int = 64, hidden: Sequence[int] = (16, 16), head: int = 64,
                 points: int = 1024, generator: torch.Generator | None = None):  # fmt: skip
        options = {"widths": list(widths), "half_width": list(half_width), "bins": bins, "hidden": list(hidden),
                   "head": head, "points": points}  # fmt: skip
        super().__init__(domain, in_channels, classes, points, options)
        low, high = domain.bounds
        supports = [tuple(share * (b - a) / 2 for a, b in zip(low, high, strict=True)) for share in half_width]

        def convolve(inputs: int, outputs: int, support: tuple[float, ...], stride: int = 1) -> list[nn.Module]:
            conv = MLPConv(inputs, outputs, half_width=support, bins=bins, hidden=hidden, stride=stride, bias=False,
                           dim=domain.dim, generator=generator)  # fmt: skip
            return [conv, BatchNorm(outputs)]

        layers = [*convolve(in_channels, widths[0], supports[0], 2), Activation("relu"),
                  *convolve(widths[0], widths[1], supports[1], 2), Activation("relu")]  # fmt: skip
        for _ in range(self.blocks):
            inner = [
                *convolve(widths[1], widths[1], supports[2]),
                Activation("relu"),
                *convolve(widths[1], widths[1], supports[2]),
            ]
            layers += [Residual(*inner), Activation("relu")]
        self.trunk = Sequential(*layers)
        self.integral = GlobalIntegral()
        self.head = nn.Sequential(linear(widths[1], head, generator), nn.ReLU(), linear(head, classes, generator))

    def compute(self, sampled: Sampled) -> Tensor:
        return self.head(self.integral(self.trunk(sampled)))


class INRNet4(INRNet2):
    """INR-Net-4: INR-Net-2 with a residual block of two MLP convolutions after the strided ones."""

    name = "inr-net-4"
    blocks = 1
