"""Floor 9: damaged variants of a file, to learn whether a format refuses them or stumbles.

    for what, path in damaged("model.pt", folder, seed=0, count=50):
        ...  # `what` says in a few words what was done to the file at `path`

Four kinds take turns: the bytes of the file are damaged (cut, flipped, overwritten, moved), the values in it (tensors of
another type or shape, missing, renamed, not finite; numbers replaced: `distortion`), the bytes inside its compressed frame or
archive, and the configuration beside it. A variant depends on the file, `seed` and its index alone.
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from inrbridge.formats import Probe
from inrbridge.testing.distortion import distorted
from inrbridge.testing.rewriting import Tree, read_tree

Chance = np.random.Generator
_MAGICS = (b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x1f\x8b\x08\x00", b"\x89HDF\r\n\x1a\n", b"\x80\x02", b"\x80\x05\x95",
           b"\x81\xa1a", b"\x78\x9c", b"\xff\xff\xff\x00\x00\x00\x00\x00{")  # fmt: skip
_NUMBERS = (-1, 0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**47, 2**62, 2**63 - 1)
_TEXTS = ("-1", "0", "1e999", "nan", "99999999999999999999", "[]", "{}", "null", "true", '"x"', "[[[[1]]]]", "0x7fffffffffffffff")


def damaged(path: str | Path, folder: str | Path, seed: int = 0, count: int = 50) -> Iterator[tuple[str, Path]]:
    """Yield `count` damaged variants of a file: what was done to it, and where the variant lies.

    A variant has the name of the original, in `folder`, its configuration beside it; it is there until the next one is asked for.
    """
    source = Original(Path(path))
    for index in range(count):
        yield source.damage(Path(folder), seed, index)


class Original:
    """The whole file, read once."""

    def __init__(self, path: Path):
        self.path, self.content = path, path.read_bytes()
        name = Probe(path).sidecar_name
        self.beside = path.with_name(name) if name and path.with_name(name).is_file() else None

    @cached_property
    def tree(self) -> Tree | None:
        """The values in the file, where it can be written anew."""
        return read_tree(self.path)

    def damage(self, folder: Path, seed: int, index: int) -> tuple[str, Path]:
        """Write variant `index` into the folder; return what was done and the path of the variant."""
        chance = np.random.default_rng([seed, index, zlib.crc32(self.content)])
        kinds = [self._bytes, self._values, self._inside, *([self._configuration] if self.beside else [])]
        what, content, configuration = kinds[index % len(kinds)](chance)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.path.name).write_bytes(content)
        if self.beside is not None:
            (folder / self.beside.name).write_bytes(configuration)
        return what, folder / self.path.name

    @cached_property
    def configuration(self) -> bytes:
        """The configuration beside the file."""
        return self.beside.read_bytes() if self.beside is not None else b""

    def _bytes(self, chance: Chance) -> tuple[str, bytes, bytes]:
        return *damaged_bytes(self.content, chance), self.configuration

    def _values(self, chance: Chance) -> tuple[str, bytes, bytes]:
        if self.tree is None:
            return self._bytes(chance)
        for _ in range(8):
            what, content = distorted(self.tree.content, chance)
            try:
                return what, self.tree.write(content), self.configuration
            except Exception:  # this container cannot hold such a thing (a text as a tensor, a gap between numbers): draw again
                continue
        return self._bytes(chance)

    def _inside(self, chance: Chance) -> tuple[str, bytes, bytes]:
        if self.content[:2] == b"\x1f\x8b":
            what, content = damaged_bytes(zlib.decompress(self.content, wbits=47), chance)
            return f"compressed: {what}", gzip.compress(content, 1), self.configuration
        if self.content[:4] == b"PK\x03\x04":
            what, content = _damaged_member(self.content, chance)
            return what, content, self.configuration
        return self._bytes(chance)

    def _configuration(self, chance: Chance) -> tuple[str, bytes, bytes]:
        what, text = damaged_text(self.configuration, chance)
        return f"configuration: {what}", self.content, text


def damaged_bytes(content: bytes, chance: Chance) -> tuple[str, bytes]:
    """Damage bytes at one place: near the start, near the end, or anywhere."""
    size = len(content)
    if size < 2:
        return "bytes added", content + chance.bytes(64)
    region = chance.choice(["head", "header", "anywhere", "directory", "tail"])
    edge = max(64, size // 20)
    low, high = {"head": (0, 64), "header": (0, edge), "anywhere": (0, size), "directory": (size - edge, size),
                 "tail": (size - 64, size)}[region]  # fmt: skip
    at = int(chance.integers(max(low, 0), min(high, size)))
    length = int(min(2 ** chance.integers(0, 13), size))
    kind = chance.choice(["cut", "bit", "bit", "byte", "bytes", "zeros", "ones", "number", "number", "insert", "delete", "swap",
                          "double", "append", "magic", "loud"])  # fmt: skip
    new = bytearray(content)
    match kind:
        case "cut":
            return f"cut to {at} of {size} bytes", content[:at]
        case "bit":
            bit = int(chance.integers(8))
            new[at] ^= 1 << bit
            return f"bit {bit} of byte {at} flipped", bytes(new)
        case "byte":
            new[at] = int(chance.integers(256))
            return f"byte {at} set to {new[at]}", bytes(new)
        case "bytes":
            places = chance.integers(max(low, 0), min(high, size), size=int(chance.integers(2, 17)))
            for place in places:
                new[place] = int(chance.integers(256))
            return f"{len(places)} bytes of the {region} set at random", bytes(new)
        case "zeros" | "ones":
            new[at : at + length] = (b"\0" if kind == "zeros" else b"\xff") * len(new[at : at + length])
            return f"{length} bytes from {at} set to {kind}", bytes(new)
        case "number":
            width, number = int(chance.choice([2, 4, 8])), int(chance.choice(_NUMBERS))
            stored = (number % 256**width).to_bytes(width, str(chance.choice(["little", "big"])))
            new[at : at + width] = stored[: len(new[at : at + width])]
            return f"{width} bytes from {at} set to the number {number}", bytes(new)
        case "insert":
            new[at:at] = chance.bytes(length)
            return f"{length} bytes inserted at {at}", bytes(new)
        case "delete":
            del new[at : at + length]
            return f"{length} bytes deleted from {at}", bytes(new)
        case "swap":
            other = int(chance.integers(size))
            first, second = content[at : at + length], content[other : other + length]
            new[at : at + length] = second[: len(first)].ljust(len(first), b"\0")
            new[other : other + length] = first[: len(second)].ljust(len(second), b"\0")
            return f"{length} bytes from {at} and from {other} swapped", bytes(new)
        case "double":
            return "the file written twice", content + content
        case "append":
            return f"{length} bytes appended", content + chance.bytes(length)
        case "magic":
            magic = _MAGICS[int(chance.integers(len(_MAGICS)))]
            new[: len(magic)] = magic
            return f"begins with {magic!r}", bytes(new)
        case _:
            new[at : at + length] = chance.bytes(len(new[at : at + length]))
            return f"{length} bytes from {at} random", bytes(new)


def damaged_text(content: bytes, chance: Chance) -> tuple[str, bytes]:
    """Damage a configuration: one of its numbers or words replaced, or its bytes damaged."""
    words = list(re.finditer(rb"(?<=[:\s\[,])-?[\w.]+(?=[\s,\]}])", content))
    if not words or chance.random() < 0.3:
        return damaged_bytes(content, chance)
    word, new = words[int(chance.integers(len(words)))], str(chance.choice(_TEXTS))
    return f"{word[0].decode(errors='replace')} becomes {new}", content[: word.start()] + new.encode() + content[word.end() :]


def _damaged_member(content: bytes, chance: Chance) -> tuple[str, bytes]:
    """Damage one member of a zip archive and write the archive anew, so that its check sums fit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    kind = chance.choice(["bytes", "bytes", "bytes", "missing", "twice", "renamed", "moved"])
    chosen = int(chance.integers(len(members)))
    described = [i for i, (info, _) in enumerate(members) if info.filename.endswith(("data.pkl", ".npy"))]
    if kind == "bytes" and described and chance.random() < 0.7:
        chosen = described[int(chance.integers(len(described)))]
    info, body = members[chosen]
    what = f"member {info.filename} {kind}"
    if kind == "bytes":
        # the first bytes of an array tell its shape: damage there is worth more than among its numbers
        part = 128 if info.filename.endswith(".npy") and chance.random() < 0.5 else len(body)
        what, new = damaged_bytes(body[:part], chance)
        what, members[chosen] = f"member {info.filename}: {what}", (info, new + body[part:])
    elif kind == "missing":
        del members[chosen]
    elif kind == "moved":
        other = int(chance.integers(len(members)))
        members[chosen], members[other] = (info, members[other][1]), (members[other][0], body)
        what = f"members {info.filename} and {members[other][0].filename} exchanged"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile notices the name that is there twice
        for i, (info, body) in enumerate(members):
            renamed = kind == "renamed" and i == chosen
            name = f"{info.filename}.old" if renamed else info.filename
            archive.writestr(zipfile.ZipInfo(name), body, info.compress_type)
            if kind == "twice" and i == chosen:
                archive.writestr(zipfile.ZipInfo(f"{info.filename}"), body[: len(body) // 2], info.compress_type)
    return what, stream.getvalue()
