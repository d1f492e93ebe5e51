"""Floor 1: stencils as the compiled kernels take them: in patches of neighbouring points, each with a list of what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from inrbridge.compiled.building import library
from inrbridge.compiled.calling import call

SIZE = 24  # points of a patch: their sums and what they read share the second cache, a strip of what they read fits the first


@dataclass(frozen=True, eq=False)
class Patches:
    """A stencil whose points are sorted into patches of `size`; places in the halo of a patch stand for columns."""

    order: Tensor  # (points,), int32 as all indices
    starts: Tensor  # (points * nodes + 1,): entries of each row, in this order
    index: Tensor  # (e,)
    weight: Tensor  # (e,)
    halo_starts: Tensor  # (patches + 1,)
    halo: Tensor  # columns
    nodes: int
    size: int

    @property
    def points(self) -> int:
        return len(self.order)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The tensors, in the order in which the kernels take them."""
        return self.order, self.starts, self.index, self.weight, self.halo_starts, self.halo

    @cached_property
    def turned(self) -> tuple[Tensor, ...]:
        """The entries of each point sorted by what they read, for depth-wise kernels (`patches_turn` in patches.cpp)."""
        entries = len(self.index)
        read_starts, reads, bounds, node = (torch.empty(count, dtype=torch.int32)
                                            for count in (self.points + 1, entries, entries + 1, entries))  # fmt: skip
        out = read_starts, reads, bounds, node, torch.empty_like(self.weight)
        name = f"patches_turn_{str(self.weight.dtype).removeprefix('torch.')}"
        call("patches", name, self.starts, self.index, self.weight, self.halo_starts, self.points, self.nodes, self.size, *out)
        number = int(read_starts[-1])
        return read_starts, reads[:number].clone(), bounds[: number + 1].clone(), *out[3:]


def available(points: int, nodes: int, width: int, entries: int) -> bool:
    """Say whether a stencil of so many points, nodes, columns and entries can be cut here."""
    return 0 < points * nodes < 2**31 and 0 < width * nodes < 2**31 and entries < 2**31 and library("patches") is not None


def cut(
    columns: Tensor, weights: Tensor, offsets: Tensor, nodes: int, width: int, dtype: torch.dtype, size: int = SIZE
) -> Patches:
    """Cut a stencil (points * nodes, width) by rows into patches.

    Args:
        columns, weights: (e,), int64 and float64. offsets: (points * nodes + 1,), int64.
        dtype: float32 or float64, of the weights in the patches.
    """
    points, entries = (len(offsets) - 1) // nodes, len(columns)
    order, starts, index, halo = (torch.empty(count, dtype=torch.int32) for count in (points, len(offsets), entries, entries))
    halo_starts, weight = torch.empty(-(-points // size) + 1, dtype=torch.int32), torch.empty(entries, dtype=dtype)
    name = f"patches_cut_{str(dtype).removeprefix('torch.')}"
    call("patches", name, offsets, columns, weights, points, nodes, width, size, order, starts, index, weight, halo_starts, halo)
    return Patches(order, starts, index, weight, halo_starts, halo[: int(halo_starts[-1])].clone(), nodes, size)
