"""Floor 4: geometry first. A stencil says which input points, with which weights, feed which kernel node of
which output point; it is computed once from the points, cached on them and shared by all fields and channels.

The rules: `Reconstruct` (moving least squares), `Quadrature` (a basis under the integral, Wang & Golland 2023,
eq. 6-7), `Bins` (Voronoi cells of the kernel support, section 4.3), `Pairwise` (each pair of points for itself), `Cells` (a
partition of the domain).
`Reconstruct` reads images by a model of them between their `Pixels`, too.
"""

from inrbridge.stencils.bases import BSpline, Gaussian, Polynomial, Radial
from inrbridge.stencils.borders import BORDERS
from inrbridge.stencils.cells import Cells
from inrbridge.stencils.nodes import kernel_nodes
from inrbridge.stencils.paired import PairStencil
from inrbridge.stencils.pixels import Pixels
from inrbridge.stencils.rules import Bins, Pairwise, Quadrature, Reconstruct, build_stencil
from inrbridge.stencils.stencil import BinnedStencil, Stencil

__all__ = ["BORDERS", "BSpline", "BinnedStencil", "Bins", "Cells", "Gaussian", "PairStencil", "Pairwise", "Pixels", "Polynomial",
           "Quadrature", "Radial", "Reconstruct", "Stencil", "build_stencil", "kernel_nodes"]  # fmt: skip
