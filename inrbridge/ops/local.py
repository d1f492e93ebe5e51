"""Floor 1: one local operator, y_i = sum_k (sum_j P[i, k, j] f_j) W_k, in the kernel that fits.

Every convolution, pooling and tokenization of the engine is this sum; only P and W differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from inrbridge.ops.compiled_local import CompiledLocal, PatchedStencil, compiled_local
from inrbridge.ops.curve import z_order
from inrbridge.ops.dispatch import Dispatched
from inrbridge.ops.gpu_local import CutStencil, GpuLocal, gpu_local
from inrbridge.ops.multilinear import apply_number
from inrbridge.ops.ordered import Ordered
from inrbridge.ops.plain import LocalOperator
from inrbridge.ops.sparse import SparseRows


def apply_local(number: int, values: Tensor, *shared: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply an operator of points-first tensors to values (b, n_in, c) and what its fields share -> (b, n_out, o).

    Memory lies points first before and after, so that a local operator that follows another copies nothing. Under autocast
    all are cast as those of a convolution.

    Args:
        number: of the operator's form (`Dispatched.form`), by which a compiled graph knows it.
        bias: (o,), added to the output where it lies: another tensor of that size costs as much as a sixth of the operator.
    """
    device = values.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        values, *shared = (t.to(dtype) for t in (values, *shared))
    out = apply_number(number, values.transpose(0, 1).contiguous(), *shared)
    return (out if bias is None else out.add_(bias.to(out.dtype))).transpose(0, 1)


@dataclass(frozen=True, eq=False)
class Placements:
    """A stencil (n_out * nodes, n) and the one with inputs and outputs exchanged (n * nodes, n_out) where they are needed: each
    made once for a device and dtype."""

    matrix: SparseRows  # on the CPU, in float64
    n: int
    nodes: int
    points: Tensor  # (n_out, d): where the outputs lie
    _placed: dict = field(default_factory=dict, repr=False)

    @cached_property
    def patched(self) -> PatchedStencil:
        """The same for the compiled kernels."""
        return PatchedStencil(self.matrix, self.n, self.nodes)

    @cached_property
    def cut(self) -> CutStencil:
        """The same for the GPU's kernels."""
        return CutStencil(self.matrix, self.n, self.nodes)

    @cached_property
    def ordered(self) -> Ordered:
        """The same for plain torch."""
        return Ordered.along(self.matrix, self.nodes, self.n, z_order(self.points))

    def forward(self, like: Tensor) -> Ordered:
        return self._beside(like, "forward", lambda: self.ordered)

    def exchanged(self, like: Tensor) -> Ordered:
        return self._beside(like, "exchanged", self.ordered.exchanged)

    def _beside(self, like: Tensor, name: str, make: Callable[[], Ordered]) -> Ordered:
        key = (name, like.device, like.dtype)
        if key not in self._placed:
            self._placed[key] = make().to(like)
        return self._placed[key]


def local_operator(placements: Placements, groups: int = 1) -> Dispatched:
    """Return the operator of P, given as a sparse matrix (n_out * nodes, n_in) with row i * nodes + k."""

    def plain(like: Tensor) -> LocalOperator:
        return LocalOperator(placements.forward(like), lambda: placements.exchanged(like), groups)

    def gpu(like: Tensor) -> GpuLocal | None:
        return gpu_local(placements.cut, groups, like, plain(like))

    def compiled(like: Tensor) -> CompiledLocal | None:
        return compiled_local(placements.patched, groups, like)

    rows = placements.matrix.edges.numel() - 1
    paths = {"gpu": gpu, "compiled": compiled, "plain": plain}
    return Dispatched(paths, placements.n, rows // placements.nodes, placements.nodes, groups)


def grid_convolution(values: Tensor, kernel: Tensor, bias: Tensor | None, shape: tuple[int, ...], *, stride: int,
                     dilation: tuple[int, ...], groups: int, pads: tuple[tuple[int, int], ...], mode: str) -> Tensor:  # fmt: skip
    """Convolve values (b, n, c) on a row-major grid by torch's own convolution: same result, same cost.

    Args:
        kernel: (o, c / groups, *sizes) as torch lays it out; bias: (o,) or None.
        pads: cells (before, after) added along each axis; mode: "constant", "reflect" or "circular".

    Returns:
        (b, n_out, o).
    """
    d = len(shape)
    if values.stride(2) == 1:
        values = values.contiguous()  # points first, as layers off the grid leave them, is no layout that torch's kernels know
    image = values.unflatten(1, shape).movedim(-1, 1)  # (b, c, *shape), channels last in memory
    symmetric = mode == "constant" and all(before == after for before, after in pads)
    if not symmetric:
        flat = [amount for pair in reversed(pads) for amount in pair]
        image = torch.nn.functional.pad(image, flat, mode=mode)
    convolve = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[d - 1]
    padding = [before for before, _ in pads] if symmetric else 0
    out = convolve(image, kernel, bias, stride, padding, dilation, groups)
    return out.movedim(1, -1).flatten(1, d)
