"""Floor 5: MessagePack, bare or in a gzip or zlib frame, as instant-ngp writes its snapshots.

Nothing is taken from the file but maps, lists, numbers, texts and bytes; a frame that inflates beyond all measure is refused
before it fills the memory, and a list must have its items before it has room.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from inrbridge.containers.contents import Contents, plain_children, walk

MOST_BYTES = 2**32  # inflated
SLACK, RATIO = 128 * 2**20, 8  # bytes that may be inflated whatever the size, and for each byte: half-precision weights reach 2
PIECE = 2**18  # bytes inflated at a time
MAX_OBJECTS, MAX_NESTING, LONGEST_LIST = 4_000_000, 64, 4096

_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTHS = {0xC4: "bytes", 0xC5: "bytes", 0xC6: "bytes", 0xD9: "text", 0xDA: "text", 0xDB: "text", 0xDC: "list", 0xDD: "list",
            0xDE: "map", 0xDF: "map"}  # fmt: skip
_WIDTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


class DamagedPack(Exception):
    """The bytes are no sound MessagePack, or claim too much."""


def inflate(path: Path) -> bytes | bytearray:
    """Return the content of a gzip or zlib frame, or of a bare file.

    Raises:
        DamagedPack: the frame is broken, cut short, or a bomb.
    """
    with path.open("rb") as file:
        head = file.read(2)
        file.seek(0)
        if head != b"\x1f\x8b" and head[:1] != b"\x78":
            return file.read()
        size = path.stat().st_size
        limit = min(MOST_BYTES, SLACK + RATIO * size)
        unpacker, content = zlib.decompressobj(wbits=47), bytearray()
        try:
            while not unpacker.eof:
                packed = unpacker.unconsumed_tail or file.read(PIECE)
                part = unpacker.decompress(packed, PIECE)
                content += part
                if not packed and not part:
                    raise DamagedPack("the file is truncated: its compressed frame has no end")
                if len(content) > limit:
                    raise DamagedPack(f"its {size} bytes inflate to more than {limit}: it would fill the memory")
        except zlib.error as error:
            raise DamagedPack(f"its compressed frame is broken ({error})") from error
    return content


def read_pack(path: Path) -> dict:
    """Return the map in a file.

    Raises:
        DamagedPack: it is none.
    """
    tree = unpack(inflate(path))
    if not isinstance(tree, dict):
        raise DamagedPack(f"it holds a {type(tree).__name__}, expected a map")
    return tree


def unpack(data: bytes | bytearray) -> object:
    """Return the value that the bytes begin with; byte strings are copied, maps keep only texts and numbers as keys.

    Raises:
        DamagedPack: they end early, hold an extension, or more values than are looked at.
    """
    try:
        return _Reader(data).value(MAX_NESTING)
    except struct.error as error:
        raise DamagedPack("it is truncated") from error


class _Reader:
    def __init__(self, data: bytes | bytearray):
        self.data, self.at, self.left = memoryview(data), 0, MAX_OBJECTS

    def number(self, kind: str):
        (found,) = struct.unpack_from(kind, self.data, self.at)
        self.at += struct.calcsize(kind)
        return found

    def value(self, nesting: int) -> object:
        self.left -= 1
        if self.left < 0 or nesting < 0:
            raise DamagedPack(f"it holds more than {MAX_OBJECTS} values, or nests them deeper than {MAX_NESTING}")
        code = self.number("B")
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 256
        if code in _NUMBERS:
            return self.number(_NUMBERS[code])
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _LENGTHS:
            kind, length = _LENGTHS[code], self.number(_WIDTHS[code])
        elif code < 0xC0:
            kind, length = (("map", code & 15), ("list", code & 15), ("text", code & 31), ("text", code & 31))[(code >> 4) - 8]
        else:
            raise DamagedPack(f"it holds an extension, or something unknown (code {code})")
        if length > len(self.data) - self.at:
            raise DamagedPack(f"it is truncated: {length} items are promised, and {len(self.data) - self.at} bytes follow")
        if kind == "list":
            return [self.value(nesting - 1) for _ in range(length)]
        if kind == "map":
            return self.map(length, nesting)
        part = bytes(self.data[self.at : self.at + length])
        self.at += length
        return part if kind == "bytes" else part.decode("utf-8", "replace")

    def map(self, length: int, nesting: int) -> dict:
        found = {}
        for _ in range(length):
            key, value = self.value(nesting - 1), self.value(nesting - 1)
            if isinstance(key, str | int | float):
                found[key] = value
        return found


def _children(value: object) -> Iterable[tuple[object, object]] | None:
    if isinstance(value, dict) and _as_bytes(value) is not None:
        return None
    if isinstance(value, list) and len(value) > LONGEST_LIST:
        return ()
    return plain_children(value)


def _as_bytes(value: dict) -> list | None:
    """The numbers of binary that went through JSON text, {"bytes": [...], "subtype": ...}."""
    found = value.get("bytes")
    return found if isinstance(found, list) and all(type(b) is int and 0 <= b < 256 for b in found) else None


def pack_leaves(tree: dict) -> Iterator[tuple[str, object]]:
    """Yield dotted names with byte strings as uint8 arrays, numbers, texts and None; longer lists of numbers are left out."""
    for name, value in walk(tree, _children):
        if isinstance(value, dict):
            yield name, np.array(_as_bytes(value), np.uint8)
        else:
            yield name, np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value


def list_pack(path: Path) -> Contents:
    """List MessagePack, in a compressed frame or not."""
    contents = Contents()
    try:
        for name, value in pack_leaves(read_pack(path)):
            contents.take(name, value)
    except DamagedPack as error:
        return Contents(damage=str(error))
    return contents
