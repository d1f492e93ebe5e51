"""Floor 5: HDF5 files: datasets of numbers by their dotted path, attributes beside them.

Only data that lie in the file itself are read: links into other files, virtual and external data sets, and filters that would
load code are left out or refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MAX_NAMES, MAX_DEPTH = 10_000, 12
FILTERS = {"gzip", "lzf", None}
RATIO, SLACK = 1000, 64 * 2**20  # of a data set's bytes to those of the file


class DamagedHierarchy(Exception):
    """The file cannot be followed, or claims too much."""


def hierarchy_leaves(path: Path, *, values: bool) -> Iterator[tuple[str, object]]:
    """Yield dotted names with arrays (or, without `values`, pairs of shape and dtype), and attributes as plain values.

    Raises:
        DamagedHierarchy: HDF5 cannot read it.
    """
    import h5py

    size = path.stat().st_size
    try:
        with h5py.File(path, "r") as file:
            yield from _group(file, "", size, values, 0, [MAX_NAMES], h5py)
    except DamagedHierarchy:
        raise
    except Exception as error:  # h5py passes on whatever the library says
        raise DamagedHierarchy(f"HDF5 cannot read it ({str(error)[:120]})") from error


def _group(group, prefix: str, size: int, values: bool, depth: int, budget: list[int], h5py) -> Iterator[tuple[str, object]]:
    yield from _attributes(group, prefix)
    for key in group:
        budget[0] -= 1
        if budget[0] < 0:
            return
        name = f"{prefix}.{key}" if prefix else key
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise DamagedHierarchy(f'"{name}" is a link to elsewhere, expected data in the file itself')
        child = group[key]
        if isinstance(child, h5py.Group):
            if depth < MAX_DEPTH:
                yield from _group(child, name, size, values, depth + 1, budget, h5py)
        elif isinstance(child, h5py.Dataset):
            yield from _dataset(child, name, size, values)


def _dataset(data, name: str, size: int, values: bool) -> Iterator[tuple[str, object]]:
    if data.is_virtual or data.external or data.compression not in FILTERS or data.shape is None:
        raise DamagedHierarchy(f'"{name}" is not plain data of this file (compression {data.compression})')
    if data.dtype.kind not in "fiub":
        if data.size == 1 and data.dtype.kind in "SO":  # a text, alone or in a list of one
            yield name, _plain(data[()].item() if data.ndim else data[()])
        return
    claimed = math.prod(data.shape) * data.dtype.itemsize
    if claimed > RATIO * size and claimed > SLACK:
        raise DamagedHierarchy(f'"{name}" of shape {data.shape} claims {claimed} bytes, and the file has {size}')
    yield name, (data[()] if values else (tuple(data.shape), str(data.dtype)))
    yield from _attributes(data, name)


def _attributes(node, prefix: str) -> Iterator[tuple[str, object]]:
    for key in list(node.attrs)[:256]:
        value = _plain(node.attrs[key])
        if value is None:
            continue
        name = f"{prefix}.{key}" if prefix else key
        yield name, value


def _plain(value: object) -> object | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and value.size <= 4096 and value.dtype.kind in "fiubSO":
        value = json.dumps([_plain(v) for v in value.ravel().tolist()], default=str)
    return value if isinstance(value, bool | int | float | str) else None
