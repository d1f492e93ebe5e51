"""Floor 7: what is written down of fields, so that they can be built anew from their states."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from inrbridge.data.manifest import Architecture
from inrbridge.errors import CannotSave, NotFinite
from inrbridge.field import Field
from inrbridge.native import native_header
from inrbridge.transforms import Transform, channel_ranges

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def architecture_of(field: Field, states: Mapping[str, Tensor]) -> Architecture:
    """Describe what fields have in common whose states, stacked on axis 0, are given; the field is one of them.

    Raises:
        CannotSave: the field cannot be built anew, is seen through a transform, or its architecture is no JSON.
    """
    if isinstance(field, Transform):
        raise CannotSave(
            f"Got a field seen through {type(field).__name__}, expected the field itself: store `field.inner`; "
            "a FieldDataset aligns domain and channels when it reads."
        )
    header = native_header(field)
    architecture = Architecture(
        header["format"],
        header["architecture"],
        header["domain"],
        header["channels"],
        tuple(header["channel_names"]),
        channel_ranges(field),
        {key: (DTYPE_NAMES.get(value.dtype, str(value.dtype)), tuple(value.shape[1:])) for key, value in states.items()},
    )
    try:
        json.dumps(architecture.to_json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CannotSave(
            f"The architecture of a {type(field).__name__} is no JSON ({error}), expected numbers, texts and lists."
        ) from error
    return architecture


def check_finite(names: Sequence[str], states: Mapping[str, Tensor]) -> None:
    """Raise NotFinite where a row of the states has NaN or infinite numbers."""
    if not states:
        return
    sound = torch.stack([value.isfinite().reshape(len(value), -1).all(1) for value in states.values()]).all(0)
    if not bool(sound.all()):
        bad = [name for name, is_sound in zip(names, sound.tolist(), strict=True) if not is_sound]
        raise NotFinite(f"The parameters of {shorten(bad)} are NaN or infinite; fit them again with a lower learning rate.")


def shorten(names: Iterable[str], most: int = 5) -> str:
    """Join names, the first few of many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
