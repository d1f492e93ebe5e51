"""Floor 5: what a file holds, told from its headers alone: no tensor is read and nothing in the file is executed.

Every reader returns a `Contents`; damage is a sentence in it, not an exception, so that a look at a file
never fails (only `PermissionError` and a missing file come through). Sizes claimed by a header are
compared with the bytes that are there before anyone takes memory for them.
"""

from __future__ import annotations

import json
import math
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEAD_BYTES = 4096
MAX_HEADER_BYTES = 16 * 2**20  # far above the header of any field; a JSON text of this size parses in a second
MAX_NAMES = 100_000  # tensors and scalars listed of one file
MAX_DEPTH = 12  # nested dicts and lists looked into
MAX_TEXT = 4096  # a longer text beside the tensors is left out
INFLATED_BYTES, INFLATED_RATIO = 256 * 2**20, 100  # an archive beyond both is a bomb

_ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
               "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip
_SIGNALS = {"png": b"\x89PNG\r\n", "jpeg": b"\xff\xd8\xff", "wav": b"RIFF"}  # no fields, but what they are fitted to


@dataclass
class Contents:
    """What a file holds: tensor name -> shape and dtype, plain values, text metadata, and what is wrong with it."""

    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, object] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    listing: tuple[str, ...] = ()
    damage: str = ""  # broken bytes: nobody can open this
    refused: str = ""  # bytes that would have to be executed
    is_inert: bool = False  # a pickle of more than tensors: followed, but nothing in it was run


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
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return {".npz": "npz"}.get(path.suffix, "zip")
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def read_contents(path: Path, magic: str) -> Contents:
    """List what the file holds, by the reader of its container."""
    readers = {"safetensors": _safetensors, "torch": _torch, "pickle": _pickle, "npz": _archive, "zip": _archive,
               "npy": _npy, "gzip": _packed, "msgpack": _packed, "hdf5": _hierarchy, "folder": _folder}  # fmt: skip
    if magic not in readers:
        return Contents(damage="" if path.stat().st_size else "the file is empty")
    return readers[magic](path)


def _safetensors(path: Path) -> Contents:
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
        tensors = {name: tuple(int(s) for s in entry["shape"]) for name, entry in header.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in header.items()}
        spans = {name: tuple(int(v) for v in entry["data_offsets"]) for name, entry in header.items()}
        end = max((stop for _, stop in spans.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Contents(damage="its header is not the JSON text of a safetensors file")
    contents = Contents(tensors, dtypes, metadata=metadata)
    if 8 + length + end > size:
        contents.damage = f"the file is truncated: its header promises {8 + length + end} bytes, it has {size}"
    for name, (start, stop) in spans.items():
        item = _ITEM_BYTES.get(dtypes[name])
        if start < 0 or (item and stop - start != item * math.prod(tensors[name])):
            contents.damage = f'its header gives tensor "{name}" of shape {tensors[name]} the wrong number of bytes'
    return contents


def _torch(path: Path) -> Contents:
    import pickle

    import torch

    contents = Contents()
    if zipfile.is_zipfile(path):
        contents = _members(path)
        if contents.damage:
            return contents
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _pickle(path)
        if not (found.tensors or found.refused or found.damage):
            found.refused = _what_it_asks(str(error))
        found.listing = contents.listing
        return found
    except PermissionError:
        raise
    except Exception as error:  # what a damaged archive raises is the choice of torch: RuntimeError, EOFError, KeyError, ...
        if "TorchScript" in str(error):
            contents.refused = "it is a TorchScript program"
        else:
            contents.damage = f"the torch file is damaged ({type(error).__name__}: {_first_line(error)})"
    else:
        _list_tree(loaded, contents)
        size, claimed = path.stat().st_size, sum(value.numel() * value.element_size() for _, value in _tensors_of(loaded))
        if claimed > 4 * size + INFLATED_BYTES:  # tensors may share their storage, or be expanded a little
            contents.damage = f"its tensors claim {claimed} bytes of memory and the file has {size}"
    return contents


def _pickle(path: Path) -> Contents:
    """A pickle of more than tensors, followed without running anything in it."""
    from inrbridge.containers.pickles import DamagedPickle, InertFile, RefusedPickle, TensorRef

    contents = Contents(is_inert=True)
    try:
        for name, value in InertFile(path).leaves():
            if isinstance(value, TensorRef):
                contents.tensors[name], contents.dtypes[name] = value.shape, value.storage.dtype
            else:
                _take(contents, name, value)
    except RefusedPickle as error:
        return Contents(refused=str(error))
    except DamagedPickle as error:
        return Contents(damage=f"its pickle is damaged: {error}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        if isinstance(error, PermissionError):
            raise
        return Contents(damage=f"its pickle is damaged ({type(error).__name__}: {_first_line(error)})")
    if not contents.tensors and not contents.damage:
        contents.refused = "it is a pickle of something else than tensors"
    return contents


def _packed(path: Path) -> Contents:
    """MessagePack, in a compressed frame or not."""
    from inrbridge.containers.packed import DamagedPack, pack_leaves, read_pack

    contents = Contents()
    try:
        for name, value in pack_leaves(read_pack(path)):
            _take(contents, name, value)
    except DamagedPack as error:
        return Contents(damage=str(error))
    return contents


def _hierarchy(path: Path) -> Contents:
    from inrbridge.containers.hierarchical import DamagedHierarchy, hierarchy_leaves

    contents = Contents()
    try:
        for name, value in hierarchy_leaves(path, values=False):
            if isinstance(value, tuple):
                contents.tensors[name], contents.dtypes[name] = value
            else:
                contents.scalars[name] = value
    except DamagedHierarchy as error:
        return Contents(damage=str(error))
    return contents


def _take(contents: Contents, name: str, value: object) -> None:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        contents.tensors[name], contents.dtypes[name] = tuple(value.shape), str(value.dtype).removeprefix("torch.")
    elif value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= MAX_TEXT):
        contents.scalars[name] = value


def _what_it_asks(message: str) -> str:
    asked = re.search(r"GLOBAL ([\w.]+)", message)
    return f"it is a pickle that asks to run {asked[1]}" if asked else "it is a pickle of something else than tensors"


def _list_tree(loaded: object, contents: Contents) -> None:
    for name, value in leaves(loaded):
        if hasattr(value, "shape"):
            contents.tensors[name] = tuple(value.shape)
            contents.dtypes[name] = str(value.dtype).removeprefix("torch.")
        elif value is None or isinstance(value, bool | int | float | str):
            contents.scalars[name] = value


def _tensors_of(loaded: object):
    return ((name, value) for name, value in leaves(loaded) if hasattr(value, "element_size"))


def leaves(node: object) -> Iterator[tuple[str, object]]:
    """Walk nested dicts and lists: ("state_dict.net.0.weight", tensor); bounded, for a pickle may refer to itself."""
    budget = MAX_NAMES
    pending = [("", node, 0)]
    while pending and budget:
        name, value, depth = pending.pop()
        budget -= 1
        if not isinstance(value, dict | list | tuple):
            yield name, value
        elif depth < MAX_DEPTH:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            below = [(f"{name}.{key}" if name else str(key), child, depth + 1) for key, child in items]
            pending.extend(reversed(below[:budget]))


def _members(path: Path) -> Contents:
    """Names of a zip archive, its claimed sizes checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return Contents(damage="the file is truncated: the directory of its zip archive is missing or broken")
    contents = Contents(listing=tuple(info.filename for info in infos[:MAX_NAMES]))
    inflated, size = sum(info.file_size for info in infos), path.stat().st_size
    if inflated > INFLATED_BYTES and inflated > INFLATED_RATIO * size:
        contents.damage = f"its {size} bytes claim to hold {inflated}: an archive that would fill the memory"
    return contents


def _archive(path: Path) -> Contents:
    contents = _members(path)
    if contents.damage:
        return contents
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist()[:MAX_NAMES]:
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            try:
                with archive.open(info) as member:
                    shape, dtype, room = _npy_header(member, info.file_size)
            except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, zlib.error):
                contents.damage = f'array "{name}" of the archive has no readable header'
                continue
            contents.tensors[name], contents.dtypes[name] = shape, str(dtype)
            if not dtype.hasobject and math.prod(shape) * dtype.itemsize > room:
                contents.damage = f'array "{name}" of shape {shape} claims more bytes than the archive holds of it'
            elif shape == () and dtype.itemsize <= MAX_TEXT and dtype.kind in "fiubUS":
                value = _one_value(archive, info)
                if value is None:
                    contents.damage = f'the value "{name}" of the archive cannot be read'
                contents.scalars[name] = value
                if dtype.kind in "US":
                    del contents.tensors[name], contents.dtypes[name]
    return contents


def _one_value(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> object:
    """The number or text of an array without axes; None where its bytes are broken."""
    import numpy as np

    try:
        with archive.open(info) as member:
            value = np.lib.format.read_array(member, allow_pickle=False).item()
    except (ValueError, EOFError, zipfile.BadZipFile, OSError, zlib.error, UnicodeDecodeError):
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _npy(path: Path) -> Contents:
    try:
        with path.open("rb") as file:
            shape, dtype, room = _npy_header(file, path.stat().st_size)
    except (ValueError, EOFError):
        return Contents(damage="the header of the npy file is truncated or broken")
    if dtype.hasobject:
        return _pickle(path)
    contents = Contents({"array": shape}, {"array": str(dtype)})
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > room:
        contents.damage = f"the file is truncated: an array of shape {shape} {dtype} does not fit into the {room} bytes of data"
    return contents


def _npy_header(file, size: int):
    """Shape, dtype and bytes left for the data, of an npy stream."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype, size - file.tell()


def _folder(path: Path) -> Contents:
    """File names down to the second level, sorted."""
    names = []
    for pattern in ("*", "*/*"):
        for child in path.glob(pattern):
            names.append(child.relative_to(path).as_posix() + ("/" if child.is_dir() else ""))
            if len(names) >= MAX_NAMES:
                break
    return Contents(listing=tuple(sorted(names)))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
