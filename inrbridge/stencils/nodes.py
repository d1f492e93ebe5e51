"""Floor 4: where the nodes of a kernel lie, relative to the output point."""

from __future__ import annotations

import itertools

Offsets = tuple[tuple[float, ...], ...]


def kernel_nodes(size: tuple[int, ...], spacing: tuple[float, ...], dilation: int = 1) -> Offsets:
    """Return the k = prod(size) node offsets in domain units, in the order of a torch kernel (last axis fastest).

    Odd sizes are centred; even sizes lie half a cell further, on the points themselves, as torch pads them
    for `padding="same"` (Wang & Golland 2023, appendix C).

    >>> kernel_nodes((3,), (0.5,))
    ((-0.5,), (0.0,), (0.5,))
    >>> kernel_nodes((2,), (0.5,))
    ((0.0,), (0.5,))
    """
    axes = [[(i - (n - 1) // 2) * dilation * h for i in range(n)] for n, h in zip(size, spacing, strict=True)]
    return tuple(itertools.product(*axes))


def reach(nodes: Offsets) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return how far the nodes go before and after the output point along each axis: two tuples of d lengths >= 0."""
    axes = list(zip(*nodes, strict=True))
    return tuple(max(0.0, -min(a)) for a in axes), tuple(max(0.0, max(a)) for a in axes)
