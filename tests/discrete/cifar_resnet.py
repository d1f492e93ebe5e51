"""Residual networks for CIFAR-10 (He et al. 2016, section 4.2) with shortcuts "A": every second pixel, zero channels beside."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discrete.normalizing import Normalized

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = {20: "resnet20-12fca82f.th", 44: "resnet44-014dd654.th"}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.more = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.more:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """Three stages of (depth - 2) / 6 blocks each, on 32x32, 16x16 and 8x8 pixels."""

    def __init__(self, depth: int, width: int = 16, channels: int = 3, classes: int = 10):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks, 1)
        self.layer2 = self._stage(width, 2 * width, blocks, 2)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2)
        self.linear = nn.Linear(4 * width, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inputs, outputs, stride), *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.size(3))
        return self.linear(x.view(x.size(0), -1))


def cifar_resnet20() -> nn.Module:
    """20 layers, 16 to 64 channels; takes RGB in [0, 1]."""
    return Normalized(CifarResNet(20), MEAN, STD)


def cifar_resnet44() -> nn.Module:
    """44 layers, 16 to 64 channels; takes RGB in [0, 1]."""
    return Normalized(CifarResNet(44), MEAN, STD)


def load_cifar_resnet(depth: int, folder: Path) -> nn.Module:
    """Return the pretrained network of 20 or 44 layers, in eval mode; it takes RGB in [0, 1] (b, 3, 32, 32).

    Args:
        folder: the shared data; the weights lie in its `data/pretrained`.
    """
    module = {20: cifar_resnet20, 44: cifar_resnet44}[depth]()
    path = Path(folder) / "data" / "pretrained" / FILES[depth]
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    module.net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return module.eval()
