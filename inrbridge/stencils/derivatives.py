"""Floor 4: weights that differentiate a sampled function anywhere, exactly for polynomials.

Around a query q the nearest m samples are weighted by (1 - rho^2)^2, which falls to zero at the radius where the next one
lies, and fitted by polynomials of total degree <= order; D^alpha of the fit at q is linear in the samples (Levin 1998;
"diffuse" derivatives, Nayroles et al. 1992). For a smooth f the error falls like h^(order + 1 - |alpha|), h the spacing.
Near an edge the neighbourhood lies on one side. Nearly singular fits show as huge weights; their neighbourhood is widened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree

from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.stencils.borders import periods
from inrbridge.stencils.reconstruct import default_neighbors, monomial_powers
from inrbridge.stencils.stencil import Stencil

Powers = tuple[tuple[int, ...], ...]
# Largest sum_j |w_j| radius^|alpha| of a sound fit: one-sided ones in a corner stay below, singular ones reach 10^4 and more.
SOUND = 300.0
WIDENINGS = 5


def derivative_stencil(powers: Sequence[Sequence[int]], source: Discretization, target: Discretization | None = None, *,
                       order: int | None = None, neighbors: int | None = None, circular: bool = False) -> Stencil:  # fmt: skip
    """Build, or take from the cache of `source`, the stencil whose node k is D^powers[k] f at the points of `target`.

    Args:
        powers: multi-indices, d whole numbers each.
        target: where derivatives are wanted; None: at the points themselves.
        order: polynomials up to this total degree are differentiated exactly; None: one more than the highest derivative.
        neighbors: samples used, before widening; None: about twice the terms of the polynomial.
        circular: a box closes on itself; a torus always does.

    Raises:
        ShapeMismatch: a curved domain, or points too few or too badly placed (on a line) for the order.
    """
    powers = tuple(tuple(int(p) for p in alpha) for alpha in powers)
    highest = max((sum(alpha) for alpha in powers), default=0)
    order = highest + 1 if order is None else order
    key = ("derivative", powers, order, neighbors, circular, None if target is None else id(target))
    if key not in source.cache:
        _check(powers, order, highest, source)
        source.cache[key] = _build(powers, source, target or source, order, neighbors, circular), target  # holds the target
    return source.cache[key][0]


def _build(powers, source, target, order, neighbors, circular) -> Stencil:
    low = np.asarray(source.domain.bounds[0])
    points, queries = (d.points.detach().double().cpu().numpy() - low for d in (source, target))
    wrap = periods("circular" if circular else "zeros", source.domain)
    rows, columns, weights = [], [], []
    for query, index, weight in _fits(points, queries, powers, order, neighbors, wrap):
        k, m = len(powers), index.shape[1]
        node = query[:, None, None] * k + np.arange(k)[None, :, None]
        rows.append(np.broadcast_to(node, (len(query), k, m)).ravel())
        columns.append(np.broadcast_to(index[:, None], (len(query), k, m)).ravel())
        weights.append(weight.ravel())
    entries = (torch.from_numpy(np.concatenate(part)) for part in (rows, columns, weights))
    return Stencil.from_entries(target, len(source), len(powers), *entries)


def _fits(points, queries, powers, order, neighbors, wrap):
    """Yield (queries (q,), samples (q, m), weights (q, k, m)) until every query is served."""
    n, dim = points.shape
    terms = len(monomial_powers(order, dim))
    tree = cKDTree(points) if wrap is None else cKDTree(np.mod(points, wrap), boxsize=np.asarray(wrap, float))
    queries = queries if wrap is None else np.mod(queries, wrap)
    pending, count = np.arange(len(queries)), max(neighbors or default_neighbors(order, dim), terms)
    for attempt in range(WIDENINGS):
        count = min(count, n)
        index, weight, size = _fit(tree, points, queries[pending], powers, order, count, wrap)
        last = attempt == WIDENINGS - 1 or count == n
        sound = size < (np.inf if last else SOUND)
        if sound.any():
            yield pending[sound], index[sound], weight[sound]
        pending = pending[~sound]
        if len(pending) == 0:
            return
        if last:
            break
        count = -(-count * 3 // 2)
    raise ShapeMismatch(
        f"Got {n} points of which {len(pending)} have no neighbours that fix a polynomial of degree {order} ({terms} terms in "
        f"{dim} dimensions), expected points spread in every direction; use more points, or a lower `order`."
    )


def _fit(tree, points, queries, powers, order, count, wrap):
    """One fit on `count` neighbours: samples (q, m), weights (q, k, m) and their scaled size (q,), infinite if it failed."""
    n = len(points)
    distance, index = tree.query(queries, min(count + 1, n))
    distance, index = distance.reshape(len(queries), -1), index.reshape(len(queries), -1)
    radius = distance[:, -1:] * (1.2 if count >= n else 1 + 1e-9) + 1e-300
    distance, index = distance[:, :count], index[:, :count]
    offset = points[index] - queries[:, None]
    if wrap is not None:
        offset -= wrap * np.round(offset / wrap)
    offset /= radius[:, :, None]
    theta = np.clip(1 - (distance / radius) ** 2, 0, None) ** 2
    terms = monomial_powers(order, points.shape[1])
    vander = np.stack([np.prod(offset**power, axis=2) for power in terms], axis=2)  # (q, m, t)
    weighted = vander * np.sqrt(theta)[:, :, None]
    scale = np.linalg.norm(weighted, axis=1)[:, None] + 1e-300
    inverse = np.linalg.pinv(weighted / scale, rcond=1e-10)  # (q, t, m): the fit's coefficients, scaled
    coefficient = inverse / scale.transpose(0, 2, 1) * np.sqrt(theta)[:, None]
    orders = np.array([sum(alpha) for alpha in powers])
    factorials = np.array([math.prod(math.factorial(p) for p in alpha) for alpha in powers], float)
    chosen = coefficient[:, [terms.index(alpha) for alpha in powers]] * factorials[None, :, None]
    wanted = np.array([[f * (t == alpha) for t in terms] for f, alpha in zip(factorials, powers, strict=True)])
    error = np.abs(chosen @ vander - wanted).max((1, 2))
    size = np.where(error < 1e-6, np.abs(chosen).sum(2).max(1), np.inf)
    return index, chosen / radius[:, :, None] ** orders[None, :, None], size


def _check(powers: Powers, order: int, highest: int, source: Discretization) -> None:
    domain = source.domain
    if domain.intrinsic_dim != domain.dim:
        raise ShapeMismatch(f"Got derivatives of samples on {domain}, expected a flat domain: a box, ball, torus or region.")
    if not powers or any(len(alpha) != domain.dim or min(alpha) < 0 for alpha in powers):
        raise ConfigError(f"Got the derivatives {powers} on {domain}, expected multi-indices of {domain.dim} whole numbers.")
    if order < highest:
        raise ConfigError(f"Got polynomials of order {order} for a derivative of order {highest}, expected at least {highest}.")
