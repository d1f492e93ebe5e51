"""Floor 4: the checks that all samplers share."""

from __future__ import annotations

import operator

import torch

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, EmptyDiscretization


def check_call(domain: object, generator: object, dtype: torch.dtype | None) -> torch.dtype:
    """Check what every sampler takes, and return the dtype of its points."""
    if not isinstance(domain, Domain):
        raise ConfigError(f"Got {domain!r} as the domain, expected a Domain such as Box.centered(2).")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ConfigError(
            f"Got {generator!r} as the generator, expected None or a torch.Generator; "
            "for a seed pass torch.Generator().manual_seed(seed)."
        )
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigError(f"Got dtype {dtype!r}, expected a floating-point torch.dtype such as torch.float32.")
    return dtype


def check_count(n: object) -> int:
    """Return n as an int of at least 1."""
    try:
        count = operator.index(n)  # takes numpy integers, refuses 4.0
    except TypeError:
        count = None
    if count is None or isinstance(n, bool):
        raise ConfigError(f"Got n = {n!r}, expected a whole number of points such as 1024.")
    if count < 1:
        raise EmptyDiscretization(f"Got n = {count} points, expected at least 1; ask the sampler for more points.")
    return count
