"""Floor 5: fewer points, more points (Wang & Golland 2023, section 4.1, "Multi-scale architectures").

Both directions follow one sequence, so that a net that goes down and up again is back on the very same points and can
join its values to earlier ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from inrbridge.discretization import Discretization, Grid, derived
from inrbridge.errors import ConfigError, ShapeMismatch, unknown_name
from inrbridge.nn.sampled import Sampled
from inrbridge.stencils import Reconstruct, Stencil, build_stencil
from inrbridge.stencils.neighbours import PointSet


class Downsample(nn.Module):
    """Keep one point in stride^d: the prefix of the sequence, every stride-th point along each axis of a grid."""

    def __init__(self, stride: int = 2):
        super().__init__()
        self.stride = _checked(stride)

    def forward(self, sampled: Sampled) -> Sampled:
        fine = sampled.discretization
        coarse = fine.thin(self.stride)
        if not isinstance(fine.structure, Grid) or coarse is fine:
            return Sampled(coarse, sampled.values[:, : len(coarse)])
        shape = fine.structure.shape
        values = sampled.values.unflatten(1, shape)
        values = values[(slice(None), *(slice(None, None, self.stride),) * len(shape))]
        return Sampled(coarse, values.flatten(1, len(shape)))

    def extra_repr(self):
        return str(self.stride)


class Upsample(nn.Module):
    """Extend the sequence to stride^d times as many points and interpolate.

    A discretization that was thinned returns to where it came from; another is extended by its sampler; a grid of its
    own is refined into a grid of smaller cells.

    Args:
        stride: as of the Downsample that this undoes.
        mode: "nearest": the value of the nearest old point, on a torus around its edges. A grid equals
            torch.nn.Upsample(scale_factor=stride); a point of a thinned grid stands for the block that it was kept from.
            "linear": on grids as torch.nn.Upsample(mode="bilinear"), elsewhere a local fit, exact on polynomials of degree 1.
    """

    def __init__(self, stride: int = 2, mode: str = "nearest"):
        super().__init__()
        if mode not in ("nearest", "linear"):
            raise unknown_name("interpolation mode", mode, ("nearest", "linear"), ConfigError)
        self.stride, self.mode = _checked(stride), mode

    def forward(self, sampled: Sampled, target: Discretization | None = None) -> Sampled:
        """Interpolate onto the refined points, or onto those of `target`, whatever they are."""
        source = sampled.discretization
        if target is None:
            target = _refine(source, self.stride)
        if target is source:
            return sampled
        if self.mode == "nearest":
            return Sampled(target, sampled.values.index_select(1, _nearest(source, target).to(sampled.values.device)))
        if source.domain.dim <= 3 and _is_refinement(source, target):
            image = sampled.values.unflatten(1, source.structure.shape).movedim(-1, 1)
            mode = ("linear", "bilinear", "trilinear")[source.domain.dim - 1]
            image = nn.functional.interpolate(image, size=target.structure.shape, mode=mode, align_corners=False)
            return Sampled(target, image.movedim(1, -1).flatten(1, source.domain.dim))
        return Sampled(target, _linear(source, target).interpolate(sampled.values))

    def extra_repr(self):
        return f"{self.stride}, mode={self.mode}"


def nearest_point(source: Discretization, coords: np.ndarray) -> np.ndarray:
    """Return the index (m,) of the source point nearest to each of coords (m, d), around the coordinates that repeat."""
    points = PointSet.on(source.domain, source.points.detach().double().cpu().numpy())
    return points.nearest(coords, 1)[2][:, 0]


@derived
def _linear(source: Discretization, target: Discretization) -> Stencil:
    """Local fits of degree 1 at the target's points."""
    dim = source.domain.intrinsic_dim
    rule = Reconstruct(((0.0,) * dim,), (source.spacing,) * dim, order=1)
    return build_stencil(rule, source, target, "renormalize")


@derived
def _nearest(source: Discretization, target: Discretization) -> torch.Tensor:
    """Index (m,) of the source point whose value each target point takes."""
    blocks = _blocks(source, target)
    if blocks is None:
        blocks = torch.from_numpy(nearest_point(source, target.points.detach().double().cpu().numpy()))
    return blocks.to(source.points.device)


def _blocks(source: Discretization, target: Discretization) -> torch.Tensor | None:
    """Index of the block that each cell of a finer grid lies in, or None where the grids are not cut from each other."""
    if not (_is_refinement(source, target) or _is_thinned(source, target)):
        return None
    coarse, fine = source.structure.shape, target.structure.shape
    index = torch.zeros((), dtype=torch.long)
    for axis, (few, many) in enumerate(zip(coarse, fine, strict=True)):
        block = torch.arange(many) // _factor(source, target, axis)
        index = index[..., None] * few + block.clamp(max=few - 1)
    return index.reshape(-1)


def _factor(source: Discretization, target: Discretization, axis: int) -> int:
    return round(source.structure.step[axis] / target.structure.step[axis])


def _is_refinement(source: Discretization, target: Discretization) -> bool:
    """Both are grids, and the cells of one are those of the other cut into equal parts."""
    return _relation(source, target, lambda coarse, fine: (coarse[0] - coarse[1] / 2, fine[0] - fine[1] / 2), exact=True)


def _is_thinned(source: Discretization, target: Discretization) -> bool:
    """Both are grids, and one holds every stride-th point of the other, from the first on."""
    return _relation(source, target, lambda coarse, fine: (coarse[0], fine[0]), exact=False)


def _relation(source: Discretization, target: Discretization, ends, exact: bool) -> bool:
    coarse, fine = source.structure, target.structure
    if not isinstance(coarse, Grid) or not isinstance(fine, Grid) or len(coarse.shape) != len(fine.shape):
        return False
    for axis in range(len(coarse.shape)):
        factor = _factor(source, target, axis)
        first, second = ends((coarse.start[axis], coarse.step[axis]), (fine.start[axis], fine.step[axis]))
        slack = 1e-6 * fine.step[axis]
        if factor < 1 or abs(coarse.step[axis] - factor * fine.step[axis]) > slack or abs(first - second) > slack:
            return False
        expected = coarse.shape[axis] * factor
        if not (expected == fine.shape[axis] if exact else expected - factor < fine.shape[axis] <= expected):
            return False
    return True


@derived
def _refine(source: Discretization, stride: int) -> Discretization:
    came_from = source.finer is not None and source.finer.thin(stride) is source
    if not isinstance(source.structure, Grid) or came_from or stride == 1:
        return source.refine(stride)
    return _refined_grid(source, stride)


def _refined_grid(source: Discretization, stride: int) -> Discretization:
    grid = source.structure
    step = tuple(h / stride for h in grid.step)
    start = tuple(first - h / 2 + fine / 2 for first, h, fine in zip(grid.start, grid.step, step, strict=True))
    shape = tuple(size * stride for size in grid.shape)
    axes = [a + h * torch.arange(n, dtype=torch.float64) for a, h, n in zip(start, step, shape, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).to(source.points)
    if not bool(source.domain.contains(points).all()):
        raise ShapeMismatch(
            f"Got a grid of shape {grid.shape} on {source.domain} whose cells reach outside when cut into {stride}; "
            "expected a cell-centred grid or one that was thinned before; use Upsample(..)(sampled, target)."
        )
    weights = source.weights.new_full((len(points),), source.domain.measure / len(points))
    return replace(
        source, points=points, weights=weights, structure=Grid(shape, start, step), extend_to=None, finer=None, cache={}
    )  # fmt: skip


def _checked(stride: int) -> int:
    if stride != int(stride) or stride < 1:
        raise ConfigError(f"Got a stride of {stride}, expected a whole number from 1 on.")
    return int(stride)
