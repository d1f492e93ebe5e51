"""Floor 5: zip archives (npz, torch): their directory checked before it is read, their members before they are unpacked."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inrbridge.containers.contents import MAX_NAMES

MAX_DIRECTORY = 2**24  # bytes of the list of members; it takes ten times as many in memory
INFLATED_BYTES, INFLATED_RATIO = 256 * 2**20, 100  # an archive beyond both is a bomb
MEMBER_BYTES = 2**20  # a member that inflates beyond the ratio may still have so many

BROKEN = (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, OSError, zlib.error, KeyError,
          IndexError, struct.error, OverflowError, MemoryError)  # fmt: skip  # what zipfile raises at broken bytes


class DamagedArchive(Exception):
    """The archive cannot be followed, or claims too much."""


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose members have each a name of their own, are plain or deflated, and inflate within measure.

    Raises:
        DamagedArchive: it is none.
    """
    try:
        _check_directory(path)
        archive = zipfile.ZipFile(path)
    except PermissionError:
        raise
    except BROKEN as error:
        raise DamagedArchive("the file is truncated: the directory of its zip archive is missing or broken") from error
    with archive:
        _check_members(archive.infolist(), path.stat().st_size)
        yield archive


def _check_directory(path: Path) -> None:
    """Refuse a directory that would fill the memory, by the record at the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 2**16 - 22 - 20, 0))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) < at + 22:
            raise zipfile.BadZipFile("no directory")
        length = struct.unpack("<I", tail[at + 12 : at + 16])[0]
        if length == 2**32 - 1 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # its true size stands in a longer record
            file.seek(min(struct.unpack("<Q", tail[at - 12 : at - 4])[0], size))
            record = file.read(56)
            length = struct.unpack("<Q", record[40:48])[0] if len(record) == 56 else length
    if length > MAX_DIRECTORY:
        raise DamagedArchive(f"the directory of its zip archive claims {length} bytes, more than the {MAX_DIRECTORY} allowed")


def _check_members(infos: list[zipfile.ZipInfo], size: int) -> None:
    if len({info.filename for info in infos}) < len(infos):
        raise DamagedArchive("two members of its zip archive have the same name")
    if len(infos) > MAX_NAMES:
        raise DamagedArchive(f"its zip archive has {len(infos)} members, more than the {MAX_NAMES} allowed")
    inflated = 0
    for info in infos:
        inflated += info.file_size
        if info.flag_bits & 1:
            raise DamagedArchive(f'"{info.filename}" in its zip archive is encrypted')
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DamagedArchive(f'"{info.filename}" in its zip archive is compressed in a way that is not read here')
        if info.header_offset + info.compress_size > size:
            raise DamagedArchive(f'the file is truncated: "{info.filename}" in its zip archive reaches beyond its end')
    if inflated > INFLATED_BYTES and inflated > INFLATED_RATIO * size:
        raise DamagedArchive(f"its {size} bytes claim to hold {inflated}: an archive that would fill the memory")


def read_member(archive: zipfile.ZipFile, name: str, most: int | None = None) -> bytearray:
    """Return the bytes of a member, refusing those that claim more than `most`, or inflate beyond measure.

    Raises:
        DamagedArchive: it is missing, broken or too large.
    """
    try:
        info = archive.getinfo(name)
        if (most is not None and info.file_size > most) or info.file_size > INFLATED_RATIO * info.compress_size + MEMBER_BYTES:
            raise DamagedArchive(f'"{name}" claims {info.file_size} bytes: it would fill the memory')
        content = bytearray(info.file_size)
        with archive.open(info) as member:
            view, done = memoryview(content), 0
            while done < len(content) and (count := member.readinto(view[done:])):
                done += count
            if done < len(content) or member.read(1):
                raise DamagedArchive(f'"{name}" is not as long as the archive says')
    except BROKEN as error:
        raise DamagedArchive(f'"{name}" in the archive is missing or broken') from error
    return content
