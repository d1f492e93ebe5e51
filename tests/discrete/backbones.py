"""Classical classifiers: ResNet-18-, VGG-, LeNet-, DenseNet- and Inception-like."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Of ResNet-18: two 3x3 convolutions; a 1x1 convolution with stride where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """A 7x7 stem with stride 2, max pooling, four stages of two blocks.

    Args:
        groups: of group normalization, in place of batch normalization.
    """

    def __init__(self, width: int = 8, channels: int = 3, classes: int = 10, groups: int = 0):
        super().__init__()
        norm = (lambda c: nn.GroupNorm(groups, c)) if groups else nn.BatchNorm2d
        self.conv1 = nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        inputs, stages = width, []
        for stage in range(4):
            outputs = width * 2**stage
            first = BasicBlock(inputs, outputs, 1 + (stage > 0), norm)
            stages.append(nn.Sequential(first, BasicBlock(outputs, outputs, 1, norm)))
            inputs = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)


class VGG(nn.Module):
    """3x3 convolutions and max pooling; then 2x2 averages, one after the other in a vector."""

    def __init__(self, width: int = 8, channels: int = 3, classes: int = 10, dropout: float = 0.0):
        super().__init__()
        layers = []
        for inputs, outputs in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            nn.Linear(4 * width * 4, 4 * width), nn.ReLU(True), nn.Dropout(dropout), nn.Linear(4 * width, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


class LeNet(nn.Module):
    """LeNet-5 for 28x28 pixels: convolutions without padding, a vector of all that is left."""

    def __init__(self, channels: int = 1, classes: int = 10, pool: str = "avg"):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4 * 4, 32)
        self.fc2 = nn.Linear(32, classes)
        self.pool = {"avg": F.avg_pool2d, "max": F.max_pool2d}[pool]

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.tanh(self.conv1(x)), 2)
        x = self.pool(torch.tanh(self.conv2(x)), 2)
        x = x.flatten(start_dim=1)
        return F.log_softmax(self.fc2(torch.tanh(self.fc1(x))), dim=1)


class DenseLayer(nn.Module):
    """Normalization first; reads all that came before, side by side."""

    def __init__(self, inputs: int, growth: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseBlock(nn.ModuleList):
    """Layers of which each reads the results of all before it."""

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self:
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    """Two dense blocks with a transition (1x1, mean of 2x2) between them."""

    def __init__(self, growth: int = 4, channels: int = 3, classes: int = 10):
        super().__init__()
        width = 2 * growth
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.block1 = DenseBlock(DenseLayer(width + i * growth, growth) for i in range(3))
        full = width + 3 * growth
        self.transition = nn.Sequential(
            nn.BatchNorm2d(full), nn.ReLU(), nn.Conv2d(full, full // 2, 1, bias=False), nn.AvgPool2d(2, stride=2)
        )
        half = full // 2
        self.block2 = DenseBlock(DenseLayer(half + i * growth, growth) for i in range(3))
        self.norm = nn.BatchNorm2d(half + 3 * growth)
        self.classifier = nn.Linear(half + 3 * growth, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.transition(self.block1(self.stem(x))))
        x = F.adaptive_avg_pool2d(F.relu(self.norm(x)), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class Mixed(nn.Module):
    """Branches of different reach, side by side: 1x1; 1x7 then 7x1; 4x4; a mean of 3x3; 2x2 behind a pad."""

    def __init__(self, inputs: int, width: int, include: bool):
        super().__init__()
        self.one = nn.Conv2d(inputs, width, 1)
        self.cross = nn.Sequential(
            nn.Conv2d(inputs, width, 1),
            nn.Conv2d(width, width, (1, 7), padding=(0, 3)),
            nn.Conv2d(width, width, (7, 1), padding=(3, 0)),
        )
        self.four = nn.Conv2d(inputs, width, 4, padding="same")
        self.project = nn.Conv2d(inputs, width, 1)
        self.even = nn.Conv2d(inputs, width, 2)
        self.include = include

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=self.include)
        even = self.even(F.pad(x, (0, 1, 0, 1)))
        return F.relu(torch.cat([self.one(x), self.cross(x), self.four(x), self.project(pooled), even], dim=1))


class Inception(nn.Module):
    """Mixed branches, a stride along one axis only, max pooling with or without windows that hang over the border.

    Args:
        include: zeros outside count in the means.
        ceil: windows of the max pooling may hang over the border.
    """

    def __init__(self, width: int = 4, channels: int = 3, classes: int = 10, include: bool = True, ceil: bool = False):
        super().__init__()
        self.stem = nn.Conv2d(channels, 2 * width, 3, stride=(2, 1), padding=1)
        self.mixed1 = Mixed(2 * width, width, include)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=ceil)
        self.mixed2 = Mixed(5 * width, width, include)
        self.fc = nn.Linear(5 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixed1(F.relu6(self.stem(x)))
        x = self.mixed2(self.pool(x))
        return self.fc(x.mean(dim=(2, 3)))
