"""Floor 2: manifolds in space, put together from charts by a partition of unity (Wang & Golland 2023, eq. 13-14)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inrbridge.domains.base import Domain, rounding
from inrbridge.domains.charts import Chart, FunctionChart, Mesh, log_bump, solve
from inrbridge.errors import ConfigError, ShapeMismatch

QUADRATURE = {1: 2048, 2: 96, 3: 32}  # nodes along each axis of a chart, for the measure
STEPS = 30  # towards the point whose logarithm is given


@dataclass(frozen=True, repr=False)
class Manifold(Domain):
    """A smooth d-dimensional surface in R^D, covered by the images of charts phi_k: [0, 1]^d -> R^D.

    Integrals are taken chart by chart, sum_k int psi_k(phi_k(u)) f(phi_k(u)) J_k(u) du, with a partition of unity psi_k and
    the stretch J_k = sqrt(det(D phi_k^T D phi_k)); they depend on the manifold alone, not on the atlas.

    Args:
        charts: `Chart`s or functions (n, d) -> (n, D) of torch operations, a function standing for `FunctionChart(function)`, all
            of whose ends are open. Charts with open ends must overlap.
        partition: psi_k as a function of coords (n, D) -> (n, number of charts) that sums to 1, each smooth and 0 outside its
            chart; if absent, bumps of the charts' coordinates divided by their sum.
        measure: if absent, by quadrature.
        test: whether coords (..., D) lie on the manifold, bool (...); if absent, whether some chart reaches them.
        periods: lengths after which coordinates repeat, 0 for those that do not, where space itself is a flat torus; charts
            then need their own inverse.
        recipe: name and options of a ready-made atlas (`domains.atlases`), which can be written to a file.

    A Moebius strip of width 1, by two charts that overlap along it and have an edge across:

    >>> import math, torch
    >>> def strip(first):
    ...     def chart(u):
    ...         turn, across = 2 * math.pi * (first + 0.7 * u[:, 0]), u[:, 1] - 0.5
    ...         out = 1 + across * torch.cos(turn / 2)
    ...         return torch.stack([out * turn.cos(), out * turn.sin(), across * torch.sin(turn / 2)], -1)
    ...     return FunctionChart(chart, ("open", "edge"))
    >>> moebius = Manifold([strip(0.0), strip(0.5)])
    >>> round(moebius.measure, 3)
    6.353

    Geometry: `tangent_frame` is the chart's own axes made orthonormal, so it jumps from chart to chart; offsets point along the
    projection of the chord and have the length of the circular arc that touches the tangent plane there: exact on spheres and
    planes, elsewhere the geodesic's up to third order. They are meant for distances well below the radius of curvature.
    """

    charts: tuple[Chart, ...]
    partition: Callable[[Tensor], Tensor] | None = None
    measure: float | None = None
    test: Callable[[Tensor], Tensor] | None = None
    periods: tuple[float, ...] = ()
    recipe: tuple = ()

    def __post_init__(self):
        given = self.charts if isinstance(self.charts, tuple | list) else (self.charts,)
        charts = tuple(chart if isinstance(chart, Chart) else FunctionChart(chart) for chart in given)
        if not charts or len({chart.dim for chart in charts}) > 1:
            raise ConfigError(f"Got charts of {[c.dim for c in charts]} dimensions, expected one or more, all of one dimension.")
        object.__setattr__(self, "charts", charts)
        sizes = {mesh.coords.shape[1] for mesh in self._meshes}
        if len(sizes) > 1 or min(sizes) < charts[0].dim or not all(bool(m.coords.isfinite().all()) for m in self._meshes):
            raise ShapeMismatch(
                f"Got charts of {charts[0].dim} dimensions into spaces of {sorted(sizes)}, expected one space of at least as "
                "many, and finite points; correct the functions."
            )
        if len(self.periods) not in (0, self.dim):
            raise ShapeMismatch(f"Got periods {self.periods}, expected {self.dim} numbers, one for each coordinate, or none.")
        self._check_partition()
        if self.measure is None:
            object.__setattr__(self, "measure", self._integrate_one())

    def __repr__(self) -> str:
        if self.recipe:
            return f"{self.recipe[0]}({', '.join(f'{key}={value}' for key, value in self.recipe[1])})"
        return f"Manifold({len(self.charts)} charts of {self.intrinsic_dim} dimensions in R^{self.dim})"

    def _check_partition(self) -> None:
        coords = torch.cat([mesh.coords for mesh in self._meshes])
        parts = self.parts(coords)
        worst = (parts.sum(1) - 1).abs()
        if not bool((worst <= 1e-4).all()):  # also NaN
            at = [round(float(v), 4) for v in coords[torch.nan_to_num(worst, nan=math.inf).argmax()]]
            raise ConfigError(
                f"Got charts or a partition of unity that leaves a hole: its functions do not sum to 1 at {at}; expected charts "
                'that overlap where their ends are "open"; widen them, or state ends that are an "edge" or "wrap".'
            )

    def _integrate_one(self) -> float:
        """The measure. Bumps vanish with all derivatives at open ends: midpoints converge faster than any power there."""
        total = 0.0
        count = QUADRATURE.get(self.intrinsic_dim, 10)
        for k, chart in enumerate(self.charts):
            rules = [_midpoints(count) if end != "edge" and self.partition is None else _gauss(count) for end in chart.ends]
            nodes = torch.stack(torch.meshgrid(*[rule[0] for rule in rules], indexing="ij"), -1).reshape(-1, chart.dim)
            weights = torch.stack(torch.meshgrid(*[rule[1] for rule in rules], indexing="ij"), -1).reshape(-1, chart.dim).prod(1)
            total += float((weights * self.parts(chart(nodes).detach())[:, k] * chart.stretch(nodes)).sum())
        return total

    @property
    def dim(self) -> int:
        return self._meshes[0].coords.shape[1]

    @property
    def intrinsic_dim(self) -> int:
        return self.charts[0].dim

    @property
    def unit_dim(self) -> int:
        """One more than the charts': the first coordinate chooses the chart."""
        return self.intrinsic_dim + 1

    @property
    def is_flat(self) -> bool:
        return False

    @property
    def axis_periods(self):
        return self.periods or (0.0,) * self.dim

    @property
    def _meshes(self) -> list[Mesh]:
        return [chart.mesh for chart in self.charts]

    @cached_property
    def bounds(self):
        coords = torch.cat([mesh.coords for mesh in self._meshes])
        low, high = coords.amin(0), coords.amax(0)
        margin = 0.01 * float((high - low).max())
        return tuple((low - margin).tolist()), tuple((high + margin).tolist())

    @property
    def _size(self) -> float:
        low, high = self.bounds
        return max(b - a for a, b in zip(low, high, strict=True))

    def parts(self, coords: Tensor) -> Tensor:
        """Return the partition of unity (n, number of charts) at coords (n, D)."""
        coords = coords.detach().to("cpu", torch.float64)
        if self.partition is not None:
            parts = torch.as_tensor(self.partition(coords))
            if parts.shape != (len(coords), len(self.charts)):
                raise ShapeMismatch(
                    f"The partition of unity returned shape {tuple(parts.shape)} for {len(coords)} points, expected "
                    f"({len(coords)}, {len(self.charts)}): one number for each chart."
                )
            return parts.to(torch.float64)
        return torch.softmax(torch.stack([self._on_chart(k, coords)[1] for k in range(len(self.charts))], dim=1), dim=1)

    def _on_chart(self, k: int, coords: Tensor, slack: float = 1e-5) -> tuple[Tensor, Tensor]:
        """Places of coords (n, D) on chart k, (n, d), and the logarithm of its bump (n,), minus infinity where it is not."""
        chart = self.charts[k]
        unit = torch.nan_to_num(chart.inverse(coords).detach(), nan=-1.0, posinf=-1.0, neginf=-1.0)
        edges = torch.tensor([end != "open" for end in chart.ends])
        nearby = (unit > -1e-6) & (unit < 1 + 1e-6)
        unit = torch.where(edges & nearby, unit.clamp(0, 1), unit)
        inside = ((unit >= 0) & (unit <= 1)).all(-1)
        off = self.wrapped(chart(unit.clamp(0, 1)).detach() - coords).norm(dim=-1)
        return unit, torch.where(inside & (off <= slack * self._size), log_bump(unit, chart.ends), -math.inf)

    def locate(self, coords: Tensor, slack: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
        """Return the chart (n,) in whose middle each of coords (n, D) lies, the place there (n, d), whether any has it (n,)."""
        units, bumps = zip(*(self._on_chart(k, coords, slack) for k in range(len(self.charts))), strict=True)
        best, chart = torch.stack(bumps, 1).max(1)
        return chart, torch.stack(units, 1)[torch.arange(len(coords)), chart], best > -math.inf

    def contains(self, coords):
        if self.test is not None:
            return self.test(coords)
        flat = coords.detach().reshape(-1, self.dim).to("cpu", torch.float64)
        return self.locate(flat, rounding(coords))[2].reshape(coords.shape[:-1]).to(coords.device)

    def from_unit(self, unit):
        """Map (n, d + 1) onto the manifold: the first coordinate chooses a chart, the others the place on it.

        Volumes are not in proportion; `unit_jacobian` says how much they are worth.
        """
        chart, place = self._split(unit)
        coords = unit.new_zeros(len(place), self.dim)
        for k, each in enumerate(self.charts):
            rows = (chart == k).nonzero()[:, 0]
            if len(rows):
                coords[rows] = each(place[rows]).detach()
        return coords.reshape(*unit.shape[:-1], self.dim)

    def unit_jacobian(self, unit):
        chart, place = self._split(unit)
        place = place.to("cpu", torch.float64)
        jacobian = place.new_zeros(len(place))
        for k, each in enumerate(self.charts):
            rows = (chart == k).nonzero()[:, 0].cpu()
            if len(rows):
                jacobian[rows] = self.parts(each(place[rows]).detach())[:, k] * each.stretch(place[rows])
        return (jacobian * (len(self.charts) / self.measure)).reshape(unit.shape[:-1]).to(unit)

    def _split(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        unit = unit.reshape(-1, self.unit_dim)
        return (unit[:, 0] * len(self.charts)).long().clamp(0, len(self.charts) - 1), unit[:, 1:]

    def tangent_frame(self, coords):
        flat = coords.detach().reshape(-1, self.dim).to("cpu", torch.float64)
        chart, place, _ = self.locate(flat, 1e-3)
        frame = self._frame(chart, place)
        return frame.reshape(*coords.shape[:-1], self.dim, self.intrinsic_dim).to(coords)

    def _frame(self, chart: Tensor, place: Tensor) -> Tensor:
        jacobian = self._by_chart(chart, lambda k, rows: self.charts[k].jacobian(place[rows]))
        q, r = torch.linalg.qr(jacobian)
        return q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)[:, None]

    def _by_chart(self, chart: Tensor, evaluate: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Put together what each chart gives for the rows that belong to it."""
        result = None
        for k in range(len(self.charts)):
            rows = (chart == k).nonzero()[:, 0]
            if len(rows):
                part = evaluate(k, rows).detach()
                result = part.new_zeros(len(chart), *part.shape[1:]) if result is None else result
                result[rows] = part
        return result

    def log_map(self, base, coords):
        return self._logarithm(self.tangent_frame(base), self.wrapped(coords - base))

    def _logarithm(self, frame: Tensor, chord: Tensor) -> Tensor:
        """The direction of a chord (..., D) along the tangent plane, at the length of the arc over it.

        A chord at the angle b to the tangent subtends the arc |chord| b / sin(b): exactly so on a sphere.
        """
        along = (frame.mT @ chord[..., None])[..., 0]
        across = (chord - (frame @ along[..., None])[..., 0]).norm(dim=-1, keepdim=True)
        length = along.norm(dim=-1, keepdim=True)
        arc = chord.norm(dim=-1, keepdim=True) / torch.sinc(torch.atan2(across, length) / math.pi)
        # what lies straight behind the plane lies in every direction: the first one is as good as another
        first = torch.zeros_like(along)
        first[..., 0] = 1.0
        straight = length <= 1e-12 * across
        return arc * torch.where(straight & (across > 0), first, along / torch.where(length > 0, length, 1.0))

    def exp_map(self, base, offsets):
        """Return the points whose logarithm is `offsets`, by Newton steps on the charts; off the manifold where there is none."""
        shape = np.broadcast_shapes(base.shape[:-1], offsets.shape[:-1])
        start = base.detach().expand(*shape, self.dim).reshape(-1, self.dim).to("cpu", torch.float64)
        wanted = offsets.detach().expand(*shape, self.intrinsic_dim).reshape(-1, self.intrinsic_dim).to("cpu", torch.float64)
        frame = self.tangent_frame(start)
        straight = start + (frame @ wanted[..., None])[..., 0]
        chart, place = self._nearest_mesh(straight)
        reached = straight.clone()
        open_rows = torch.arange(len(start))
        for _ in range(STEPS):
            frames, owner = frame[open_rows], chart[open_rows]
            coords = self._by_chart(owner, lambda k, rows: self.charts[k](place[rows]))  # noqa: B023
            miss = wanted[open_rows] - self._logarithm(frames, self.wrapped(coords - start[open_rows]))
            done = miss.norm(dim=-1) <= 1e-10 * self._size
            reached[open_rows[done]] = coords[done]
            open_rows, place = open_rows[~done], place[~done]
            if not len(open_rows):
                break
            frames, owner, miss = frames[~done], owner[~done], miss[~done]
            jacobian = frames.mT @ self._by_chart(owner, lambda k, rows: self.charts[k].jacobian(place[rows]))  # noqa: B023
            step = solve(jacobian.mT @ jacobian, jacobian.mT @ miss[..., None])[..., 0]
            place = self._inside(owner, place + step.clamp(-0.1, 0.1))
        return reached.reshape(*shape, self.dim).to(base)

    def _inside(self, chart: Tensor, place: Tensor) -> Tensor:
        wraps = torch.tensor([[end == "wrap" for end in each.ends] for each in self.charts])[chart]
        return torch.where(wraps, place % 1.0, place.clamp(0, 1))

    def _nearest_mesh(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Chart and place of the nearest mesh point that lies in the middle of its chart."""
        from scipy.spatial import cKDTree

        if "_core" not in self.__dict__:
            owner = torch.cat([torch.full((len(mesh.unit),), k) for k, mesh in enumerate(self._meshes)])
            unit, points = (torch.cat(parts) for parts in zip(*((m.unit, m.coords) for m in self._meshes), strict=True))
            kept = self.parts(points)[torch.arange(len(owner)), owner] > 0.5 / len(self.charts)
            periods = torch.tensor(self.axis_periods)
            folded = torch.where(periods > 0, points % torch.where(periods > 0, periods, 1.0), points)
            tree = cKDTree(folded[kept].numpy(), boxsize=self.axis_periods if any(self.axis_periods) else None)
            self.__dict__["_core"] = (owner[kept], unit[kept], tree)
        owner, unit, tree = self.__dict__["_core"]
        index = torch.from_numpy(tree.query(coords.numpy())[1])
        return owner[index], unit[index]

    def to_config(self):
        if not self.recipe:
            raise ConfigError(
                "Got a Manifold of charts that are functions, which cannot be written to a file; expected a ready-made atlas of "
                "inrbridge.domains.atlases, such as cube_sphere()."
            )
        name, options = self.recipe
        return {"type": "manifold", "atlas": name, "options": {key: _listed(value) for key, value in options}}


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _midpoints(count: int) -> tuple[Tensor, Tensor]:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count, torch.full((count,), 1.0 / count, dtype=torch.float64)


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
