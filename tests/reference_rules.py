"""Exact quadrature rules on each domain, and points that crowd: the truth for bases and integrals, by other means than ours."""

import itertools

import numpy as np
import torch
from scipy.special import roots_jacobi

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Product, Sphere, Torus

DOUBLE = torch.float64


def rule(domain, n):
    """Points and weights that sum to 1, exact for polynomials of degree < 2 n (on a torus: n whole cycles).

    Gauss rules: Legendre on intervals, Jacobi for the volume within a radius, evenly spaced angles.
    """
    if isinstance(domain, Product):
        (x, w), (y, v) = rule(domain.a, n), rule(domain.b, n)
        points = torch.cat([x.repeat_interleave(len(y), 0), y.repeat(len(x), 1)], 1)
        return points, (w[:, None] * v).flatten()
    if isinstance(domain, Box):
        return _product([_legendre(n, low, high) for low, high in zip(*domain.bounds, strict=True)])
    if isinstance(domain, Torus):
        return _product([(p * np.arange(2 * n + 1) / (2 * n + 1), np.full(2 * n + 1, 1 / (2 * n + 1))) for p in domain.periods])
    center = torch.tensor(domain.center, dtype=DOUBLE)
    if isinstance(domain, Sphere):
        points, weights = _directions(3, n)
    elif isinstance(domain, Ball):
        if domain.dim == 1:
            return rule(Box(*domain.bounds), n)
        nodes, w = roots_jacobi(n + 1, 0, domain.dim - 1)  # the shell at radius r has r^(d-1) of the volume
        radius, w = torch.tensor((nodes + 1) / 2), torch.tensor(w / w.sum())
        directions, v = _directions(domain.dim, n)
        points, weights = (radius[:, None, None] * directions).flatten(0, 1), (w[:, None] * v).flatten()
    return center + domain.radius * points, weights


def crowded(domain, n, power=2.0, seed=None):
    """Points that crowd at one corner of the unit cube behind the domain, with the weights that undo it."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    engine = torch.quasirandom.SobolEngine(domain.unit_dim, scramble=True, seed=1 if generator is None else seed)
    unit = engine.draw(n, dtype=DOUBLE).clamp(1e-9, 1 - 1e-9)
    weights = (power * unit ** (power - 1)).prod(1)
    return Discretization(domain.from_unit(unit**power), weights * (domain.measure / weights.sum()), domain)


def shuffled(discretization, seed=0):
    """The same points in another order, and that order."""
    order = torch.randperm(len(discretization), generator=torch.Generator().manual_seed(seed))
    return Discretization(discretization.points[order], discretization.weights[order], discretization.domain), order


def equally_weighted(discretization):
    """The same points, their weights forgotten: what every negative control does."""
    weights = torch.full_like(discretization.weights, discretization.domain.measure / len(discretization))
    return Discretization(discretization.points, weights, discretization.domain)


def _legendre(n, low, high):
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return low + (high - low) * (nodes + 1) / 2, weights / 2


def _product(axes):
    points = torch.tensor(list(itertools.product(*(nodes for nodes, _ in axes))), dtype=DOUBLE)
    weights = torch.tensor(list(itertools.product(*(w for _, w in axes))), dtype=DOUBLE)
    return points, weights.prod(1)


def _directions(dim, n):
    angle = 2 * np.pi * np.arange(2 * n + 1) / (2 * n + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    if dim == 2:
        return torch.tensor(circle), torch.full((len(angle),), 1 / len(angle), dtype=DOUBLE)
    z, w = np.polynomial.legendre.leggauss(n)
    ring = np.sqrt(1 - z**2)[:, None, None] * circle
    points = np.concatenate([ring, np.broadcast_to(z[:, None, None], (*ring.shape[:2], 1))], -1).reshape(-1, 3)
    return torch.tensor(points), torch.tensor(np.repeat(w / 2, len(angle)) / len(angle))
