"""Floor 5: the header of a safetensors file: names, shapes, types, places of the numbers, and metadata."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from inrbridge.containers.contents import MAX_NAMES, Contents

MAX_HEADER_BYTES = 8 * 2**20  # far above the header of any field; a JSON text of this size takes a second and 200 MB

_ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
               "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip


def list_safetensors(path: Path) -> Contents:
    """List a safetensors file by its header; sizes are compared with the bytes that are there."""
    size = path.stat().st_size
    if size < 8:
        return Contents(damage=f"the file is truncated: it has {size} bytes, and a safetensors header needs more than 8")
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > size - 8:
            return Contents(damage=f"the file is truncated: its header claims {length} bytes and {size - 8} follow")
        if length > MAX_HEADER_BYTES:
            return Contents(damage=f"its header claims {length} bytes, more than the {MAX_HEADER_BYTES} allowed")
        text = file.read(length)
    try:
        header = json.loads(text)
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        tensors = {name: _integers(entry["shape"]) for name, entry in header.items()}
        dtypes = {name: str(entry["dtype"])[:16] for name, entry in header.items()}
        spans = {name: _integers(entry["data_offsets"]) for name, entry in header.items()}
        end = max((stop for _, stop in spans.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Contents(damage="its header is not the JSON text of a safetensors file")
    if len(tensors) > MAX_NAMES:
        return Contents(damage=f"its header names {len(tensors)} tensors, more than the {MAX_NAMES} allowed")
    contents = Contents(tensors, dtypes, metadata=metadata)
    if 8 + length + end > size:
        contents.damage = f"the file is truncated: its header promises {8 + length + end} bytes, it has {size}"
    for name, (start, stop) in spans.items():
        item = _ITEM_BYTES.get(dtypes[name])
        if start > stop or (item and stop - start != item * math.prod(tensors[name])):
            contents.damage = f'its header gives tensor "{name[:200]}" of shape {tensors[name]} the wrong number of bytes'
    return contents


def _integers(values: object) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > 64 or not all(type(v) is int and 0 <= v < 2**63 for v in values):
        raise ValueError("no sizes")
    return tuple(values)
