"""Parts of generative networks: discriminators, a generator's transposed convolutions, image to image."""

from torch import Tensor, nn


class Discriminator(nn.Module):
    """4x4 convolutions with stride 2; at the end one number for an image, or one for each patch."""

    def __init__(self, width: int = 8, channels: int = 3, patches: bool = False):
        super().__init__()
        self.patches = patches
        self.main = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.InstanceNorm2d(2 * width, affine=True), nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False), nn.InstanceNorm2d(4 * width), nn.LeakyReLU(0.2, True),
            nn.Conv2d(4 * width, 1, 4, 1, 1 if patches else 0),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.main(x)
        return x if self.patches else x.view(-1, 1).squeeze(1)


class Generator(nn.Module):
    """Transposed 4x4 convolutions with stride 2: a small map becomes an image."""

    def __init__(self, width: int = 8, inputs: int = 16, channels: int = 3):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(inputs, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(True),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True),
            nn.ConvTranspose2d(width, channels, 3, 1, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class ReflectedBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Translation(nn.Module):
    """Image to image: padding by reflection as a layer, a transposed 3x3 convolution with one more row at the end."""

    def __init__(self, width: int = 8, channels: int = 3):
        super().__init__()
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), nn.InstanceNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.InstanceNorm2d(2 * width), nn.ReLU(),
            ReflectedBlock(2 * width),
            nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1), nn.InstanceNorm2d(width), nn.ReLU(),
            nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)
