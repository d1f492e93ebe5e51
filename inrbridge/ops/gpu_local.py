"""Floor 1: the local operator by Triton kernels, on values and kernels that lie on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inrbridge.gpu.launching import (
    DEPTHWISE_NODES,
    SIZES,
    Blocks,
    apply,
    apply_depthwise,
    depthwise_kernel_gradient,
    kernel_gradient,
    patch_sizes,
)
from inrbridge.gpu.patches import Patches, cut_patches
from inrbridge.gpu.precision import DTYPES, beside, has_triton, precision
from inrbridge.ops.bilinear import BilinearOperator
from inrbridge.ops.sparse import SparseRows


@dataclass(frozen=True, eq=False)
class CutStencil:
    """A stencil (m * nodes, n) on the CPU, cut into patches on demand: once, whatever the dtypes and devices that use them."""

    matrix: SparseRows
    n: int
    nodes: int
    _cut: dict = field(default_factory=dict, repr=False)

    @property
    def points(self) -> int:
        return (self.matrix.edges.numel() - 1) // self.nodes

    def patches(self, like: Tensor, back: bool, size: int = SIZES[0]) -> Patches | None:
        """Patches of the output points, or (back) of the input points with inputs and outputs exchanged, beside a tensor.

        In float16 beside float32 where its products are those of tf32. None where the points have too little in common.
        """
        dtype = torch.float16 if like.dtype == torch.float32 and precision(like.dtype) == "tf32" else like.dtype
        key = (size, back, like.device, like.dtype, dtype)
        if key not in self._cut:
            whole = (size, back)
            if whole not in self._cut:
                self._cut[whole] = self._make(size, back)
            cut = self._cut[whole]
            self._cut[key] = cut and (cut.to(like) if dtype == like.dtype else cut.halved().to(like.new_empty(0, dtype=dtype)))
        return self._cut[key]

    def _make(self, size: int, back: bool) -> Patches | None:
        rows, column = self.matrix.rows(), self.matrix.columns
        point, node = rows // self.nodes, rows % self.nodes
        if back:
            return cut_patches(column, node, point, self.matrix.weights, (self.n, self.nodes, self.points), size)
        return cut_patches(point, node, column, self.matrix.weights, (self.points, self.nodes, self.n), size)


@dataclass(frozen=True, eq=False)
class GpuLocal:
    """The local operator of a stencil on the GPU, as a `BilinearOperator` of points-first tensors.

    Patches are cut on the CPU at the first call; no later call waits for the device. Where points have too little in common for
    patches `plain` computes. A value that is not finite spoils all points of the patches that read it.
    """

    stencil: CutStencil
    groups: int
    plain: BilinearOperator
    blocks: Blocks | None = None  # None: those that measured best for the sizes at hand

    def output(self, values: Tensor, kernel: Tensor) -> Tensor:
        c = kernel.shape[1]
        patches = self._patches(values, back=False, depthwise=c == 1, sizes=patch_sizes(c))
        if patches is None:
            return self.plain.output(values, kernel)
        with beside(values):
            return self._apply(values, kernel, patches, self.stencil.points)

    def values_gradient(self, kernel: Tensor, cotangent: Tensor) -> Tensor:
        k, c, _ = kernel.shape
        sizes = patch_sizes(cotangent.shape[2] // self.groups)
        patches = self._patches(cotangent, back=True, depthwise=c == 1, sizes=sizes)
        if patches is None:
            return self.plain.values_gradient(kernel, cotangent)
        with beside(cotangent):
            if c == 1:
                pairs = zip(self._multiples(kernel[:, 0]), self._multiples(cotangent), strict=True)
                return sum(apply_depthwise(flow, matrix, patches, self.stencil.n, self.blocks) for matrix, flow in pairs)
            flipped = kernel.unflatten(2, (self.groups, -1)).permute(0, 3, 2, 1).reshape(k, -1, self.groups * c)
            return apply(cotangent, flipped, patches, self.stencil.n, self.groups, self.blocks)

    def kernel_gradient(self, values: Tensor, cotangent: Tensor) -> Tensor:
        c = values.shape[2] // self.groups
        patches = self._patches(values, back=False, depthwise=c == 1, sizes=SIZES[:1])
        if patches is None:
            return self.plain.kernel_gradient(values, cotangent)
        with beside(values):
            if c == 1:
                parts = [depthwise_kernel_gradient(values, flow, patches, self.blocks) for flow in self._multiples(cotangent)]
                return torch.stack(parts, 2).flatten(1).unsqueeze(1)
            return kernel_gradient(values, cotangent, patches, self.groups, self.blocks)

    def gradients(self, values: Tensor, kernel: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        return self.values_gradient(kernel, cotangent), self.kernel_gradient(values, cotangent)

    def _apply(self, values: Tensor, kernel: Tensor, patches: Patches, count: int) -> Tensor:
        if kernel.shape[1] > 1:
            return apply(values, kernel, patches, count, self.groups, self.blocks)
        parts = [apply_depthwise(values, matrix, patches, count, self.blocks) for matrix in self._multiples(kernel[:, 0])]
        return parts[0] if len(parts) == 1 else torch.stack(parts, 3).flatten(2)

    def _multiples(self, table: Tensor) -> list[Tensor]:
        """The channels (.., groups * m) that each take the same of the groups: m tables (.., groups)."""
        return list(table.unflatten(-1, (self.groups, -1)).unbind(-1))

    def _patches(self, like: Tensor, back: bool, depthwise: bool, sizes: tuple[int, ...]) -> Patches | None:
        """The patches to work on, of the first size that has some, or None where `plain` is to do it."""
        if like.numel() == 0 or (depthwise and self.stencil.nodes > DEPTHWISE_NODES):
            return None
        if self.blocks or depthwise:
            sizes = (self.blocks.points if self.blocks else SIZES[0],)
        return next((patches for size in sizes if (patches := self.stencil.patches(like, back, size)) is not None), None)


def gpu_local(stencil: CutStencil, groups: int, like: Tensor, plain: BilinearOperator) -> GpuLocal | None:
    """Return the operator beside a tensor, or None where its kernels do not serve it."""
    if not has_triton(like.device) or like.dtype not in DTYPES:
        return None
    return GpuLocal(stencil, groups, plain)
