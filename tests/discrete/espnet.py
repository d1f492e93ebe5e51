"""ESPNet (Mehta et al. 2018, arXiv 1803.06815), the whole network with its decoder, and the weights trained on CamVid.

Names of parameters are those of the published weights.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from discrete.normalizing import Normalized

FILE = "espnet_p_2_q_8_camvid.pth"
# of BGR in 0..255; the published networks divide by 255 once more after normalizing
MEAN, STD = (110.331, 108.409, 105.033), (72.126, 72.691, 69.904)
EPS = 1e-3
CLASSES = 12
DILATIONS = (1, 2, 4, 8, 16)


class NormAct(nn.Module):
    """Batch normalization and a PReLU with a slope for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=EPS)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class ConvNormAct(NormAct):
    """A convolution that keeps the size, or halves it, before them."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__(outputs)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.conv(x))


class Plain(nn.Module):
    """A convolution alone."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        padding = kernel // 2 * dilation
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pyramid(nn.Module):
    """Reduce channels, convolve with five dilations, add the results up from small to large, and put them side by side."""

    def __init__(self, inputs: int, outputs: int, reduce: Plain):
        super().__init__()
        width = outputs // len(DILATIONS)
        self.c1 = reduce
        for dilation in DILATIONS:
            wide = outputs - 4 * width if dilation == 1 else width
            setattr(self, f"d{dilation}", Plain(width, wide, 3, dilation=dilation))

    def merged(self, x: Tensor) -> Tensor:
        x = self.c1(x)
        first, total = self.d1(x), self.d2(x)
        sums = [first, total]
        for branch in (self.d4, self.d8, self.d16):
            total = total + branch(x)
            sums.append(total)
        return torch.cat(sums, 1)


class Block(Pyramid):
    """The ESP block, with or without the identity beside it."""

    def __init__(self, inputs: int, outputs: int, residual: bool = True):
        super().__init__(inputs, outputs, Plain(inputs, outputs // len(DILATIONS), 1))
        self.bn = NormAct(outputs)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        merged = self.merged(x)
        return self.bn(x + merged if self.residual else merged)


class Down(Pyramid):
    """The ESP block whose reduction halves the size."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, Plain(inputs, outputs // len(DILATIONS), 3, stride=2))
        self.bn = nn.BatchNorm2d(outputs, eps=EPS)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.merged(x)))


class Encoder(nn.Module):
    """Three levels, at 1/2, 1/4 and 1/8 of the image's size, the shrunk image put beside the first two."""

    def __init__(self, classes: int, p: int, q: int):
        super().__init__()
        self.level1 = ConvNormAct(3, 16, 3, 2)
        self.shrink = nn.AvgPool2d(3, stride=2, padding=1)
        self.b1 = NormAct(16 + 3)
        self.level2_0 = Down(16 + 3, 64)
        self.level2 = nn.ModuleList(Block(64, 64) for _ in range(p))
        self.b2 = NormAct(128 + 3)
        self.level3_0 = Down(128 + 3, 128)
        self.level3 = nn.ModuleList(Block(128, 128) for _ in range(q))
        self.b3 = NormAct(256)
        self.classifier = Plain(256, classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = self.shrink(x)
        quarter = self.shrink(half)
        level1 = self.b1(torch.cat([self.level1(x), half], 1))
        first = level2 = self.level2_0(level1)
        for block in self.level2:
            level2 = block(level2)
        level2 = self.b2(torch.cat([level2, first, quarter], 1))
        first = level3 = self.level3_0(level2)
        for block in self.level3:
            level3 = block(level3)
        return level1, level2, self.classifier(self.b3(torch.cat([first, level3], 1)))


class ESPNet(nn.Module):
    """The encoder and a decoder that doubles the size three times: (b, 3, 8h, 8w) -> logits (b, classes, 8h, 8w).

    Args:
        p, q: blocks at 1/4 and at 1/8 of the size.
    """

    def __init__(self, classes: int = CLASSES, p: int = 2, q: int = 8):
        super().__init__()
        self.encoder = Encoder(classes, p, q)
        self.level3_C = Plain(128 + 3, classes, 1)
        self.br = nn.BatchNorm2d(classes, eps=EPS)
        self.up_l3 = nn.Sequential(nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False))
        self.combine_l2_l3 = nn.Sequential(NormAct(2 * classes), Block(2 * classes, classes, residual=False))
        self.up_l2 = nn.Sequential(nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False), NormAct(classes))
        self.conv = ConvNormAct(16 + 3 + classes, classes, 3)
        self.classifier = nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        level1, level2, deep = self.encoder(x)
        deep = self.up_l3(self.br(deep))
        middle = self.up_l2(self.combine_l2_l3(torch.cat([self.level3_C(level2), deep], 1)))
        return self.classifier(self.conv(torch.cat([middle, level1], 1)))


def espnet() -> nn.Module:
    """ESPNet with 2 and 8 blocks and 12 classes; takes RGB in [0, 1]."""
    return Normalized(ESPNet(), [m / 255 for m in MEAN], STD, flip=True)


def load_espnet(folder: Path) -> nn.Module:
    """Return the network trained on CamVid, in eval mode: RGB in [0, 1] (b, 3, 8h, 8w) -> 12 logits a pixel.

    Args:
        folder: the shared data; the weights lie in its `data/pretrained`.
    """
    module = espnet()
    state = torch.load(Path(folder) / "data" / "pretrained" / FILE, map_location="cpu", weights_only=True)
    module.net.load_state_dict(state)
    return module.eval()
