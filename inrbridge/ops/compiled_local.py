"""Floor 1: the local operator by compiled kernels, on values and kernels of the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inrbridge.compiled import local, patches
from inrbridge.ops.sparse import SparseRows


@dataclass(frozen=True, eq=False)
class PatchedStencil:
    """A stencil P (m * nodes, width) in patches, and the one with inputs and outputs exchanged: each cut once, when needed."""

    matrix: SparseRows  # on the CPU, in float64
    width: int
    nodes: int
    _cut: dict = field(default_factory=dict, repr=False)

    @property
    def points(self) -> int:
        return (len(self.matrix.edges) - 1) // self.nodes

    def fits(self) -> bool:
        """Say whether it can be cut here."""
        return patches.available(self.points, self.nodes, self.width, len(self.matrix.columns))

    def patches(self, dtype: torch.dtype, exchanged: bool) -> patches.Patches:
        """The patches with weights of a dtype."""
        if (dtype, exchanged) not in self._cut:
            matrix, width = self.matrix, self.width
            if exchanged:
                matrix, width = matrix.exchanged(self.nodes, width), self.points
            self._cut[dtype, exchanged] = patches.cut(*matrix[:3], self.nodes, width, dtype)
        return self._cut[dtype, exchanged]


@dataclass(frozen=True, eq=False)
class CompiledLocal:
    """The local operator of a stencil, as a `BilinearOperator` of points-first tensors of one dtype.

    The backward pass sums the gradient of the output by the exchanged stencil, once for both gradients.
    """

    stencil: PatchedStencil
    groups: int
    dtype: torch.dtype

    def output(self, values: Tensor, kernel: Tensor) -> Tensor:
        return self._sweep(values, kernel.shape, False, kernel=kernel)[0]

    def values_gradient(self, kernel: Tensor, cotangent: Tensor) -> Tensor:
        return self._sweep(cotangent, kernel.shape, True, kernel=kernel)[0]

    def kernel_gradient(self, values: Tensor, cotangent: Tensor) -> Tensor:
        c, o = values.shape[2], cotangent.shape[2]
        shape = self.stencil.nodes, c // self.groups, o
        if c <= o:  # sum where there are fewer channels
            return self._sweep(values, shape, False, other=cotangent)[1]
        return self._sweep(cotangent, shape, True, other=values)[1]

    def gradients(self, values: Tensor, kernel: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        return self._sweep(cotangent, kernel.shape, True, kernel=kernel, other=values)

    def _sweep(self, source: Tensor, shape, exchanged: bool, **uses) -> tuple[Tensor | None, Tensor | None]:
        cut = self.stencil.patches(local.SUMS[self.dtype], exchanged)
        expected = self.stencil.points if exchanged else self.stencil.width
        if len(source) != expected:
            raise ValueError(f"Got {len(source)} points, expected {expected}: those of the stencil.")
        return local.sweep(cut, source, tuple(shape), self.groups, exchanged=exchanged, **uses)


def compiled_local(stencil: PatchedStencil, groups: int, like: Tensor) -> CompiledLocal | None:
    """Return the operator beside tensors like this one, or None where compiled kernels do not take them."""
    return CompiledLocal(stencil, groups, like.dtype) if local.available(like) and stencil.fits() else None
