"""Floor 5: what a file holds, told from its headers alone: no tensor is read and nothing in the file is executed.

The first bytes name the container, and the reader of that container lists it. Every reader returns a `Contents`; damage is a
sentence in it, not an exception, so that a look at a file never fails (only `PermissionError` and a missing file come through).
Sizes claimed by a header are compared with the bytes that are there before anyone takes memory for them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from inrbridge.containers.archives import DamagedArchive, opened_archive
from inrbridge.containers.contents import MAX_NAMES, Contents
from inrbridge.containers.safetensor_headers import MAX_HEADER_BYTES, list_safetensors

__all__ = ["HEAD_BYTES", "Contents", "magic_of", "read_contents"]

HEAD_BYTES = 4096

_SIGNALS = {"png": b"\x89PNG\r\n", "jpeg": b"\xff\xd8\xff", "wav": b"RIFF"}  # no fields, but what they are fitted to


def magic_of(path: Path, head: bytes) -> str:
    """Name the kind of container from its first bytes: "safetensors", "torch", "npz", "npy", "zip", "pickle",
    "gzip", "hdf5", "msgpack", "png", "jpeg", "wav", "folder" or "unknown"."""
    if path.is_dir():
        return "folder"
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= MAX_HEADER_BYTES:
        return "safetensors"  # asked first: a header of 640 bytes begins as a pickle does
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"\x1f\x8b") or head[:2] in (b"\x78\x9c", b"\x78\xda", b"\x78\x01"):
        return "gzip"
    if head.startswith(b"\x89HDF"):
        return "hdf5"
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "torch" if head[2:4] == b"\x8a\n" else "pickle"  # a ten-byte integer comes first in old torch files
    for magic, start in _SIGNALS.items():
        if head.startswith(start):
            return magic
    if path.suffix == ".safetensors":
        return "safetensors"
    if head and (0x80 < head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
        return "msgpack"
    return "unknown"


def _kind_of_zip(path: Path) -> str:
    try:
        with opened_archive(path) as archive:
            names = archive.namelist()
    except DamagedArchive:
        return {".npz": "npz"}.get(path.suffix, "zip")
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def read_contents(path: Path, magic: str) -> Contents:
    """List what the file holds, by the reader of its container."""
    if magic in _READERS:
        return _READERS[magic](path)
    return Contents(damage="" if path.stat().st_size else "the file is empty")


# readers are imported on use: a look at one kind of file shall not wait for the libraries of another


def _archive(path: Path) -> Contents:
    from inrbridge.containers.arrays import list_archive

    return list_archive(path)


def _array(path: Path) -> Contents:
    from inrbridge.containers.arrays import list_array

    contents = list_array(path)
    if not contents.is_inert:
        return contents
    found = _pickle(path)
    if not found.tensors and not found.damage:
        found.dtypes = contents.dtypes
    return found


def _torch(path: Path) -> Contents:
    from inrbridge.containers.torch_files import list_pickled

    return list_pickled(path, is_torch=True)


def _pickle(path: Path) -> Contents:
    from inrbridge.containers.torch_files import list_pickled

    return list_pickled(path, is_torch=False)


def _packed(path: Path) -> Contents:
    from inrbridge.containers.packed import list_pack

    return list_pack(path)


def _hierarchy(path: Path) -> Contents:
    from inrbridge.containers.hierarchical import list_hierarchy

    return list_hierarchy(path)


def _folder(path: Path) -> Contents:
    """File names down to the second level, sorted."""
    names: list[str] = []
    for pattern in ("*", "*/*"):
        children = islice(path.glob(pattern), MAX_NAMES - len(names))
        names += [child.relative_to(path).as_posix() + ("/" if child.is_dir() else "") for child in children]
    return Contents(listing=tuple(sorted(names)))


_READERS: dict[str, Callable[[Path], Contents]] = {
    "safetensors": list_safetensors, "torch": _torch, "pickle": _pickle, "npz": _archive, "zip": _archive, "npy": _array,
    "gzip": _packed, "msgpack": _packed, "hdf5": _hierarchy, "folder": _folder,
}  # fmt: skip
