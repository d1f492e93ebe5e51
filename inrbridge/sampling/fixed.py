"""Floor 4: points that can be written down and made again: the name of a sampler, a number, a seed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, unknown_name
from inrbridge.sampling import get_sampler, sampler_names

WEIGHTS = ("equal", "density", "voronoi")  # of `shrunk`


def named_sampler(name: str) -> Callable[..., Discretization]:
    """Return a sampler that needs a name and a number of points alone.

    Args:
        name: of a sampler; "shrunk:density" and "shrunk:voronoi" also say how its crowded points are weighed.

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
    if "weights" not in inspect.signature(sampler).parameters:
        raise ConfigError(f'Got the sampler "{name}:{weights}", but {name} has no choice of weights; write "{name}".')
    if weights not in WEIGHTS:
        raise unknown_name("kind of weights", weights, WEIGHTS)
    return functools.partial(sampler, weights=weights)


def _needs_only_a_count(sampler: Callable) -> bool:
    required = [p.name for p in inspect.signature(sampler).parameters.values() if p.default is inspect.Parameter.empty]
    return required == ["domain", "n"]


def fixed_points(domain: Domain, sampler: str, n: int, seed: int, device: torch.device | str = "cpu") -> Discretization:
    """Return the discretization of (sampler, n, seed): the same whenever it is asked for."""
    return named_sampler(sampler)(domain, n, torch.Generator().manual_seed(seed), device=device)
