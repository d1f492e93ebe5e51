"""Floor 6: the nets of Wang & Golland 2023, appendix D, with MLP kernels: classifiers (D.1) and dense nets (D.2).

The number of a net counts its MLP convolutions. Widths, supports and normalization are options, for the paper leaves them
open; each convolution is followed by batch normalization and a ReLU (appendix C, "We use rectified linear units").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.models.dense import DenseNet
from inrbridge.models.layers import require_counts, require_lists
from inrbridge.models.net import INRNet, linear, node_spacing
from inrbridge.nn import Activation, BatchNorm, GlobalIntegral, MLPConv, Residual, Sampled, Sequential, Upsample, add


class _Convolutions:
    """Makes the MLP convolutions of one net, each with its normalization.

    Args:
        model: name of the net, for errors.
        half_width: half the side of the kernel supports, as shares of half the domain's side; convolutions choose by number.
        bins: Voronoi cells of a support, or None: a kernel for every pair of points. hidden: widths of the kernel networks.
    """

    def __init__(self, model: str, domain: Domain, half_width: Sequence[float], bins: int | None, hidden: Sequence[int],
                 generator: torch.Generator | None):  # fmt: skip
        require_counts(model, bins=bins)
        require_lists(model, hidden=hidden)
        if not all(share > 0 for share in half_width):
            raise ConfigError(f"Got half_width = {half_width} for the model {model}, expected shares above 0.")
        sides = node_spacing(domain, 1)
        self.supports = [tuple(share * side / 2 for side in sides) for share in half_width]
        self.options = {"bins": bins, "hidden": hidden, "generator": generator}

    def __call__(self, inputs: int, outputs: int, number: int, stride: int = 1) -> list[nn.Module]:
        if number >= len(self.supports):
            raise ConfigError(f"Got {len(self.supports)} values of half_width, expected at least {number + 1} for this net.")
        conv = MLPConv(inputs, outputs, half_width=self.supports[number], stride=stride, bias=False, **self.options)
        return [conv, BatchNorm(outputs)]

    def activated(self, inputs: int, outputs: int, number: int, stride: int = 1) -> list[nn.Module]:
        return [*self(inputs, outputs, number, stride), Activation("relu")]


class INRNet2(INRNet):
    """INR-Net-2: two strided MLP convolutions, the global integral, two fully connected layers.

    Args:
        widths: channels after the first and the second convolution.
        half_width: half the side of the kernel supports, as a share of half the domain's side, one for each convolution.
        bins: Voronoi cells of a support (section 4.3), or None: a kernel for every pair of points. hidden: widths of the kernel
            networks.
        head: width between the two fully connected layers.
        points: size of the net's own discretization.
    """

    name = "inr-net-2"
    blocks = 0

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (32, 64),
                 half_width: Sequence[float] = (0.1, 0.2, 0.3), bins: int | None = 64, hidden: Sequence[int] = (16, 16),
                 head: int = 64, points: int = 1024, generator: torch.Generator | None = None):  # fmt: skip
        options = {"widths": list(widths), "half_width": list(half_width), "bins": bins, "hidden": list(hidden),
                   "head": head, "points": points}  # fmt: skip
        super().__init__(domain, in_channels, classes, points, options)
        self.require_points(4**domain.intrinsic_dim)
        first, second = _exactly(2, widths, self.name)
        require_counts(self.name, head=head, points=points)
        convolve = _Convolutions(self.name, domain, half_width, bins, hidden, generator)
        layers = [*convolve.activated(in_channels, first, 0, 2), *convolve.activated(first, second, 1, 2)]
        for _ in range(self.blocks):
            inner = [*convolve.activated(second, second, 2), *convolve(second, second, 2)]
            layers += [Residual(*inner), Activation("relu")]
        self.trunk = Sequential(*layers)
        self.integral = GlobalIntegral()
        self.head = nn.Sequential(linear(second, head, generator), nn.ReLU(), linear(head, classes, generator))

    def compute(self, sampled: Sampled) -> Tensor:
        return self.head(self.integral(self.trunk(sampled)))


class INRNet4(INRNet2):
    """INR-Net-4: INR-Net-2 with a residual block of two MLP convolutions after the strided ones."""

    name = "inr-net-4"
    blocks = 1


class INRNet3(DenseNet):
    """INR-Net-3: three MLP convolutions at one resolution, a pointwise head; the output is a field.

    Args:
        widths: channels after each convolution.
        half_width, bins, hidden: as of INRNet2.
        head, skip: of the pointwise head, as of DenseNet.
        points: size of the net's own discretization.
    """

    name = "inr-net-3"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (32, 32, 32),
                 half_width: Sequence[float] = (0.1, 0.1, 0.1), bins: int | None = 64, hidden: Sequence[int] = (16, 16),
                 head: int = 0, skip: bool = False, points: int = 4096, generator: torch.Generator | None = None):  # fmt: skip
        widths = _exactly(3, widths, self.name)
        require_counts(self.name, points=points)
        options = {"widths": list(widths), "half_width": list(half_width), "bins": bins, "hidden": list(hidden),
                   "head": head, "skip": skip, "points": points}  # fmt: skip
        super().__init__(domain, in_channels, classes, points, options, width=widths[-1], head=head, skip=skip,
                         generator=generator)  # fmt: skip
        convolve = _Convolutions(self.name, domain, half_width, bins, hidden, generator)
        inputs = (in_channels, *widths)
        self.trunk = Sequential(*(layer for i in range(3) for layer in convolve.activated(inputs[i], inputs[i + 1], i)))

    def features(self, sampled: Sampled) -> Sampled:
        return self.trunk(sampled)


class INRNet5(DenseNet):
    """INR-Net-5: a convolution, a strided one, one on the coarse points, nearest neighbours back up, two more convolutions.

    The residual connection between the higher-resolution layers adds the first convolution's features to those of the
    fourth, on the same points.

    Args:
        widths: channels on the fine and on the coarse points.
        half_width: of the kernels on the fine and on the coarse points; bins, hidden: as of INRNet2.
        head, skip: of the pointwise head, as of DenseNet.
        points: size of the net's own discretization.
    """

    name = "inr-net-5"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (32, 64),
                 half_width: Sequence[float] = (0.1, 0.2), bins: int | None = 64, hidden: Sequence[int] = (16, 16),
                 head: int = 0, skip: bool = False, points: int = 4096, generator: torch.Generator | None = None):  # fmt: skip
        fine, coarse = _exactly(2, widths, self.name)
        require_counts(self.name, points=points)
        options = {"widths": list(widths), "half_width": list(half_width), "bins": bins, "hidden": list(hidden),
                   "head": head, "skip": skip, "points": points}  # fmt: skip
        super().__init__(domain, in_channels, classes, points, options, width=fine, head=head, skip=skip, generator=generator)
        self.require_points(2**domain.intrinsic_dim)
        convolve = _Convolutions(self.name, domain, half_width, bins, hidden, generator)
        self.first = Sequential(*convolve.activated(in_channels, fine, 0))
        self.coarse = Sequential(*convolve.activated(fine, coarse, 0, 2), *convolve.activated(coarse, coarse, 1))
        self.upsample = Upsample(2)
        self.fourth = Sequential(*convolve(coarse, fine, 1))
        self.last = Sequential(Activation("relu"), *convolve.activated(fine, fine, 0))

    def features(self, sampled: Sampled) -> Sampled:
        first = self.first(sampled)
        back = self.upsample(self.coarse(first), first.discretization)
        return self.last(add(first, self.fourth(back)))


def _exactly(count: int, widths: Sequence[int], model: str) -> Sequence[int]:
    require_lists(model, widths=widths)
    if len(widths) != count:
        raise ConfigError(f"Got {len(widths)} widths for the model {model}, expected {count}.")
    return widths
