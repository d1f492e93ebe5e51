"""Classifiers of depthwise and grouped convolutions: EfficientNet-, ShuffleNet- and ConvNeXt-like."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Channels weighted by a small network of their means."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale = nn.SiLU(inplace=True), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


class DropPath(nn.Module):
    """Drop whole branches in training, with probability p for each item; p = 0 is the identity."""

    def __init__(self, p: float = 0.0):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.p
        return x * kept / (1 - self.p)


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3),
    ]
    return nn.Sequential(*layers, nn.SiLU(inplace=True)) if act else nn.Sequential(*layers)


class MBConv(nn.Module):
    """Widen, convolve each channel alone, squeeze and excite, narrow again."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int):
        super().__init__()
        wide = inputs * expand
        layers = [conv_norm(inputs, wide, 1)] if expand > 1 else []
        layers += [conv_norm(wide, wide, kernel, stride, groups=wide), SqueezeExcitation(wide, max(1, inputs // 4))]
        self.block = nn.Sequential(*layers, conv_norm(wide, outputs, 1, act=False))
        self.drop = DropPath(0.0)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        if self.residual:
            y = self.drop(y)
            y = y + x
        return y


class EfficientNet(nn.Module):
    """Depthwise separable convolutions of 3x3 and 5x5 with squeeze and excitation."""

    def __init__(self, width: int = 8, channels: int = 3, classes: int = 10, dropout: float = 0.0):
        super().__init__()
        self.features = nn.Sequential(
            conv_norm(channels, width, 3, 2),
            MBConv(width, width, 3, 1, 1),
            MBConv(width, 2 * width, 3, 2, 4),
            MBConv(2 * width, 2 * width, 5, 1, 4),
            MBConv(2 * width, 3 * width, 5, 2, 4),
            conv_norm(3 * width, 8 * width, 1),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(p=dropout, inplace=True), nn.Linear(8 * width, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.size()
    x = x.view(b, groups, c // groups, h, w)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(b, -1, h, w)


class ShuffleUnit(nn.Module):
    """Half of the channels pass by; grouped 1x1 and depthwise 3x3 convolutions; then the halves are shuffled."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        half = channels // 2
        self.stride = stride
        self.branch = nn.Sequential(
            nn.Conv2d(half if stride == 1 else channels, half, 1, groups=2, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.Hardswish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch(x2)), dim=1)
        else:
            passed = F.avg_pool2d(x, 3, 2, 1)[:, : x.shape[1] // 2]
            out = torch.cat((passed, self.branch(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNet(nn.Module):
    """Units that keep and that halve the size, in turn."""

    def __init__(self, width: int = 16, channels: int = 3, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.stage = nn.Sequential(ShuffleUnit(width, 1), ShuffleUnit(width, 2), ShuffleUnit(width, 1))
        self.conv5 = nn.Conv2d(width, 2 * width, 1)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv5(self.stage(self.conv1(x)))
        return self.fc(x.mean([2, 3]))


class LayerNorm2d(nn.LayerNorm):
    """Normalization over the channels of (b, c, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Channels compete by their norms over the image (Woo et al. 2023); channels last."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        relative = size / (size.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * relative) + self.beta + x


class Permute(nn.Module):
    """Another order of axes, as a layer."""

    def __init__(self, dims: list[int]):
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return torch.permute(x, self.dims)


class ConvNeXtSequence(nn.Module):
    """The block of ConvNeXt, or of its second version, as one sequence of layers."""

    def __init__(self, width: int, response: bool = False):
        super().__init__()
        norm = [ResponseNorm(4 * width)] if response else []
        self.block = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width),
            Permute([0, 2, 3, 1]), nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width), nn.GELU(), *norm, nn.Linear(4 * width, width),
            Permute([0, 3, 1, 2]),
        )  # fmt: skip
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        result = self.layer_scale * self.block(x)
        result += x
        return result


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, then channels last: normalization and a perceptron, scaled."""

    def __init__(self, width: int):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        x = self.gamma * self.pwconv2(self.act(self.pwconv1(x)))
        return shortcut + x.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """A stem of 4x4 patches, two stages, a 2x2 convolution with stride between them."""

    def __init__(self, width: int = 8, channels: int = 3, classes: int = 10,
                 block: Callable[[int], nn.Module] = ConvNeXtBlock):  # fmt: skip
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, kernel_size=4, stride=4), LayerNorm2d(width, eps=1e-6))
        self.stage1 = nn.Sequential(block(width), block(width))
        self.downsample = nn.Sequential(LayerNorm2d(width, eps=1e-6), nn.Conv2d(width, 2 * width, kernel_size=2, stride=2))
        self.stage2 = nn.Sequential(block(2 * width))
        self.norm = nn.LayerNorm(2 * width, eps=1e-6)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.downsample(self.stage1(self.stem(x))))
        return self.head(self.norm(x.mean([-2, -1])))
