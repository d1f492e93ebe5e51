"""Floor 5: MessagePack, bare or in a gzip or zlib frame, as instant-ngp writes its snapshots.

Nothing is taken from the file but maps, lists, numbers, texts and bytes; a frame that inflates beyond all measure is refused
before it fills the memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MOST_BYTES = 2**32  # inflated
RATIO = 200  # of inflated to packed bytes; half-precision weights reach 2, an empty density grid 100 on its own part
SLACK = 256 * 2**20  # bytes that may be inflated whatever the ratio
CHUNK = 2**20
MAX_NAMES, MAX_DEPTH, LONGEST_LIST = 100_000, 16, 4096


class DamagedPack(Exception):
    """The bytes are no sound MessagePack, or claim too much."""


def inflate(path: Path) -> bytes:
    """Return the content of a gzip or zlib frame, or of a bare file.

    Raises:
        DamagedPack: the frame is broken, cut short, or a bomb.
    """
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b" and raw[:1] != b"\x78":
        return raw
    limit = min(MOST_BYTES, max(SLACK, RATIO * len(raw)))
    unpacker, parts, total = zlib.decompressobj(wbits=47), [], 0
    rest = raw
    try:
        while rest and not unpacker.eof:
            part = unpacker.decompress(rest, CHUNK)
            rest = unpacker.unconsumed_tail
            parts.append(part)
            total += len(part)
            if total > limit:
                raise DamagedPack(f"its {len(raw)} bytes inflate to more than {limit}: it would fill the memory")
            if not part and not rest:
                break
    except zlib.error as error:
        raise DamagedPack(f"its compressed frame is broken ({error})") from error
    if not unpacker.eof:
        raise DamagedPack("the file is truncated: its compressed frame has no end")
    return b"".join(parts)


def read_pack(path: Path) -> dict:
    """Return the map in a file.

    Raises:
        DamagedPack: it is none.
    """
    import msgpack

    data = inflate(path)

    def no_extension(code, _):
        raise DamagedPack(f"it holds an extension of type {code}")

    try:
        tree = msgpack.unpackb(
            data, raw=False, strict_map_key=False, ext_hook=no_extension,
            max_str_len=2**20, max_bin_len=len(data), max_array_len=len(data), max_map_len=MAX_NAMES, max_ext_len=0,
            unicode_errors="replace",
        )  # fmt: skip
    except DamagedPack:
        raise
    except Exception as error:  # the reader raises as it likes at broken bytes
        raise DamagedPack(f"it is no sound MessagePack ({type(error).__name__}: {str(error)[:100]})") from error
    if not isinstance(tree, dict):
        raise DamagedPack(f"it holds a {type(tree).__name__}, expected a map")
    return tree


def pack_leaves(tree: dict) -> Iterator[tuple[str, object]]:
    """Yield dotted names with byte strings as uint8 arrays, numbers, texts and None; longer lists of numbers are left out."""
    pending: list[tuple[str, object, int]] = [("", tree, 0)]
    budget = MAX_NAMES
    while pending and budget:
        name, value, depth = pending.pop()
        budget -= 1
        if isinstance(value, dict) and isinstance(value.get("bytes"), list):  # binary that went through JSON text
            found = value["bytes"]
            if all(isinstance(b, int) and 0 <= b < 256 for b in found):
                yield name, np.array(found, np.uint8)
        elif isinstance(value, bytes):
            yield name, np.frombuffer(value, np.uint8)
        elif isinstance(value, dict | list):
            if depth >= MAX_DEPTH or (isinstance(value, list) and len(value) > LONGEST_LIST):
                continue
            pairs = list(value.items() if isinstance(value, dict) else enumerate(value))[:budget]
            pending.extend((f"{name}.{key}" if name else str(key), child, depth + 1) for key, child in reversed(pairs))
        elif value is None or isinstance(value, bool | int | float | str):
            yield name, value
