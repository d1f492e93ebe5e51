"""Floor 4: the cell-centred grid, on boxes and flat tori."""

from __future__ import annotations

import math

import torch

from inrbridge.discretization import Discretization, Grid
from inrbridge.domains import Box, Domain, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.sampling.arguments import check_call, check_count
from inrbridge.sampling.nested import scaled


def grid(
    domain: Domain, n: int | tuple[int, ...], generator: torch.Generator | None = None, *, dtype=None, device=None
) -> Discretization:
    """Return the centres of a grid of equal cells, row-major, the last axis fastest; nothing about it is random.

    Coordinate a of point (i_0, ..) is low_a + (i_a + 1/2) size_a / shape_a. Cell centres, since a grid that holds both
    end points converges no faster than random points under equal weights.

    Args:
        n: the shape of the grid, or a number of points: round(n^(1/d)) along each axis, so that the total may differ.
    """
    dtype = check_call(domain, generator, dtype)
    if not isinstance(domain.ground, Box | Torus):
        raise ConfigError(f'Got {domain}, expected a Box or Torus under a grid; use the sampler "lattice" or "sobol".')
    if isinstance(n, tuple | list | torch.Size):
        shape = tuple(check_count(size) for size in n)
    else:
        shape = (max(1, round(check_count(n) ** (1.0 / domain.dim))),) * domain.dim
    if len(shape) != domain.dim:
        raise ShapeMismatch(f"Got grid shape {shape}, expected {domain.dim} sizes on {domain}, one for each coordinate.")
    low, high = domain.bounds
    step = tuple((b - a) / size for a, b, size in zip(low, high, shape, strict=True))
    start = tuple(a + 0.5 * h for a, h in zip(low, step, strict=True))
    axes = [a + h * torch.arange(size, dtype=torch.float64) for a, h, size in zip(start, step, shape, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, domain.dim)
    total = math.prod(shape)
    density = domain.weigh(points)
    weights = torch.full((total,), domain.measure / total, dtype=torch.float64) if density is None else scaled(density, domain)
    return Discretization(
        points.to(device=device, dtype=dtype),
        weights.to(device=device, dtype=dtype),
        domain,
        sampler="grid",
        structure=Grid(shape, start, step),
    )
