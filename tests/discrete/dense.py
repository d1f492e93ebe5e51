"""Networks whose outputs are maps: U-Nets, attention gates, a non-local block, DeepLab-like, super-resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DoubleConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, mode: str = "zeros"):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, padding_mode=mode, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, padding_mode=mode, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


def doubling(up: str, width: int) -> nn.Module:
    """From `width` channels to half of them on twice the size: "transposed", "bilinear", "corners" (aligned) or "nearest"."""
    if up == "transposed":
        return nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2)
    options = {} if up == "nearest" else {"align_corners": up == "corners"}
    mode = "nearest" if up == "nearest" else "bilinear"
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=mode, **options), nn.Conv2d(width, width // 2, kernel_size=1))


class UNet(nn.Module):
    """Two levels down by max pooling and up again, with skips.

    Args:
        up: how the size doubles, see `doubling`.
        mode: padding of the convolutions: "zeros", "circular", "reflect" or "replicate".
        fit: for odd sizes: what was enlarged is made as large as the skip, "pad" or "resize".
    """

    def __init__(self, width: int = 8, channels: int = 3, classes: int = 4, up: str = "transposed", mode: str = "zeros",
                 fit: str | None = None):  # fmt: skip
        super().__init__()
        self.fit = fit
        self.inc, self.pool = DoubleConv(channels, width, mode), nn.MaxPool2d(2)
        self.down1, self.down2 = DoubleConv(width, 2 * width, mode), DoubleConv(2 * width, 4 * width, mode)
        self.up1, self.conv1 = doubling(up, 4 * width), DoubleConv(4 * width, 2 * width, mode)
        self.up2, self.conv2 = doubling(up, 2 * width), DoubleConv(2 * width, width, mode)
        self.outc = nn.Conv2d(width, classes, kernel_size=1)

    def skip(self, number: int, fine: Tensor, coarse: Tensor) -> Tensor:
        return fine

    def joined(self, fine: Tensor, coarse: Tensor) -> Tensor:
        if self.fit == "resize" and coarse.shape[2:] != fine.shape[2:]:
            coarse = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
        if self.fit == "pad":
            rows, columns = fine.size(2) - coarse.size(2), fine.size(3) - coarse.size(3)
            coarse = F.pad(coarse, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return torch.cat([fine, coarse], dim=1)

    def bottom(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(self.pool(x1))
        x3 = self.bottom(self.down2(self.pool(x2)))
        up = self.up1(x3)
        x = self.conv1(self.joined(self.skip(1, x2, up), up))
        up = self.up2(x)
        x = self.conv2(self.joined(self.skip(2, x1, up), up))
        return self.outc(x)


class Gate(nn.Module):
    """Weigh a skip by what comes from below (Oktay et al. 2018)."""

    def __init__(self, width: int):
        super().__init__()
        self.skip, self.below = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width, width // 2, 1)
        self.psi = nn.Conv2d(width // 2, 1, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return fine * torch.sigmoid(self.psi(F.relu(self.skip(fine) + self.below(coarse))))


class GatedUNet(UNet):
    """With attention gates in the skips."""

    def __init__(self, width: int = 8, **options):
        super().__init__(width, **options)
        self.gate1, self.gate2 = Gate(2 * width), Gate(width)

    def skip(self, number: int, fine: Tensor, coarse: Tensor) -> Tensor:
        return getattr(self, f"gate{number}")(fine, coarse)


class NonLocal(nn.Module):
    """Each cell sees all cells (Wang et al. 2018, embedded Gaussian)."""

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.theta, self.phi, self.g = (nn.Conv2d(width, half, 1) for _ in range(3))
        self.out = nn.Conv2d(half, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width = x.size(0), x.size(2), x.size(3)
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))
        attention = torch.softmax(torch.matmul(theta.transpose(1, 2), phi), dim=-1)
        y = torch.matmul(g, attention.transpose(1, 2)).view(batch, -1, height, width)
        return x + self.out(y)


class NonLocalUNet(UNet):
    """With a non-local block at the bottom."""

    def __init__(self, width: int = 8, **options):
        super().__init__(width, **options)
        self.nonlocal_block = NonLocal(4 * width)

    def bottom(self, x: Tensor) -> Tensor:
        return self.nonlocal_block(x)


class ASPP(nn.Module):
    """1x1, 3x3 of several dilations, and the mean of the image, side by side."""

    def __init__(self, inputs: int, width: int, dilations: tuple[int, ...] = (2, 4)):
        super().__init__()
        self.convs = nn.ModuleList([self._branch(inputs, width, 1, 0, 1)])
        self.convs.extend(self._branch(inputs, width, 3, d, d) for d in dilations)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, width, 1), nn.ReLU())
        self.project = self._branch(width * (len(dilations) + 2), width, 1, 0, 1)

    @staticmethod
    def _branch(inputs: int, outputs: int, kernel: int, padding: int, dilation: int) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat([conv(x) for conv in self.convs] + [pooled], dim=1))


class DeepLab(nn.Module):
    """Stride 4, dilated convolutions, ASPP; the logits are enlarged to the size of the image."""

    def __init__(self, width: int = 8, channels: int = 3, classes: int = 4, mode: str = "bilinear", align_corners: bool = False):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.aspp = ASPP(2 * width, 2 * width)
        self.classifier = nn.Conv2d(2 * width, classes, 1)
        self.mode, self.align_corners = mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        input_shape = x.shape[-2:]
        x = self.classifier(self.aspp(self.backbone(x)))
        return F.interpolate(x, size=input_shape, mode=self.mode, align_corners=self.align_corners)


class SuperResolution(nn.Module):
    """Residual blocks on the coarse grid, `PixelShuffle`, a bicubic enlargement of the image beside it.

    Args:
        fold: first fold 2x2 pixels into channels (`PixelUnshuffle`), so that the image keeps its size.
    """

    def __init__(self, width: int = 8, channels: int = 3, fold: bool = False):
        super().__init__()
        self.fold = nn.PixelUnshuffle(2) if fold else None
        self.head = nn.Conv2d(channels * 4 if fold else channels, width, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.PReLU(), nn.Conv2d(width, width, 3, padding=1))
        self.tail = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(width, channels, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x if self.fold is None else self.fold(x))
        y = self.tail(y + self.body(y) * 0.5)
        if self.fold is not None:
            return x + y
        return (y + F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)).clamp(-2, 2)
