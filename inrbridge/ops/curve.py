"""Floor 1: an order of scattered points in which near ones follow one another, so that what they share stays in cache."""

import torch
from torch import Tensor

_BITS = 62  # of a place on the curve
_MOST = 16  # bits an axis: cells finer than that tell no more about nearness


def z_order(points: Tensor) -> Tensor:
    """Order points (n, d) along the Z-order curve (Morton 1966).

    Returns:
        The numbers of the points in that order (n,), on the CPU; the same for the same points.
    """
    points = points.detach().double().cpu()
    n, d = points.shape
    if n == 0:
        return torch.arange(0)
    bits = max(1, min(_MOST, _BITS // d))
    low, high = points.min(0).values, points.max(0).values
    extent = (high - low).max().clamp(min=torch.finfo(torch.float64).tiny)
    cells = ((points - low) / extent * (2**bits - 1)).long()
    place = torch.zeros(n, dtype=torch.long)
    for bit in reversed(range(bits)):
        for axis in cells.unbind(1)[: _BITS // bits]:
            place = (place << 1) | ((axis >> bit) & 1)
    return place.argsort(stable=True)
