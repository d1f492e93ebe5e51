"""Floor 7: discrete networks become INR-Nets (Wang & Golland 2023, section 4.1, property 4).

tracing   what a torch module does, recorded
programs  the recording -> a program
settling  which of its levels have to live on their own grids
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrbridge.conversion.programs import trace
from inrbridge.conversion.settling import settled_grids
from inrbridge.domains import Box, Domain, Torus
from inrbridge.errors import ConfigError
from inrbridge.models.converted import ConvertedDenseNet, ConvertedNet, checked_resolution
from inrbridge.models.converted.arguments import own_tensor
from inrbridge.models.net import INRNet

EXAMPLES = 2


def convert(module: nn.Module, domain: Domain, resolution, *, in_channels: int | None = None, kernel: str = "reconstruct",
            order: int = 2, neighbors: int | None = None, oversampling: float = 1.0,
            inner: str = "points") -> INRNet:  # fmt: skip
    """Turn a trained network on pixels into an INR-Net.

    Args:
        module: takes a batch (b, c, *resolution); returns class scores (b, classes) or maps (b, classes, *shape). It is not
            changed, and shares no weights with the result.
        domain: a Box or Torus that the pixels are the cells of.
        resolution: pixels along each axis of the domain, in the order of the axes of the array.
        in_channels: c; None: of the first weight.
    """
    if not isinstance(domain, Box | Torus) or not 1 <= domain.dim <= 3:
        raise ConfigError(f"Got {domain} to convert a network on, expected a Box or Torus of 1 to 3 dimensions.")
    shape = checked_resolution(domain, resolution)
    channels = _channels(module, domain.dim) if in_channels is None else in_channels
    like = own_tensor(module)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(EXAMPLES, channels, *shape, generator=generator).to(like)
    program, weights, output = trace(module, example)
    if not isinstance(output, Tensor) or output.ndim < 1:
        raise ConfigError(
            f"Got an output of type {type(output).__name__} from {type(module).__name__}, expected class scores (b, classes) or "
            "maps (b, classes, *shape); wrap the module in one that returns the tensor you want."
        )
    dense = output.ndim == domain.dim + 2 and max(output.shape[2:]) > 1
    options = {"kernel": kernel, "order": order, "neighbors": neighbors, "oversampling": oversampling, "inner": inner}
    make = ConvertedDenseNet if dense else ConvertedNet
    classes = output.shape[1] if dense else output[0].numel()

    def build(own_grids):
        return make(
            domain, channels, classes, program=program.to_config(), resolution=list(shape), own_grids=own_grids, **options
        )

    net = build(settled_grids(build([]), like, dense))
    net.network.load_state_dict(weights)
    return net.to(like).train(module.training)


def _channels(module: nn.Module, dim: int) -> int:
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return layer.in_channels
    raise ConfigError("Got a network without convolutions, expected in_channels: the channels of its input.")
