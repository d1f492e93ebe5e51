"""Floor 1: the local operator by Triton kernels, on values and kernels that lie on a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inrbridge.gpu.patches import Patches, cut_patches
from inrbridge.gpu.precision import DTYPES, has_triton, precision
from inrbridge.ops.sparse import SparseRows

_HALO = 52 << 10  # bytes of shared memory for the values at a halo
_KERNEL = 80 << 10  # bytes of shared memory for a kernel that stays there
_SIZE = 16  # points of a patch
_PROGRAMS = 1024  # that keep a GPU busy


@dataclass(frozen=True)
class Blocks:
    """How a kernel is cut: points of a patch, fields, channels, output channels, nodes at a time, warps and stages.

    hold: the kernel stays in shared memory. across: the product is laid (outputs, rows).
    """

    points: int = _SIZE
    fields: int = 4
    channels: int = 64
    outputs: int = 64
    nodes: int = 4
    warps: int = 8
    stages: int = 2
    hold: bool = True
    across: bool = True

    def rest(self, nodes: int) -> int:
        """Nodes taken at last, after runs of `self.nodes`: a power of two that fills a product, some of which may not exist."""
        left = nodes % self.nodes
        return left and max(1 << (left - 1).bit_length(), 16 // self.points)


@dataclass(frozen=True, eq=False)
class GpuLocal:
    """The local operator of a sparse matrix (m * nodes, width) on the GPU, as a `BilinearOperator` of points-first tensors.

    Patches are cut at the first call, on the CPU; no later call waits for the device.
    """

    matrix: SparseRows  # on the CPU
    width: int
    nodes: int
    groups: int
    like: Tensor  # of the device and dtype of all arguments
    blocks: Blocks | None = None  # None: those that measured best for the sizes at hand
    _cut: dict = field(default_factory=dict, repr=False)

    def output(self, values: Tensor, kernel: Tensor) -> Tensor:
        if kernel.shape[1] == 1:
            parts = [self._collapse(values, matrix, back=False) for matrix in self._multiples(kernel[:, 0])]
            return parts[0] if len(parts) == 1 else torch.stack(parts, 3).flatten(2)
        return self._apply(values, kernel, back=False)

    def values_gradient(self, kernel: Tensor, cotangent: Tensor) -> Tensor:
        k, c, _ = kernel.shape
        if c == 1:
            pairs = zip(self._multiples(kernel[:, 0]), self._multiples(cotangent), strict=True)
            return sum(self._collapse(flow, matrix, back=True) for matrix, flow in pairs)
        flipped = kernel.unflatten(2, (self.groups, -1)).permute(0, 3, 2, 1).reshape(k, -1, self.groups * c)
        return self._apply(cotangent, flipped, back=True)

    def kernel_gradient(self, values: Tensor, cotangent: Tensor) -> Tensor:
        if values.shape[2] == self.groups:
            parts = [self._collapsed_gradient(values, flow) for flow in self._multiples(cotangent)]
            return torch.stack(parts, 2).flatten(1).unsqueeze(1)
        from inrbridge.gpu import local

        values, cotangent = values.contiguous(), cotangent.contiguous()
        _, b, c = values.shape
        o, c = cotangent.shape[2] // self.groups, c // self.groups
        patches = self._patches(self.blocks.points if self.blocks else _SIZE, back=False)
        blocks = self.blocks or choose_blocks(c, o, b, self.nodes, patches.halo.shape[1], values.dtype)
        tiles = self.groups * math.ceil(c / blocks.channels) * math.ceil(o / blocks.outputs)
        rest = blocks.rest(self.nodes)
        runs = self.nodes // blocks.nodes
        parts = max(1, min(len(patches.points), 264 // max(1, runs * tiles)))
        partial = torch.empty(parts, self.nodes, c, cotangent.shape[2], dtype=torch.float32, device=values.device)
        for start, count, together in ((0, runs, blocks.nodes), (runs * blocks.nodes, 1, rest)):
            if count and together:
                local.kernel_gradient[(parts, count, tiles)](
                    values, cotangent, patches.weights, patches.halo, patches.points, partial, len(patches.points), b, c, o,
                    values.shape[2], cotangent.shape[2], start, K=self.nodes, P=blocks.points, **_halves(patches),
                    F=blocks.fields, C=blocks.channels, OUT=blocks.outputs, NODES=together, PRECISION=precision(values.dtype),
                    num_warps=blocks.warps, num_stages=blocks.stages,
                )  # fmt: skip
        return partial.sum(0).to(values.dtype)

    def gradients(self, values: Tensor, kernel: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        return self.values_gradient(kernel, cotangent), self.kernel_gradient(values, cotangent)

    def _apply(self, values: Tensor, kernel: Tensor, back: bool) -> Tensor:
        from inrbridge.gpu import local

        values, kernel = values.contiguous(), kernel.contiguous()
        _, b, width = values.shape
        c, o = width // self.groups, kernel.shape[2] // self.groups
        patches = self._patches(self.blocks.points if self.blocks else _SIZE, back)
        blocks = self.blocks or choose_blocks(c, o, b, self.nodes, patches.halo.shape[1], values.dtype)
        out = values.new_empty(self.width if back else self._points, b, kernel.shape[2])
        rest, held = blocks.rest(self.nodes), math.ceil(c / blocks.channels) == 1 and blocks.hold
        tiles = self.groups * math.ceil(o / blocks.outputs)
        parts = max(1, min(math.ceil(b / blocks.fields), _PROGRAMS // (len(patches.points) * tiles)))
        local.forward[(len(patches.points), parts, tiles)](
            values, kernel, patches.weights, patches.halo, patches.points, out, b, c, o, width, kernel.shape[2],
            K=self.nodes, P=blocks.points, **_halves(patches), F=blocks.fields, C=blocks.channels, OUT=blocks.outputs,
            NODES=blocks.nodes, REST=rest, BLOCKS=math.ceil(c / blocks.channels), HOLD=held, ACROSS=blocks.across,
            PRECISION=precision(values.dtype), num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip
        return out

    def _multiples(self, table: Tensor) -> list[Tensor]:
        """The channels (.., groups * m) that each take the same of the groups: m tables (.., groups)."""
        return [part.contiguous() for part in table.unflatten(-1, (self.groups, -1)).unbind(-1)]

    def _collapse(self, values: Tensor, kernel: Tensor, back: bool) -> Tensor:
        """The operator on each channel by itself, kernel (k, c)."""
        from inrbridge.gpu import depthwise

        values, (_, b, c) = values.contiguous(), values.shape
        sizes = self._collapsed_sizes(b)
        patches = self._patches(sizes["P"], back)
        out = values.new_empty(self.width if back else self._points, b, c)
        grid = (len(patches.points), math.ceil(c / sizes["C"]), math.ceil(b / sizes["F"]))
        depthwise.forward[grid](
            values, kernel, patches.weights, patches.halo, patches.points, out, patches.halo.shape[1], b, c, **sizes,
            PRECISION=precision(values.dtype),
        )  # fmt: skip
        return out

    def _collapsed_gradient(self, values: Tensor, cotangent: Tensor) -> Tensor:
        from inrbridge.gpu import depthwise

        values, (_, b, c) = values.contiguous(), values.shape
        sizes = self._collapsed_sizes(b)
        patches = self._patches(sizes["P"], back=False)
        tiles = math.ceil(c / sizes["C"])
        parts = max(1, min(len(patches.points), 1056 // tiles))
        partial = torch.empty(parts, self.nodes, c, dtype=torch.float32, device=values.device)
        depthwise.kernel_gradient[(parts, tiles)](
            values, cotangent, patches.weights, patches.halo, patches.points, partial, len(patches.points),
            patches.halo.shape[1], b, c, **sizes, PRECISION=precision(values.dtype),
        )  # fmt: skip
        return partial.sum(0).to(values.dtype)

    def _collapsed_sizes(self, b: int) -> dict[str, int]:
        blocks = self.blocks or Blocks(fields=max(16, min(64, 1 << (b - 1).bit_length())), channels=16)
        nodes = max(16, 1 << (self.nodes - 1).bit_length())
        return {"P": blocks.points, "K": self.nodes, "NODES": nodes, "H": 16, "F": blocks.fields, "C": blocks.channels,
                "num_warps": blocks.warps, "num_stages": blocks.stages}  # fmt: skip

    @property
    def _points(self) -> int:
        return (self.matrix.edges.numel() - 1) // self.nodes

    def _patches(self, size: int, back: bool) -> Patches:
        """The patches of the output points, or (back) those of the input points, which read the output points."""
        if (size, back) not in self._cut:
            rows, column, points = self.matrix.rows(), self.matrix.columns, self._points
            point, node, shape = rows // self.nodes, rows % self.nodes, (points, self.nodes, self.width)
            if back:
                point, column, shape = column, point, (self.width, self.nodes, points)
            self._cut[size, back] = cut_patches(point, node, column, self.matrix.weights, shape, size, self.like)
        return self._cut[size, back]


def gpu_local(matrix: SparseRows, width: int, nodes: int, groups: int, like: Tensor) -> GpuLocal | None:
    """Return the operator beside a tensor, or None where its kernels do not serve it."""
    if not has_triton(like.device) or like.dtype not in DTYPES:
        return None
    return GpuLocal(matrix, width, nodes, groups, like)


def choose_blocks(c: int, o: int, b: int, nodes: int, halo: int, dtype: torch.dtype) -> Blocks:
    """The blocks that measured best among those whose values at the halo, and whose kernel if held, fit shared memory."""
    size = dtype.itemsize
    channels = _block(c, 128 // size)
    outputs = _block(o, 64)
    widest = max(channels, min(512 // size, _HALO // (halo * size)))
    fields = 1 << (max(1, min(widest // channels, b)).bit_length() - 1)
    hold = nodes * channels * outputs * size <= _KERNEL
    return Blocks(fields=fields, channels=channels, outputs=outputs, hold=hold)


def _block(count: int, most: int) -> int:
    """The least power of two, 16 at least, that holds so many, or `most`."""
    return max(16, min(most, 1 << (count - 1).bit_length()))


def _halves(patches: Patches) -> dict[str, int]:
    """The length of a halo as a sum of two powers of two."""
    length = patches.halo.shape[1]
    high = 1 << (length.bit_length() - 1)
    return {"H0": high, "H1": length - high}
