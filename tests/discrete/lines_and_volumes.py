"""Networks for sound (one dimension) and for volumes (three)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Audio(nn.Module):
    """Wide kernels with stride 4 on the waveform, group normalization, max pooling."""

    def __init__(self, width: int = 8, channels: int = 1, classes: int = 10):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(channels, width, 16, stride=4, padding=6), nn.GroupNorm(2, width)
        self.conv2, self.norm2 = nn.Conv1d(width, 2 * width, 3, padding=1), nn.GroupNorm(4, 2 * width)
        self.pool = nn.MaxPool1d(4)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.norm1(self.conv1(x))))
        x = self.pool(F.elu(self.norm2(self.conv2(x))))
        return self.fc(x.mean(-1))


class WaveNet(nn.Module):
    """Causal dilated convolutions with gates: what a sample becomes depends on those before it alone."""

    def __init__(self, width: int = 8, channels: int = 1, outputs: int = 2):
        super().__init__()
        self.inputs = nn.Conv1d(channels, width, 1)
        self.layers = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(4))
        self.outputs = nn.Conv1d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.inputs(x), 0
        for i, (layer, skip) in enumerate(zip(self.layers, self.skips, strict=True)):
            filtered, gate = layer(F.pad(x, (2**i, 0))).chunk(2, dim=1)
            y = skip(torch.tanh(filtered) * torch.sigmoid(gate))
            x, total = x + y, total + y
        return self.outputs(F.leaky_relu(total))


class Volume(nn.Module):
    """A classifier of volumes: max pooling, then a stride."""

    def __init__(self, width: int = 4, channels: int = 1, classes: int = 4):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(channels, width, 3, padding=1), nn.InstanceNorm3d(width, affine=True), nn.LeakyReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(width, 2 * width, 3, stride=2, padding=1), nn.InstanceNorm3d(2 * width), nn.LeakyReLU(),
            nn.Conv3d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm3d(2 * width), nn.Softplus(),
        )  # fmt: skip
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_max_pool3d(self.features(x), 1)
        return self.head(torch.flatten(x, 1))


class VolumeUNet(nn.Module):
    """One level down and up again, with transposed convolutions."""

    def __init__(self, width: int = 4, channels: int = 1, classes: int = 2):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv3d(channels, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU())
        self.coarse = nn.Sequential(nn.AvgPool3d(2), nn.Conv3d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose3d(2 * width, width, 2, stride=2)
        self.out = nn.Conv3d(2 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        return self.out(torch.cat([fine, self.up(self.coarse(fine))], dim=1))
