"""Floor 5: npy files and npz archives of them; their headers are read here, word by word, and no object in them is made."""

from __future__ import annotations

import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inrbridge.containers.archives import BROKEN, DamagedArchive, opened_archive
from inrbridge.containers.contents import MAX_TEXT, Contents

MAX_HEADER = 2**16
_WIDTHS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}  # of the header's length, by version
_HEADER = re.compile(
    r"\{\s*(?=[^}]*'descr':\s*'(?P<descr>[^']{1,32})')(?=[^}]*'fortran_order':\s*(?P<fortran>True|False))"
    r"(?=[^}]*'shape':\s*\((?P<shape>[\dL,\s]{0,1200})\))[^}]*\}\s*"
)
NUMBERS = "fiub"
_ARRAY = "array"


class DamagedArray(Exception):
    """No header of an array that can be followed."""


@dataclass(frozen=True)
class Header:
    """Shape and dtype of an array, and whether its first axis is the fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool

    @property
    def claimed(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO) -> Header:
    """Read the header of an npy stream, which then stands at the numbers.

    Raises:
        DamagedArray: it is broken, or tells of records.
    """
    magic = file.read(8)
    width = _WIDTHS.get((magic[6], magic[7])) if len(magic) == 8 and magic[:6] == b"\x93NUMPY" else None
    if width is None:
        raise DamagedArray("it does not begin as an npy file")
    length = int.from_bytes(file.read(width), "little")
    text = file.read(length) if length <= MAX_HEADER else b""
    found = _HEADER.fullmatch(text.decode("latin-1"))
    if len(text) < length or found is None:
        raise DamagedArray("its header is truncated, broken, or tells of records")
    sizes = [size.strip() for size in found["shape"].replace("L", "").split(",") if size.strip()]
    if len(sizes) > 32 or any(not size.isdigit() or len(size) > 18 for size in sizes):
        raise DamagedArray("its header gives no shape")
    try:
        dtype = np.dtype(found["descr"])
    except (TypeError, ValueError, SyntaxError, MemoryError) as error:
        raise DamagedArray(f"its header names an unknown type {found['descr']!r}") from error
    return Header(tuple(map(int, sizes)), dtype, found["fortran"] == "True")


def read_array(file: BinaryIO) -> np.ndarray:
    """Read an npy stream of numbers or texts, whose claimed size was compared with what is there.

    Raises:
        DamagedArray: its header is broken, it holds objects, or it ends early.
    """
    header = read_header(file)
    if header.dtype.hasobject:
        raise DamagedArray("it holds objects, expected numbers")
    data = file.read(header.claimed)
    if len(data) < header.claimed:
        raise DamagedArray("it is truncated")
    try:
        return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.is_fortran else "C")
    except ValueError as error:  # no numbers, with axes beyond all measure
        raise DamagedArray(f"its header gives no shape ({error})") from error


def list_archive(path: Path) -> Contents:
    """List a zip archive: its members' names, and the arrays among them."""
    try:
        with opened_archive(path) as archive:
            contents = Contents(listing=tuple(archive.namelist()))
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    _take_member(contents, archive, info)
    except DamagedArchive as error:
        return Contents(damage=str(error))
    return contents


def _take_member(contents: Contents, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    name = info.filename.removesuffix(".npy")
    try:
        with archive.open(info) as member:
            header = read_header(member)
            room = info.file_size - member.tell()
    except (DamagedArray, *BROKEN):
        contents.damage = f'array "{name}" of the archive has no readable header'
        return
    shape, dtype = header.shape, header.dtype
    contents.tensors[name], contents.dtypes[name] = shape, str(dtype)
    if not dtype.hasobject and header.claimed > room:
        contents.damage = f'array "{name}" of shape {shape} claims more bytes than the archive holds of it'
    elif shape == () and dtype.itemsize <= MAX_TEXT and dtype.kind in NUMBERS + "US":
        try:
            with archive.open(info) as member:
                value = read_array(member).item()
        except (DamagedArray, *BROKEN):
            contents.damage = f'the value "{name}" of the archive cannot be read'
            return
        contents.scalars[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if dtype.kind in "US":
            del contents.tensors[name], contents.dtypes[name]


def list_array(path: Path) -> Contents:
    """List an npy file as "array"; `is_inert` where it holds objects, which are to be followed as a pickle."""
    try:
        with path.open("rb") as file:
            header = read_header(file)
            room = path.stat().st_size - file.tell()
    except DamagedArray:
        return Contents(damage="the header of the npy file is truncated or broken")
    if header.dtype.hasobject:
        return Contents(dtypes={_ARRAY: "object"}, is_inert=True)
    shape, dtype = header.shape, header.dtype
    contents = Contents({_ARRAY: shape}, {_ARRAY: str(dtype)})
    if header.claimed > room:
        contents.damage = f"the file is truncated: an array of shape {shape} {dtype} does not fit into the {room} bytes of data"
    return contents


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of numbers in an npz archive or an npy file; texts, records and objects are left out.

    Raises:
        DamagedArchive, DamagedArray: it is broken.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            return {_ARRAY: read_array(file)}
    arrays = {}
    with opened_archive(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            try:
                with archive.open(info) as member:
                    header = read_header(member)
                    if header.dtype.kind not in NUMBERS:
                        continue
                    if header.claimed > info.file_size - member.tell():
                        raise DamagedArray(f'array "{info.filename}" claims more bytes than the archive holds of it')
                with archive.open(info) as member:
                    arrays[info.filename.removesuffix(".npy")] = read_array(member)
            except BROKEN as error:
                raise DamagedArray(f'array "{info.filename}" of the archive is broken') from error
    return arrays
