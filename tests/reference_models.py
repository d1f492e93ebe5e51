"""Discrete twins of the architectures, written with torch alone, and the copying of weights into them.

A twin registers its layers in the order of the net it is the twin of, so that weights go over one by one; a pointwise
layer (o, i) becomes a 1x1 convolution (o, i, 1, ..).
"""

import itertools

import torch
from torch import nn

from inrbridge.domains import Box
from inrbridge.nn import Sampled
from inrbridge.sampling import grid

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def copy_weights(net: nn.Module, twin: nn.Module) -> nn.Module:
    """Copy parameters and running statistics of a net into its twin, in order."""
    mine, theirs = net.state_dict(), twin.state_dict()
    assert len(mine) == len(theirs), (list(mine), list(theirs))
    for (name, value), (other, place) in zip(mine.items(), theirs.items(), strict=True):
        assert value.numel() == place.numel() and value.shape[:2] == place.shape[:2], (name, value.shape, other, place.shape)
        place.copy_(value.reshape(place.shape))
    return twin.to(next(net.parameters()).dtype).train(net.training)


def randomize_statistics(net: nn.Module, generator: torch.Generator) -> None:
    """Give normalizations statistics and scales that a wrong copy would betray."""
    for name, tensor in net.state_dict().items():
        if "running_var" in name or ("norm" in name and name.endswith("weight")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif "running_mean" in name:
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))


def image_on_grid(shape, channels, dtype, generator, count=3):
    """Random images (b, c, *shape), and the same values on the grid of a box of unit cells."""
    image = torch.randn(count, channels, *shape, dtype=dtype, generator=generator)
    box = Box((0.0,) * len(shape), tuple(float(n) for n in shape))
    return image, Sampled(grid(box, shape, dtype=dtype), image.flatten(2).transpose(1, 2).contiguous())


class ResNetTwin(nn.Module):
    """Stages of basic blocks: a 3x3 stem, projection shortcuts where points or channels change."""

    def __init__(self, dim, channels, classes, widths, blocks, strides):
        super().__init__()
        conv, norm = CONV[dim], NORM[dim]
        self.stem = nn.Sequential(conv(channels, widths[0], 3, padding=1, bias=False), norm(widths[0]), nn.ReLU())
        self.blocks = nn.ModuleList()
        channels = widths[0]
        for width, count, first in zip(widths, blocks, strides, strict=True):
            for stride in [first] + [1] * (count - 1):
                body = nn.Sequential(
                    conv(channels, width, 3, stride, 1, bias=False), norm(width), nn.ReLU(),
                    conv(width, width, 3, 1, 1, bias=False), norm(width),
                )  # fmt: skip
                shortcut = nn.Identity()
                if stride > 1 or width != channels:
                    shortcut = nn.Sequential(conv(channels, width, 1, stride, bias=False), norm(width))
                self.blocks.append(nn.ModuleDict({"body": body, "shortcut": shortcut}))
                channels = width
        self.head = nn.Linear(channels, classes)

    def forward(self, image):
        image = self.stem(image)
        for block in self.blocks:
            image = torch.relu(block["body"](image) + block["shortcut"](image))
        return self.head(image.flatten(2).mean(2))


class UNetTwin(nn.Module):
    """Strided convolutions down, nearest upsampling and concatenation up, a 1x1 head."""

    def __init__(self, dim, channels, classes, widths, convs):
        super().__init__()
        conv, norm = CONV[dim], NORM[dim]

        def block(inputs, outputs, stride=1):
            layers = []
            for i in range(convs):
                layers += [
                    conv(outputs if i else inputs, outputs, 3, 1 if i else stride, 1, bias=False),
                    norm(outputs),
                    nn.ReLU(),
                ]
            return nn.Sequential(*layers)

        pairs = list(itertools.pairwise(widths))
        self.head = conv(widths[0], classes, 1)
        self.down = nn.ModuleList([block(channels, widths[0]), *(block(a, b, 2) for a, b in pairs)])
        self.up = nn.ModuleList(block(a + b, a) for a, b in reversed(pairs))

    def forward(self, image):
        kept = []
        for block in self.down:
            kept.append(block(kept[-1] if kept else image))
        image = kept.pop()
        for block in self.up:
            fine = kept.pop()
            wide = nn.functional.interpolate(image, scale_factor=2, mode="nearest")
            wide = wide[(slice(None), slice(None), *(slice(n) for n in fine.shape[2:]))]  # odd sides were rounded up
            image = block(torch.cat([fine, wide], 1))
        return self.head(image)
