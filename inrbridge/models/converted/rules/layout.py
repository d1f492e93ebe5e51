"""Floor 6: moving, joining, splitting and naming axes. The axis of points goes along as one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from inrbridge.models.converted.located import Located, NeedsGrid
from inrbridge.models.converted.rules.indexing import getitem
from inrbridge.models.converted.rules.pointwise import together
from inrbridge.models.converted.rules.table import Run, rule


def _numbers(sizes) -> list[int]:
    """Sizes that were given one by one, or as one list."""
    return [int(n) for n in (sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes)]


@rule(".size", ".shape")
def size(run: Run, input, dim=None):
    """The shape of the discrete tensor."""
    return input.shape if dim is None else input.shape[dim]


@rule(".dim")
def _dim(run: Run, input):
    return input.ndim


@rule(".numel", "torch.numel")
def _numel(run: Run, input):
    return input.shape.numel()


def _plain(x: Located | Tensor) -> Tensor:
    return x.values if isinstance(x, Located) else x


@rule(".to", ".type_as")
def _to(run: Run, input, *args, **kwargs):
    values = _plain(input).to(*map(_plain, args), **kwargs)
    return input.with_values(values) if isinstance(input, Located) else values


def _register_same(name: str) -> None:
    @rule(f".{name}")
    def apply(run: Run, input):
        return input.with_values(getattr(input.values, name)())


for _name in ("contiguous", "clone", "detach", "float", "double", "half", "bfloat16"):
    _register_same(_name)


@rule("torch.permute", ".permute")
def permute(run: Run, input, *order, dims=None):
    """Permute: pixels have to stay side by side, in their order."""
    dims = [d % input.ndim for d in _numbers(order if dims is None else dims)]
    pixels = list(range(input.axis, input.axis + input.spread))
    place = dims.index(pixels[0])
    if dims[place : place + input.spread] != pixels:
        raise NeedsGrid(input.level, "it takes the axes of the pixels apart")
    order = [input.dim(d) if d not in pixels else input.axis for d in dims if d not in pixels[1:]]
    return replace(input, values=input.values.permute(order), axis=place)


@rule("torch.transpose", ".transpose", "torch.swapaxes", ".swapaxes")
def transpose(run: Run, input, dim0, dim1):
    """Swap two dimensions."""
    order = list(range(input.ndim))
    a, b = dim0 % input.ndim, dim1 % input.ndim
    order[a], order[b] = order[b], order[a]
    return permute(run, input, *order)


@rule(".t")
def _t(run: Run, input):
    return transpose(run, input, 0, 1) if input.ndim > 1 else input


@rule("torch.movedim", ".movedim")
def movedim(run: Run, input, source, destination):
    """Move dimensions."""
    sources = [d % input.ndim for d in ([source] if isinstance(source, int) else source)]
    targets = [d % input.ndim for d in ([destination] if isinstance(destination, int) else destination)]
    order = [d for d in range(input.ndim) if d not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return permute(run, input, *order)


@rule("torch.reshape", ".reshape", ".view")
def reshape(run: Run, input, *sizes, shape=None, size=None):
    """Reshape: pixels may become tokens and tokens pixels; nothing else may join them."""
    if sizes and isinstance(sizes[0], torch.dtype):
        raise NeedsGrid(input.level, "it reads the bits of numbers anew")
    shape = _numbers(sizes or (shape if size is None else size,))
    total = input.shape.numel()
    if -1 in shape:
        shape[shape.index(-1)] = total // max(1, -math.prod(shape))
    before, count = math.prod(input.shape[: input.axis]), input.level.size
    for first in range(len(shape), -1, -1):
        if math.prod(shape[:first]) != before:
            continue
        for last in range(first + 1, len(shape) + 1):
            middle, rest = tuple(shape[first:last]), shape[last:]
            if middle in (input.level.shape, (count,)) and before * count * math.prod(rest) == total:
                values = input.values.reshape(*shape[:first], len(input.level.points), *rest)
                return Located(values, input.level, first, middle != input.level.shape)
    raise NeedsGrid(input.level, f"it makes {tuple(shape)} of {tuple(input.shape)} and joins pixels with other axes")


@rule(".view_as", ".reshape_as")
def _reshape_as(run: Run, input, other):
    return reshape(run, input, *other.shape) if isinstance(input, Located) else input.reshape(other.shape)


@rule("torch.flatten", ".flatten")
def flatten(run: Run, input, start_dim=0, end_dim=-1):
    """Flatten."""
    first, last = start_dim % input.ndim, end_dim % input.ndim
    return reshape(run, input, *input.shape[:first], math.prod(input.shape[first : last + 1]), *input.shape[last + 1 :])


@rule("Flatten")
def _flatten_module(run: Run, module, input):
    return flatten(run, input, module.start_dim, module.end_dim)


@rule("torch.unflatten", ".unflatten")
def unflatten(run: Run, input, dim, sizes):
    """Unflatten."""
    dim, sizes = dim % input.ndim, list(sizes)
    if -1 in sizes:
        sizes[sizes.index(-1)] = input.shape[dim] // max(1, -math.prod(sizes))
    return reshape(run, input, *input.shape[:dim], *sizes, *input.shape[dim + 1 :])


@rule("Unflatten")
def _unflatten_module(run: Run, module, input):
    return unflatten(run, input, module.dim, module.unflattened_size)


@rule("torch.squeeze", ".squeeze")
def squeeze(run: Run, input, dim=None):
    """Drop dimensions of size 1."""
    dims = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    pixels = [d for d in dims if input.dim(d) is None]
    if any(input.shape[d] == 1 for d in pixels):
        raise NeedsGrid(input.level, "it drops an axis of the pixels")
    gone = sorted({a for a in map(input.dim, dims) if a is not None and input.values.shape[a] == 1}, reverse=True)
    values = input.values
    for a in gone:
        values = values.squeeze(a)
    return replace(input, values=values, axis=input.axis - sum(a < input.axis for a in gone))


@rule("torch.unsqueeze", ".unsqueeze")
def unsqueeze(run: Run, input, dim):
    """Add a dimension of size 1."""
    dim = dim % (input.ndim + 1)
    if input.axis < dim < input.axis + input.spread:
        raise NeedsGrid(input.level, "it puts an axis between those of the pixels")
    if dim <= input.axis:
        return replace(input, values=input.values.unsqueeze(dim), axis=input.axis + 1)
    return replace(input, values=input.values.unsqueeze(dim - input.spread + 1))


@rule(".expand", "torch.broadcast_to", ".broadcast_to")
def expand(run: Run, input, *sizes, size=None):
    """Expand dimensions of size 1."""
    sizes = _numbers(sizes or (size,))
    axis = input.axis + len(sizes) - input.ndim
    values = input.values.expand(*sizes[:axis], len(input.level.points), *sizes[axis + input.spread :])
    return replace(input, values=values, axis=axis)


@rule(".expand_as")
def _expand_as(run: Run, input, other):
    return expand(run, input, *other.shape) if isinstance(input, Located) else input.expand(other.shape)


@rule(".repeat", "torch.tile", ".tile")
def repeat(run: Run, input, *times, repeats=None, dims=None):
    """Repeat what lies at one point."""
    times = _numbers(times or (dims if repeats is None else repeats,))
    times = [1] * (input.ndim - len(times)) + times
    axis = input.axis + len(times) - input.ndim
    if any(n != 1 for n in times[axis : axis + input.spread]):
        raise NeedsGrid(input.level, "it repeats the pixels")
    return replace(input, values=input.values.repeat(*times[:axis], 1, *times[axis + input.spread :]), axis=axis)


def _axis(x: Located, dim: int, what: str) -> int:
    axis = x.dim(dim)
    if axis is None:
        raise NeedsGrid(x.level, what)
    return axis


@rule("torch.cat", "torch.concat", "torch.concatenate")
def cat(run: Run, tensors, dim=0):
    """Join along an axis that is no pixels'; what is a plain tensor is read onto the points."""
    home, operands = together(run, list(tensors))
    axis = _axis(home, dim, "it joins tokens to those of the points")
    length = len(home.level.points)
    full = [x.expand(*x.shape[: home.axis], length, *x.shape[home.axis + 1 :]) for x in operands]
    return home.with_values(torch.cat(full, axis))


@rule("torch.stack")
def stack(run: Run, tensors, dim=0):
    """Join along a new axis."""
    return cat(run, [unsqueeze(run, t, dim) if isinstance(t, Located) else t.unsqueeze(dim) for t in tensors], dim)


@rule("torch.unbind", ".unbind")
def unbind(run: Run, input, dim=0):
    """Take an axis apart."""
    axis = _axis(input, dim, "it takes the pixels apart")
    return tuple(replace(input, values=part, axis=input.axis - (axis < input.axis)) for part in input.values.unbind(axis))


@rule("torch.narrow", ".narrow")
def narrow(run: Run, input, dim, start, length):
    """Take a range of an axis."""
    index = [slice(None)] * input.ndim
    index[dim % input.ndim] = slice(start, start + length)
    return getitem(run, input, tuple(index))


@rule("torch.select", ".select")
def select(run: Run, input, dim, index):
    """Take one place of an axis."""
    where: list = [slice(None)] * input.ndim
    where[dim % input.ndim] = index
    return getitem(run, input, tuple(where))


def _along(x: Located, dim: int, operation: Callable[[int], Tensor | tuple[Tensor, ...]]):
    """Apply an operation on one axis of `values`, which is no pixels'."""
    found = operation(_axis(x, dim, "it runs over the pixels in their order"))
    return x.with_values(found) if isinstance(found, Tensor) else tuple(map(x.with_values, found))


@rule("torch.chunk", ".chunk")
def chunk(run: Run, input, chunks, dim=0):
    """Split into equal parts."""
    return _along(input, dim, lambda axis: input.values.chunk(chunks, axis))


@rule("torch.split", ".split")
def split(run: Run, tensor, split_size_or_sections=None, dim=0, *, split_size=None):
    """Split into parts of given sizes."""
    sizes = split_size if split_size_or_sections is None else split_size_or_sections
    return _along(tensor, dim, lambda axis: tensor.values.split(sizes, axis))


@rule("torch.tensor_split", ".tensor_split")
def tensor_split(run: Run, input, indices_or_sections, dim=0):
    """Split at given places."""
    return _along(input, dim, lambda axis: input.values.tensor_split(indices_or_sections, axis))


@rule("torch.cumsum", ".cumsum")
def cumsum(run: Run, input, dim, *, dtype=None):
    """Sums so far."""
    return _along(input, dim, lambda axis: input.values.cumsum(axis, dtype=dtype))


@rule("torch.index_select", ".index_select")
def index_select(run: Run, input, dim, index):
    """Choose places of an axis."""
    return _along(input, dim, lambda axis: input.values.index_select(axis, index))


@rule("torch.repeat_interleave", ".repeat_interleave")
def repeat_interleave(run: Run, input, repeats, dim):
    """Repeat each place of an axis."""
    return _along(input, dim, lambda axis: input.values.repeat_interleave(repeats, axis))


@rule("torch.flip", ".flip")
def flip(run: Run, input, *sizes, dims=None):
    """Flip axes that are no pixels', as RGB to BGR."""
    dims = _numbers(sizes or (dims,))
    return input.with_values(input.values.flip([_axis(input, d, "it mirrors the pixels") for d in dims]))


@rule("torch.roll", ".roll")
def roll(run: Run, input, shifts, dims=None):
    """Roll channels; pixels are bound to the grid."""
    if dims is None:
        raise NeedsGrid(input.level, "it rolls pixels")
    axes = [_axis(input, d, "it rolls pixels") for d in ([dims] if isinstance(dims, int) else dims)]
    return input.with_values(input.values.roll(shifts if isinstance(shifts, int) else tuple(shifts), axes))


@rule("functional.channel_shuffle")
def channel_shuffle(run: Run, input, groups):
    """Shuffle channels of groups."""
    if not input.is_map:
        raise NeedsGrid(input.level, "it shuffles the channels of maps (b, c, *shape)")
    b, c, n = input.values.shape
    return input.with_values(input.values.reshape(b, groups, c // groups, n).transpose(1, 2).reshape(b, c, n))


@rule("ChannelShuffle")
def _shuffle_module(run: Run, module, input):
    return channel_shuffle(run, input, module.groups)
