"""Floor 5: read sampled functions at any coordinates: how the output of a net is evaluated where it was not computed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inrbridge.errors import ShapeMismatch
from inrbridge.nn.sampled import Sampled
from inrbridge.stencils.borders import periods
from inrbridge.stencils.reconstruct import default_neighbors, moving_least_squares


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
    if coords.ndim == 2 and (
        coords is source.points or (coords.shape == source.points.shape and torch.equal(coords, source.points))
    ):
        return sampled.values
    index, weight = _neighbourhoods(sampled, coords.reshape(-1, dim), order, neighbors)
    if coords.ndim == 2:
        return torch.einsum("mt,bmtc->bmc", weight, sampled.values[:, index])
    fields = torch.arange(b, device=index.device).repeat_interleave(coords.shape[1])
    return torch.einsum("mt,mtc->mc", weight, sampled.values[fields[:, None], index]).view(b, -1, c)


def _neighbourhoods(sampled: Sampled, coords: Tensor, order: int, neighbors: int | None) -> tuple[Tensor, Tensor]:
    """Samples (m, t) that each place is read from, and their weights."""
    domain = sampled.discretization.domain
    low = np.asarray(domain.bounds[0])
    points, queries = (t.detach().double().cpu().numpy() - low for t in (sampled.discretization.points, coords))
    neighbors = neighbors or default_neighbors(order, points.shape[1])
    index, weight = moving_least_squares(points, queries, order, neighbors, periods("zeros", domain))
    return torch.from_numpy(index).to(sampled.values.device), torch.from_numpy(weight).to(sampled.values)
