"""Floor 6: what each operation of a discrete network means on points that are no pixels.

table        the table of rules, and how one is found
local        convolutions, pooling windows, strided slices: the map is read at the nodes of the kernel
through_grid whatever makes finer maps, or looks at all pixels: the map is read onto its grid first
pointwise    activations, arithmetic with broadcasting, dropout
norms        normalization: statistics are integrals
reductions   means, sums and maxima
layout       permuting, reshaping, joining and splitting axes that are no pixels
indexing     numbers, slices and new axes in brackets
attention    products of tokens, weighted by the quadrature
"""

from inrbridge.models.converted.rules import attention, indexing, layout, local, norms, pointwise, reductions, through_grid
from inrbridge.models.converted.rules.table import Reading, Run, apply_on_points

__all__ = [
    "Reading",
    "Run",
    "apply_on_points",
    "attention",
    "indexing",
    "layout",
    "local",
    "norms",
    "pointwise",
    "reductions",
    "through_grid",
]
