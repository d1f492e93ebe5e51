"""Floor 6: moving, joining, splitting and naming axes. The axis of points goes along as one."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from inrbridge.models.converted.located import Located, NeedsGrid
from inrbridge.models.converted.rules.local import take
from inrbridge.models.converted.rules.pointwise import together
from inrbridge.models.converted.rules.table import Run, rule


def _numbers(shape) -> list[int]:
    shape = shape[0] if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape
    return [int(n) for n in shape]


@rule(".size", ".shape")
def size(run: Run, x, dim=None):
    """The shape of the discrete tensor."""
    return x.shape if dim is None else x.shape[dim]


@rule(".dim")
def _dim(run: Run, x):
    return x.ndim


@rule(".contiguous", ".clone", ".detach", ".float", ".double", ".half", ".bfloat16", ".to")
def _same(run: Run, x, *args, **kwargs):
    return x


@rule("torch.permute", ".permute")
def permute(run: Run, x, *dims):
    """Permute: pixels have to stay side by side, in their order."""
    dims = [d % x.ndim for d in _numbers(dims)]
    pixels = list(range(x.axis, x.axis + x.spread))
    place = dims.index(pixels[0])
    if dims[place : place + x.spread] != pixels:
        raise NeedsGrid(x.level, "it takes the axes of the pixels apart")
    order = [x.dim(d) if d not in pixels else x.axis for d in dims if d not in pixels[1:]]
    return replace(x, values=x.values.permute(order), axis=place)


@rule("torch.transpose", ".transpose", "torch.swapaxes", ".swapaxes")
def transpose(run: Run, x, dim0, dim1):
    """Swap two dimensions."""
    order = list(range(x.ndim))
    a, b = dim0 % x.ndim, dim1 % x.ndim
    order[a], order[b] = order[b], order[a]
    return permute(run, x, *order)


@rule("torch.movedim", ".movedim")
def movedim(run: Run, x, source, destination):
    """Move dimensions."""
    sources = [d % x.ndim for d in ([source] if isinstance(source, int) else source)]
    targets = [d % x.ndim for d in ([destination] if isinstance(destination, int) else destination)]
    order = [d for d in range(x.ndim) if d not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return permute(run, x, *order)


@rule("torch.reshape", ".reshape", ".view")
def reshape(run: Run, x, *shape):
    """Reshape: pixels may become tokens and tokens pixels; nothing else may join them."""
    shape = _numbers(shape)
    total = x.shape.numel()
    if -1 in shape:
        shape[shape.index(-1)] = total // max(1, -math.prod(shape))
    before, size = math.prod(x.shape[: x.axis]), x.level.size
    for first in range(len(shape), -1, -1):
        if math.prod(shape[:first]) != before:
            continue
        for last in range(first + 1, len(shape) + 1):
            middle = tuple(shape[first:last])
            if middle == x.level.shape or middle == (size,):
                rest = shape[last:]
                if before * size * math.prod(rest) == total:
                    values = x.values.reshape(*shape[:first], len(x.level.points), *rest)
                    return Located(values, x.level, first, middle != x.level.shape)
    raise NeedsGrid(x.level, f"it makes {tuple(shape)} of {tuple(x.shape)} and joins pixels with other axes")


@rule("torch.flatten", ".flatten")
def flatten(run: Run, x, start_dim=0, end_dim=-1):
    """Flatten."""
    first, last = start_dim % x.ndim, end_dim % x.ndim
    return reshape(run, x, *x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])


@rule("Flatten")
def _flatten_module(run: Run, module, x):
    return flatten(run, x, module.start_dim, module.end_dim)


@rule("torch.unflatten", ".unflatten")
def unflatten(run: Run, x, dim, sizes):
    """Unflatten."""
    dim, sizes = dim % x.ndim, list(sizes)
    if -1 in sizes:
        sizes[sizes.index(-1)] = x.shape[dim] // max(1, -math.prod(sizes))
    return reshape(run, x, *x.shape[:dim], *sizes, *x.shape[dim + 1 :])


@rule("Unflatten")
def _unflatten_module(run: Run, module, x):
    return unflatten(run, x, module.dim, module.unflattened_size)


@rule("torch.squeeze", ".squeeze")
def squeeze(run: Run, x, dim=None):
    """Drop dimensions of size 1."""
    axes = [x.dim(d) for d in (range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim)]
    gone = sorted({a for a in axes if a is not None and x.values.shape[a] == 1}, reverse=True)
    values = x.values
    for a in gone:
        values = values.squeeze(a)
    return replace(x, values=values, axis=x.axis - sum(a < x.axis for a in gone))


@rule("torch.unsqueeze", ".unsqueeze")
def unsqueeze(run: Run, x, dim):
    """Add a dimension of size 1."""
    dim = dim % (x.ndim + 1)
    if x.axis < dim < x.axis + x.spread:
        raise NeedsGrid(x.level, "it puts an axis between those of the pixels")
    if dim <= x.axis:
        return replace(x, values=x.values.unsqueeze(dim), axis=x.axis + 1)
    return replace(x, values=x.values.unsqueeze(dim - x.spread + 1))


@rule(".expand", "torch.broadcast_to", ".broadcast_to")
def expand(run: Run, x, *sizes):
    """Expand dimensions of size 1."""
    sizes = _numbers(sizes)
    added = len(sizes) - x.ndim
    axis = x.axis + added
    return replace(x, values=x.values.expand(*sizes[:axis], len(x.level.points), *sizes[axis + x.spread :]), axis=axis)


def _axis(x: Located, dim: int, what: str) -> int:
    axis = x.dim(dim)
    if axis is None:
        raise NeedsGrid(x.level, what)
    return axis


@rule("torch.cat", "torch.concat", "torch.concatenate")
def cat(run: Run, tensors, dim=0):
    """Join along an axis that is no pixels'; what is a plain tensor is read onto the points."""
    home, operands = together(run, list(tensors))
    dim = dim % home.ndim
    axis = _axis(home, dim, "it joins tokens to those of the points")
    length = len(home.level.points)
    full = []
    for operand in operands:
        shape = list(operand.shape)
        shape[home.axis] = length
        full.append(operand.expand(shape))
    return home.with_values(torch.cat(full, axis))


@rule("torch.stack")
def stack(run: Run, tensors, dim=0):
    """Join along a new axis."""
    return cat(run, [unsqueeze(run, t, dim) if isinstance(t, Located) else t.unsqueeze(dim) for t in tensors], dim)


@rule("torch.chunk", ".chunk")
def chunk(run: Run, x, chunks, dim=0):
    """Split into equal parts."""
    axis = _axis(x, dim, "it splits the pixels")
    return tuple(x.with_values(part) for part in x.values.chunk(chunks, axis))


@rule("torch.split", ".split")
def split(run: Run, x, split_size_or_sections, dim=0):
    """Split into parts of given sizes."""
    axis = _axis(x, dim, "it splits the pixels")
    return tuple(x.with_values(part) for part in x.values.split(split_size_or_sections, axis))


@rule("torch.unbind", ".unbind")
def unbind(run: Run, x, dim=0):
    """Take an axis apart."""
    axis = _axis(x, dim, "it takes the pixels apart")
    return tuple(replace(x, values=part, axis=x.axis - (axis < x.axis)) for part in x.values.unbind(axis))


@rule("torch.narrow", ".narrow")
def narrow(run: Run, x, dim, start, length):
    """Take a range of an axis."""
    index = [slice(None)] * x.ndim
    index[dim % x.ndim] = slice(start, start + length)
    return getitem(run, x, tuple(index))


@rule("torch.select", ".select")
def select(run: Run, x, dim, index):
    """Take one place of an axis."""
    where: list = [slice(None)] * x.ndim
    where[dim % x.ndim] = index
    return getitem(run, x, tuple(where))


@rule("operator.getitem")
def getitem(run: Run, x, index):
    """Index: numbers, slices, None and Ellipsis; a slice of pixels is read at the places of those it keeps."""
    index = list(index) if isinstance(index, tuple | list) else [index]
    if any(not (isinstance(i, int | slice) or i is None or i is Ellipsis) for i in index):
        raise NeedsGrid(x.level, "it picks by an index tensor")
    given = sum(i is not None and i is not Ellipsis for i in index)
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    index[at : at + 1] = [slice(None)] * (x.ndim - given)
    pixels, out, axis, dim = [], [], x.axis, 0
    for i in index:
        if i is None:
            if x.axis < dim < x.axis + x.spread:
                raise NeedsGrid(x.level, "it puts an axis between those of the pixels")
            axis += dim <= x.axis
            out.append(None)
            continue
        if x.axis <= dim < x.axis + x.spread:
            if not isinstance(i, slice):
                raise NeedsGrid(x.level, "it takes one row of the pixels")
            pixels.append(i)
            if len(pixels) == x.spread:
                out.append(slice(None))
        else:
            axis -= isinstance(i, int) and dim < x.axis
            out.append(i)
        dim += 1
    if any(p != slice(None) for p in pixels):
        x = _take(run, x, pixels)
    return replace(x, values=x.values[tuple(out)], axis=axis)


def _take(run: Run, x: Located, pixels: list[slice]) -> Located:
    if not x.is_map:
        raise NeedsGrid(x.level, "it slices pixels that are no map (b, c, *shape)")
    ranges = [range(*p.indices(n)) for p, n in zip(pixels, x.level.shape, strict=True)]
    if all(len(r) == n and r.step == 1 for r, n in zip(ranges, x.level.shape, strict=True)):
        return x
    if min(len(r) for r in ranges) == 0:
        raise NeedsGrid(x.level, "it leaves no pixels")
    return take(run, x, [(r.start, r.step, len(r)) for r in ranges])


@rule("functional.channel_shuffle")
def channel_shuffle(run: Run, x, groups):
    """Shuffle channels of groups."""
    if not x.is_map:
        raise NeedsGrid(x.level, "it shuffles the channels of maps (b, c, *shape)")
    b, c, n = x.values.shape
    return x.with_values(x.values.reshape(b, groups, c // groups, n).transpose(1, 2).reshape(b, c, n))


@rule("ChannelShuffle")
def _shuffle_module(run: Run, module, x):
    return channel_shuffle(run, x, module.groups)


@rule("torch.roll", ".roll")
def roll(run: Run, x, shifts, dims=None):
    """Roll channels; pixels are bound to the grid."""
    if dims is None or not isinstance(dims, int):
        raise NeedsGrid(x.level, "it rolls pixels")
    return x.with_values(x.values.roll(shifts, _axis(x, dims, "it rolls pixels")))


@rule("torch.flip", ".flip")
def flip(run: Run, x, *dims):
    """Flip axes that are no pixels', as RGB to BGR."""
    return x.with_values(x.values.flip([_axis(x, d, "it mirrors the pixels") for d in _numbers(dims)]))
