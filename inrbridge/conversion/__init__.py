"""Floor 7: discrete networks become INR-Nets (Wang & Golland 2023, section 4.1, property 4).

tracing   what a torch module does, recorded
programs  the recording -> a program
settling  which of its levels have to live on their own grids
examples  the fields that a net is adapted on
calibrating, correcting  weights adapted to points of one kind: in one pass over fields, without gradients
finetuning  the same by a short distillation
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.random import fork_rng

from inrbridge.conversion import calibrating
from inrbridge.conversion.examples import Fields
from inrbridge.conversion.programs import trace
from inrbridge.conversion.settling import settle
from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Domain, Torus
from inrbridge.errors import ConfigError
from inrbridge.models.converted import ConvertedDenseNet, ConvertedNet, checked_resolution
from inrbridge.models.converted.arguments import own_tensor
from inrbridge.models.net import INRNet

EXAMPLES = 2


def convert(module: nn.Module, domain: Domain, resolution, *, in_channels: int | None = None, kernel: str = "reconstruct",
            order: int = 2, neighbors: int | None = None, oversampling: float = 4.0, levels: str | None = None,
            reader: str | None = None, calibrate: Fields | None = None,
            points: Discretization | Sequence[Discretization] | None = None) -> INRNet:  # fmt: skip
    """Turn a trained network on pixels into an INR-Net.

    Args:
        module: takes a batch (b, c, *resolution); returns class scores (b, classes) or maps (b, classes, *shape). It is not
            changed, and shares no weights with the result.
        domain: a Box or Torus that the pixels are the cells of.
        resolution: pixels along each axis of the domain, in the order of the axes of the array.
        in_channels: c; None: of the first weight.
        kernel, order, neighbors, oversampling, levels, reader: how the net sees fields off its pixels, see `ConvertedNet`.
            levels None: "grids", which measures best; for kernel "spline" "points".
        calibrate: some hundred fields of those the net is for, without labels: the net is adapted to `points`, see
            `calibrating.calibrate`. points: None: lattice and Sobol points, as many as pixels.

    Raises:
        ConfigError: the network cannot be converted; names the operation, its line and why.
    """
    if not isinstance(domain, Box | Torus) or not 1 <= domain.dim <= 3:
        raise ConfigError(f"Got {domain} to convert a network on, expected a Box or Torus of 1 to 3 dimensions.")
    shape = checked_resolution(domain, resolution)
    channels = _channels(module, domain.dim) if in_channels is None else in_channels
    like = own_tensor(module)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(EXAMPLES, channels, *shape, generator=generator).to(like)
    with _chance_kept(like):
        program, weights, output = trace(module, example)
    if not isinstance(output, Tensor) or output.ndim < 1:
        kind = type(output).__name__.removeprefix("immutable_")  # as torch.fx has it
        raise ConfigError(
            f"Got an output of type {kind} from {type(module).__name__}, expected class scores (b, classes) or "
            "maps (b, classes, *shape); wrap the module in one that returns the tensor you want."
        )
    dense = output.ndim == domain.dim + 2 and max(output.shape[2:]) > 1
    options = {"kernel": kernel, "order": order, "neighbors": neighbors, "oversampling": oversampling,
               "levels": levels or ("points" if kernel == "spline" else "grids"), "reader": reader}  # fmt: skip
    make = ConvertedDenseNet if dense else ConvertedNet
    classes = output.shape[1] if dense else output[0].numel()

    def build(own_grids):
        return make(
            domain, channels, classes, program=program.to_config(), resolution=list(shape), own_grids=own_grids, **options
        )

    with _chance_kept(like):
        net = build([list(found) for found in settle(build([]).to(like), like).bound])
    net.network.load_state_dict(weights)
    net = net.to(like).train(module.training)
    if calibrate is not None:
        calibrating.calibrate(net, calibrate, points)
    return net


def _chance_kept(like: Tensor) -> AbstractContextManager:
    """Leave torch's random numbers as they were: modules may draw some when they run, and layers when they are made."""
    return fork_rng(devices=[like.device] if like.is_cuda else [])


def _channels(module: nn.Module, dim: int) -> int:
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return layer.in_channels
    raise ConfigError("Got a network without convolutions, expected in_channels: the channels of its input.")
