"""Floor 4: what a kernel sees beyond the edge of the domain (Wang & Golland 2023, appendix C, "padding").

`zeros`: nothing is there (a node outside contributes 0, an integral runs over the part inside). `renormalize`:
as zeros, then scaled up by the part of the kernel that is missing. `reflect`: the mirror stands on the outermost
cell's centre, half a node spacing inside the edge, where torch's reflection padding has it. `replicate`: the outermost values
go on, as torch's replication padding has it. `fading`: as zeros, but values fall to 0 from the centre of the outermost cell
to that of the first cell outside, as those of an image with zeros around it do between its pixels. `circular`: the box closes
on itself. `valid`: output points whose kernel sticks out are dropped and the domain shrinks.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from inrbridge.discretization import Discretization, Grid
from inrbridge.domains import Box, Domain, Torus
from inrbridge.errors import EmptyDiscretization, ShapeMismatch, unknown_name

EdgeCells = tuple[tuple[float, float, float], ...]
BEYOND = 8.0  # sizes of the domain; kernels never reach as far
BORDERS = ("zeros", "fading", "reflect", "replicate", "circular", "valid", "renormalize")


def check_border(border: str, domain: Domain) -> None:
    """Raise unless the border mode exists and the domain has such a border."""
    if border not in BORDERS:
        raise unknown_name("border mode", border, BORDERS)
    if border in ("fading", "reflect", "replicate", "circular", "valid") and not isinstance(domain, Box | Torus):
        raise ShapeMismatch(f'Got border "{border}" on {domain}, expected a Box; use "zeros" or "renormalize" there.')


def periods(border: str, domain: Domain) -> np.ndarray | None:
    """Return the lengths (d,) after which space repeats, or None. An axis that does not, beside one that does, gets a length
    that nothing inside the domain reaches around."""
    around = repeats(border, domain)
    if not around.any():
        return None
    low, high = domain.bounds
    return np.where(around, 1.0, BEYOND) * np.subtract(high, low)


def repeats(border: str, domain: Domain) -> np.ndarray:
    """Return which axes repeat, bool (d,): all of a circular box, those of a torus by themselves."""
    if border == "circular":
        return np.ones(domain.dim, bool)
    return np.asarray(domain.axis_periods) > 0


def whole_cells(spacing: tuple[float, ...]) -> EdgeCells:
    """Return cells of a size, the outermost of which end at the edges."""
    return tuple((h / 2, h / 2, h) for h in spacing)


def fold(coords: np.ndarray, domain: Domain, border: str, cells: EdgeCells) -> tuple[np.ndarray, np.ndarray]:
    """Bring coordinates (q, d) that left the domain back where their value is defined.

    Args:
        cells: whose values a "reflect" or "replicate" border repeats, or a "fading" one fades from.

    Returns:
        The coordinates (q, d), and the factor of the value at each (q,): 0 where none is.
    """
    low, high = (np.asarray(v) for v in domain.bounds)
    around = repeats(border, domain)
    if around.any():
        coords = np.where(around, low + np.mod(coords - low, high - low), coords)
        if around.all() and isinstance(domain, Box | Torus):
            return coords, np.ones(len(coords))
    before, after, step = np.asarray(cells).T
    if border == "reflect":
        slack = 1e-9 * (high - low)
        coords = np.where(coords < low - slack, 2 * (low + before) - coords, coords)
        coords = np.where(coords > high + slack, 2 * (high - after) - coords, coords)
    if border == "replicate":
        # the further outside the further inside, until the first centre outside shows the outermost inside: values stay
        # continuous at the edge
        coords = np.where(coords < low, low + np.minimum((low - coords) * (before / (step - before)), before), coords)
        coords = np.where(coords > high, high - np.minimum((coords - high) * (after / (step - after)), after), coords)
        coords = np.clip(coords, low, high)
    share = np.ones(len(coords))
    if border == "fading":
        first, last = low + before, high - after
        beyond = np.where(around, 0.0, np.maximum(first - coords, 0.0) + np.maximum(coords - last, 0.0))
        share = np.clip(1 - beyond / step, 0.0, 1.0).prod(1)
        share[share < 1e-9] = 0.0  # the centre of a cell outside, but for rounding
        coords = np.where(around, coords, np.clip(coords, first, last))
    return coords, share * domain.contains(torch.from_numpy(coords)).numpy()


def ghosts(points: np.ndarray, domain: Domain, border: str, before: np.ndarray, after: np.ndarray,
           spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Add the images of points beyond a reflecting or circular border, as far as kernels reach.

    Returns:
        All positions (n + ghosts, d) and the index (n + ghosts,) of the point whose value each carries.
    """
    origin = np.arange(len(points))
    around = repeats(border, domain)
    if border != "reflect" and not around.any():
        return points, origin
    low, high = (np.asarray(v) for v in domain.bounds)
    for axis in range(points.shape[1]):
        if border != "reflect" and not around[axis]:
            continue
        x = points[:, axis]
        length = high[axis] - low[axis]
        if around[axis]:
            images = [x - length, x + length]
        else:
            images = [2 * low[axis] + spacing[axis] - x, 2 * high[axis] - spacing[axis] - x]
        added, owners = [points], [origin]
        for image, side in zip(images, (-1, 1), strict=True):
            outside = image < low[axis] if side < 0 else image > high[axis] - 1e-12 * length * around[axis]
            near = (image > low[axis] - before[axis]) & (image < high[axis] + after[axis])
            kept = outside & near
            copy = points[kept].copy()
            copy[:, axis] = image[kept]
            added.append(copy)
            owners.append(origin[kept])
        points, origin = np.concatenate(added), np.concatenate(owners)
    return points, origin


def shrink(source: Discretization, before: tuple[float, ...], after: tuple[float, ...]) -> Discretization:
    """Return the points whose whole kernel lies inside, on the smaller box: border mode `valid`."""
    key = ("shrink", before, after)
    if key not in source.cache:
        source.cache[key] = _shrink(source, before, after)
    return source.cache[key]


def _shrink(source: Discretization, before: tuple[float, ...], after: tuple[float, ...]) -> Discretization:
    low, high = (np.asarray(v) for v in source.domain.bounds)
    low, high = low + np.asarray(before), high - np.asarray(after)
    if np.any(low >= high):
        raise EmptyDiscretization(
            f'Got a kernel that reaches {before} and {after} on {source.domain} with border "valid": nothing is left; '
            "use a smaller kernel or another border mode."
        )
    points = source.points.double().cpu().numpy()
    slack = 1e-6 * source.spacing
    inside = torch.from_numpy(((points >= low - slack) & (points <= high + slack)).all(1)).to(source.points.device)
    if not bool(inside.any()):
        raise EmptyDiscretization(
            f"Got {len(source)} points of which none keeps its kernel inside {source.domain}; use more points."
        )
    structure = source.structure
    if isinstance(structure, Grid):
        counts = [_count_inside(*axis) for axis in zip(structure.start, structure.step, structure.shape, low, high, strict=True)]
        structure = Grid(
            tuple(n for _, n in counts),
            tuple(s + h * first for s, h, (first, _) in zip(structure.start, structure.step, counts, strict=True)),
            structure.step,
        )
    else:
        structure = None
    domain = Box(tuple(low.tolist()), tuple(high.tolist()))
    weights = source.weights[inside]
    weights = weights * (domain.measure / weights.sum())
    points, fresh = source.points[inside], {"extend_to": None, "finer": None, "cache": {}}
    return replace(source, points=points, weights=weights, domain=domain, structure=structure, **fresh)


def _count_inside(start: float, step: float, size: int, low: float, high: float) -> tuple[int, int]:
    """First index and number of the grid coordinates that lie in [low, high]."""
    first = max(0, math.ceil((low - start) / step - 1e-6))
    last = min(size - 1, math.floor((high - start) / step + 1e-6))
    return first, last - first + 1
