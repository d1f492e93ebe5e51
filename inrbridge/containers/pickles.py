"""Floor 5: pickles read without running anything in them.

A pickle may ask for any class or function. A short list is answered with inert records of our own (tensors, arrays), the
classes of users and of torch with empty shells that keep their state, and whatever else of the standard library a pickle
asks for refuses the whole file. Tensors stay references into the file until they are asked for.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAX_OPERATIONS = 3_000_000  # of one pickle; a module of ten thousand tensors takes a tenth of it
MAX_NAMES, MAX_DEPTH = 100_000, 24
MAX_TEXT = 4096  # longer texts (the source code that old files carry) are left out
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DATA_TYPES = {  # harmless types of the standard library: kept as shells
    "functools.partial", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.Path",
    "argparse.Namespace", "datetime.datetime", "datetime.date", "datetime.timedelta", "collections.defaultdict", "collections.Counter",
    "collections.deque", "uuid.UUID", "decimal.Decimal", "fractions.Fraction", "types.SimpleNamespace", "enum.Enum",
    "copyreg.__newobj__",
}  # fmt: skip
_STORAGES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?", "BFloat16Storage": "bf16", "UntypedStorage": "u1",
}  # fmt: skip


class RefusedPickle(Exception):
    """The pickle asks to run something."""


class DamagedPickle(Exception):
    """The bytes are no pickle that can be followed."""


@dataclass(frozen=True)
class StorageRef:
    """Numbers of one dtype that lie elsewhere in the file."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A view of a storage."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Shell:
    """What stands for an object of a class that is not known here; it only keeps what it is given."""

    origin = ""

    def __init__(self, *args, **kwargs):
        self.args, self.state, self.items = args, {}, []

    def __new__(cls, *args, **kwargs):
        made = object.__new__(cls)
        made.args, made.state, made.items = args, {}, []
        return made

    def __setstate__(self, state):
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.state.update((str(key), value) for key, value in part.items())

    def __setitem__(self, key, value):
        if isinstance(key, str | int):
            self.state[str(key)] = value

    def append(self, value):
        self.items.append(value)

    def extend(self, values):
        self.items.extend(values)

    __hash__ = object.__hash__


class _Array:
    """An array of numpy: dtype, shape and bytes as the pickle states them."""

    def __init__(self):
        self.state = None

    def __setstate__(self, state):
        self.state = state

    def content(self) -> np.ndarray | list | None:
        """Return the array, the list of objects of an object array, or None where its parts do not fit."""
        if not isinstance(self.state, tuple) or len(self.state) < 5:
            return None
        _, shape, dtype, is_fortran, data = self.state[:5]
        if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or not all(isinstance(s, int) and s >= 0 for s in shape):
            return None
        if isinstance(data, list):
            return data
        kind = dtype.numpy()
        data = data.encode("latin-1") if isinstance(data, str) else data
        if kind is None or not isinstance(data, bytes | bytearray) or math.prod(shape) * kind.itemsize != len(data):
            return None
        return np.frombuffer(bytes(data), kind).reshape(shape, order="F" if is_fortran else "C").astype(kind.newbyteorder("="))


class _DType:
    """A dtype of numpy: its code and byte order."""

    def __init__(self, code):
        self.code, self.order = code, "<"

    def __setstate__(self, state):
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numpy(self) -> np.dtype | None:
        """Return the plain number type, None for objects, texts and records."""
        code = str(self.code).lstrip("<>=|")
        if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "?"):
            return None
        return np.dtype((">" if self.order == ">" else "<") + code)


class _Call:
    """One allowed call; without attributes, so that a pickle cannot change it."""

    __slots__ = ("_make",)

    def __init__(self, make):
        object.__setattr__(self, "_make", make)

    def __setattr__(self, name, value):
        raise DamagedPickle("it sets attributes of a function")

    def __call__(self, *args):
        return self._make(*args)


def _integers(values) -> tuple[int, ...]:
    values = tuple(values)
    if len(values) > 32 or not all(isinstance(v, int) and 0 <= v < 2**48 for v in values):
        raise DamagedPickle("a tensor has sizes that are no sizes")
    return values


def _tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, StorageRef):
        raise DamagedPickle("a tensor without storage")
    return TensorRef(storage, *_integers([offset]), _integers(size), _integers(stride))


def _array_of(data, dtype=None, state=None, *_):
    made = _Array()
    if state is not None:
        made.__setstate__(state)
    return made


def _from_buffer(data, dtype, shape, order):
    return _array_of(None, None, (1, shape, dtype, order == "F", bytes(data)))


def _scalar(dtype, data=b""):
    made = _Array()
    made.__setstate__((1, (), dtype, False, data))
    found = made.content()
    return found.item() if isinstance(found, np.ndarray) else None


def _dill_array(_, __, state=None, *___):
    return _array_of(None, None, state)


_CALLS = {
    "torch._utils._rebuild_tensor_v2": _tensor, "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data, "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.Size": lambda *sizes: tuple(sizes[0]) if sizes else (), "torch.device": lambda *words: ":".join(map(str, words)),
    "collections.OrderedDict": lambda *pairs: OrderedDict(*pairs),
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(), "numpy._core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.core.multiarray.scalar": _scalar, "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.dtype": lambda code, *_: _DType(code), "dill._dill._create_array": _dill_array,
    "_codecs.encode": lambda text, code="latin1": text.encode("latin-1") if isinstance(text, str) and len(code) < 12 else b"",
}  # fmt: skip
for _builtins in ("builtins", "__builtin__"):
    for _name, _make in {"set": list, "frozenset": list, "list": list, "tuple": tuple, "dict": dict, "bytearray": bytes,
                         "complex": lambda a=0, b=0: None, "slice": lambda *_: None, "object": Shell}.items():  # fmt: skip
        _CALLS[f"{_builtins}.{_name}"] = (lambda make: lambda *args: make(*[a for a in args if not isinstance(a, int)]))(_make)


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, stream):
        super().__init__(stream, encoding="latin-1")
        self.shells: dict[str, type] = {}
        self.calls: dict[str, _Call] = {}

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if (module == "torch" and name in _STORAGES) or (full.startswith("torch.storage.") and name in _STORAGES):
            return self._shell(full)
        if module == "copyreg" and name == "_reconstructor":
            return self._call(full, lambda cls, *_: cls())
        if full in _CALLS:
            return self._call(full, _CALLS[full])
        if module == "torch" and name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"):
            return f"torch.{name}"
        top = module.partition(".")[0]
        if (top in sys.stdlib_module_names or top == "__builtin__") and full not in _DATA_TYPES:
            raise RefusedPickle(f"it is a pickle that asks to run {full}")
        return self._shell(full)

    def _call(self, full, make):
        return self.calls.setdefault(full, _Call(make))

    def _shell(self, full):
        if full not in self.shells:
            self.shells[full] = type("Shell", (Shell,), {"origin": full, "__slots__": ("args", "state", "items")})
        return self.shells[full]

    def persistent_load(self, pid):
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise DamagedPickle("it refers to something unknown outside the pickle")
        name = getattr(pid[1], "origin", "").rpartition(".")[2]
        if name not in _STORAGES:
            raise DamagedPickle("a storage of unknown type")
        if len(pid) > 5 and pid[5] is not None:
            raise DamagedPickle("a storage that is a view of another")
        return StorageRef(_STORAGES[name], str(pid[2]), *_integers([pid[4]]))


def load_inert(stream: BinaryIO, size: int) -> object:
    """Read one pickle from the stream, which ends behind it.

    Raises:
        RefusedPickle: it asks to run something.
        DamagedPickle: it cannot be followed, or would take unbounded memory.
    """
    start = stream.tell()
    try:
        for count, (operation, value, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPERATIONS:
                raise DamagedPickle(f"it has more than {MAX_OPERATIONS} operations")
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and value > count + 1:
                raise DamagedPickle("it counts what it remembers wrongly")
            if operation.name in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
                raise DamagedPickle("it refers to something outside the file")
        end = stream.tell()
        stream.seek(start)
        data = stream.read(end - start)
        return _InertUnpickler(io.BytesIO(data)).load()
    except (RefusedPickle, DamagedPickle):
        raise
    except MemoryError:
        raise DamagedPickle("it claims more memory than there is") from None
    except Exception as error:  # an unpickler may stumble in any way over broken bytes
        raise DamagedPickle(f"{type(error).__name__}: {str(error)[:120]}") from error


def walk(node: object) -> Iterator[tuple[str, object]]:
    """Yield names and leaves: tensors, arrays, numbers and texts, of nested dicts, lists and shells of modules."""
    pending: list[tuple[str, object, int]] = [("", node, 0)]
    budget = MAX_NAMES
    while pending and budget:
        name, value, depth = pending.pop()
        budget -= 1
        if isinstance(value, _Array):
            value = value.content()
        pairs = _children(value)
        if pairs is None:
            yield name, value
        elif depth < MAX_DEPTH:
            below = [(f"{name}.{key}" if name else str(key), child, depth + 1) for key, child in pairs[:budget]]
            pending.extend(reversed(below))


def _children(value: object) -> list[tuple[object, object]] | None:
    if isinstance(value, dict):
        return [(key, child) for key, child in value.items() if isinstance(key, str | int | float)]
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, Shell):
        pairs: list[tuple[object, object]] = [("__class__", value.origin)]
        for key, child in value.state.items():
            if key in ("_parameters", "_buffers", "_modules") and isinstance(child, dict):
                pairs += [(k, v) for k, v in child.items() if isinstance(k, str)]
            elif not (key.startswith("_") and key.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))):
                pairs.append((key, child))
        return pairs + list(enumerate(value.items))
    return None


def _item_bytes(dtype: str) -> int:
    return 2 if dtype == "bf16" else np.dtype(dtype).itemsize


class InertFile:
    """The object in a pickled file, and the numbers of its tensors.

    Args:
        path: a torch file (zip or legacy), a bare pickle, or an npy file of objects.
    """

    def __init__(self, path: Path):
        self.path, self.size = Path(path), Path(path).stat().st_size
        self._legacy: dict[str, tuple[int, int]] = {}  # storage -> place of its numbers in the file, and their count
        self._zip_root = ""
        if zipfile.is_zipfile(path):
            self.tree = self._open_zip()
        else:
            with self.path.open("rb") as stream:
                if stream.read(6) == b"\x93NUMPY":
                    stream.seek(0)
                    np.lib.format.read_array_header_1_0(stream) if np.lib.format.read_magic(stream) == (1, 0) else (
                        np.lib.format.read_array_header_2_0(stream)
                    )
                else:
                    stream.seek(0)
                self.tree = load_inert(stream, self.size)
                if self.tree == LEGACY_MAGIC:
                    self.tree = self._open_legacy(stream)

    def _open_zip(self) -> object:
        with zipfile.ZipFile(self.path) as archive:
            name = next((n for n in archive.namelist() if n.endswith("/data.pkl") or n == "data.pkl"), None)
            if name is None:
                raise DamagedPickle("the archive holds no data.pkl")
            self._zip_root = name.removesuffix("data.pkl")
            order = f"{self._zip_root}byteorder"
            if order in archive.namelist() and archive.read(order)[:8] == b"big":
                raise DamagedPickle("its numbers are stored in big-endian order")
            return load_inert(io.BytesIO(archive.read(name)), archive.getinfo(name).file_size)

    def _open_legacy(self, stream: BinaryIO) -> object:
        load_inert(stream, self.size)  # protocol
        load_inert(stream, self.size)  # sizes of the machine's integers
        tree = load_inert(stream, self.size)
        keys = load_inert(stream, self.size)
        known = {ref.storage.key: ref.storage for _, ref in walk(tree) if isinstance(ref, TensorRef)}
        for key in keys if isinstance(keys, list) else []:
            head = stream.read(8)
            if len(head) < 8 or str(key) not in known:
                break  # a storage of which no tensor tells the dtype: those behind it cannot be placed
            count, item = (
                struct.unpack("<q", head)[0],
                2 if known[str(key)].dtype == "bf16" else np.dtype(known[str(key)].dtype).itemsize,
            )
            if count < 0 or stream.tell() + count * item > self.size:
                raise DamagedPickle("the file is truncated: a storage reaches beyond its end")
            self._legacy[str(key)] = (stream.tell(), count)
            stream.seek(count * item, 1)
        if missing := set(known) - set(self._legacy):
            raise DamagedPickle(f"the file is truncated: the numbers of {len(missing)} tensors are missing")
        return tree

    def leaves(self) -> Iterator[tuple[str, object]]:
        """Yield dotted names with tensor references, arrays, numbers and texts."""
        return walk(self.tree)

    def read(self, ref: TensorRef):
        """Return the tensor of a reference.

        Raises:
            DamagedPickle: it reaches beyond its storage.
        """
        import torch

        storage, item = ref.storage, _item_bytes(ref.storage.dtype)
        reach = ref.offset + sum((n - 1) * s for n, s in zip(ref.shape, ref.stride, strict=True)) + 1
        empty = 0 in ref.shape
        if len(ref.shape) != len(ref.stride) or (not empty and (reach > storage.count or math.prod(ref.shape) > storage.count)):
            raise DamagedPickle(f"a tensor of shape {ref.shape} reaches beyond its {storage.count} numbers")
        if empty:
            return torch.empty(ref.shape)
        data = self._bytes(storage, item)
        if len(data) < storage.count * item:
            raise DamagedPickle(f"the file is truncated: {storage.count} numbers are promised, {len(data) // item} are there")
        dtype = torch.bfloat16 if storage.dtype == "bf16" else torch.from_numpy(np.zeros(1, storage.dtype)).dtype
        flat = torch.frombuffer(bytearray(data[: storage.count * item]), dtype=dtype)
        return flat.as_strided(ref.shape, ref.stride, ref.offset).clone()

    def _bytes(self, storage: StorageRef, item: int) -> bytes:
        if self._zip_root or zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                try:
                    info = archive.getinfo(f"{self._zip_root}data/{storage.key}")
                    if info.file_size > 100 * info.compress_size + 2**20:
                        raise DamagedPickle("a part of the archive would fill the memory")
                    return archive.read(info)
                except (KeyError, zipfile.BadZipFile, OSError) as error:
                    raise DamagedPickle(f"the numbers of storage {storage.key} are missing or broken") from error
        if storage.key not in self._legacy:
            raise DamagedPickle(f"the numbers of storage {storage.key} are missing")
        start, count = self._legacy[storage.key]
        with self.path.open("rb") as stream:
            stream.seek(start)
            return stream.read(count * item)
