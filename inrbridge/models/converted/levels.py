"""Floor 6: the levels of a converted net: the index spaces of its feature maps, placed in the domain, and their points.

A discrete net knows its feature maps by their shapes alone: maps of equal shape are joined index by index, whatever made them.
So a shape is a *level*: one regular grid in the domain, placed where the first step that reaches the shape has the centres of
its kernels. Off the pixel grid each level has points of its own: a prefix of the points that are given (Wang & Golland 2023,
section 4.1, "Multi-scale architectures"), or its very grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from inrbridge.discretization import Discretization, Grid, Lattice
from inrbridge.domains import Box, Domain
from inrbridge.errors import ShapeMismatch
from inrbridge.sampling import lattice
from inrbridge.stencils.borders import EdgeCells, shrink

Shape = tuple[int, ...]
Lengths = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Level:
    """An index space: index i lies at start + step * i along each axis; `points` is where its values are computed."""

    shape: Shape
    start: Lengths
    step: Lengths
    points: Discretization
    on_grid: bool  # the points are the grid itself, row by row

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def edge_cells(self) -> EdgeCells:
        """Where the outermost cells lie in the domain of the points: what padding repeats."""
        low, high = self.points.domain.bounds
        axes = zip(self.start, self.step, self.shape, low, high, strict=True)
        return tuple((a - lo, hi - a - h * (n - 1), h) for a, h, n, lo, hi in axes)


@dataclass(frozen=True)
class Placement:
    """How the levels of a net get their points.

    Args:
        resolution: pixels along each axis of the domain: the shape of the first level.
        own_grids: shapes of the levels that live on their own grids, whatever points are given.
        levels: where all others live: "points" that are given, or a part of them; "inner-grids": all but the first on their
            own grids; "grids": the first, too, onto which fields are read.
        oversampling: points of a coarser level for each one that the grid would keep; never more than are given.
    """

    domain: Domain
    resolution: Shape
    own_grids: frozenset[Shape] = frozenset()
    levels: str = "points"
    oversampling: float = 1.0

    @property
    def spacing(self) -> Lengths:
        return tuple(length / n for length, n in zip(self.domain.lengths, self.resolution, strict=True))

    @property
    def first(self) -> Lengths:
        """Centre of the first pixel."""
        return tuple(low + h / 2 for low, h in zip(self.domain.bounds[0], self.spacing, strict=True))

    def is_pixel_grid(self, points: Discretization) -> bool:
        """Whether points are the pixels that the discrete net was made for; looked up once."""
        key = ("pixels", self.domain, self.resolution)
        if key not in points.cache:
            points.cache[key] = self._are_pixels(points)
        return points.cache[key]

    def _are_pixels(self, points: Discretization) -> bool:
        grid = points.structure
        if not isinstance(grid, Grid) or grid.shape != self.resolution or points.domain != self.domain:
            return False
        pairs = zip(grid.start, grid.step, self.first, self.spacing, strict=True)
        return all(abs(a - start) <= 1e-5 * h and abs(s - h) <= 1e-5 * h for a, s, start, h in pairs)

    def has_own_grid(self, shape: Shape) -> bool:
        is_first = shape == self.resolution
        asked = self.levels == "grids" or (self.levels == "inner-grids" and not is_first)
        return math.prod(shape) == 1 or asked or shape in self.own_grids


@dataclass(eq=False)
class Places:
    """The levels of one net on one given discretization; made as the steps reach them, and remembered with the points.

    Args:
        all_grids: every level lives on its own grid.
    """

    placement: Placement
    given: Discretization
    all_grids: bool = False
    levels: dict[Shape, Level] = field(default_factory=dict)

    @classmethod
    def on(cls, given: Discretization, placement: Placement) -> Places:
        """Return the levels on given points, the same object at each call.

        Fewer points than pixels cannot carry what the kernels tell apart: fields are then read onto the grids.
        """
        key = ("places", placement)
        if key not in given.cache:
            given.cache[key] = cls(placement, given, placement.levels == "grids" or len(given) < math.prod(placement.resolution))
        return given.cache[key]

    def root(self) -> Level:
        """Return the level of the pixels."""
        p = self.placement
        return self.reach(p.resolution, p.first, p.spacing, p.domain)

    def reach(self, shape: Shape, start: Lengths, step: Lengths, domain: Domain) -> Level:
        """Return the level of a shape; if it is the first time, it is placed at `start` and `step`, as part of `domain`."""
        if shape not in self.levels:
            covered = _covered(domain, shape, start, step)
            on_grid = self.all_grids or self.placement.has_own_grid(shape)
            points = (
                grid_points(shape, start, step, covered, self.given) if on_grid else self._points(shape, start, step, covered)
            )
            self.levels[shape] = Level(shape, start, step, points, on_grid)
        return self.levels[shape]

    def _points(self, shape: Shape, start: Lengths, step: Lengths, domain: Domain) -> Discretization:
        given, p = self.given, self.placement
        if shape == p.resolution and domain == p.domain:
            return given
        if isinstance(given.structure, Grid):
            return self._thinned_grid(shape, start, step, domain)
        ratio = math.prod(shape) / math.prod(p.resolution)
        inside = _restricted(given, domain)
        if ratio < 1:
            return inside.prefix(_rounded(min(len(inside), max(1, p.oversampling * ratio * len(given))), inside))
        wanted = round(len(inside) * ratio * p.domain.measure / domain.measure)
        if wanted <= len(inside) or domain != p.domain:
            return inside
        if given.extend_to is not None:
            return given.extend_to(wanted).to(given.points)
        return lattice(domain, wanted).to(given.points)

    def _thinned_grid(self, shape: Shape, start: Lengths, step: Lengths, domain: Domain) -> Discretization:
        """The grid that stands to the given one as the level's grid to the pixels."""
        p, grid = self.placement, self.given.structure
        zoom = [s / h for s, h in zip(grid.step, p.spacing, strict=True)]
        step = tuple(h * z for h, z in zip(step, zoom, strict=True))
        start = tuple(g + (a - f) * z for g, a, f, z in zip(grid.start, start, p.first, zoom, strict=True))
        low, high = domain.bounds
        moved = tuple(a + h * max(0, math.ceil((x - a) / h - 1e-6)) for a, h, x in zip(start, step, low, strict=True))
        counts = tuple(max(1, math.floor((x - a) / h + 1e-6) + 1) for a, h, x in zip(moved, step, high, strict=True))
        return grid_points(counts, moved, step, domain, self.given)


def grid_points(shape: Shape, start: Lengths, step: Lengths, domain: Domain, like: Discretization) -> Discretization:
    """Return the points of a regular grid, row-major, with equal weights."""
    axes = [a + h * torch.arange(n, dtype=torch.float64) for n, a, h in zip(shape, start, step, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)).to(like.points)
    weights = points.new_full((len(points),), domain.measure / len(points))
    return Discretization(points, weights, domain, "grid", Grid(shape, start, step))


def _covered(domain: Domain, shape: Shape, start: Lengths, step: Lengths) -> Domain:
    """The part of a domain that the cells of a grid cover: all of it, or what layers without padding leave."""
    if not isinstance(domain, Box):
        return domain
    low, high = list(domain.low), list(domain.high)
    for axis, (n, a, h) in enumerate(zip(shape, start, step, strict=True)):
        missing = (high[axis] - low[axis]) / h - n
        if missing > 1e-6 or missing <= -1 + 1e-6:  # less than the domain, or whole cells more
            low[axis], high[axis] = a - h / 2, a + (n - 0.5) * h
            if missing > 0:
                low[axis], high[axis] = max(low[axis], domain.low[axis]), min(high[axis], domain.high[axis])
    changed = any(abs(x - y) > 1e-9 for x, y in zip(low + high, domain.low + domain.high, strict=True))
    return Box(tuple(low), tuple(high)) if changed else domain


def _restricted(given: Discretization, domain: Domain) -> Discretization:
    """The given points inside a smaller box; carried onto a larger one."""
    if domain == given.domain:
        return given
    before = [a - b for a, b in zip(domain.low, given.domain.low, strict=True)]
    after = [b - a for a, b in zip(domain.high, given.domain.high, strict=True)]
    if min(before + after) >= -1e-9:
        return shrink(given, tuple(max(0.0, x) for x in before), tuple(max(0.0, x) for x in after))
    key = ("stretched", domain)
    if key not in given.cache:
        low, size = (given.points.new_tensor(v) for v in (given.domain.low, given.domain.lengths))
        new_low, new_size = (given.points.new_tensor(v) for v in (domain.low, domain.lengths))
        points = new_low + (given.points - low) / size * new_size
        given.cache[key] = Discretization(points, given.weights * (domain.measure / given.weights.sum()), domain, given.sampler)
    return given.cache[key]


def _rounded(count: float, points: Discretization) -> int:
    """A whole number of points; of a lattice the nearest power of two, which is a lattice again."""
    if isinstance(points.structure, Lattice):
        return min(len(points), 2 ** round(math.log2(count)))
    return max(1, round(count))


def checked_resolution(domain: Domain, resolution: int | Sequence[int]) -> Shape:
    """Return pixels along each axis of a domain."""
    shape = (resolution,) * domain.dim if isinstance(resolution, int) else tuple(int(n) for n in resolution)
    if len(shape) != domain.dim or min(shape) < 1:
        raise ShapeMismatch(f"Got the resolution {resolution} on {domain}, expected {domain.dim} sizes, one for each axis.")
    return shape
