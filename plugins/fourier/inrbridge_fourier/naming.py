"""Which tensors of a file are its frequencies, and which its linear layers, told from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shapes = Mapping[str, Sequence[int]]

_MOST_COORDINATES = 4
_BESIDE = r"(?:optim\w*|\w*scheduler\w*)\..*|.*num_batches_tracked"  # what a training run saves next to its network


@dataclass(frozen=True)
class Names:
    """The names that one code base gave to the parts of a network.

    `encoding` is None where there are no frequencies; `is_wide` where they are (d, m), not (m, d). `layers` are
    weight and bias (None without one) in order; `has_raw`: the coordinates themselves are read too; `skips`: layers that read
    them again.
    """

    encoding: str | None
    is_wide: bool
    layers: tuple[tuple[str, str | None], ...]
    has_raw: bool = False
    skips: tuple[int, ...] = ()


def find_names(shapes: Shapes, layer: str, encoding: str, *, wide: bool | None = False, repeats: bool = False,
               raw: bool = True, skips: bool = False, flip: bool = False) -> Names | None:  # fmt: skip
    """Return the names if frequencies and linear layers are all there is and their shapes chain, else None.

    Args:
        layer, encoding: patterns of whole names, of a layer without its ".weight" and of the frequencies.
        wide: whether frequencies are (d, m); None where either may be.
        repeats: whether each frequency may come in several octaves.
        raw: whether the first layer may read the coordinates too.
        skips: whether later layers may.
        flip: whether weights are (in, out) and called by ".0" with biases ".1".
    """
    kinds = ("0", "1") if flip else ("weight", "bias")
    encodings, layers = [], {}
    for key, shape in shapes.items():
        name, _, kind = key.rpartition(".")
        if re.fullmatch(encoding, key) and len(shape) == 2:
            encodings.append(key)
        elif kind in kinds and re.fullmatch(layer, name):
            layers.setdefault(name, {})[kind] = key
        elif not re.fullmatch(_BESIDE, key):
            return None
    if len(encodings) > 1 or len(layers) < 2 or any(kinds[0] not in found for found in layers.values()):
        return None
    if len({kinds[1] in found for found in layers.values()}) > 1:  # some layers have lost their bias
        return None
    pairs = [(found[kinds[0]], found.get(kinds[1])) for found in layers.values()]
    natural = sorted(pairs, key=lambda pair: [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", pair[0])])
    if not encodings:
        dim = shapes[natural[0][0]][-1] if skips else 0
        found = _skips(shapes, natural, None, dim, skips, flip)
        return None if found is None else Names(None, False, tuple(natural), skips and dim <= _MOST_COORDINATES, found)
    rows, columns = shapes[encodings[0]]
    for is_wide in (False, True) if wide is None else (wide,):
        m, dim = (columns, rows) if is_wide else (rows, columns)
        if not 1 <= dim <= _MOST_COORDINATES or m < 1:
            continue
        for order in (pairs, natural):
            found = _skips(shapes, order, None, dim, skips, flip)
            width = shapes[order[0][0]][1 if not flip else 0] if found is not None else 0
            for has_raw in (False, True) if raw else (False,):
                rest = width - dim * has_raw
                if found is not None and (rest == 2 * m or (repeats and rest > 0 and rest % (2 * m) == 0)):
                    return Names(encodings[0], is_wide, tuple(order), has_raw, found)
    return None


def _skips(shapes: Shapes, pairs: Sequence[tuple[str, str | None]], width: int | None, dim: int, allowed: bool, flip: bool):
    """Return the numbers of the layers that read `dim` coordinates more than the one before gives; None if they do not chain."""
    found = []
    for i, (weight, bias) in enumerate(pairs):
        shape = tuple(shapes[weight])[::-1] if flip else tuple(shapes[weight])
        if len(shape) != 2 or 0 in shape or (bias is not None and tuple(shapes[bias]) != shape[:1]):
            return None
        if width is not None and allowed and shape[1] == width + dim:
            found.append(i)
        elif width not in (None, shape[1]):
            return None
        width = shape[0]
    return tuple(found)
