"""Floor 5: read sampled functions at any coordinates: how the output of a net is evaluated where it was not computed."""

from __future__ import annotations

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.errors import ShapeMismatch
from inrbridge.nn.sampled import Sampled
from inrbridge.stencils.reconstruct import reconstruct_at
from inrbridge.stencils.stencil import Stencil


def read(sampled: Sampled, coords: Tensor, order: int = 2, neighbors: int | None = None) -> Tensor:
    """Return the values at coords by moving least squares, exact for polynomials up to `order`; on a sample, that sample.

    Differentiable in the values, not in the coordinates.

    Args:
        coords: (m, d), shared by all fields, or (b, m, d).
        order, neighbors: of the local fit (None: the measured default).

    Returns:
        (b, m, c).

    Raises:
        ShapeMismatch: the coordinates are not of this form.
    """
    source = sampled.discretization
    b, _, c = sampled.values.shape
    dim = source.domain.dim
    if coords.shape[-1:] != (dim,) or coords.ndim not in (2, 3) or (coords.ndim == 3 and coords.shape[0] != b):
        raise ShapeMismatch(
            f"Got coordinates of shape {tuple(coords.shape)} for {b} fields, expected (m, {dim}) shared by all, "
            f"or ({b}, m, {dim}) with points of its own for each."
        )
    if coords.shape[-2] == 0:
        return sampled.values.new_zeros(b, 0, c)
    if coords.ndim == 2 and (
        coords is source.points or (coords.shape == source.points.shape and torch.equal(coords, source.points))
    ):
        return sampled.values
    if coords.ndim == 2:
        return _shared(source, coords, order, neighbors).interpolate(sampled.values)
    own = torch.arange(b).repeat_interleave(coords.shape[1])  # whose values each place is read from
    stencil = _stencil(source, coords.reshape(-1, dim), order, neighbors, own)
    return stencil.interpolate(sampled.values.reshape(1, -1, c)).view(b, -1, c)


def _shared(source: Discretization, coords: Tensor, order: int, neighbors: int | None) -> Stencil:
    """The stencil of coordinates that all fields share; the last one is remembered with the points.

    The pixels of an evaluation are the same for every minibatch, and so are the points.
    """
    key = ("read", order, neighbors)
    asked, stencil = source.cache.get(key, (None, None))
    if asked is None or asked.shape != coords.shape or asked.device != coords.device or not torch.equal(asked, coords):
        asked = coords.detach().clone()
        stencil = _stencil(source, asked, order, neighbors)
        source.cache[key] = (asked, stencil)
    return stencil


def _stencil(source: Discretization, coords: Tensor, order: int, neighbors: int | None, own: Tensor | None = None) -> Stencil:
    """Which samples each place (m, d) is read from, with which weights; those of field `own` where each has a field."""
    domain, n = source.domain, len(source)
    points, queries = (t.detach().double().cpu().numpy() for t in (source.points, coords))
    matrix = reconstruct_at(domain, points, queries, order, neighbors)
    fields = 1
    if own is not None:
        matrix, fields = matrix._replace(columns=matrix.columns + n * own[matrix.rows()]), int(own.max()) + 1
    return Stencil(Discretization(coords, torch.ones_like(coords[:, 0]), domain), n * fields, 1, matrix)
