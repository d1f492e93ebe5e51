"""Floor 4: the worst box: exact, over the corners that the coordinates of the points make, or between bounds.

A supremum over boxes is reached where their sides pass through points (Niederreiter 1992, chapter 2). All corners are counted
at once: the weights of the points as a histogram over them, summed up along each axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from inrbridge.errors import ConfigError, NotFinite, OutsideDomain, ShapeMismatch

MOST = 2**30  # corners, or pairs of them, that are looked at for an exact answer
BLOCK = 2**18  # corners at a time
BRACKET = 2**20  # corners of the bracketing grid
TRIES = 2**10  # boxes drawn at random for a lower bound

Reference = tuple[Tensor, Tensor]  # points and weights that stand for a measure


def star(points: Tensor, weights: Tensor | None = None, reference: Reference | None = None) -> float:
    """Return sup over y of |sum of the weights in [0, y] - volume of [0, y]|, exactly (Wang & Golland 2023, equation 10).

    In one dimension for any number of points; in d, all (n + 1)^d corners are looked at: 30000 points in two dimensions, 1000
    in three, 180 in four. Beyond, `star_bounds`.

    Args:
        points: (n, d) in the unit cube.
        weights: (n,), equal and of sum one when absent.
        reference: points and weights of a finer set instead of the volume.
    """
    points, weights = checked(points, weights)
    axes = _axes(points)
    corners = math.prod(len(axis) for axis in axes)
    if corners > MOST:
        raise ConfigError(
            f"Got {len(points)} points in {points.shape[1]} dimensions, whose {corners:.2g} corners take too long, expected at "
            f"most {MOST:.2g}; use star_bounds, or a square mean such as centered."
        )
    measured = None if reference is None else _counts(*reference, axes)
    worst, before = 0.0, None
    for rows, closed in _counts(points, weights, axes):
        measure = _volumes(axes, rows) if measured is None else next(measured)[1]
        opened, before = _shifted(closed, before), closed[-1]  # all points lie on the axes
        worst = max(worst, float((closed - measure).max()), float((measure - opened).max()))
    return worst


def star_bounds(
    points: Tensor, weights: Tensor | None = None, corners: int = BRACKET, generator: torch.Generator | None = None
) -> tuple[float, float]:
    """Return (lower, upper) between which the star discrepancy lies, for as many points and dimensions as there are.

    Upper: a grid of about so many corners through the points' coordinates brackets every box between two of the grid. Lower: the
    worst box of that grid, and of a thousand through points drawn at random. Equal where the grid holds all corners.
    """
    points, weights = checked(points, weights)
    n, d = points.shape
    axes = _axes(points)
    if math.prod(len(axis) for axis in axes) <= corners:
        exact = star(points, weights)
        return exact, exact
    count = max(1, int(corners ** (1 / d)))
    axes = [axis[torch.linspace(0, len(axis) - 1, min(count, len(axis)) + 1).long()[1:]].unique() for axis in axes]
    lower, upper, before, before_volume = 0.0, 0.0, None, None
    counts = zip(_counts(points, weights, axes), _counts(points, weights, axes, opened=True), strict=True)
    for (rows, closed), (_, opened) in counts:
        volume = _volumes(axes, rows)
        lower = max(lower, float((closed - volume).max()), float((volume - opened).max()))
        least, least_volume = _shifted(closed, before), _shifted(volume, before_volume)
        upper = max(upper, float((closed - least_volume).max()), float((volume - least).max()))
        before, before_volume = closed[-1], volume[-1]
    chosen = torch.randint(n, (TRIES, d), generator=generator)
    boxes = points.gather(0, chosen.to(points.device))  # (t, d)
    for some in boxes.split(max(1, BLOCK // (n * d))):
        volume = some.prod(1)
        closed = (points <= some[:, None]).all(2).to(weights) @ weights
        opened = (points < some[:, None]).all(2).to(weights) @ weights
        lower = max(lower, float((closed - volume).max()), float((volume - opened).max()))
    return lower, min(upper, max(1.0, float(weights.sum())))


def extreme(points: Tensor, weights: Tensor | None = None, reference: Reference | None = None) -> float:
    """Return the same supremum over all boxes, wherever they begin, exactly (equations 12 and 14).

    About (2 n)^(2 d - 1) / 2^(d - 1) boxes are looked at: any number of points in one dimension, 600 in two, 30 in three.
    """
    points, weights = checked(points, weights)
    n, d = points.shape
    axes = [points[:, a].unique() for a in range(d)]
    sizes = [2 * len(axis) + 2 for axis in axes]
    boxes = math.prod(sizes) * math.prod(sizes[:-1]) // 2 ** (d - 1)
    if boxes > MOST:
        raise ConfigError(
            f"Got {n} points in {d} dimensions, whose {boxes:.2g} boxes take too long, expected at most {MOST:.2g}; use fewer "
            "points, or the star discrepancy: the extreme one is at most 2^d times as large."
        )
    # Two places for each coordinate: just before the points on it, and just behind.
    counted = torch.cat([closed for _, closed in _counts(points, weights, axes)])
    sides = [torch.cat([axis.new_zeros(1), axis.repeat_interleave(2), axis.new_ones(1)]) for axis in axes]
    for a, size in enumerate(sizes):
        padded = torch.cat([torch.zeros_like(counted.narrow(a, 0, 1)), counted], dim=a)
        counted = padded.index_select(a, torch.arange(size, device=points.device) // 2)
    if reference is None:
        measure = _volumes(sides, slice(0, sizes[0]))
    else:
        measure = torch.cat([closed for _, closed in _counts(*reference, sides)])
    return float(_widest(counted - measure))


def checked(points: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return points (n, d) of the unit cube and weights (n,) in float64; raise where they are none."""
    if not isinstance(points, Tensor) or points.ndim != 2 or not points.numel():
        got = f"shape {tuple(points.shape)}" if isinstance(points, Tensor) else repr(points)
        raise ShapeMismatch(f"Got points of {got}, expected a tensor (n, d) of points in the unit cube, at least one.")
    points = points.detach().double()
    if weights is None:
        weights = points.new_full((len(points),), 1 / len(points))
    if tuple(weights.shape) != (len(points),):
        raise ShapeMismatch(f"Got weights of shape {tuple(weights.shape)}, expected ({len(points)},): one for each point.")
    if not bool(points.isfinite().all() and weights.isfinite().all()):
        raise NotFinite("Got NaN or infinite points or weights, expected finite ones; drop them.")
    if bool(((points < 0) | (points > 1)).any()):
        raise OutsideDomain(
            "Got points outside the unit cube, expected coordinates from 0 to 1; pull them back by domain.to_unit(points)."
        )
    return points, weights.detach().to(points)


def _axes(points: Tensor) -> list[Tensor]:
    """The coordinates of the points along each axis, ascending, and 1."""
    return [torch.cat([x, x.new_ones(1)]).unique() for x in points.unbind(1)]


def _counts(points: Tensor, weights: Tensor, axes: list[Tensor], opened: bool = False) -> Iterator[tuple[slice, Tensor]]:
    """For blocks of rows of corners, the weights in the closed boxes [0, corner], or in the open ones [0, corner)."""
    sizes = [len(axis) for axis in axes]
    index = [torch.searchsorted(axis, x.contiguous(), right=opened) for axis, x in zip(axes, points.unbind(1), strict=True)]
    inside = torch.stack([i < size for i, size in zip(index, sizes, strict=True)]).all(0)
    weights, index = weights[inside], [i[inside] for i in index]
    step, before = max(1, BLOCK // math.prod(sizes[1:])), None
    for first in range(0, sizes[0], step):
        rows = slice(first, min(first + step, sizes[0]))
        mine = (index[0] >= rows.start) & (index[0] < rows.stop)
        counts = weights.new_zeros(rows.stop - rows.start, *sizes[1:])
        counts.index_put_((index[0][mine] - rows.start, *(i[mine] for i in index[1:])), weights[mine], accumulate=True)
        for a in range(len(sizes)):
            counts = counts.cumsum(a)
        if before is not None:
            counts = counts + before
        before = counts[-1]
        yield rows, counts


def _shifted(counts: Tensor, before: Tensor | None) -> Tensor:
    """The counts at the corner one step nearer to the origin along every axis; none at the first."""
    first = torch.zeros_like(counts[:1]) if before is None else before[None]
    near = torch.cat([first, counts[:-1]])
    for a in range(1, counts.ndim):
        near = torch.cat([torch.zeros_like(near.narrow(a, 0, 1)), near.narrow(a, 0, near.shape[a] - 1)], dim=a)
    return near


def _volumes(axes: list[Tensor], rows: slice) -> Tensor:
    volumes = axes[0][rows]
    for axis in axes[1:]:
        volumes = volumes[..., None] * axis
    return volumes


def _widest(table: Tensor) -> Tensor:
    """The largest |mixed difference| of a table (p_1, ..., p_d) over all pairs of places along each of its axes."""
    return _reduce(table[None]).max()


def _reduce(table: Tensor) -> Tensor:
    if table.ndim == 2:
        return table.amax(1) - table.amin(1)
    worst = table.new_zeros(())
    for place in range(table.shape[1] - 1):
        beyond = table[:, place + 1 :] - table[:, place : place + 1]
        worst = torch.maximum(worst, _reduce(beyond.flatten(0, 1)).max())
    return worst
