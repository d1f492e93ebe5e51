"""Slow twins of calibration: what each layer gives and should give, written down for all fields at once."""

import math

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.field import FunctionField
from inrbridge.models.converted import Converted, Located
from inrbridge.models.converted.levels import Places
from inrbridge.models.converted.located import feature_map
from inrbridge.models.converted.rules import Run, apply_on_points
from inrbridge.models.converted.rules.through_grid import read as read_onto
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
def outputs_of_layers(net: Converted, network: nn.Module, fields, points: Discretization | None) -> dict[str, object]:
    """What each module of a network gives, on the pixels (None) or at points, by its path."""
    found: dict[str, object] = {}
    where = net.pixels().to(next(network.parameters())) if points is None else points
    values = stack(fields)(where.points)
    if points is None:

        def apply(step, operation, args, kwargs):
            found[step.target] = operation(*args, **kwargs)
            return found[step.target]

        net.program.run(network, values.transpose(1, 2).unflatten(2, net.resolution), apply)
        return found
    places = Places.on(points, net.placement)
    root, run = places.root(), Run(places, net.reading)

    def apply_there(step, operation, args, kwargs):
        found[step.target] = apply_on_points(run, step, operation, args, kwargs)
        return found[step.target]

    values = read_onto(net.reading, values, points, root.points)
    net.program.run(network, feature_map(Sampled(root.points, values), root), apply_there)
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
