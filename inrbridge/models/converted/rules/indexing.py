"""Floor 6: indices: numbers, slices, new axes; a slice of pixels is read at the places of those that it keeps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from inrbridge.models.converted.located import Located, NeedsGrid
from inrbridge.models.converted.rules.local import take
from inrbridge.models.converted.rules.table import Run, rule


@rule("operator.getitem")
def getitem(run: Run, input, index):
    """Index; one list of places is allowed too, along an axis that is no pixels'."""
    index = _full(input, index)
    chosen = [i for i in index if isinstance(i, list | Tensor)]
    if len(chosen) > 1 or (chosen and any(isinstance(i, int) or i is None for i in index)):
        raise NeedsGrid(input.level, "it picks by several indices at once")
    pixels, out, axis, dim = [], [], input.axis, 0
    for i in index:
        if i is None:
            if input.axis < dim < input.axis + input.spread:
                raise NeedsGrid(input.level, "it puts an axis between those of the pixels")
            axis += dim <= input.axis
            out.append(None)
            continue
        if input.axis <= dim < input.axis + input.spread:
            if not isinstance(i, slice):
                raise NeedsGrid(input.level, "it takes single rows of the pixels")
            pixels.append(i)
            if len(pixels) == input.spread:
                out.append(slice(None))
        else:
            axis -= isinstance(i, int) and dim < input.axis
            out.append(i)
        dim += 1
    if any(p != slice(None) for p in pixels):
        input = _sliced(run, input, pixels)
    return replace(input, values=input.values[tuple(out)], axis=axis)


def _full(x: Located, index) -> list:
    """One index for each dimension, and None for each new one."""
    index = list(index) if isinstance(index, tuple) else [index]
    for i in index:
        is_list = (isinstance(i, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in i)) or (
            isinstance(i, Tensor) and i.ndim == 1 and i.dtype == torch.int64
        )
        if isinstance(i, bool) or not (isinstance(i, int | slice) or i is None or i is Ellipsis or is_list):
            raise NeedsGrid(x.level, "it picks by a mask, or by an index of several dimensions")
    places = [place for place, i in enumerate(index) if i is Ellipsis]
    at = places[0] if places else len(index)
    given = sum(i is not None and i is not Ellipsis for i in index)
    index[at : at + len(places)] = [slice(None)] * (x.ndim - given)
    return index


def _sliced(run: Run, x: Located, pixels: list[slice]) -> Located:
    if not x.is_map:
        raise NeedsGrid(x.level, "it slices pixels that are no map (b, c, *shape)")
    ranges = [range(*p.indices(n)) for p, n in zip(pixels, x.level.shape, strict=True)]
    if all(len(r) == n and r.step == 1 for r, n in zip(ranges, x.level.shape, strict=True)):
        return x
    if min(len(r) for r in ranges) == 0:
        raise NeedsGrid(x.level, "it leaves no pixels")
    return take(run, x, [(r.start, r.step, len(r)) for r in ranges])
