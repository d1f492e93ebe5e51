"""Floor 4: samplers whose points are dense in some places and sparse in others: shrunk, importance, points.

Equal weights would integrate the density of the points instead of the domain's measure (Wang & Golland 2023, appendix A
and E.1). Two remedies: weights in proportion to 1 / density where the density is known, or the volumes of the points'
Voronoi cells where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, NotFinite, ShapeMismatch, unknown_name
from inrbridge.field import Field
from inrbridge.sampling.arguments import check_call, check_count
from inrbridge.sampling.nested import Selection, first_points, scaled, sobol
from inrbridge.sampling.sequences import InterleavedSequence, Sequence, SobolSequence, draw_seed, sequence_on

DENSITY_PROBES = 2**14  # where the mean and the peak of a density are looked for
VORONOI_PROBES = 64  # for each point


def shrunk(
    domain: Domain, n: int, generator: torch.Generator | None = None, *, weights: str = "equal", dtype=None, device=None
) -> Discretization:
    """Return n Sobol' points drawn towards the centre: t -> t^2 sgn(t) for each coordinate t in [-1, 1] (appendix E.1).

    The map acts on the unit cube, before it is carried onto the domain.

    Args:
        weights: "equal" as in the paper, whose sample means integrate the clustered density; "density" (the Jacobian,
            prod_a 2 |t_a|) or "voronoi" integrate the domain's measure.
    """
    dtype = check_call(domain, generator, dtype)
    sequence = sequence_on(domain, lambda dim: ShrunkSequence(SobolSequence(dim, draw_seed(generator))))
    weigh = {
        "equal": Selection(_ones, complete=True),
        "density": Selection(ShrinkingJacobian(isinstance(sequence, InterleavedSequence))),
        "voronoi": Selection(VoronoiVolumes(domain), complete=True),
    }
    if weights not in weigh:
        raise unknown_name("kind of weights", weights, weigh)
    return first_points("shrunk", sequence, domain, check_count(n), dtype, device, weigh[weights])


@dataclass(frozen=True)
class ShrunkSequence:
    """A sequence on the unit cube, drawn towards (1/2, .., 1/2)."""

    sequence: Sequence

    @property
    def dim(self) -> int:
        return self.sequence.dim

    def __call__(self, start, stop):
        t = 2 * self.sequence(start, stop) - 1
        return (1 + t * t.abs()) / 2


@dataclass(frozen=True)
class ShrinkingJacobian:
    """Volume that the shrinking makes around each row; the choice of a chart, which may stand in front, is not shrunk."""

    has_choice: bool

    def __call__(self, unit: Tensor, points: Tensor) -> Tensor:
        s = 2 * unit[:, int(self.has_choice) :] - 1  # s = t |t|, ds/dt = 2 |t| = 2 sqrt |s|
        return (2 * s.abs().sqrt()).prod(-1)


def _ones(unit: Tensor, points: Tensor) -> Tensor:
    return torch.ones(len(unit), dtype=torch.float64)


def importance(
    domain: Domain,
    n: int,
    generator: torch.Generator | None = None,
    *,
    density: Callable[[Tensor], Tensor] | Field,
    floor: float = 0.0,
    dtype=None,
    device=None,
) -> Discretization:
    """Return n points in proportion to a density, with weights in proportion to 1 / density.

    Sobol' points of one more dimension are kept where that coordinate lies below density / (its largest value); so the
    points stay even, are all different, and the first n of 2n points are the points of n.

    Args:
        density: a field of one channel or a function coords (m, d) -> (m,) or (m, 1), not negative; any scale.
        floor: raise the density to at least this fraction of its mean. An integral sees nothing where the density is
            0, so a density with zeros needs a floor, e.g. 0.1.
    """
    dtype = check_call(domain, generator, dtype)
    n = check_count(n)
    if not callable(density):
        raise ConfigError(f"Got {density!r} as the density, expected a Field or a function of coords (m, d).")
    sequence = sequence_on(domain, lambda dim: SobolSequence(dim, draw_seed(generator)), more=1)
    probes = sobol(domain, DENSITY_PROBES, dtype=dtype, device=device).points
    bounded, share = BoundedDensity.probe(density, floor, probes)
    return first_points("importance", sequence, domain, n, dtype, device, Selection(bounded.weigh, bounded.keep, share))


@dataclass(frozen=True)
class BoundedDensity:
    """A density clamped to [least, peak]. Above the peak that probes found it is cut, and its weight agrees with the cut."""

    density: Callable[[Tensor], Tensor]
    least: float
    peak: float

    @classmethod
    def probe(cls, density: Callable[[Tensor], Tensor], floor: float, points: Tensor) -> tuple[BoundedDensity, float]:
        """Find the bounds at points (m, d) of low discrepancy; also return mean / peak, the share of points kept."""
        if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor <= 1:
            raise ConfigError(f"Got floor = {floor!r}, expected a number from 0 to 1, a fraction of the mean density.")
        values = cls(density, 0.0, math.inf)(points)
        if float(values.max()) == 0:
            raise ConfigError("Got a density that is zero on the whole domain, expected positive values; correct it.")
        least = floor * float(values.mean())
        if least == 0 and float(values.min()) == 0:
            raise ConfigError(
                f"Got a density that is zero on {float((values == 0).double().mean()):.1%} of the domain, where an integral "
                "would see nothing; pass floor=0.1 to raise it to a tenth of its mean."
            )
        values = values.clamp(min=least)
        return cls(density, least, float(values.max())), float(values.mean() / values.max())

    @torch.no_grad()
    def __call__(self, points: Tensor) -> Tensor:
        values = torch.as_tensor(self.density(points))
        if values.shape not in ((len(points),), (len(points), 1)):
            raise ShapeMismatch(
                f"The density returned shape {tuple(values.shape)} for coords {tuple(points.shape)}, "
                f"expected ({len(points)},) or ({len(points)}, 1); choose one channel, or sum over them."
            )
        values = values.reshape(-1).to(torch.float64)
        if not bool((values.isfinite() & (values >= 0)).all()):
            raise NotFinite("The density returned negative, NaN or infinite values, expected finite ones of at least 0.")
        return values.clamp(self.least, self.peak)

    def keep(self, unit: Tensor, points: Tensor) -> Tensor:
        """Keep a point where the last coordinate of its row lies below density / peak."""
        return unit[:, -1].to(points.device) * self.peak < self(points)

    def weigh(self, unit: Tensor, points: Tensor) -> Tensor:
        """Return 1 / density."""
        return 1.0 / self(points)


def points(
    domain: Domain,
    coords: Tensor,
    generator: torch.Generator | None = None,
    *,
    weights: str | Tensor | None = None,
    dtype=None,
    device=None,
) -> Discretization:
    """Discretize by your own points (n, d); the dtype is theirs unless given. Nothing is random.

    Args:
        weights: None for equal weights, right if the points are spread evenly; "voronoi" for the volumes of their Voronoi
            cells; or your own (n,), which must sum to the domain's measure.
    """
    coords = torch.as_tensor(coords)
    dtype = check_call(domain, generator, coords.dtype if dtype is None and coords.is_floating_point() else dtype)
    coords = coords.detach().to(device=device, dtype=dtype)
    if coords.ndim != 2:
        raise ShapeMismatch(f"Got points of shape {tuple(coords.shape)}, expected (n, {domain.dim}): one row per point.")
    domain.check(coords)
    if weights is None:
        weights = torch.full((check_count(len(coords)),), domain.measure / len(coords))
        density = domain.weigh(coords)
        weights = weights if density is None else scaled(density, domain)
    elif isinstance(weights, str):
        if weights != "voronoi":
            raise unknown_name("kind of weights", weights, ["voronoi"])
        check_count(len(coords))
        weights = VoronoiVolumes(domain)(coords, coords)
    else:
        weights = _own_weights(domain, len(coords), weights)
    return Discretization(coords, weights.to(coords), domain, sampler="points")


def _own_weights(domain: Domain, n: int, weights: Tensor) -> Tensor:
    weights = torch.as_tensor(weights).detach()
    if weights.shape != (n,):
        raise ShapeMismatch(f"Got weights of shape {tuple(weights.shape)}, expected ({n},): one weight per point.")
    total = float(weights.sum())
    if not abs(total - domain.measure) <= 1e-3 * domain.measure:  # also NaN
        raise ShapeMismatch(
            f"Got weights that sum to {total:.6g}, expected {domain.measure:.6g}, the measure of {domain}; "
            "scale them: weights * (domain.measure / weights.sum())."
        )
    return weights * (domain.measure / total)


@dataclass(frozen=True)
class VoronoiVolumes:
    """Measures of the points' Voronoi cells on a domain, as the share of Sobol' probes nearest to each point.

    sum_j v_j f(x_j) is then the mean over the probes of f at the nearest point. Nearest by coordinates, around those that
    repeat: on a sphere the nearest by the chord is the nearest by the arc.
    """

    domain: Domain

    def __call__(self, unit: Tensor, points: Tensor) -> Tensor:
        from scipy.spatial import cKDTree

        coords = points.to("cpu", torch.float64)
        probes = sobol(self.domain, max(VORONOI_PROBES * len(coords), 2**14), dtype=torch.float64)
        periods = torch.tensor(self.domain.axis_periods, dtype=torch.float64)
        repeats = periods > 0
        coords = torch.where(repeats, coords % torch.where(repeats, periods, 1.0), coords)
        tree = cKDTree(coords.numpy(), boxsize=periods.numpy() if bool(repeats.any()) else None)
        nearest = torch.from_numpy(tree.query(probes.points.numpy())[1])
        if bool((probes.weights == probes.weights[0]).all()):
            return torch.bincount(nearest, minlength=len(coords)) * (self.domain.measure / len(probes))
        return torch.bincount(nearest, weights=probes.weights, minlength=len(coords))
