"""All small networks by name, with what they take: one table for parametrized tests."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from discrete import backbones, dense, generative, lines_and_volumes, mobile, tokens


class Family(NamedTuple):
    """A network and its input.

    Attributes:
        factory: makes the network in eval mode, weights and statistics drawn with seed 0: the same in every call. It takes
            `seed=` and the options of the network.
        channels: of the input.
        resolution: samples along each axis of the input.
    """

    factory: Callable[..., nn.Module]
    channels: int
    resolution: tuple[int, ...]


# name -> (class, options, channels, resolution)
_TABLE = {
    "resnet18": (backbones.ResNet, {}, 3, (64, 64)),
    "resnet18_groups": (backbones.ResNet, {"groups": 4}, 3, (64, 64)),
    "vgg": (backbones.VGG, {}, 3, (32, 32)),
    "vgg_uneven": (backbones.VGG, {}, 3, (40, 24)),
    "lenet": (backbones.LeNet, {}, 1, (28, 28)),
    "lenet_max": (backbones.LeNet, {"pool": "max"}, 1, (28, 28)),
    "densenet": (backbones.DenseNet, {}, 3, (32, 32)),
    "inception": (backbones.Inception, {}, 3, (32, 16)),
    "inception_exclusive": (backbones.Inception, {"include": False, "ceil": True}, 3, (32, 16)),
    "efficientnet": (mobile.EfficientNet, {}, 3, (32, 32)),
    "shufflenet": (mobile.ShuffleNet, {}, 3, (32, 32)),
    "convnext": (mobile.ConvNeXt, {}, 3, (32, 32)),
    "convnext_sequence": (mobile.ConvNeXt, {"block": mobile.ConvNeXtSequence}, 3, (32, 32)),
    "convnext_response": (mobile.ConvNeXt, {"block": partial(mobile.ConvNeXtSequence, response=True)}, 3, (32, 32)),
    "vit_multihead": (tokens.ViT, {}, 3, (32, 32)),
    "vit_scaled_dot_product": (tokens.PooledViT, {}, 3, (32, 32)),
    "vit_matmul": (tokens.PooledViT, {"fused": False}, 3, (32, 32)),
    "vit_encoder": (tokens.EncoderViT, {}, 3, (32, 32)),
    "vit_dense": (tokens.EncoderViT, {"dense": True, "classes": 4}, 3, (32, 32)),
    "mixer": (tokens.Mixer, {}, 3, (32, 32)),
    "mobilevit": (tokens.MobileViT, {}, 3, (32, 32)),
    "cvt": (tokens.CvT, {}, 3, (32, 32)),
    "swin": (tokens.Swin, {}, 3, (32, 32)),
    "unet": (dense.UNet, {}, 3, (32, 24)),
    "unet_padded": (dense.UNet, {"fit": "pad"}, 3, (38, 27)),
    "unet_resized": (dense.UNet, {"fit": "resize"}, 3, (38, 27)),
    "unet_bilinear": (dense.UNet, {"up": "bilinear"}, 3, (32, 32)),
    "unet_corners": (dense.UNet, {"up": "corners"}, 3, (32, 32)),
    "unet_nearest_replicate": (dense.UNet, {"up": "nearest", "mode": "replicate"}, 3, (32, 32)),
    "unet_circular": (dense.UNet, {"mode": "circular"}, 3, (32, 32)),
    "unet_reflect": (dense.UNet, {"up": "bilinear", "mode": "reflect"}, 3, (32, 32)),
    "unet_gates": (dense.GatedUNet, {"up": "bilinear"}, 3, (32, 32)),
    "unet_nonlocal": (dense.NonLocalUNet, {}, 3, (32, 32)),
    "deeplab": (dense.DeepLab, {}, 3, (32, 32)),
    "deeplab_corners": (dense.DeepLab, {"align_corners": True}, 3, (32, 32)),
    "deeplab_bicubic": (dense.DeepLab, {"mode": "bicubic"}, 3, (32, 32)),
    "super_resolution": (dense.SuperResolution, {}, 3, (16, 16)),
    "super_resolution_folded": (dense.SuperResolution, {"fold": True}, 3, (32, 32)),
    "discriminator": (generative.Discriminator, {}, 3, (32, 32)),
    "discriminator_patches": (generative.Discriminator, {"patches": True}, 3, (32, 32)),
    "generator": (generative.Generator, {}, 16, (8, 8)),
    "translation": (generative.Translation, {}, 3, (32, 32)),
    "audio": (lines_and_volumes.Audio, {}, 1, (512,)),
    "wavenet": (lines_and_volumes.WaveNet, {}, 1, (128,)),
    "volume": (lines_and_volumes.Volume, {}, 1, (16, 16, 16)),
    "volume_unet": (lines_and_volumes.VolumeUNet, {}, 1, (12, 12, 12)),
}


def all_families() -> dict[str, Family]:
    """Return every small network: name -> (factory, channels, resolution); a forward pass of two items takes under 50 ms."""
    return {
        name: Family(partial(_make, network, **options), channels, resolution)
        for name, (network, options, channels, resolution) in _TABLE.items()
    }


def _make(network: type[nn.Module], seed: int = 0, **options) -> nn.Module:
    return draw(network(**options), torch.Generator().manual_seed(seed)).eval()


@torch.no_grad()
def draw(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw all weights, scales, embeddings and running statistics anew, so that none is 0 or 1 and a wrong use would show."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is None:
                continue
            if name.endswith("weight") and value.ndim > 1:  # of a linear map: as large as ReLU needs to keep differences alive
                bound = (6 / value[0].numel()) ** 0.5
                value.uniform_(-bound, bound, generator=generator)
            elif name == "weight":  # the scale of a normalization, the slope of a PReLU
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                value.normal_(0, 0.2, generator=generator)
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    return module
