"""Floor 4: the rule of a partition: tokens, adaptive pooling, patch embedding (Wang & Golland 2023, appendix C, "Tokenization").

The unit cube is cut into equal cells and carried onto the domain by its measure-preserving map, so that the regions are
disjoint, of equal measure, and cover it: boxes in a box, blocks of angles and depth in a ball, of height and longitude on a
sphere. A `Region` has no such map; its tokens are the parts of the cells of its envelope that lie in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Torus
from inrbridge.errors import ShapeMismatch
from inrbridge.sampling import grid
from inrbridge.stencils.stencil import Stencil


@dataclass(frozen=True)
class Cells:
    """P[i, k, j] = w_j B_k(u_j) / (weight of cell i) if x_j lies in cell i, of `shape` cells in row-major order.

    `functions` maps places in a cell, u in [0, 1]^d of the unit cube, to B_k: (.., d) -> (.., k); None: the constant 1.
    A row is a mean over its region: constants are met exactly, on any points. A cell without points gives 0.
    """

    shape: tuple[int, ...]
    functions: Callable[[Tensor], Tensor] | None = None


def cell_stencil(rule: Cells, source: Discretization, target: Discretization | None) -> Stencil:
    """Build the stencil of a partition; its target, unless given, are the centres of the regions."""
    cell, place = locate(source, rule.shape)
    weights = source.weights.detach().to("cpu", torch.float64)
    total = _held(source, rule.shape)
    share = torch.where(total[cell] > 0, weights / total[cell], 0.0)
    basis = torch.ones_like(share)[:, None] if rule.functions is None else rule.functions(place)
    n, k = basis.shape
    rows, columns = cell[:, None] * k + torch.arange(k), torch.arange(n)[:, None].expand(n, k)
    if target is None:
        target = cell_centres(source, rule.shape)
    entries = share[:, None] * basis
    kept = entries != 0  # splines are 0 but near their own node
    return Stencil.from_entries(target, n, k, rows[kept], columns[kept], entries[kept])


def cell_nodes(source: Discretization, shape: tuple[int, ...], patch: tuple[int, ...]) -> Discretization:
    """Return the nodes of a net of `patch` cells in each region, region by region, both in row-major order; computed once."""
    key = ("cell nodes", shape, patch)
    if key not in source.cache:
        _check_shape(source, shape)
        size = torch.tensor(shape, dtype=torch.float64)
        unit = (_net(shape)[:, None] + (_net(patch) - 0.5) / size).flatten(0, 1)
        envelope, like = source.domain.envelope, source.points
        weights = torch.full((len(unit),), envelope.measure / len(unit), dtype=like.dtype, device=like.device)
        source.cache[key] = Discretization(envelope.from_unit(unit).to(like), weights, envelope, sampler="cells")
    return source.cache[key]


def locate(source: Discretization, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the cell (n,) that each point lies in, row-major, and its place there, (n, d) in [0, 1]; float64 on the CPU."""
    _check_shape(source, shape)
    unit = source.domain.envelope.to_unit(source.points.detach().to("cpu", torch.float64))
    scaled = unit * torch.tensor(shape, dtype=torch.float64)
    along = torch.minimum(scaled.floor(), torch.tensor(shape, dtype=torch.float64) - 1)
    cell = np.ravel_multi_index(tuple(along.long().T.numpy()), shape)
    return torch.from_numpy(np.asarray(cell)), scaled - along


def cell_centres(source: Discretization, shape: tuple[int, ...]) -> Discretization:
    """Return one point for each region, a grid on boxes and flat tori; computed once, so that all layers share these tokens.

    The weights are the measures of the regions: equal ones, or, of the parts of a `Region` and under a `Weighted` measure, what
    the quadrature weights of the points in each say.
    """
    key = ("cell centres", shape)
    if key not in source.cache:
        _check_shape(source, shape)
        source.cache[key] = _centres(source, shape)
    return source.cache[key]


def _centres(source: Discretization, shape: tuple[int, ...]) -> Discretization:
    domain, like = source.domain, source.points
    if isinstance(domain, Box | Torus):
        return grid(domain, shape, dtype=like.dtype, device=like.device)
    points = domain.envelope.from_unit(_net(shape))
    equal = domain.envelope is domain and domain.weigh(points) is None
    held = torch.ones(len(points), dtype=torch.float64) if equal else _held(source, shape)
    return Discretization(points.to(like), (held * (domain.measure / held.sum())).to(like), domain, sampler="cells")


def _held(source: Discretization, shape: tuple[int, ...]) -> Tensor:
    """Sum of the weights of the points in each region, float64 on the CPU."""
    weights = source.weights.detach().to("cpu", torch.float64)
    return torch.zeros(math.prod(shape), dtype=torch.float64).index_add_(0, locate(source, shape)[0], weights)


def _net(shape: tuple[int, ...]) -> Tensor:
    """Centres of equal cells of the unit cube, row-major (cells, d)."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(shape))


def _check_shape(source: Discretization, shape: tuple[int, ...]) -> None:
    axes = source.domain.unit_dim
    if len(shape) != axes or any(count < 1 for count in shape):
        raise ShapeMismatch(
            f"Got a partition into {shape} cells of {source.domain}, expected {axes} numbers of at least 1: one for each axis "
            "of the unit cube that maps onto it."
        )
