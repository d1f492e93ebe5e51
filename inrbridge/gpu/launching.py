"""Floor 1: the local operator on patches by Triton: blocks that suit the sizes at hand, and the launches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrbridge.gpu.patches import Patches
from inrbridge.gpu.precision import multiprocessors, precision

SIZES = (16, 64)  # points of a patch: where the kernel stays in shared memory, and where its channels are too many for that
_HELD = 64  # channels of a kernel that stays there
_SHARED = 220 << 10  # bytes of shared memory of a multiprocessor, less what the compiler adds
DEPTHWISE_NODES = 128  # nodes of a depth-wise kernel that one block holds


@dataclass(frozen=True)
class Blocks:
    """How a kernel is cut: points of a patch, fields, channels, output channels, nodes at a time, warps and stages.

    hold: kernel and weights stay in shared memory. across: the product is laid (outputs, rows).
    """

    points: int = SIZES[0]
    fields: int = 2
    channels: int = 64
    outputs: int = 64
    nodes: int = 4
    warps: int = 4
    stages: int = 3
    hold: bool = True
    across: bool = True
    registers: int = 0  # of a thread at most, where that is to be limited

    def rest(self, nodes: int) -> int:
        """Nodes taken at last, after runs of `self.nodes`: a power of two that fills a product, some of which may not exist."""
        left = nodes % self.nodes
        return left and max(1 << (left - 1).bit_length(), 16 // self.points)

    def shared(self, nodes: int, halo: int, size: int) -> int:
        """Bytes of shared memory of a launch, about: numbers of `size` bytes."""
        together = nodes if self.hold else self.nodes
        kernel = together * self.channels * self.outputs + together * self.points * halo
        row = self.fields * self.channels
        values, seen = halo * row, self.nodes * self.points * row
        if self.hold:
            return size * (kernel + values * (self.stages - 1) + seen)
        turned = values if size == 4 else 0  # tensor cores take numbers of 32 bits in one order only
        return size * (kernel * self.stages + values + seen + turned)


def patch_sizes(c: int) -> tuple[int, ...]:
    """Points of a patch that suit c channels of a group, the better first."""
    return SIZES if c <= _HELD else SIZES[::-1]


def choose_blocks(c: int, o: int, b: int, patches: Patches) -> Blocks:
    """The blocks that measured best among those that fit shared memory.

    Patches of few points hold the kernel, or else take few fields at a time. Those of many take one node of one field at a
    time: its sums pass from product to product in registers.
    """
    size, halo, points = patches.weights.dtype.itemsize, patches.halo.shape[1], patches.points.shape[1]
    channels = _block(c, 128 // size)
    if points > SIZES[0]:
        wide = Blocks(points, 1, channels, _block(o, 128), nodes=1, hold=False, across=False)
        candidates = [replace(wide, stages=stages) for stages in (3, 2, 1)]
    else:
        fields = 1 << (max(1, min(128 // channels, b)).bit_length() - 1)
        best = Blocks(points, fields, channels, _block(o, 64))
        candidates = [replace(best, stages=stages) for stages in (3, 2)] if c <= channels else []
        candidates += [replace(best, fields=fields >> step, stages=2, hold=False) for step in range(fields.bit_length())]
    fits = [blocks for blocks in candidates if blocks.shared(patches.nodes, halo, size) <= _SHARED]
    return fits[0] if fits else replace(candidates[-1], fields=1, nodes=1, channels=16, stages=1)


def choose_depthwise_blocks(b: int, patches: Patches, most: int) -> Blocks:
    """The same for the depth-wise operator, at most so many fields at a time."""
    fields = _block(b, most)
    return Blocks(patches.points.shape[1], fields, channels=16, warps=8 if fields > 32 else 4, registers=128)


def apply(values: Tensor, kernel: Tensor, patches: Patches, count: int, groups: int, blocks: Blocks | None = None) -> Tensor:
    """Values (n, b, c), kernel (k, c / groups, o) -> (count, b, o)."""
    from inrbridge.gpu import local

    _, b, width = values.shape
    c, o = width // groups, kernel.shape[2] // groups
    blocks = blocks or choose_blocks(c, o, b, patches)
    out = values.new_empty(count, b, kernel.shape[2])
    (values, kernel), scales = _operands(patches, values, kernel)
    tiles = groups * math.ceil(o / blocks.outputs)
    parts = max(1, min(math.ceil(b / blocks.fields), multiprocessors(values) // (len(patches.points) * tiles)))
    launch = local.forward_held if blocks.hold and c <= blocks.channels else local.forward
    launch[(len(patches.points), parts, tiles)](
        values, kernel, patches.weights, patches.halo, patches.points, out, patches.gain, *scales, b, c, o,
        width, kernel.shape[2], **_sizes(patches, blocks), NODES=blocks.nodes, REST=blocks.rest(patches.nodes),
        ACROSS=blocks.across,
    )  # fmt: skip
    return out


def kernel_gradient(values: Tensor, cotangent: Tensor, patches: Patches, groups: int, blocks: Blocks | None = None) -> Tensor:
    """Values (n, b, c), cotangent (m, b, o) -> (k, c / groups, o): parts of the patches one beside the other, then their sum."""
    from inrbridge.gpu import local

    dtype, (_, b, width) = values.dtype, values.shape
    (values, cotangent), scales = _operands(patches, values, cotangent)
    c, o, k = width // groups, cotangent.shape[2] // groups, patches.nodes
    blocks = blocks or choose_blocks(c, o, b, patches)
    tiles = groups * math.ceil(c / blocks.channels) * math.ceil(o / blocks.outputs)
    runs, rest = k // blocks.nodes, blocks.rest(k)
    parts = max(1, min(len(patches.points), 2 * multiprocessors(values) // (max(1, runs) * tiles)))
    partial = torch.empty(parts, k, c, cotangent.shape[2], dtype=torch.float32, device=values.device)
    for start, count, together in ((0, runs, blocks.nodes), (runs * blocks.nodes, 1, rest)):
        if count and together:
            local.kernel_gradient[(count, parts, tiles)](
                values, cotangent, patches.weights, patches.halo, patches.points, partial, len(patches.points), b, c, o,
                width, cotangent.shape[2], start, **_sizes(patches, blocks), NODES=together,
            )  # fmt: skip
    return _sum(partial, patches, scales).to(dtype)


def apply_depthwise(values: Tensor, kernel: Tensor, patches: Patches, count: int, blocks: Blocks | None = None) -> Tensor:
    """Values (n, b, c), kernel (k, c) -> (count, b, c), each channel by itself."""
    from inrbridge.gpu import depthwise

    _, b, c = values.shape
    blocks = blocks or choose_depthwise_blocks(b, patches, 64)
    out = values.new_empty(count, c, b)
    (values, kernel), scales = _operands(patches, values.transpose(1, 2), kernel)
    grid = (len(patches.points) * math.ceil(c / blocks.channels), math.ceil(b / blocks.fields))
    depthwise.forward[grid](
        values, kernel, patches.weights, patches.halo, patches.points, out, patches.gain, *scales, patches.halo.shape[1], b, c,
        **_depthwise_sizes(patches, blocks),
    )  # fmt: skip
    return out.transpose(1, 2).contiguous()


def depthwise_kernel_gradient(values: Tensor, cotangent: Tensor, patches: Patches, blocks: Blocks | None = None) -> Tensor:
    """Values (n, b, c), cotangent (m, b, c) -> (k, c)."""
    from inrbridge.gpu import depthwise

    dtype, (_, b, c) = values.dtype, values.shape
    (values, cotangent), scales = _operands(patches, values.transpose(1, 2), cotangent.transpose(1, 2))
    blocks = blocks or choose_depthwise_blocks(b, patches, 16)
    tiles = math.ceil(c / blocks.channels)
    parts = max(1, min(len(patches.points), 8 * multiprocessors(values) // tiles))
    partial = torch.empty(parts, patches.nodes, c, dtype=torch.float32, device=values.device)
    depthwise.kernel_gradient[(parts * tiles,)](
        values, cotangent, patches.weights, patches.halo, patches.points, partial, len(patches.points), patches.halo.shape[1],
        b, c, **_depthwise_sizes(patches, blocks),
    )  # fmt: skip
    return _sum(partial, patches, scales).to(dtype)


def _operands(patches: Patches, *tensors: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
    """Tensors in the dtype of the patches, and by what each was multiplied where that is narrower than their own."""
    if patches.weights.dtype == tensors[0].dtype:
        return [tensor.contiguous() for tensor in tensors], [None] * len(tensors)
    from inrbridge.gpu.halves import halved

    halves, scales = zip(*map(halved, tensors), strict=True)
    return list(halves), list(scales)


def _sum(partial: Tensor, patches: Patches, scales: list[Tensor | None]) -> Tensor:
    """The sum of parts that were made of scaled numbers."""
    total = partial.sum(0)
    for scale in scales:
        total = total if scale is None else total / scale
    return total if patches.gain == 1 else total * patches.gain


def _sizes(patches: Patches, blocks: Blocks) -> dict:
    length = patches.halo.shape[1]
    high = 1 << (length.bit_length() - 1)  # a length is a sum of two powers of two
    return {"K": patches.nodes, "P": blocks.points, "H0": high, "H1": length - high, "F": blocks.fields, "C": blocks.channels,
            "OUT": blocks.outputs, **_options(patches, blocks)}  # fmt: skip


def _depthwise_sizes(patches: Patches, blocks: Blocks) -> dict:
    return {"P": blocks.points, "K": patches.nodes, "NODES": _block(patches.nodes, DEPTHWISE_NODES), "H": 16,
            "F": blocks.fields, "C": blocks.channels, **_options(patches, blocks)}  # fmt: skip


def _options(patches: Patches, blocks: Blocks) -> dict:
    limit = {"maxnreg": blocks.registers} if blocks.registers else {}
    return {"PRECISION": precision(patches.weights.dtype), "num_warps": blocks.warps, "num_stages": blocks.stages, **limit}


def _block(count: int, most: int) -> int:
    """The least power of two, 16 at least, that holds so many, or `most`."""
    return max(16, min(most, 1 << (count - 1).bit_length()))
