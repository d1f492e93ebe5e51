"""Floor 5: the window around each output point of a pooling layer, as neighbour lists or as a kernel on a grid.

A window is a box [x + low, x + high), half open as a row of cells is; on curved domains a ball, its radius measured along
the domain. It is cut off at the edge of the domain, and wraps around a torus. Kernels of even size reach half a cell further
up than down (Wang & Golland 2023, appendix C). Neighbours are found once for a discretization and kept in its cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from inrbridge.discretization import Discretization, Grid, derived
from inrbridge.domains import Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn.resample import nearest_point
from inrbridge.stencils.borders import shrink
from inrbridge.stencils.geometry import pairs_within
from inrbridge.stencils.neighbours import PointSet

Lengths = float | tuple[float, ...]


@dataclass(frozen=True)
class Window:
    """Size and place of the windows, in domain units.

    Args:
        width: of the window, one number or one an axis.
        shift: of its centre against the output point.
        stride: output points are the input points thinned by it.
        padding: None: windows are cut off at the edge and every output point stays. Else, as of torch: output points whose
            window sticks out further than this are dropped.
        cell: size of the cell that a point stands for, with `padding`.
    """

    width: Lengths
    shift: Lengths = 0.0
    stride: int = 1
    padding: Lengths | None = None
    cell: Lengths = 0.0

    def bounds(self, dim: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners (low, high) of the window around the origin."""
        width, shift = per_axis(self.width, dim, "width"), per_axis(self.shift, dim, "shift")
        return shift - width / 2, shift + width / 2

    def target(self, source: Discretization) -> Discretization:
        """Return the output points."""
        thinned = source.thin(self.stride)
        if self.padding is None or all(source.domain.axis_periods):
            return thinned
        if not source.domain.is_flat:
            raise ConfigError(
                f"Got a window with padding {self.padding} on {source.domain}, expected padding=None: a curved domain has no "
                "sides to pad."
            )
        dim = source.domain.dim
        low, high = self.bounds(dim)
        cell, padding = per_axis(self.cell, dim, "cell"), per_axis(self.padding, dim, "padding")
        before, after = -low - cell / 2 - padding, high - cell / 2 - padding
        on_grid = isinstance(source.structure, Grid)
        if not on_grid:
            after -= (self.stride - 1) * cell  # a stride may pass over the last cells without losing any window
        slack = 1e-6 * source.spacing
        before, after = (tuple(np.where(reach > slack, reach, 0.0).tolist()) for reach in (before, after))
        if not any(before + after):
            return thinned
        kept = shrink(source, before, after).thin(self.stride)
        if on_grid and kept.points.shape == thinned.points.shape and np.allclose(kept.structure.start, thinned.structure.start):
            return thinned  # nothing but leftovers of the stride was dropped
        return kept


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The points in each window: index (m, t) and present (m, t), count (m,), share (m,) of the window inside the domain.

    A window without points holds the point nearest to its centre; short lists repeat their first point.
    """

    target: Discretization
    index: Tensor
    present: Tensor
    count: Tensor
    share: Tensor
    _placed: dict = field(default_factory=dict, repr=False)

    def on(self, device: torch.device) -> Neighbours:
        """Return the same lists on a device."""
        if self.index.device == device:
            return self
        if device not in self._placed:
            moved = (t.to(device) for t in (self.index, self.present, self.count, self.share))
            self._placed[device] = Neighbours(self.target, *moved)
        return self._placed[device]


@dataclass(frozen=True)
class GridKernel:
    """A window as a kernel of `size` cells; pads (before, after) an axis lead to exactly the output points.

    count (m,): cells in each window; share (m,): part of each window inside the domain.
    """

    target: Discretization
    size: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    mode: str  # "constant" or "circular"
    count: Tensor
    share: Tensor


@derived
def neighbours(source: Discretization, window: Window) -> Neighbours:
    """Find the points in each window."""
    return _search(window, source)


@derived
def grid_kernel(source: Discretization, window: Window) -> GridKernel | None:
    """Return the window as a kernel on a grid of 1 to 3 axes, or None where torch's pooling cannot serve it."""
    return _grid_kernel(window, source)


def per_axis(value: Lengths, dim: int, what: str) -> np.ndarray:
    """Return one length an axis (d,)."""
    lengths = np.atleast_1d(np.asarray(value, dtype=float))
    if lengths.shape not in ((1,), (dim,)):
        raise ShapeMismatch(f"Got {lengths.tolist()} as {what} of a window, expected one number or {dim}, one an axis.")
    return np.broadcast_to(lengths, (dim,)).copy()


def _search(window: Window, source: Discretization) -> Neighbours:
    target = window.target(source)
    points, outputs = (t.points.detach().double().cpu().numpy() for t in (source, target))
    low, high = window.bounds(source.domain.intrinsic_dim)
    if source.domain.is_flat:
        i, j = _in_boxes(points, outputs, source, low, high)
        centre = (low + high) / 2
    else:
        if np.ptp(high - low) > 0 or np.any(low + high != 0):
            raise ConfigError(
                f"Got a window of width {window.width} and shift {window.shift} on {source.domain}, expected one width and no "
                "shift: on a curved domain a window is a ball."
            )
        found = pairs_within(source, target, high[0])
        i, j = found.rows, found.index
        centre = 0.0
    empty = np.setdiff1d(np.arange(len(target)), i)
    i, j = np.concatenate([i, empty]), np.concatenate([j, nearest_point(source, outputs[empty] + centre)])
    order = np.lexsort((j, i))
    rows, columns = torch.from_numpy(i[order]).long(), torch.from_numpy(j[order]).long()
    index, present = _pad_lists(rows, columns, torch.ones(len(rows), 1), len(target))
    present = present[:, 0] > 0
    index = torch.where(present, index, index[:, :1])
    count = torch.bincount(rows, minlength=len(target))
    share = torch.from_numpy(_share(outputs, source, low, high))
    return Neighbours(target, index, present, count, share).on(source.points.device)


def _in_boxes(points, outputs, source: Discretization, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of an output i and a point j in its box."""
    width = high - low
    images, origin = _images(points, source, low, high)
    offsets, j, ways = PointSet(images).inside(outputs, low - 1e-6 * width, high)
    i = np.repeat(np.arange(len(outputs)), np.diff(offsets))
    # half open, with room for rounding: a point on the upper face belongs to the next window
    inside = ((ways / width >= low / width - 1e-6) & (ways / width < high / width - 1e-6)).all(1)
    return i[inside], origin[j[inside]]


def _images(points: np.ndarray, source: Discretization, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add the copies of points beyond the edges of a torus, and the index of the point that each copies."""
    origin = np.arange(len(points))
    for axis, period in enumerate(source.domain.axis_periods):
        if period == 0:
            continue
        if high[axis] - low[axis] > period * (1 + 1e-6):
            raise ConfigError(
                f"Got a window wider than the period {period:.4g} of axis {axis}, expected at most that; narrow it."
            )
        parts, owners = [points], [origin]
        for move in (-period, period):
            x = points[:, axis] + move
            near = (x > low[axis]) & (x < period + high[axis])
            copies = points[near].copy()
            copies[:, axis] = x[near]
            parts.append(copies)
            owners.append(origin[near])
        points, origin = np.concatenate(parts), np.concatenate(owners)
    return points, origin


def _share(outputs: np.ndarray, source: Discretization, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Part of each window that lies between the bounds of the domain (m,); all of it on a curved domain."""
    if not source.domain.is_flat:
        return np.ones(len(outputs))
    first, last = (np.asarray(v) for v in source.domain.bounds)
    repeats = np.asarray(source.domain.axis_periods) > 0
    inside = np.minimum(outputs + high, last) - np.maximum(outputs + low, first)
    inside = np.where(repeats, high - low, inside)
    return (inside.clip(min=0) / (high - low)).prod(1)


def _grid_kernel(window: Window, source: Discretization) -> GridKernel | None:
    grid = source.structure
    dim = source.domain.dim
    if not isinstance(grid, Grid) or dim > 3 or not source.domain.is_flat:
        return None
    low, high = window.bounds(dim)
    first = [math.ceil(a / h - 1e-6) for a, h in zip(low, grid.step, strict=True)]
    last = [math.ceil(b / h - 1e-6) - 1 for b, h in zip(high, grid.step, strict=True)]
    if any(a > 0 or b < 0 for a, b in zip(first, last, strict=True)):
        return None  # some window may be empty
    target = window.target(source)
    size = tuple(b - a + 1 for a, b in zip(first, last, strict=True))
    periodic = isinstance(source.domain, Torus)
    if periodic and any(k > n for k, n in zip(size, grid.shape, strict=True)):
        return None
    pads, counts, outputs = [], [], []
    for axis, (n, h) in enumerate(zip(grid.shape, grid.step, strict=True)):
        begin = round((target.structure.start[axis] - grid.start[axis]) / h)
        places = begin + window.stride * np.arange(target.structure.shape[axis])
        pads.append((-(begin + first[axis]), int(places[-1]) + last[axis] - (n - 1)))
        inside = np.minimum(places + last[axis], n - 1) - np.maximum(places + first[axis], 0) + 1
        counts.append(np.full_like(places, size[axis]) if periodic else inside)
        outputs.append(grid.start[axis] + h * places)
    count = math.prod(np.meshgrid(*counts, indexing="ij")).reshape(-1)
    outputs = np.stack(np.meshgrid(*outputs, indexing="ij"), -1).reshape(-1, dim)
    moved = (torch.from_numpy(a).to(source.points.device) for a in (count, _share(outputs, source, low, high)))
    return GridKernel(target, size, tuple(pads), "circular" if periodic else "constant", *moved)


def _pad_lists(rows: Tensor, columns: Tensor, values: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Turn entries sorted by row into lists of equal length.

    Args:
        rows, columns: (e,) with rows ascending; values: (e, k).

    Returns:
        index (n_rows, t), weight (n_rows, k, t); unused places hold index 0 and weight 0.
    """
    counts = torch.bincount(rows, minlength=n_rows)
    longest = max(1, int(counts.max()) if rows.numel() else 1)
    slot = torch.arange(rows.numel()) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    index = torch.zeros(n_rows, longest, dtype=torch.long)
    index[rows, slot] = columns
    weight = torch.zeros(n_rows, longest, values.shape[1], dtype=values.dtype)
    weight[rows, slot] = values
    return index, weight.transpose(1, 2).contiguous()
