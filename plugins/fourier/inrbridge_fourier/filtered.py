"""The reader of multiplicative filter networks: which filter each level uses, and at which level the value is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from inrbridge import errors
from inrbridge_fourier.dialects import Dialect, FilterNames
from inrbridge_fourier.source import Content, Layer, Source

_REUSED = (2, 2, 2, 4, 4, 6, 6, 8, 8)  # of nine filters; though all are stored
_ROUND = 1e-3  # how far from a whole number of turns a frequency may be stored


def read_filters(source: Source, names: FilterNames, dialect: Dialect) -> Content:
    """Filters "filters.i.linear", layers "linear.i", and a readout "output_linear.i" behind level i, or one "output_linear"."""
    filters = [source.layer(f"{name}.weight", f"{name}.bias") for name in names.filters]
    layers = [source.layer(f"{name}.weight", f"{name}.bias") for name in names.layers]
    dim, count = filters[0][0].shape[1], len(filters)
    readouts = dict(names.readouts)
    channels = source.tensors[f"{names.readouts[-1][1]}.bias"].shape[0]
    is_shape = (dim, channels) == (3, 1)
    if source.assume.choose("reuse", source.told.reuse, is_shape, kind=bool):
        used = _REUSED if count == 9 else (0, 0, *[count - 1] * (count - 2))
        if count > 9:
            raise errors.CannotOpen(
                f"it has {count} filters, expected at most 9 where they are used again; open with reuse=false."
            )
        filters = [filters[i] for i in used]
    levels = [level for level in readouts if level > 0]
    level = source.assume.choose("level", source.told.level, max(levels, default=0), kind=int)
    if level not in levels:
        raise errors.ConfigError(f"Got level = {level}, expected one of {', '.join(str(n) for n in sorted(levels))}.")
    if (dim, channels) == (3, 4):
        source.assume.note("four values of a radiance field before their activations: colours, then density")
    readout = source.layer(f"{readouts[level]}.weight", f"{readouts[level]}.bias")
    return Content([*layers[:level], readout], filters=filters[: level + 1], half=_half_period(source, filters))


def _half_period(source: Source, filters: Sequence[Layer]) -> float | None:
    """Return half the period of BACON's frequencies, which are multiples of 2 pi over it; None where they are not."""
    weights = torch.cat([weight for weight, _ in filters]).double()
    for period in (1.0, 2.0, 8.0):
        turns = weights * period / (2 * math.pi)
        if float((turns - turns.round()).abs().max()) < _ROUND:
            source.assume.note(f"the domain is one period of the frequencies, {period:g}")
            return period / 2
    return None
