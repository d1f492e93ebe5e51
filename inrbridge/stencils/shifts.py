"""Floor 4: points that see the same neighbourhood wherever they are: those of grids and rank-1 lattices.

From one point to another of such a set it is a step in natural order, and the same step leads the same way from any point. So
what one point far from the border sees is found once and shifted to the others; only those near it are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from inrbridge.compiled import entries as compiled
from inrbridge.compiled.calling import room
from inrbridge.discretization import Discretization, Grid, Lattice, derived
from inrbridge.sampling.sequences import radical_inverse

EXACT = 1e-11  # of the spacing: coordinates that were rounded by more are looked at one by one


class Rows(NamedTuple):
    """Entries by rows, `nodes` rows for each output: row r has columns and values edges[r]:edges[r + 1]."""

    edges: np.ndarray  # (rows + 1,)
    columns: np.ndarray  # (e,)
    values: np.ndarray  # (e,) or (e, w)


@dataclass(frozen=True, eq=False)
class Shifts:
    """A set of n points in which the step natural[j] - natural[i] (modulo n) tells the way from point i to j.

    Between low and high (d,), edges excluded, the set holds every point of the endless pattern; `closes`: it does so beyond them,
    too, once the domain is closed on itself.
    """

    points: np.ndarray  # (n, d)
    natural: np.ndarray  # (n,)
    point: np.ndarray  # (n,), which one has a natural number
    low: np.ndarray
    high: np.ndarray
    closes: bool

    @cached_property
    def middle(self) -> int:
        """The point nearest to the middle."""
        return int(((self.points - (self.low + self.high) / 2) ** 2).sum(1).argmin())

    def inner(self, outputs: np.ndarray, low: np.ndarray, high: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Which outputs (m, d) have all places between x + low and x + high on the pattern, bool (m,).

        `around` (d,): the axes along which the domain repeats.
        """
        slack = 1e-8 * (high - low)
        fits = (outputs + low > self.low + slack) & (outputs + high < self.high - slack)
        return (fits | around if self.closes else fits).all(1)

    def spread(self, at: np.ndarray, inner: np.ndarray, reference: Rows, others: Rows, nodes: int) -> Rows:
        """Put the rows of all outputs together.

        Args:
            at: the number of each output point (m,).
            inner: those that see what `self.middle` sees, bool (m,).
            reference: the rows of `self.middle`.
            others: the rows of the outputs that are not inner.
        """
        counts = np.empty((len(at), nodes), np.int64)
        counts[inner], counts[~inner] = np.diff(reference.edges), np.diff(others.edges).reshape(-1, nodes)
        edges = np.concatenate([[0], np.cumsum(counts.ravel())])
        columns, values = room(edges[-1], dtype=torch.long), room(edges[-1], *reference.values.shape[1:])
        starts = edges[:-1:nodes]
        steps = self.natural[reference.columns] - self.natural[self.middle]
        fill = compiled.shift_rows if compiled.available() else _shift_rows
        fill(starts[inner], self.natural[at[inner]], steps, self.point, reference.values, columns, values)
        place = np.repeat(starts[~inner] - others.edges[:-1:nodes], counts[~inner].sum(1)) + np.arange(len(others.columns))
        columns[place], values[place] = others.columns, others.values
        return Rows(edges, columns, values)


def by_shifts(source: Discretization, target: Discretization, around: np.ndarray, nodes: int,
              find: Callable[[np.ndarray], tuple[Rows, np.ndarray, np.ndarray]]) -> Rows:  # fmt: skip
    """Return the rows of all points of a target, those of points that see the same by shifting.

    Args:
        around: axes (d,) along which the domain repeats.
        find: the rows of outputs (m, d) one by one, and how far (d,) below and above the first of them it looked.
    """
    outputs = target.points.detach().double().cpu().numpy()
    shifts, at = shifts_of(source), places_in(source, target)
    if shifts is None or at is None:
        return find(outputs)[0]
    middle = shifts.points[shifts.middle : shifts.middle + 1]
    reference, low, high = find(middle)
    inner = shifts.inner(outputs, low, high, around)
    if not inner.any() or not shifts.inner(middle, low, high, around).all():
        return find(outputs)[0]
    others = Rows(np.zeros(1, np.int64), reference.columns[:0], reference.values[:0])
    return shifts.spread(at, inner, reference, others if inner.all() else find(outputs[~inner])[0], nodes)


@derived
def shifts_of(source: Discretization) -> Shifts | None:
    """The steps of a grid or lattice, None of other sets and where rounding has moved its points."""
    structure, n = source.structure, len(source)
    points = source.points.detach().double().cpu().numpy()
    low, high = (np.asarray(v, float) for v in source.domain.bounds)
    if isinstance(structure, Lattice):
        natural = (radical_inverse(torch.arange(n)) * n).long()
        phase = natural[:, None] / n * torch.tensor(structure.generator, dtype=torch.float64)
        place = low + (high - low) * ((phase % 1.0 + torch.tensor(structure.shift, dtype=torch.float64)) % 1.0).numpy()
        numbers, closes = natural.numpy(), True
    elif isinstance(structure, Grid):
        start, step, shape = (np.asarray(v) for v in (structure.start, structure.step, structure.shape))
        place = start + step * np.stack(np.unravel_index(np.arange(n), structure.shape), 1)
        numbers, closes = np.arange(n), False
        low, high = np.maximum(low, start - step), np.minimum(high, start + step * shape)
    else:
        return None
    if np.abs(points - place).max() > EXACT * source.spacing:
        return None
    point = np.empty(n, np.int64)
    point[numbers] = np.arange(n)
    return Shifts(points, numbers, point, low, high, closes)


@derived
def places_in(source: Discretization, target: Discretization) -> np.ndarray | None:
    """Which point of a source each point of a target is (m,), None where it is not thinned from it."""
    if target is source:
        return np.arange(len(source))
    if target.domain is not source.domain or len(target) > len(source):
        return None
    at = torch.arange(len(target))
    if isinstance(source.structure, Grid) and isinstance(target.structure, Grid):
        steps = zip(target.structure.start, source.structure.start, source.structure.step, strict=True)
        first = [round((a - b) / h) for a, b, h in steps]
        strides = [round(a / b) for a, b in zip(target.structure.step, source.structure.step, strict=True)]
        axes = [f + s * np.arange(c) for f, s, c in zip(first, strides, target.structure.shape, strict=True)]
        if any(axis[0] < 0 or axis[-1] >= size for axis, size in zip(axes, source.structure.shape, strict=True)):
            return None
        at = torch.from_numpy(np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), source.structure.shape).ravel())
    same = torch.equal(source.points[at.to(source.points.device)], target.points)
    return at.numpy() if same else None


def _shift_rows(starts, natural, steps, point, values, columns_out, values_out) -> None:
    """The same as `compiled.entries.shift_rows`."""
    place = starts[:, None] + np.arange(len(steps))
    columns_out[place] = point[(natural[:, None] + steps) % len(point)]
    values_out[place] = values
