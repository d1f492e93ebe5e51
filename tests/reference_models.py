"""Discrete twins of the architectures, written with torch alone, and the copying of weights into them.

A twin registers its layers in the order of the net it is the twin of, so that weights go over layer by layer; a pointwise
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


def pairs(net: nn.Module, twin: nn.Module):
    """Yield the tensors of net and twin that correspond, with their names: layer by layer, in order of registration."""
    mine, theirs = ([(name, layer) for name, layer in module.named_modules() if own_state(layer)] for module in (net, twin))
    assert len(mine) == len(theirs), ([name for name, _ in mine], [name for name, _ in theirs])
    for (name, layer), (other, place) in zip(mine, theirs, strict=True):
        assert own_state(layer).keys() == own_state(place).keys(), (name, other)
        for key, value in own_state(layer).items():
            yield f"{name}.{key}", value, own_state(place)[key]


def own_state(layer: nn.Module) -> dict:
    """Parameters and buffers of a layer itself, without those of its parts."""
    found = {**layer._parameters, **layer._buffers}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


@torch.no_grad()
def copy_weights(net: nn.Module, twin: nn.Module) -> nn.Module:
    """Copy parameters and running statistics of a net into its twin."""
    twin = twin.to(next(net.parameters()).dtype).train(net.training)
    for name, value, place in pairs(net, twin):
        assert value.numel() == place.numel() and value.shape[:2] == place.shape[:2], (name, value.shape, place.shape)
        place.copy_(value.reshape(place.shape))
    return twin


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

        steps = list(itertools.pairwise(widths))
        self.head = conv(widths[0], classes, 1)
        self.down = nn.ModuleList([block(channels, widths[0]), *(block(a, b, 2) for a, b in steps)])
        self.up = nn.ModuleList(block(a + b, a) for a, b in reversed(steps))

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


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of an image (b, c, ..)."""

    def forward(self, image):
        return super().forward(image.movedim(1, -1)).movedim(-1, 1)


class ChannelScale(nn.Module):
    """Layer scale."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, image):
        return image * self.weight.view(-1, *[1] * (image.ndim - 2))


class ConvNeXtBlock(nn.Module):
    """Channelwise convolution, LayerNorm, two 1x1 convolutions, layer scale, residual."""

    def __init__(self, dim, width, kernel_size, expansion):
        super().__init__()
        conv = CONV[dim]
        self.body = nn.Sequential(
            conv(width, width, kernel_size, padding=kernel_size // 2, groups=width), ChannelNorm(width, eps=1e-6),
            conv(width, expansion * width, 1), nn.GELU(), conv(expansion * width, width, 1),
        )  # fmt: skip
        self.body.append(ChannelScale(width))

    def forward(self, image):
        return image + self.body(image)


class ConvNeXtTwin(nn.Module):
    """Stages of ConvNeXt blocks with kernel = stride convolutions between them; the norm stands after the stem's."""

    def __init__(self, dim, channels, classes, widths, blocks, strides, kernel_size, expansion=4):
        super().__init__()
        conv = CONV[dim]
        layers = []
        for i, (width, count, stride) in enumerate(zip(widths, blocks, strides, strict=True)):
            entry, norm = conv(channels, width, stride, stride), ChannelNorm(channels if i else width, eps=1e-6)
            layers += [norm, entry] if i else [entry, norm]
            layers += [ConvNeXtBlock(dim, width, kernel_size, expansion) for _ in range(count)]
            channels = width
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, classes))

    def forward(self, image):
        return self.head(self.trunk(image).flatten(2).mean(2))


class TransformerTwin(nn.Module):
    """A vision transformer: patch embedding, sinusoids of the patches' centres, torch's own encoder, mean, linear head."""

    def __init__(self, dim, channels, classes, width, depth, heads, hidden, patch, frequencies):
        super().__init__()
        self.embed = CONV[dim](channels, width, patch, patch)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(depth)
        )
        self.norm, self.head, self.frequencies = nn.LayerNorm(width), nn.Linear(width, classes), frequencies

    def positions(self, shape, width, like):
        """Feature (2 l + s) d + a of a patch: sin (s = 0) or cos (s = 1) of 2 pi F_l u_a, repeated over the channels."""
        centres = torch.cartesian_prod(*((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape)).view(-1, len(shape))
        features = [wave(2 * torch.pi * f * centres[:, a]) for f in self.frequencies for wave in (torch.sin, torch.cos)
                    for a in range(len(shape))]  # fmt: skip
        return torch.stack([features[c % len(features)] for c in range(width)], dim=1).to(like)

    def forward(self, image):
        image = self.embed(image)
        tokens = image.flatten(2).transpose(1, 2)
        tokens = tokens + self.positions(image.shape[2:], tokens.shape[2], tokens)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(self.norm(tokens).mean(1))
