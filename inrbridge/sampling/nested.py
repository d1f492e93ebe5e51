"""Floor 4: samplers whose points are the first n of an extensible sequence: lattice, sobol, halton, uniform.

A sequence on the unit cube is carried onto the domain by its measure-preserving map, so that equal weights integrate
the uniform measure. A domain without such a map keeps those points of its envelope that lie on it (`Region`), or takes its
charts in turn, each point with the volume that its chart and the partition of unity give it (`Manifold`). A density
(`Weighted`) multiplies the weights.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.discretization import Discretization, Lattice
from inrbridge.domains import Box, Domain, Torus
from inrbridge.errors import EmptyDiscretization
from inrbridge.sampling.arguments import check_call, check_count
from inrbridge.sampling.sequences import (
    HaltonSequence,
    LatticeSequence,
    Sequence,
    SobolSequence,
    UniformSequence,
    draw_seed,
    sequence_on,
)

BLOCK = 2**16  # rows drawn at a time


def lattice(domain: Domain, n: int, generator: torch.Generator | None = None, *, dtype=None, device=None) -> Discretization:
    """Return n points of a rank-1 lattice: x_i = frac(radical_inverse(i) z + shift), shifted at random by `generator`.

    The calmest set for local layers: on a Box or Torus with n = 2^m all interior points see the same neighbourhood,
    and the discretization says so by `structure`. Up to 6 dimensions.

    >>> from inrbridge.domains import Box
    >>> lattice(Box.unit(2), 1024).points.shape
    torch.Size([1024, 2])
    """
    dtype = check_call(domain, generator, dtype)
    sequence = sequence_on(domain, lambda dim: LatticeSequence.draw(dim, generator))
    return first_points("lattice", sequence, domain, check_count(n), dtype, device)


def sobol(domain: Domain, n: int, generator: torch.Generator | None = None, *, dtype=None, device=None) -> Discretization:
    """Return the first n Sobol' points, scrambled by `generator`; best with n = 2^m. Any dimension.

    With n = 2^(m d) on a Box each cell of the grid of (2^m)^d cells holds exactly one point.
    """
    dtype = check_call(domain, generator, dtype)
    sequence = sequence_on(domain, lambda dim: SobolSequence(dim, draw_seed(generator)))
    return first_points("sobol", sequence, domain, check_count(n), dtype, device)


def halton(domain: Domain, n: int, generator: torch.Generator | None = None, *, dtype=None, device=None) -> Discretization:
    """Return the first n Halton points, their digits permuted by `generator`; even for every n, few dimensions."""
    dtype = check_call(domain, generator, dtype)
    sequence = sequence_on(domain, lambda dim: HaltonSequence(dim, draw_seed(generator)))
    return first_points("halton", sequence, domain, check_count(n), dtype, device)


def uniform(domain: Domain, n: int, generator: torch.Generator | None = None, *, dtype=None, device=None) -> Discretization:
    """Return n independent uniform points (Monte Carlo); without a generator those of seed 0."""
    dtype = check_call(domain, generator, dtype)
    sequence = sequence_on(domain, lambda dim: UniformSequence(dim, draw_seed(generator) or 0))
    return first_points("uniform", sequence, domain, check_count(n), dtype, device)


@dataclass(frozen=True)
class Selection:
    """Which points of a sequence are kept and how they are weighted; both ask rows (m, sequence.dim) and points (m, d).

    `weigh` returns relative weights (m,), equal when absent; `keep` bool (m,), true for about `share` of the points.
    `complete`: the weights are volumes already, which neither the map from the cube nor a density changes.
    """

    weigh: Callable[[Tensor, Tensor], Tensor] | None = None
    keep: Callable[[Tensor, Tensor], Tensor] | None = None
    share: float = 1.0
    complete: bool = False


def first_points(
    name: str,
    sequence: Sequence,
    domain: Domain,
    n: int,
    dtype: torch.dtype,
    device: torch.device | str | None = None,
    selection: Selection = Selection(),
) -> Discretization:
    """Discretize the domain by the first n points of a sequence that lie on it and are selected."""
    unit, points = _selected(sequence, domain, n, dtype, device, selection)
    weights = torch.ones(n, dtype=torch.float64)
    if selection.weigh is not None:
        weights = selection.weigh(unit, points).to("cpu", torch.float64)
    if not selection.complete:
        for factor in (domain.envelope.unit_jacobian(unit[:, : domain.envelope.unit_dim]), domain.weigh(points)):
            weights = weights if factor is None else weights * factor.to("cpu", torch.float64)
    weights = scaled(weights, domain)
    structure = None
    if isinstance(sequence, LatticeSequence) and isinstance(domain, Box | Torus) and n & (n - 1) == 0:
        structure = Lattice(sequence.vector, sequence.shift)
    return Discretization(
        points,
        weights.to(device=device, dtype=dtype),
        domain,
        sampler=name,
        structure=structure,
        extend_to=functools.partial(_extend, name, sequence, domain, dtype, device, selection),
    )


def scaled(weights: Tensor, domain: Domain) -> Tensor:
    """Return relative weights (n,) scaled to sum to the measure of the domain."""
    total = weights.sum()
    if not total > 0:
        raise EmptyDiscretization(
            f"Got {len(weights)} points of {domain} that all weigh 0, expected some where the density is above 0; ask for more "
            "points, or put the density on a smaller domain."
        )
    return weights * (domain.measure / total)


def _extend(name, sequence, domain, dtype, device, selection, m: int) -> Discretization:
    return first_points(name, sequence, domain, check_count(m), dtype, device, selection)


def _selected(sequence: Sequence, domain: Domain, n: int, dtype, device, selection: Selection) -> tuple[Tensor, Tensor]:
    """Return the first n selected rows (n, sequence.dim) and their points (n, d)."""
    envelope = domain.envelope
    share = selection.share * domain.ground.measure / envelope.ground.measure
    limit = 2**16 + math.ceil(16 * n / share)
    chosen, found, start = [], 0, 0
    while found < n:
        if start >= limit:
            raise EmptyDiscretization(
                f"Found {found} of {n} points of {domain} among {start} points of {envelope}, expected a share of about "
                f"{share:.3g}; correct the measure or the indicator of the region, or put it into a smaller domain around it."
            )
        # Some more than expected, so that one round is mostly enough; blocks, so that memory stays bounded.
        wanted = n - found if share == 1 else math.ceil(1.1 * (n - found) / share) + 64
        stop = start + min(wanted, BLOCK)
        unit = sequence(start, stop)
        points = envelope.from_unit(unit[:, : envelope.unit_dim]).to(device=device, dtype=dtype)
        # Membership is decided after the cast: what float64 puts just inside, float32 may round to the outside.
        if envelope is not domain:
            inside = domain.contains(points)
            unit, points = unit[inside.cpu()], points[inside]
        if selection.keep is not None:
            kept = selection.keep(unit, points)
            unit, points = unit[kept.cpu()], points[kept]
        chosen.append((unit, points))
        found, start = found + len(points), stop
    unit, points = (torch.cat(parts)[:n] for parts in zip(*chosen, strict=True))
    return unit, points
