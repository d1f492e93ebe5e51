"""The reader of multiplicative filter networks: which filter each level uses, and at which level the value is taken."""

from __future__ import annotations

from inrbridge import errors
from inrbridge_fourier.dialects import Dialect, FilterNames
from inrbridge_fourier.source import Content, Source

_REUSED = (2, 2, 2, 4, 4, 6, 6, 8, 8)  # of nine filters; though all are stored


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
    return Content([*layers[:level], readout], filters=filters[: level + 1])
