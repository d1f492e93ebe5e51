"""Floor 5: HDF5 files: datasets of numbers by their dotted path, attributes beside them.

Only data that lie in the file itself are read: links into other files, virtual and external data sets are refused, and so are
filters but deflate, shuffle, check sums and lzf (others would load code). Every object is visited once, whatever links lead
to it.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from inrbridge.containers.contents import MAX_CHARACTERS, MAX_KEY, Contents, first_line, is_plain

MAX_NAMES, MAX_DEPTH, MAX_ATTRIBUTES = 10_000, 12, 256
ATTRIBUTE_BYTES = 2**16
DEFLATE, SHUFFLE, CHECKSUM, LZF = 1, 2, 3, 32000  # numbers of filters
SLACK, RATIO = 64 * 2**20, 100  # bytes that all data sets may claim together, and for every byte of the file
CHUNK_BYTES = 64 * 2**20


class DamagedHierarchy(Exception):
    """The file cannot be followed, or claims too much."""


def hierarchy_leaves(path: Path, *, values: bool) -> Iterator[tuple[str, object]]:
    """Yield dotted names with arrays (or, without `values`, pairs of shape and dtype), and attributes as plain values.

    Raises:
        DamagedHierarchy: HDF5 cannot read it.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield from _Visit(path.stat().st_size, values).group(file, "", 0)
    except (DamagedHierarchy, PermissionError):
        raise
    except Exception as error:  # h5py passes on whatever the library says
        raise DamagedHierarchy(f"HDF5 cannot read it ({first_line(error)[:120]})") from error


def list_hierarchy(path: Path) -> Contents:
    """List an HDF5 file."""
    contents = Contents()
    try:
        for name, value in hierarchy_leaves(path, values=False):
            if isinstance(value, tuple):
                contents.tensors[name], contents.dtypes[name] = value
            elif is_plain(value):
                contents.scalars[name] = value
    except DamagedHierarchy as error:
        return Contents(damage=str(error))
    return contents


class _Visit:
    """One walk through a file, and what it has cost."""

    def __init__(self, size: int, values: bool):
        self.values, self.room = values, SLACK + RATIO * size
        self.names, self.characters = MAX_NAMES, MAX_CHARACTERS
        self.seen: set[tuple[int, ...]] = set()

    def group(self, group, prefix: str, depth: int) -> Iterator[tuple[str, object]]:
        """Attributes, data sets and groups below, each object once."""
        import h5py

        if self.was_here(group):
            return
        yield from self.attributes(group, prefix)
        for key in group:
            name = self.named(prefix, key)
            if name is None:
                return
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise DamagedHierarchy(f'"{name}" is a link to elsewhere, expected data in the file itself')
            child = group[key]
            if isinstance(child, h5py.Group):
                if depth < MAX_DEPTH:
                    yield from self.group(child, name, depth + 1)
            elif isinstance(child, h5py.Dataset) and not self.was_here(child):
                yield from self.dataset(child, name)

    def was_here(self, node) -> bool:
        """Whether the object was visited; notes it."""
        import h5py

        info = h5py.h5o.get_info(node.id)
        place = (info.fileno, info.addr)
        if place in self.seen:
            return True
        self.seen.add(place)
        return False

    def named(self, prefix: str, key: str) -> str | None:
        """The dotted name; None when the budget of names is spent."""
        name = f"{prefix}.{key}" if prefix else key
        self.names -= 1
        self.characters -= len(name)
        return name if self.names >= 0 and self.characters >= 0 and len(key) <= MAX_KEY else None

    def dataset(self, data, name: str) -> Iterator[tuple[str, object]]:
        """The numbers (or their shape and dtype), or the text, of a data set, and its attributes."""
        if data.is_virtual or data.external or data.shape is None or not _has_known_filters(data):
            raise DamagedHierarchy(f'"{name}" is not plain data of this file (compression {data.compression})')
        claimed = math.prod(data.shape) * data.dtype.itemsize
        if data.dtype.kind not in "fiub":
            if data.size == 1 and _is_text(data.dtype) and claimed <= ATTRIBUTE_BYTES:  # alone or in a list of one
                _check_chunks(data, name, True)
                yield name, _plain(data[()].item() if data.ndim else data[()])
            return
        self.room -= claimed
        if self.room < 0:
            raise DamagedHierarchy(f'"{name}" of shape {data.shape} claims {claimed} bytes: more than the file accounts for')
        _check_chunks(data, name, self.values)
        yield name, (data[()] if self.values else (tuple(data.shape), str(data.dtype)))
        yield from self.attributes(data, name)

    def attributes(self, node, prefix: str) -> Iterator[tuple[str, object]]:
        """Plain attributes of moderate size."""
        for key in islice(node.attrs, MAX_ATTRIBUTES):
            name = self.named(prefix, key)
            if name is None:
                return
            kind = node.attrs.get_id(key)
            if math.prod(kind.shape or ()) * kind.dtype.itemsize > ATTRIBUTE_BYTES or kind.get_storage_size() > ATTRIBUTE_BYTES:
                continue
            if kind.dtype.kind == "O" and not _is_text(kind.dtype):
                continue
            value = _plain(node.attrs[key])
            if value is not None:
                yield name, value


def _is_text(dtype: np.dtype) -> bool:
    """Whether these are texts, not references or lists without a fixed length."""
    import h5py

    return dtype.kind == "S" or h5py.check_string_dtype(dtype) is not None


def _has_known_filters(data) -> bool:
    plan = data.id.get_create_plist()
    return all(plan.get_filter(i)[0] in (DEFLATE, SHUFFLE, CHECKSUM, LZF) for i in range(plan.get_nfilters()))


def _check_chunks(data, name: str, is_read: bool) -> None:
    """Refuse chunks larger than their data, and, before they are read, deflated ones that inflate to more than a chunk."""
    if data.chunks is None:
        return
    whole = math.prod(data.chunks) * data.dtype.itemsize
    if whole > CHUNK_BYTES + math.prod(data.shape) * data.dtype.itemsize:
        raise DamagedHierarchy(f'"{name}" is stored in pieces of {whole} bytes: more than it holds')
    plan = data.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if not is_read or DEFLATE not in filters:
        return
    is_first = filters[-1] == DEFLATE  # applied last when it was written, so first of all when it is read
    for i in range(data.id.get_num_chunks()):
        info = data.id.get_chunk_info(i)
        if info.size > whole + whole // 100 + 1024:
            raise DamagedHierarchy(f'a piece of "{name}" is stored in more bytes than it has')
        if not is_first or info.filter_mask:
            continue
        try:
            inflated = zlib.decompressobj().decompress(data.id.read_direct_chunk(info.chunk_offset)[1], whole + 1024)
        except zlib.error as error:
            raise DamagedHierarchy(f'a piece of "{name}" is broken ({error})') from error
        if len(inflated) >= whole + 1024:
            raise DamagedHierarchy(f'a piece of "{name}" inflates to more than it has: it would fill the memory')


def _plain(value: object) -> object | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and value.size <= 4096 and value.dtype.kind in "fiubSO":
        value = json.dumps([_plain(v) for v in value.ravel().tolist()], default=str)
    return value if isinstance(value, bool | int | float | str) else None
