"""Floor 5: MessagePack, bare or in a gzip or zlib frame, as instant-ngp writes its snapshots.

Nothing is taken from the file but maps, lists, numbers, texts and bytes; a frame that inflates beyond all measure is refused
before it fills the memory, and a list must have its items before it has room.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from inrbridge.containers.contents import Contents, plain_children, walk

MOST_BYTES = 2**32  # inflated
SLACK, RATIO = 128 * 2**20, 8  # bytes that may be inflated whatever the size, and for each byte: half-precision weights reach 2
PIECE = 2**18  # bytes inflated at a time
MAX_OBJECTS, MAX_NESTING = 4_000_000, 64
LONGEST_LIST, LONGEST_TABLE = 4096, 256  # of numbers, and of maps or lists: a snapshot tells of each image that was seen


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
    """Return the value that the bytes begin with; maps keep only texts and numbers as keys.

    Raises:
        DamagedPack: they end early, hold an extension, or more values than are looked at.
    """
    from msgpack.exceptions import UnpackException

    try:
        return _Reader(data).value(MAX_NESTING)
    except (UnpackException, ValueError, IndexError) as error:
        raise DamagedPack(f"it is truncated, or no sound MessagePack ({type(error).__name__})") from error


class _Reader:
    """Takes lists and maps apart item by item: the library alone would make room for all the items that they claim."""

    def __init__(self, data: bytes | bytearray):
        from msgpack import Unpacker

        self.data, self.left = data, MAX_OBJECTS
        self.unpacker = Unpacker(max_buffer_size=max(len(data), 1), unicode_errors="replace", ext_hook=_no_extension)
        self.unpacker.feed(data)

    def value(self, nesting: int) -> object:
        self.left -= 1
        if self.left < 0 or nesting < 0:
            raise DamagedPack(f"it holds more than {MAX_OBJECTS} values, or nests them deeper than {MAX_NESTING}")
        code = self.data[self.unpacker.tell()]
        if 0x90 <= code < 0xA0 or code in (0xDC, 0xDD):
            return [self.value(nesting - 1) for _ in range(self._count(self.unpacker.read_array_header()))]
        if 0x80 <= code < 0x90 or code in (0xDE, 0xDF):
            pairs = range(self._count(self.unpacker.read_map_header()))
            found = [(self.value(nesting - 1), self.value(nesting - 1)) for _ in pairs]
            return {key: value for key, value in found if isinstance(key, str | int | float)}
        return self.unpacker.unpack()

    def _count(self, claimed: int) -> int:
        follow = len(self.data) - self.unpacker.tell()
        if claimed > follow:
            raise DamagedPack(f"it is truncated: {claimed} items are promised, and {follow} bytes follow")
        return claimed


def _no_extension(code: int, _: bytes) -> object:
    raise DamagedPack(f"it holds an extension of type {code}")


def _children(value: object) -> Iterable[tuple[object, object]] | None:
    if isinstance(value, dict) and _as_bytes(value) is not None:
        return None
    if isinstance(value, list) and value and len(value) > (LONGEST_TABLE if isinstance(value[0], dict | list) else LONGEST_LIST):
        return ()
    return plain_children(value)


def _as_bytes(value: dict) -> list | None:
    """The numbers of binary that went through JSON text, {"bytes": [...], "subtype": ...}."""
    found = value.get("bytes")
    return found if isinstance(found, list) and all(type(b) is int and 0 <= b < 256 for b in found) else None


def pack_leaves(tree: dict) -> Iterator[tuple[str, object]]:
    """Yield dotted names with byte strings as uint8 arrays, numbers, texts and None; long lists are left out."""
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
