"""Floor 4: integrals of fields over their domains (Wang & Golland 2023, section 3.1 and appendix A)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.field import Field, query
from inrbridge.sampling import get_sampler

CHUNK = 2**16  # points evaluated at a time


def integrate(
    field: Field,
    domain: Domain | None = None,
    *,
    n: int = 4096,
    sampler: str | Callable[..., Discretization] = "lattice",
    generator: torch.Generator | None = None,
    discretization: Discretization | None = None,
) -> Tensor:
    """Return the integral of f over the domain, channel by channel: sum_j w_j f(x_j), shape (channels,).

    For a smooth field the error falls about like 1/n on low-discrepancy points and like n^(-1/2) on `uniform` ones.
    Divide by `domain.measure` for the mean.

    Args:
        domain: a part of the field's domain, such as a `Region` of it; the whole when absent.
        n, sampler, generator: how to draw the points.
        discretization: points and weights to use instead; it brings its own domain.

    Raises:
        OutsideDomain, NotFinite, ShapeMismatch: the points do not lie on the field's domain, or its answer is damaged.

    >>> from inrbridge.domains import Box; from inrbridge.field import FunctionField
    >>> integrate(FunctionField(lambda x: x**2, Box.centered(1), 1), n=1024, sampler="grid")
    tensor([0.6667])
    """
    if discretization is None:
        make = get_sampler(sampler) if isinstance(sampler, str) else sampler
        discretization = make(field.domain if domain is None else domain, n, generator)
    elif domain is not None and domain != discretization.domain:
        raise ConfigError(
            f"Got the domain {domain} and a discretization of {discretization.domain}, expected one; pass only one of them."
        )
    total = None
    chunks = zip(discretization.points.split(CHUNK), discretization.weights.split(CHUNK), strict=True)
    for points, weights in chunks:
        values = query(field, points)  # (m, c)
        part = weights.to(torch.float64) @ values.to(torch.float64)  # a long sum in float32 would lose digits
        total = part if total is None else total + part
    return total.to(values.dtype)
