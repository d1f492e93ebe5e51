"""Floor 4: where the nodes of a kernel lie, and which points lie under it: on flat domains by differences of coordinates, on
curved ones in the tangent plane of the output point, by the domain's own logarithm and exponential map."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.stencils.borders import EdgeCells, fold, ghosts
from inrbridge.stencils.nodes import Offsets

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def array(points: torch.Tensor) -> np.ndarray:
    """Return a tensor as a float64 array."""
    return points.detach().double().cpu().numpy()


def node_coords(
    target: Discretization, nodes: Offsets, domain: Domain, border: str, cells: EdgeCells
) -> tuple[np.ndarray, np.ndarray]:
    """Return the node of every output point, row i * k + node, (m * k, d), and the factor of the value there (m * k,)."""
    outputs, offsets = array(target.points), np.asarray(nodes)
    if domain.is_flat:
        coords = outputs[:, None] + offsets[None]  # (m, k, d)
        return fold(coords.reshape(-1, coords.shape[2]), domain, border, cells)
    coords = domain.exp_map(torch.from_numpy(outputs)[:, None], torch.from_numpy(offsets)[None]).flatten(0, 1)
    return coords.numpy(), domain.contains(coords).double().numpy()


def pairs(
    source: Discretization, target: Discretization, border: str, low: np.ndarray, high: np.ndarray, spacing: tuple[float, ...]
) -> Pairs:
    """All pairs whose offset is between low and high: output i ascending, input j, offsets of j as seen from i (p, d)."""
    find = _flat_pairs if source.domain.is_flat else _curved_pairs
    return find(source, target, border, low, high, spacing)


def _flat_pairs(source, target, border, low, high, spacing) -> Pairs:
    points, outputs = array(source.points), array(target.points)
    points, origin = ghosts(points, source.domain, border, -low, high, spacing)
    half, centre = (high - low) / 2, (high + low) / 2
    tree = cKDTree(points / half)
    near = cKDTree((outputs + centre) / half).sparse_distance_matrix(tree, 1.0 + 1e-9, p=np.inf, output_type="ndarray")
    order = np.argsort(near["i"], kind="stable")
    i, j = near["i"][order], near["j"][order]
    return i, origin[j], points[j] - outputs[i]


def _curved_pairs(source, target, border, low, high, spacing) -> Pairs:
    radius = float(np.linalg.norm(np.maximum(np.abs(low), np.abs(high))))
    i, j, offsets = pairs_within(source, target, radius)
    slack = 1e-9 * (high - low)
    inside = ((offsets >= low - slack) & (offsets <= high + slack)).all(1)
    return i[inside], j[inside], offsets[inside]


def pairs_within(source: Discretization, target: Discretization, radius: float) -> Pairs:
    """All pairs no further apart than `radius` along a domain: output i ascending, input j ascending, offsets (p, d).

    Candidates are nearer than that by the chord, which is never longer than the way along the domain.
    """
    domain = source.domain
    points, outputs = array(source.points), array(target.points)
    found = chord_tree(outputs, domain).sparse_distance_matrix(
        chord_tree(points, domain), radius * (1 + 1e-9), output_type="ndarray"
    )
    order = np.lexsort((found["j"], found["i"]))
    i, j = found["i"][order], found["j"][order]
    # as lists of equal length, so that each output point's tangent frame is found once
    counts = np.bincount(i, minlength=len(outputs))
    place = np.arange(len(i)) - np.repeat(counts.cumsum() - counts, counts)
    lists = np.zeros((len(outputs), max(1, counts.max(initial=0))), np.int64)
    lists[i, place] = j
    offsets = domain.log_map(torch.from_numpy(outputs)[:, None], torch.from_numpy(points[lists])).numpy()[i, place]
    near = np.linalg.norm(offsets, axis=1) <= radius * (1 + 1e-9)
    return i[near], j[near], offsets[near]


def chord_tree(points: np.ndarray, domain: Domain) -> cKDTree:
    """Return a tree of points (n, d) by straight distance, the short way around the coordinates that repeat."""
    periods = np.asarray(domain.axis_periods)
    if not periods.any():
        return cKDTree(points)
    folded = np.mod(points, np.where(periods > 0, periods, 1.0))
    folded = np.where(folded < periods, folded, 0.0)  # a tiny negative number folds onto the period itself
    return cKDTree(np.where(periods > 0, folded, points), boxsize=periods)
