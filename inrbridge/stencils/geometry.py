"""Floor 4: where the nodes of a kernel lie, and which points lie under it: on flat domains by differences of coordinates, on
curved ones in the tangent plane of the output point, by the domain's own logarithm and exponential map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from inrbridge.discretization import Discretization, derived
from inrbridge.domains import Domain
from inrbridge.stencils.borders import EdgeCells, fold, ghosts, repeats
from inrbridge.stencils.neighbours import SLACK, PointSet
from inrbridge.stencils.nodes import Offsets
from inrbridge.stencils.shifts import Rows, by_shifts


def array(points: torch.Tensor) -> np.ndarray:
    """Return a tensor as a float64 array."""
    return points.detach().double().cpu().numpy()


def node_coords(
    outputs: np.ndarray, nodes: Offsets, domain: Domain, border: str, cells: EdgeCells
) -> tuple[np.ndarray, np.ndarray]:
    """Return the node of every output (m, d), row i * k + node, (m * k, d), and the factor of the value there (m * k,)."""
    offsets = np.asarray(nodes)
    if domain.is_flat:
        coords = outputs[:, None] + offsets[None]  # (m, k, d)
        return fold(coords.reshape(-1, coords.shape[2]), domain, border, cells)
    coords = domain.exp_map(torch.from_numpy(outputs)[:, None], torch.from_numpy(offsets)[None]).flatten(0, 1)
    return coords.numpy(), domain.contains(coords).double().numpy()


@dataclass(frozen=True, eq=False)
class PairLists:
    """Pairs of an output and an input point, those of output i at offsets[i]:offsets[i + 1]."""

    offsets: np.ndarray  # (m + 1,)
    index: np.ndarray  # j (p,)
    ways: np.ndarray  # from i to j, (p, d)

    @cached_property
    def rows(self) -> np.ndarray:
        """i (p,), ascending."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def kept(self, chosen: np.ndarray) -> PairLists:
        """Those of the pairs that are chosen, bool (p,)."""
        counts = np.bincount(self.rows[chosen], minlength=len(self.offsets) - 1)
        return PairLists(np.concatenate([[0], np.cumsum(counts)]), self.index[chosen], self.ways[chosen])


def pairs(source: Discretization, target: Discretization, border: str, low: np.ndarray, high: np.ndarray,
          spacing: tuple[float, ...], ball: bool = False) -> PairLists:  # fmt: skip
    """All pairs whose way is between low and high, or in the ellipsoid in this box; kept with the source for other rules.

    `spacing` is that of the nodes, which says where a reflecting border stands.
    """
    corners = (tuple(map(float, v)) for v in (low, high, spacing if border == "reflect" else ()))
    return _pairs(source, target, border, *corners, ball)


@derived
def _pairs(source, target, border, low, high, spacing, ball) -> PairLists:
    low, high = np.asarray(low), np.asarray(high)
    if not source.domain.is_flat:
        return _curved_pairs(source, target, low, high, ball)
    points, origin = ghosts(array(source.points), source.domain, border, -low, high, spacing)
    points = PointSet(points)

    def find(outputs: np.ndarray) -> tuple[Rows, np.ndarray, np.ndarray]:
        if target is source and len(outputs) == len(points.points):
            outputs = points.points  # which spares a sort
        offsets, columns, ways = points.inside(outputs, low, high, ball)
        return Rows(offsets, columns if len(points.points) == len(source) else origin[columns], ways), low, high

    return PairLists(*by_shifts(source, target, repeats(border, source.domain), 1, find))


def _curved_pairs(source, target, low, high, ball) -> PairLists:
    found = pairs_within(source, target, float(np.linalg.norm(np.maximum(np.abs(low), np.abs(high)))))
    middle, half = (high + low) / 2, (high - low) / 2 * (1 + SLACK)
    part = (found.ways - middle) / half
    return found.kept((part**2).sum(1) <= 1 if ball else (np.abs(part) <= 1).all(1))


def pairs_within(source: Discretization, target: Discretization, radius: float) -> PairLists:
    """All pairs no further apart than `radius` along a domain.

    Candidates are nearer than that by the chord, which is never longer than the way along the domain.
    """
    domain = source.domain
    points, outputs = array(source.points), array(target.points)
    offsets, index = PointSet.on(domain, points).within(outputs, radius * (1 + SLACK))
    # as lists of equal length, so that each output point's tangent frame is found once
    rows, counts = np.repeat(np.arange(len(outputs)), np.diff(offsets)), np.diff(offsets)
    place = np.arange(len(rows)) - np.repeat(offsets[:-1], counts)
    lists = np.zeros((len(outputs), max(1, counts.max(initial=0))), np.int64)
    lists[rows, place] = index
    ways = domain.log_map(torch.from_numpy(outputs)[:, None], torch.from_numpy(points[lists])).numpy()[rows, place]
    return PairLists(offsets, index, ways).kept(np.linalg.norm(ways, axis=1) <= radius * (1 + SLACK))
