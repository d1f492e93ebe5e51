"""Floor 6: kernels on points: convolutions, pooling windows and strided slices read the map at their nodes.

Output index o of a discrete kernel sees the input indices stride o - padding + dilation j. Both are places in the domain, so
that node j lies at an offset from the output point, and the map is reconstructed there (`stencils.Reconstruct`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from inrbridge.discretization import Discretization
from inrbridge.models.converted.levels import Level
from inrbridge.models.converted.located import Located, NeedsGrid, Padding, feature_map, from_grid
from inrbridge.models.converted.rules.reductions import mean
from inrbridge.models.converted.rules.table import Run, rule
from inrbridge.nn import Sampled
from inrbridge.stencils import BSpline, Quadrature, Stencil, build_stencil

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
Pads = tuple[tuple[int, int], ...]
_BORDERS = {"zeros": "zeros", "constant": "zeros", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


@dataclass(frozen=True)
class Window:
    """The place of a discrete kernel: sizes, strides, dilations and padding (before, after) of each axis, in cells."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pads

    def outputs(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the output map."""
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.size, strict=True)]
        return tuple(
            (n + before + after - r) // s + 1
            for n, (before, after), r, s in zip(shape, self.pads, reach, self.stride, strict=True)
        )


@dataclass(frozen=True)
class Nodes:
    """Where the nodes of a kernel lie: at scale * x + offset for the output point x."""

    source: Level
    target: Level
    window: Window
    scale: tuple[float, ...]
    offsets: tuple[tuple[float, ...], ...]  # of each axis

    @property
    def moved(self) -> Discretization:
        """The output points, scaled where the levels stand to each other as their strides do not."""
        points = self.target.points
        if all(abs(s - 1) < 1e-9 for s in self.scale):
            return points
        key = ("scaled", self.scale)
        if key not in points.cache:
            scaled = points.points * points.points.new_tensor(self.scale)
            points.cache[key] = Discretization(scaled, torch.ones_like(scaled[:, 0]), self.source.points.domain)
        return points.cache[key]

    def reconstruction(self, run: Run, border: str) -> Stencil:
        """Return the stencil that reads the map of `source` at all nodes, in the order of a torch kernel."""
        axes = zip(self.source.step, self.window.dilation, self.window.size, strict=True)
        wide = self.source.points.spacing  # along an axis with one node it reads the map, is no kernel that may be too narrow
        spacing = tuple(h * d if k > 1 else wide for h, d, k in axes)
        nodes = tuple(itertools.product(*self.offsets))
        return build_stencil(run.reading.rule(nodes, spacing, self.source), self.source.points, self.moved, border)

    def surface(self, border: str) -> Stencil:
        """Return the stencil of B-spline surfaces through the nodes under the integral: the paper's transfer of kernels."""
        spacing = tuple(h * d for h, d in zip(self.source.step, self.window.dilation, strict=True))
        basis = BSpline(self.window.size, spacing, 2 if max(self.window.size) <= 3 else 3)
        shift = [o[0] + (k - 1) // 2 * h for o, k, h in zip(self.offsets, self.window.size, spacing, strict=True)]
        points, target = self.moved, self.moved
        if max(abs(x) for x in shift) > 1e-9:
            key = ("shifted", tuple(shift))
            if key not in points.cache:
                points.cache[key] = replace(points, points=points.points + points.points.new_tensor(shift), cache={})
            target = points.cache[key]
        return build_stencil(Quadrature(basis, spacing), self.source.points, target, border)

    def is_subset(self) -> bool:
        """Whether a kernel of one node reads just the first points of the source."""
        if any(max(abs(x) for x in axis) > 1e-9 for axis in self.offsets) or self.moved is not self.target.points:
            return False
        fine, coarse = self.source.points, self.target.points
        key = ("begins with", id(coarse))
        if key not in fine.cache:
            begins = len(coarse) <= len(fine) and torch.equal(fine.points[: len(coarse)], coarse.points)
            fine.cache[key] = (begins, coarse)
        return fine.cache[key][0]


def place(run: Run, level: Level, window: Window, shape: tuple[int, ...] | None = None) -> Nodes:
    """Find the level that a window on a map leads to, and the window's nodes as seen from there."""
    shape = window.outputs(level.shape) if shape is None else shape
    if min(shape) < 1:
        raise NeedsGrid(level, f"a kernel of size {window.size} does not fit into a map of shape {level.shape}")
    axes = list(zip(level.start, level.step, window.size, window.stride, window.dilation, window.pads, strict=True))
    start = tuple(a + h * (d * (k - 1) / 2 - before) for a, h, k, _, d, (before, _) in axes)
    step = tuple(h * s for _, h, _, s, _, _ in axes)
    target = run.places.reach(shape, start, step, level.points.domain)
    scale = tuple(h / actual for h, actual in zip(step, target.step, strict=True))
    first = [a - h * before - s * x for (a, h, *_, (before, _)), s, x in zip(axes, scale, target.start, strict=True)]
    offsets = tuple(tuple(round(o + h * d * j, 12) for j in range(k)) for o, (_, h, k, _, d, _) in zip(first, axes, strict=True))
    return Nodes(level, target, window, scale, offsets)


def per_axis(value, dim: int) -> tuple:
    """Return one value for each axis."""
    value = tuple(value) if isinstance(value, list | tuple) else (value,)
    return value * dim if len(value) == 1 else value


def _own_pads(padding, size: Sequence[int], dilation: Sequence[int]) -> Pads:
    """Padding (before, after) of a kernel as torch is told it."""
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    return tuple((p, p) for p in per_axis(0 if padding == "valid" else padding, len(size)))


def _joined(run: Run, x: Located, own: Pads, border: str) -> tuple[Located, Pads, str]:
    """Join the padding of a kernel and that which waits on the map, which is carried out first where they are of two kinds."""
    waiting = x.padding
    if waiting is not None and (waiting.value or (any(map(any, own)) and (_BORDERS[waiting.mode], border) != ("zeros", "zeros"))):
        x, waiting = padded(run, x), None
    if waiting is not None:
        own = tuple((a + c, b + d) for (a, b), (c, d) in zip(own, waiting.amounts, strict=True))
        border = _BORDERS[waiting.mode]
    # without padding a kernel never leaves the map: points nearer to the edge than any pixel centre see the outermost values
    return x, own, border if any(map(any, own)) else "replicate"


def _off_grid(border: str) -> str:
    """The border of points: around an image of zeros values fade, they do not break off at the edge."""
    return "fading" if border == "zeros" else border


def _padded(image: Tensor, pads, border: str, value: float = 0.0) -> Tensor:
    flat = [amount for pair in reversed(pads) for amount in pair]
    if not any(flat):
        return image
    mode = "constant" if border == "zeros" else border
    return functional.pad(image, flat, mode, **({"value": value} if mode == "constant" else {}))


@rule(*(f"functional.conv{n}d" for n in (1, 2, 3)), reads_padding=True)
def convolve(run: Run, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros"):
    """Apply a discrete convolution: torch.nn.functional.conv1d/2d/3d on a map, or module arguments."""
    x, dim = input, weight.ndim - 2
    if not isinstance(x, Located) or not x.is_map:
        raise NeedsGrid(_level(input, weight, bias), "a convolution acts on maps (b, c, *shape)")
    size, stride, dilation = tuple(weight.shape[2:]), per_axis(stride, dim), per_axis(dilation, dim)
    x, pads, border = _joined(run, x, _own_pads(padding, size, dilation), padding_mode)
    if math.prod(size) == math.prod(stride) == 1 and not any(map(any, pads)) and groups == 1:
        sampled = x.sampled()
        return feature_map(sampled.with_values(functional.linear(sampled.values, weight.flatten(1), bias)), x.level)
    nodes = place(run, x.level, Window(size, stride, dilation, pads))
    if x.level.on_grid and nodes.target.on_grid:
        symmetric = border == "zeros" and all(a == b for a, b in pads)
        image = x.on_grid() if symmetric else _padded(x.on_grid(), pads, border)
        out = _CONVOLUTIONS[dim - 1](image, weight, bias, stride, [a for a, _ in pads] if symmetric else 0, dilation, groups)
        return from_grid(out, nodes.target)
    stencil = (
        nodes.surface(border)
        if run.reading.kernel == "spline" and math.prod(size) > 1
        else nodes.reconstruction(run, _off_grid(border))
    )
    values = stencil.apply(x.sampled().values, weight.flatten(2).permute(2, 1, 0), groups, bias)
    return feature_map(Sampled(nodes.target.points, values), nodes.target)


@rule("Conv1d", "Conv2d", "Conv3d", reads_padding=True)
def _convolution_module(run: Run, module, input):
    return convolve(run, input, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups,
                    padding_mode=module.padding_mode)  # fmt: skip


def _level(*values) -> Level:
    return next(v.level for v in values if isinstance(v, Located))


def _pool(run: Run, x, kernel_size, stride, padding, dilation, ceil_mode: bool, native) -> Located | tuple[Nodes, Stencil]:
    """Return what torch's pooling gives where both levels live on their grids, else the nodes and the stencil that reads them."""
    if not isinstance(x, Located) or not x.is_map:
        raise NeedsGrid(_level(x), "a pooling window moves over maps (b, c, *shape)")
    dim = len(x.level.shape)
    size, stride, dilation = (
        per_axis(v, dim) for v in (kernel_size, kernel_size if stride in (None, [], ()) else stride, dilation)
    )
    pads = tuple((p, p) for p in per_axis(padding, dim))
    window = Window(size, stride, dilation, pads)
    shape = window.outputs(x.level.shape)
    if ceil_mode:
        shape = tuple(_ceil_outputs(*axis) for axis in zip(x.level.shape, size, stride, dilation, pads, strict=True))
    nodes = place(run, x.level, window, shape)
    if x.level.on_grid and nodes.target.on_grid:
        return from_grid(native(x.on_grid()), nodes.target)
    return nodes, nodes.reconstruction(run, "zeros" if any(map(any, pads)) or ceil_mode else "replicate")


def _ceil_outputs(n: int, k: int, s: int, d: int, pads: tuple[int, int]) -> int:
    count = -(-(n + sum(pads) - d * (k - 1) - 1) // s) + 1
    return count - 1 if (count - 1) * s >= n + pads[0] else count  # the last window begins inside


def _present(stencil: Stencil) -> Tensor:
    """Which nodes lie inside the domain, bool (m, k)."""
    return (stencil.matrix.edges.diff() > 0).view(-1, stencil.nodes)


@rule(*(f"functional.max_pool{n}d" for n in (1, 2, 3)))
def max_pool(run: Run, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest of the values read at the pixels of the window: the same statistic at any density of points."""
    if return_indices:
        raise NeedsGrid(_level(input), "the index of a maximum is a pixel")
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(input.level.shape) - 1]
    found = _pool(run, input, kernel_size, stride, padding, dilation, ceil_mode,
                  lambda image: function(image, kernel_size, stride, padding, dilation, ceil_mode))  # fmt: skip
    if isinstance(found, Located):
        return found
    nodes, stencil = found
    values = stencil.apart.interpolate(input.sampled().values).unflatten(1, (-1, stencil.nodes))  # (b, m, k, c)
    present = _present(stencil).to(values.device)
    if not bool(present.all()):
        values = values.masked_fill(~present[None, :, :, None], -math.inf)
    return feature_map(Sampled(nodes.target.points, values.amax(2)), nodes.target)


@rule(*(f"functional.avg_pool{n}d" for n in (1, 2, 3)))
def avg_pool(
    run: Run, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """The mean of the values read at the pixels of the window."""
    is_plain = isinstance(input, Located) and input.is_map and not any(per_axis(padding, 1)) and divisor_override is None
    if is_plain and per_axis(kernel_size, len(input.level.shape)) == input.level.shape:  # the window is the whole map
        return mean(run, input, tuple(range(2, input.ndim)), keepdim=True)
    function = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(input.level.shape) - 1]
    if ceil_mode and count_include_pad and divisor_override is None and any(per_axis(padding, 1)):
        raise NeedsGrid(_level(input), "its windows reach beyond their padding, and count it")
    extra = () if divisor_override is None else (divisor_override,)
    found = _pool(run, input, kernel_size, stride, padding, 1, ceil_mode,
                  lambda image: function(image, kernel_size, stride, padding, ceil_mode, count_include_pad, *extra))  # fmt: skip
    if isinstance(found, Located):
        return found
    nodes, stencil = found
    values = stencil.interpolate(input.sampled().values)
    if divisor_override is not None or (count_include_pad and not ceil_mode):
        values = values / (divisor_override or stencil.nodes)
    else:
        values = values / _present(stencil).sum(1).clamp(min=1).to(values)[:, None]
    return feature_map(Sampled(nodes.target.points, values), nodes.target)


@rule("MaxPool1d", "MaxPool2d", "MaxPool3d")
def _max_pool_module(run: Run, module, input):
    return max_pool(run, input, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode,
                    module.return_indices)  # fmt: skip


@rule("AvgPool1d", "AvgPool2d", "AvgPool3d")
def _avg_pool_module(run: Run, module, input):
    return avg_pool(run, input, module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad,
                    getattr(module, "divisor_override", None))  # fmt: skip


def take(run: Run, x: Located, slices: Sequence[tuple[int, int, int]]) -> Located:
    """Keep every s-th index of each axis, given (first, stride, count): a slice of a map is a kernel of one node."""
    pads = tuple((-first, 0) for first, _, _ in slices)
    window = Window((1,) * len(slices), tuple(s for _, s, _ in slices), (1,) * len(slices), pads)
    nodes = place(run, x.level, window, tuple(count for _, _, count in slices))
    if x.level.on_grid and nodes.target.on_grid:
        index = tuple(slice(a, a + s * (n - 1) + 1, s) for a, s, n in slices)
        return from_grid(x.on_grid()[(slice(None), slice(None), *index)], nodes.target)
    sampled = x.sampled()
    if nodes.is_subset():
        values = sampled.values[:, : len(nodes.target.points)]
    else:
        values = nodes.reconstruction(run, "replicate").interpolate(sampled.values)
    return feature_map(Sampled(nodes.target.points, values), nodes.target)


@rule("padded", reads_padding=True)
def padded(run: Run, x: Located) -> Located:
    """Carry out the padding that waits on a map: the level of the larger shape, on which nodes outside see the padding."""
    waiting, plain = x.padding, replace(x, padding=None)
    pads = waiting.amounts
    nodes = place(run, x.level, Window((1,) * len(pads), (1,) * len(pads), (1,) * len(pads), pads))
    border = _BORDERS[waiting.mode]
    if x.level.on_grid and nodes.target.on_grid:
        return from_grid(_padded(plain.on_grid(), pads, border, waiting.value), nodes.target)
    stencil = nodes.reconstruction(run, _off_grid(border))
    values = stencil.interpolate(plain.sampled().values)
    if waiting.value:
        values = torch.where(_present(stencil).to(values.device), values, waiting.value)
    return feature_map(Sampled(nodes.target.points, values), nodes.target)


@rule("functional.pad", reads_padding=True)
def pad(run: Run, input, pad, mode="constant", value=None):
    """Pad channels at once; padding of the spatial axes waits for the operation that reads it."""
    x, spread = input, input.spread
    pairs = [tuple(pad[i : i + 2]) for i in range(0, len(pad), 2)]  # last dimension first
    after = x.values.ndim - 1 - x.axis  # dimensions behind the points
    spatial = pairs[after : after + spread]
    others = [*pairs[:after], *([(0, 0)] if len(pairs) > after else []), *pairs[after + spread :]]
    if any(map(any, others)):
        x = x.with_values(functional.pad(x.values, [a for pair in others for a in pair], mode, value))
    if not any(map(any, spatial)):
        return x
    if not x.is_map:
        raise NeedsGrid(x.level, "padding of it cannot wait for a kernel")
    x = padded(run, x) if x.padding else x
    amounts = tuple(reversed([*spatial, *[(0, 0)] * (spread - len(spatial))]))
    if min(map(min, amounts)) < 0:  # what it cuts off
        cut = [(max(0, -a), n + min(0, a) + min(0, b)) for (a, b), n in zip(amounts, x.level.shape, strict=True)]
        x = take(run, x, [(first, 1, count) for first, count in cut])
        amounts = tuple((max(0, a), max(0, b)) for a, b in amounts)
    return replace(x, padding=Padding(amounts, mode, float(value or 0.0))) if any(map(any, amounts)) else x


@rule(*(f"{kind}Pad{n}d" for n in (1, 2, 3) for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular")),
      reads_padding=True)  # fmt: skip
def _pad_module(run: Run, module, input):
    kind = type(module).__name__.partition("Pad")[0]
    mode = {"Zero": "constant", "Constant": "constant", "Reflection": "reflect", "Replication": "replicate"}.get(kind, "circular")
    return pad(run, input, list(module.padding), mode, getattr(module, "value", 0.0))
