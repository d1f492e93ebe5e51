"""Floor 4: when Python looks for stencils that nobody uses any more.

Points keep their stencils and stencils know their points, so that both go together, but only when the garbage collector comes. It
counts objects, and the largest stencil is a handful of them: with new points for each minibatch it would come late.
"""

from __future__ import annotations

import gc

from torch import Tensor

MOST = 2**27  # bytes of stencils that are built between two visits; what kernels make of them takes a few times as much
_built = 0


def count(*tensors: Tensor) -> None:
    """Say that these were made for a stencil; collect garbage if many were, unless the user has switched that off."""
    global _built
    _built += sum(t.numel() * t.element_size() for t in tensors)
    if _built > MOST and gc.isenabled():
        _built = 0
        gc.collect()
