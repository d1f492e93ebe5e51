"""Floor 4: the five rules that turn points into a stencil, and the cache that computes each one once."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from inrbridge.discretization import Discretization, derived
from inrbridge.errors import ShapeMismatch, SupportTooNarrow
from inrbridge.ops.pairs import Pairs
from inrbridge.ops.sparse import SparseRows
from inrbridge.stencils import collecting
from inrbridge.stencils.bases import Basis, Radial
from inrbridge.stencils.borders import EdgeCells, check_border, repeats, shrink, whole_cells
from inrbridge.stencils.cells import Cells, cell_stencil
from inrbridge.stencils.distinct import distinct_rows
from inrbridge.stencils.entries import basis_entries, nearest_seed
from inrbridge.stencils.geometry import PairLists, array, node_coords, pairs
from inrbridge.stencils.nodes import Offsets, reach
from inrbridge.stencils.paired import PairStencil
from inrbridge.stencils.pixels import Pixels, pixels_at
from inrbridge.stencils.reconstruct import reconstruct_from, samples_on
from inrbridge.stencils.shifts import Rows, by_shifts
from inrbridge.stencils.stencil import BinnedStencil, Stencil


@dataclass(frozen=True)
class Reconstruct:
    """P[i, k, :] evaluates f at x_i + node_k, exactly for polynomials up to `order`.

    `neighbors` samples an evaluation (None: the measured default); `spacing` is the distance between nodes. `cells` says which
    cells a reflecting or replicating border repeats: along each axis the distances of the outermost centres from the edges,
    before and after, and from one centre to the next; None: of size `spacing`, the outermost ones at the edges. With `pixels` the
    function is read as an image of these pixels goes on between them, not as a polynomial.
    """

    nodes: Offsets
    spacing: tuple[float, ...]
    order: int = 2
    neighbors: int | None = None
    cells: EdgeCells | None = None
    pixels: Pixels | None = None


@dataclass(frozen=True)
class Quadrature:
    """P[i, k, j] = w_j B_k(x_j - x_i) / scale: the kernel is a combination of basis functions under the integral (eq. 6-7).

    With `normalize`, each row is rescaled so that constants are integrated exactly (moment correction of order 0).
    """

    basis: Basis
    spacing: tuple[float, ...]
    normalize: bool = False


@dataclass(frozen=True)
class Bins:
    """P[i, k, j] = w_j / |S| if x_j - x_i lies in the support S and nearest to seed k (section 4.3)."""

    seeds: Offsets
    half_width: tuple[float, ...]
    ball: bool = False

    @property
    def measure(self) -> float:
        """|S|: of the box, or of the ellipsoid inside it."""
        return _measure(self)


@dataclass(frozen=True)
class Pairwise:
    """P[i, u, j] = w_j / |S| if x_j - x_i lies in the support S and is offset u: each pair for itself, no bins.

    Pairs of one offset, as all points of a grid or of a lattice have the same, share a node.
    """

    half_width: tuple[float, ...]
    ball: bool = False

    @property
    def measure(self) -> float:
        """|S|: of the box, or of the ellipsoid inside it."""
        return _measure(self)


Rule = Reconstruct | Quadrature | Bins | Pairwise | Cells


def _measure(rule: Bins | Pairwise) -> float:
    d = len(rule.half_width)
    unit = math.pi ** (d / 2) / math.gamma(d / 2 + 1) if rule.ball else 2.0**d
    return unit * math.prod(rule.half_width)


def build_stencil(rule: Rule, source: Discretization, target: Discretization | None = None, border: str = "zeros",
                  stride: int = 1) -> Stencil | BinnedStencil | PairStencil:  # fmt: skip
    """Build, or take from the cache of `source`, the stencil of a rule.

    Args:
        rule: what a kernel node sees.
        source: the points where values are known.
        target: the points where the output is wanted; None: those of `source` that the border leaves, thinned by `stride`.
        border: one of `borders.BORDERS`.

    Returns:
        The stencil; its `target` is the discretization of the output.
    """
    return _stencil_of(source, rule, target, border, stride)


@derived
def _stencil_of(source, rule, target, border, stride) -> Stencil | BinnedStencil | PairStencil:
    check_border(border, source.domain)
    _check_kernel(rule, source)
    stencil = _BUILDERS[type(rule)](rule, source, target, border, stride)
    made = stencil.matrix[:2] if isinstance(stencil, Stencil) else (stencil.pairs.source, stencil.pairs.weight)
    collecting.count(*made)
    return stencil


def _check_kernel(rule: Rule, source: Discretization) -> None:
    """Raise unless the kernel has one axis for each direction in which the domain goes on."""
    if isinstance(rule, Cells):
        return
    domain, axes = source.domain, len(rule.half_width if isinstance(rule, Bins | Pairwise) else rule.spacing)
    if axes != domain.intrinsic_dim:
        plane = "" if domain.is_flat else ", the directions of its tangent plane"
        raise ShapeMismatch(
            f"Got a kernel of {axes} dimensions on {domain}, expected {domain.intrinsic_dim}{plane}; pass "
            f"dim={domain.intrinsic_dim} to the layer."
        )


def _outputs(source: Discretization, target: Discretization | None, border: str, stride: int,
             before: tuple[float, ...], after: tuple[float, ...]) -> Discretization:  # fmt: skip
    if target is None:
        target = (shrink(source, before, after) if border == "valid" else source).thin(stride)
    return target


def _reconstruct(rule: Reconstruct, source, target, border, stride) -> Stencil:
    before, after = reach(rule.nodes)
    _warn_if_narrow([b + a + h for b, a, h in zip(before, after, rule.spacing, strict=True)], source)
    target = _outputs(source, target, border, stride, before, after)
    k = len(rule.nodes)
    if rule.pixels is not None:
        return Stencil(target, len(source), k, _evaluate(rule, source, array(target.points), border, _pixels(rule, source))[0])
    samples = samples_on(source.domain, array(source.points), border)

    def recover(coords: np.ndarray) -> tuple[SparseRows, np.ndarray]:
        return reconstruct_from(samples, source.domain, coords, rule.order, rule.neighbors)

    def find(outputs: np.ndarray) -> tuple[Rows, np.ndarray, np.ndarray]:
        matrix, radius = _evaluate(rule, source, outputs, border, recover)
        rows = Rows(*(t.numpy() for t in (matrix.edges, matrix.columns, matrix.weights)))
        return rows, *_seen(rule, radius[:k], border)

    rows = by_shifts(source, target, repeats(border, source.domain), k, find)
    columns, weights, edges = (torch.from_numpy(a) for a in (rows.columns, rows.values, rows.edges))
    return Stencil(target, len(source), k, SparseRows(columns, weights, edges, edges))


def _pixels(rule: Reconstruct, source: Discretization):
    points = array(source.points)
    return lambda coords: (pixels_at(rule.pixels, points, coords, rule.neighbors), np.full(len(coords), np.inf))


def _evaluate(rule: Reconstruct, source: Discretization, outputs: np.ndarray, border: str,
              recover: Callable[[np.ndarray], tuple[SparseRows, np.ndarray]]) -> tuple[SparseRows, np.ndarray]:  # fmt: skip
    """The rows (m * k, n) of outputs (m, d), and the radius (m * k,) around each node of what its row depends on.

    `recover` gives both for coordinates inside the domain.
    """
    k = len(rule.nodes)
    coords, share = node_coords(outputs, rule.nodes, source.domain, border, rule.cells or whole_cells(rule.spacing))
    query = np.flatnonzero(share)
    matrix, found = recover(coords[query])
    radius = np.full(len(coords), np.inf)
    radius[query] = found
    factor = share[query]
    if border == "renormalize":
        present = (share > 0).reshape(-1, k).sum(1)
        factor = factor * (k / np.maximum(present, 1))[query // k]
    return matrix.scaled(torch.from_numpy(factor)).spread(torch.from_numpy(query), len(coords)), radius


def _seen(rule: Reconstruct, radius: np.ndarray, border: str) -> tuple[np.ndarray, np.ndarray]:
    """How far (d,) below and above an output its rows look, from the radius (k,) around each node."""
    nodes = np.asarray(rule.nodes)
    before, after = np.zeros(nodes.shape[1]), np.zeros(nodes.shape[1])
    if border == "fading":  # which changes values within a cell of the edge
        before, after, _ = np.asarray(rule.cells or whole_cells(rule.spacing)).T
    low, high = nodes.min(0) - before, nodes.max(0) + after
    return np.minimum(low, (nodes - radius[:, None]).min(0)), np.maximum(high, (nodes + radius[:, None]).max(0))


def _warn_if_narrow(widths: list[float], source: Discretization) -> None:
    if min(widths) < 0.999 * source.spacing:
        warnings.warn(
            f"A kernel support of width {min(widths):.4g} is narrower than the spacing {source.spacing:.4g} of {len(source)} "
            f"points on {source.domain}: the layer acts on single points only; use a wider kernel or more points.",
            SupportTooNarrow,
            stacklevel=_levels_to_caller(),
        )


def _levels_to_caller() -> int:
    """Stack level of the line that called inrbridge, through whatever layers of ours and of torch: Python shows a warning
    once for each line, and that line is the one to mend."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("inrbridge", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def _quadrature(rule: Quadrature, source, target, border, stride) -> Stencil:
    low, high = (np.asarray(v) for v in rule.basis.support)
    _warn_if_narrow((high - low).tolist(), source)
    target = _outputs(source, target, border, stride, tuple(-low), tuple(high))
    ball = isinstance(rule.basis, Radial)
    found = pairs(source, target, border, low, high, rule.spacing, ball)
    weights = array(source.weights)
    matrix = basis_entries(rule.basis, found, weights / rule.basis.scale)
    k = rule.basis.count
    factor = np.ones(len(target) * k)
    if rule.normalize:
        total = matrix.sums().numpy()
        exact = np.tile(_basis_integral(rule.basis) / rule.basis.scale, len(target))
        factor = np.where(np.abs(total) > 1e-3 * np.abs(exact), exact / np.where(total == 0, 1, total), 1.0)
    if border == "renormalize":
        measure = rule.basis.measure if ball else math.prod(high - low)
        factor *= np.repeat(_border_scale(found, weights, measure), k)
    return Stencil(target, len(source), k, matrix.scaled(torch.from_numpy(factor)))


def _border_scale(found: PairLists, weights: np.ndarray, measure: float) -> np.ndarray:
    """Factor (m,) that makes up for the part of a support outside the domain."""
    inside = np.bincount(found.rows, weights[found.index], minlength=len(found.offsets) - 1)
    return measure / np.maximum(inside, 1e-3 * measure)


def _basis_integral(basis: Basis, points: int = 24) -> np.ndarray:
    """Integral of every basis function over its support, by Gauss-Legendre products."""
    if isinstance(basis, Radial):
        return np.ones(basis.count)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    low, high = (np.asarray(v) for v in basis.support)
    grid = np.stack(np.meshgrid(*[nodes] * len(low), indexing="ij"), -1).reshape(-1, len(low))
    products = np.stack(np.meshgrid(*[weights] * len(low), indexing="ij"), -1).reshape(-1, len(low)).prod(1)
    values = basis.evaluate((low + high) / 2 + grid * (high - low) / 2)
    return products @ values * math.prod((high - low) / 2)


def _support(rule: Bins | Pairwise, source, target, border, stride):
    """The output points, and all pairs under the support with their weights w_j / |S| (p,)."""
    half = np.asarray(rule.half_width)
    _warn_if_narrow((2 * half).tolist(), source)
    target = _outputs(source, target, border, stride, rule.half_width, rule.half_width)
    found = pairs(source, target, border, -half, half, tuple(2 * half), rule.ball)
    weights = array(source.weights)
    shares = weights[found.index] / rule.measure
    if border == "renormalize":
        shares *= _border_scale(found, weights, rule.measure)[found.rows]
    return target, found, shares


def _bins(rule: Bins, source, target, border, stride) -> BinnedStencil:
    target, found, weights = _support(rule, source, target, border, stride)
    node = nearest_seed(found.ways, np.asarray(rule.seeds))
    return BinnedStencil(target, _as_pairs(source, target, found, node, weights, len(rule.seeds)))


def _pairwise(rule: Pairwise, source, target, border, stride) -> PairStencil:
    target, found, weights = _support(rule, source, target, border, stride)
    rounding = torch.finfo(source.points.dtype).eps * float(np.abs(source.domain.bounds).max())
    distinct, node = distinct_rows(found.ways, 8 * rounding)
    pairs_of_nodes = _as_pairs(source, target, found, node, weights, len(distinct))
    return PairStencil(target, torch.from_numpy(np.ascontiguousarray(distinct)), pairs_of_nodes)


def _as_pairs(source, target, found: PairLists, node: np.ndarray, weights: np.ndarray, nodes: int) -> Pairs:
    entries = (torch.from_numpy(np.ascontiguousarray(a)) for a in (found.rows, found.index, node, weights))
    return Pairs(*entries, (len(target), nodes, len(source)), (target.points, source.points))


def _cells(rule: Cells, source, target, border, stride) -> Stencil:
    return cell_stencil(rule, source, target)


_BUILDERS = {Reconstruct: _reconstruct, Quadrature: _quadrature, Bins: _bins, Pairwise: _pairwise, Cells: _cells}
