"""Floor 4: points that can be written down and made again: the name of a sampler, a number, a seed."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable

import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, unknown_name
from inrbridge.sampling import get_sampler, grid, sampler_names
from inrbridge.sampling.arguments import check_count

WEIGHTS = ("equal", "density", "voronoi")  # of `shrunk`


def named_sampler(name: str) -> Callable[..., Discretization]:
    """Return a sampler that needs a name and a number of points alone.

    Args:
        name: of a sampler; "shrunk:density" and "shrunk:voronoi" also say how its crowded points are weighed, "grid:3x4" the
            proportions of a grid: n = 12 points are 3 by 4, n = 48 are 6 by 8.

    Raises:
        UnknownName: there is none of this name, or no such weights.
        ConfigError: it needs what a configuration cannot say, such as a density.

    >>> named_sampler("shrunk:density").keywords
    {'weights': 'density'}
    """
    name, colon, weights = name.partition(":")
    sampler = get_sampler(name)
    if not _needs_only_a_count(sampler):
        usable = ", ".join(other for other in sampler_names() if _needs_only_a_count(get_sampler(other)))
        raise ConfigError(
            f'Got the sampler "{name}", which needs more than a number of points, expected one of: {usable}; in Python, pass '
            "your own discretization to the net."
        )
    if not colon:
        return sampler
    if sampler is grid:
        return functools.partial(_proportioned_grid, _proportions(name, weights))
    if "weights" not in inspect.signature(sampler).parameters:
        raise ConfigError(f'Got the sampler "{name}:{weights}", but {name} has no choice of weights; write "{name}".')
    if weights not in WEIGHTS:
        raise unknown_name("kind of weights", weights, WEIGHTS)
    return functools.partial(sampler, weights=weights)


def _proportions(name: str, text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f'Got the sampler "{name}", expected the proportions of a grid behind the colon, such as "grid:3x4".')
    return tuple(map(int, parts))


def _proportioned_grid(proportions: tuple[int, ...], domain: Domain, n: int, generator: torch.Generator | None = None, *,
                       dtype=None, device=None) -> Discretization:  # fmt: skip
    """Return the grid of about n points whose shape has these proportions."""
    zoom = (check_count(n) / math.prod(proportions)) ** (1 / len(proportions))
    shape = tuple(max(1, round(zoom * part)) for part in proportions)
    return grid(domain, shape, generator, dtype=dtype, device=device)


def _needs_only_a_count(sampler: Callable) -> bool:
    required = [p.name for p in inspect.signature(sampler).parameters.values() if p.default is inspect.Parameter.empty]
    return required == ["domain", "n"]


def fixed_points(domain: Domain, sampler: str, n: int, seed: int, device: torch.device | str = "cpu") -> Discretization:
    """Return the discretization of (sampler, n, seed): the same whenever it is asked for."""
    return named_sampler(sampler)(domain, n, torch.Generator().manual_seed(seed), device=device)
