"""Slow twins of calibration: what each layer gives and should give, written down for all fields at once."""

import math
from unittest import mock

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.field import FunctionField
from inrbridge.models.converted import Converted, Located, Step
from inrbridge.models.converted import net as net_module
from inrbridge.models.converted.levels import Places
from inrbridge.nn import Sampled
from inrbridge.nn.reading import read
from inrbridge.stacking import stack


def waves(domain: Domain, channels: int, count: int, seed: int, highest: int = 2) -> list[FunctionField]:
    """Fields that are sums of a few waves, periodic on the domain."""
    generator = torch.Generator().manual_seed(seed)
    fields = []
    for _ in range(count):
        numbers = torch.randint(-highest, highest + 1, (6, domain.dim), generator=generator).double()
        numbers = numbers / torch.tensor(domain.lengths, dtype=torch.float64)
        amounts = torch.randn(6, channels, generator=generator, dtype=torch.float64)
        phases = torch.rand(6, generator=generator, dtype=torch.float64)

        def wave(x: Tensor, numbers=numbers, amounts=amounts, phases=phases) -> Tensor:
            return (2 * math.pi * (x @ numbers.T.to(x) + phases.to(x))).sin() @ amounts.to(x)

        fields.append(FunctionField(wave, domain, channels))
    return fields


@torch.no_grad()
def outputs_of_layers(net: Converted, fields, points: Discretization | None, adapted: bool = True) -> dict[str, object]:
    """What each module of the network gives on the pixels (None), or at points that of the copy for them, by its path.

    Args:
        adapted: False: at points the network itself.
    """
    where = net.pixels().to(next(net.parameters())) if points is None else points
    values, found = stack(fields)(where.points), {}

    def record(carry_out):
        def apply(*args):
            step = next(arg for arg in args if isinstance(arg, Step))
            result = carry_out(*args)
            if isinstance(result, Located | Tensor):  # what comes after may change it in place
                kept = result.with_values(result.values.clone()) if isinstance(result, Located) else result.clone()
                found[step.target] = kept
            return result

        return apply

    if points is None:
        image = values.transpose(1, 2).unflatten(2, net.resolution)
        net.program.run(net.network, image, record(lambda step, operation, args, kwargs: operation(*args, **kwargs)))
        return found
    network = net.network_for(points) if adapted else net.network
    watched = mock.patch.object(net_module, "apply_on_points", record(net_module.apply_on_points))
    with watched, mock.patch.object(net, "network_for", lambda points: network):
        net.run_at(Sampled(points, values), Places.on(points, net.placement))
    return found


def at_points_of(found: Located | Tensor, pixels: Tensor, net: Converted) -> tuple[Tensor, Tensor]:
    """What a layer gives at its points (rows, c), and its pixels (b, c, *shape) read at the same points."""
    if not isinstance(found, Located):
        return found.reshape(-1, found.shape[-1]), pixels.reshape(-1, pixels.shape[-1])
    level = found.level
    axes = [a + h * torch.arange(n, dtype=torch.float64) for n, a, h in zip(level.shape, level.start, level.step, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2).to(found.values)
    source = Discretization(grid, torch.ones_like(grid[:, 0]), net.domain)
    there = read(
        Sampled(source, pixels.flatten(2).transpose(1, 2)), level.points.points, net.reading.order, net.reading.neighbors
    )
    return found.values.transpose(1, 2).flatten(0, 1), there.flatten(0, 1)
