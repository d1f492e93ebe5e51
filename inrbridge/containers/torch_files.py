"""Floor 5: files of torch (zip or old) and bare pickles: their objects as inert records, their numbers on demand."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inrbridge.containers.archives import DamagedArchive, opened_archive, read_member
from inrbridge.containers.arrays import DamagedArray, read_header
from inrbridge.containers.contents import Contents, claimed_bytes, claims_too_much, plain_children, walk
from inrbridge.containers.pickles import LEGACY_MAGIC, InertReader, load_inert
from inrbridge.containers.records import ITEM_BYTES, Array, DamagedPickle, RefusedPickle, Shell, SparseRef, StorageRef, TensorRef

MOST_PICKLE = 2**26  # bytes of the pickle in an archive; numbers lie outside it
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")


def children(value: object) -> Iterable[tuple[object, object]] | None:
    """The (key, child) pairs of dicts, lists, arrays of objects, and shells; modules without the words `_parameters`, ..."""
    if isinstance(value, Shell):
        return _parts(value)
    if isinstance(value, Array):
        value = value.content()
    return plain_children(value)


def _parts(shell: Shell) -> Iterator[tuple[object, object]]:
    yield "__class__", shell.origin
    for key, child in shell.state.items():
        if key in ("_parameters", "_buffers", "_modules") and isinstance(child, dict):
            yield from ((k, v) for k, v in child.items() if isinstance(k, str))
        elif not (key.startswith("_") and key.endswith(_HOOKS)):
            yield key, child
    yield from enumerate(shell.items)


class InertFile:
    """The object in a pickled file, and the numbers of its tensors. To be closed, or used in a `with` block.

    Args:
        path: a torch file (zip or old), a bare pickle, or an npy file of objects.

    Raises:
        RefusedPickle: it asks to run something.
        DamagedPickle, DamagedArchive, DamagedArray: it is broken.
    """

    def __init__(self, path: Path):
        self.size = path.stat().st_size
        self.archive: zipfile.ZipFile | None = None
        self.knows_all = True  # no class in it is unknown
        self._root = ""
        self._places: dict[str, tuple[int, int]] = {}  # storage of an old file -> place of its numbers, and their count
        self._flat: dict[tuple[str, str], object] = {}  # (storage, dtype) -> its numbers
        with ExitStack() as stack:
            self._stream: BinaryIO = stack.enter_context(path.open("rb"))
            head = self._stream.read(6)
            self._stream.seek(0)
            if head.startswith(b"PK\x03\x04"):
                self.archive = stack.enter_context(opened_archive(path))
                self.tree = self._read_zip()
            elif head == b"\x93NUMPY":
                read_header(self._stream)
                self.tree = self._follow(self._stream, self.size)[0]
            else:
                self.tree = self._read_stream()
            self._open = stack.pop_all()

    def close(self) -> None:
        """Close the file; tensors that were read stay."""
        self._open.close()

    def __enter__(self) -> InertFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _follow(self, stream: BinaryIO, size: int) -> tuple[object, dict[str, StorageRef]]:
        reader = InertReader(stream, size)
        tree = reader.load()
        self.knows_all &= all(isinstance(name, str) or name.answer is not None for name in reader.asked.values()
                              if isinstance(name, str) or not name.origin.endswith("Storage"))  # fmt: skip
        return tree, reader.storages

    def _read_zip(self) -> object:
        names = self.archive.namelist()
        name = next((n for n in names if n.endswith("/data.pkl") or n == "data.pkl"), None)
        if name is None:
            raise DamagedPickle("the archive holds no data.pkl")
        self._root = name.removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in names:
            raise RefusedPickle("it is a TorchScript program")
        order = f"{self._root}byteorder"
        if order in names and read_member(self.archive, order, 64)[:8] == b"big":
            raise DamagedPickle("its numbers are stored in big-endian order")
        content = read_member(self.archive, name, MOST_PICKLE)
        return self._follow(io.BytesIO(content), len(content))[0]

    def _read_stream(self) -> object:
        tree, _ = self._follow(self._stream, self.size)
        if not (isinstance(tree, int) and tree == LEGACY_MAGIC):
            return tree
        for _ in range(2):  # the protocol, and the sizes of the machine's integers
            load_inert(self._stream, self.size)
        tree, storages = self._follow(self._stream, self.size)
        keys = load_inert(self._stream, self.size)
        for key in keys if isinstance(keys, list) else []:
            head, storage = self._stream.read(8), storages.get(key if isinstance(key, str) else "")
            if len(head) < 8 or storage is None:
                break  # a storage that the pickle does not know: those behind it cannot be placed
            count, item, at = struct.unpack("<q", head)[0], ITEM_BYTES[storage.dtype], self._stream.tell()
            if count < 0 or at + count * item > self.size:
                raise DamagedPickle("the file is truncated: a storage reaches beyond its end")
            self._places[storage.key] = (at, count)
            self._stream.seek(count * item, 1)
        if missing := set(storages) - set(self._places):
            raise DamagedPickle(f"the file is truncated: the numbers of {len(missing)} storages are missing")
        return tree

    def leaves(self) -> Iterator[tuple[str, object]]:
        """Yield dotted names with references to tensors, arrays, numbers and texts."""
        for name, value in walk(self.tree, children):
            yield name, value.content() if isinstance(value, Array) else value

    def read(self, ref: TensorRef | SparseRef):
        """Return the tensor of a reference; tensors of one storage share their memory, as where they came from.

        Raises:
            DamagedPickle, DamagedArchive: it reaches beyond its storage, or its storage is not there.
        """
        import torch

        if isinstance(ref, SparseRef):
            try:
                return torch.sparse_coo_tensor(self.read(ref.indices), self.read(ref.values), ref.shape, check_invariants=True)
            except (RuntimeError, TypeError, ValueError) as error:
                raise DamagedPickle(f"a sparse tensor of shape {ref.shape} does not fit its parts") from error
        storage = ref.storage
        if len(ref.shape) != len(ref.stride):
            raise DamagedPickle(f"a tensor of shape {ref.shape} has {len(ref.stride)} strides")
        if 0 in ref.shape:
            return torch.empty(ref.shape, dtype=getattr(torch, ref.dtype))
        reach = ref.offset + sum((n - 1) * s for n, s in zip(ref.shape, ref.stride, strict=True)) + 1
        if reach > storage.count or math.prod(ref.shape) > storage.count:
            raise DamagedPickle(f"a tensor of shape {ref.shape} reaches beyond its {storage.count} numbers")
        place = (storage.key, storage.dtype)
        if place not in self._flat:
            data = self._bytes(storage, storage.count * ITEM_BYTES[storage.dtype])
            self._flat[place] = torch.frombuffer(data, dtype=getattr(torch, storage.dtype), count=storage.count)
        return self._flat[place].as_strided(ref.shape, ref.stride, ref.offset)

    def _bytes(self, storage: StorageRef, length: int) -> bytearray:
        if self.archive is not None:
            data = read_member(self.archive, f"{self._root}data/{storage.key}")
        elif storage.key in self._places:
            data = bytearray(min(length, self.size))
            self._stream.seek(self._places[storage.key][0])
            data = data[: self._stream.readinto(data)]
        else:
            raise DamagedPickle(f"the numbers of storage {storage.key} are missing")
        if len(data) < length:
            raise DamagedPickle(f"the file is truncated: {length} bytes of numbers are promised, {len(data)} are there")
        return data


def list_pickled(path: Path, *, is_torch: bool) -> Contents:
    """List a torch file, or a bare pickle or an npy file of objects, followed without running anything in it."""
    contents = Contents(is_inert=True)
    try:
        with InertFile(path) as file:
            claimed = 0
            for name, value in file.leaves():
                contents.take(name, value)
                if isinstance(value, TensorRef | SparseRef | np.ndarray):
                    claimed += claimed_bytes(value.shape, str(value.dtype))
            contents.listing = tuple(file.archive.namelist()) if file.archive is not None else ()
            contents.damage = claims_too_much(claimed, file.size)
            if not contents.tensors and not contents.damage and not (is_torch and file.knows_all):
                contents.refused = "it is a pickle of something else than tensors"
    except RefusedPickle as error:
        return Contents(refused=str(error))
    except DamagedPickle as error:
        return Contents(damage=f"its pickle is damaged: {error}")
    except (DamagedArchive, DamagedArray) as error:
        return Contents(damage=str(error))
    return contents


def read_pickled(path: Path) -> dict[str, object]:
    """Read the tensors and arrays of such a file.

    Raises:
        RefusedPickle, DamagedPickle, DamagedArchive, DamagedArray: it cannot be read.
    """
    found: dict[str, object] = {}
    with InertFile(path) as file:
        for name, value in file.leaves():
            if isinstance(value, TensorRef | SparseRef):
                found[name] = file.read(value)
            elif isinstance(value, np.ndarray):
                found[name] = value
    return found
