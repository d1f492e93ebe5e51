"""Floor 5: the inert records that stand for what a pickle asks for, and the short list of calls that are answered.

A pickle names classes and functions, and calls them. A `Name` answers: the few that make tensors, arrays and plain containers
by code of our own, classes of users and of torch by an empty `Shell` that keeps what it is given. The rest of the standard
library is refused by whoever looks a name up.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

MAX_AXES, MAX_AXIS = 64, 2**48

_DATA_TYPES = {  # harmless types of the standard library: kept as shells
    "argparse.Namespace", "collections.Counter", "collections.defaultdict", "collections.deque", "copyreg.__newobj__",
    "datetime.date", "datetime.datetime", "datetime.timedelta", "decimal.Decimal", "enum.Enum", "fractions.Fraction",
    "functools.partial", "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath",
    "types.SimpleNamespace", "uuid.UUID",
}  # fmt: skip
_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "LongStorage": "int64",
    "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "BFloat16Storage": "bfloat16", "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}  # fmt: skip
ITEM_BYTES = {
    "float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip
_NUMPY_CODES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "?"}


class RefusedPickle(Exception):
    """The pickle asks to run something."""


class DamagedPickle(Exception):
    """The bytes are no pickle that can be followed."""


@dataclass(frozen=True, eq=False)
class StorageRef:
    """Numbers of one dtype that lie elsewhere in the file."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A view of a storage."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Name of the type of the numbers ("float32")."""
        return self.storage.dtype


@dataclass(frozen=True, eq=False)
class SparseRef:
    """A sparse tensor: places (axes, n) and values (n,)."""

    indices: TensorRef
    values: TensorRef
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Name of the type of the values."""
        return self.values.dtype


class Shell:
    """What stands for an object of a class that is not known here; it only keeps what it is given."""

    __slots__ = ("items", "origin", "state")

    def __init__(self, origin: str):
        self.origin, self.state, self.items = origin, {}, []

    def take_state(self, state: object) -> int:
        """Keep the dicts in the state; return how many values that were."""
        kept = 0
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.state.update((key, value) for key, value in part.items() if isinstance(key, str))
                kept += len(part)
        return kept


class Array:
    """An array of numpy: dtype, shape and bytes as the pickle states them."""

    __slots__ = ("_made", "state")

    def __init__(self, state: object = None):
        self.state, self._made = state, None

    def take_state(self, state: object) -> int:
        """Keep the state, in the order of numpy: version, shape, dtype, is Fortran, data."""
        self.state, self._made = state, None
        return 0

    def content(self) -> np.ndarray | list | None:
        """Return the array, the list of objects of an object array, or None where its parts do not fit; made once."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> np.ndarray | list | None:
        if not isinstance(self.state, tuple) or len(self.state) < 5:
            return None
        _, shape, dtype, is_fortran, data = self.state[:5]
        if not isinstance(dtype, DType) or not isinstance(shape, tuple) or not are_sizes(shape):
            return None
        if isinstance(data, list):
            return data
        kind = dtype.numpy()
        data = data.encode("latin-1", "replace") if isinstance(data, str) else data
        if kind is None or not isinstance(data, bytes) or math.prod(shape) * kind.itemsize != len(data):
            return None
        order = "F" if is_fortran is True else "C"
        try:
            return np.frombuffer(data, kind).reshape(shape, order=order).astype(kind.newbyteorder("="), copy=False)
        except ValueError:  # empty, with axes beyond all measure
            return None


class DType:
    """A dtype of numpy: its code and byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_):
        self.code, self.order = code if isinstance(code, str) else "", "<"

    def take_state(self, state: object) -> int:
        """Keep the byte order."""
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) and state[1] in "<>|=":
            self.order = state[1]
        return 0

    def numpy(self) -> np.dtype | None:
        """Return the plain number type, None for objects, texts and records."""
        code = self.code.lstrip("<>=|")
        if code not in _NUMPY_CODES:
            return None
        return np.dtype((">" if ">" in (self.order, self.code[:1]) else "<") + code)


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A class or function that a pickle names; calling it makes one of the records above, or plain values."""

    origin: str
    answer: Callable[..., object] | None = None

    def __call__(self, *args: object) -> object:
        return Shell(self.origin) if self.answer is None else self.answer(*args)


def look_up(module: object, name: object) -> Name | str:
    """Answer the name of a class or function, without importing anything.

    Raises:
        RefusedPickle: it belongs to the standard library and is not harmless data.
        DamagedPickle: it is no name.
    """
    if not (isinstance(module, str) and isinstance(name, str) and 0 < len(module) + len(name) < 512):
        raise DamagedPickle("it names a class by something that is no name")
    full = f"{module}.{name}"
    if full in _CALLS:
        return Name(full, _CALLS[full])
    if module == "torch" and name in ITEM_BYTES:
        return f"torch.{name}"
    top = module.partition(".")[0]
    if (top in sys.stdlib_module_names or top == "__builtin__") and full not in _DATA_TYPES:
        raise RefusedPickle(f"it is a pickle that asks to run {full}")
    return Name(full)


def storage_of(pid: object) -> object:
    """Answer what a pickle refers to outside itself: a storage of numbers, or, in old files, a class and its source code."""
    if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
        return pid[1]
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
        raise DamagedPickle("it refers to something unknown outside the pickle")
    kind, key = pid[1], pid[2]
    name = kind.origin.rpartition(".")[2] if isinstance(kind, Name) and kind.origin.startswith("torch.") else ""
    if name not in _STORAGES or not isinstance(key, str | int) or len(str(key)[:65]) > 64:
        raise DamagedPickle("a storage of unknown type")
    if len(pid) > 5 and pid[5] is not None:
        raise DamagedPickle("a storage that is a view of another")
    return StorageRef(_STORAGES[name], str(key), *sizes_of((pid[4],)))


def are_sizes(values: Iterable[object]) -> bool:
    """Whether these are the sizes of axes."""
    values = tuple(values)
    return len(values) <= MAX_AXES and all(isinstance(v, int) and 0 <= v < MAX_AXIS for v in values)


def sizes_of(values: object) -> tuple[int, ...]:
    """Return the sizes, or raise DamagedPickle where they are none."""
    if not isinstance(values, tuple | list) or len(values) > MAX_AXES or not are_sizes(values):
        raise DamagedPickle("a tensor has sizes that are no sizes")
    return tuple(int(v) for v in values)


def _tensor(storage, offset, size, stride, *_):
    if isinstance(storage, Shell):  # a tensor pickled alone, its numbers in a file of torch within the pickle
        return Shell("torch.Tensor")
    if not isinstance(storage, StorageRef):
        raise DamagedPickle("a tensor without storage")
    return TensorRef(storage, *sizes_of((offset,)), sizes_of(size), sizes_of(stride))


def _tensor_of_type(storage, offset, size, stride, requires_grad, hooks, dtype, *_):
    """Newer types of numbers have no storage of their own: bytes are seen as them."""
    dtype = dtype.removeprefix("torch.") if isinstance(dtype, str) else ""
    if not isinstance(storage, StorageRef) or dtype not in ITEM_BYTES:
        raise DamagedPickle("a tensor without storage, or of unknown type")
    return _tensor(StorageRef(dtype, storage.key, storage.count // ITEM_BYTES[dtype]), offset, size, stride)


def _sparse_tensor(layout, parts, *_):
    if not (isinstance(parts, tuple) and len(parts) >= 3 and all(isinstance(part, TensorRef) for part in parts[:2])):
        raise DamagedPickle("a sparse tensor without places and values")
    return SparseRef(parts[0], parts[1], sizes_of(parts[2]))


def _tensor_of_class(function, cls, args, *_):
    if not isinstance(function, Name) or not isinstance(args, tuple):
        raise DamagedPickle("a tensor made by no function")
    return function(*args)


def _first(value, *_):
    return value


def _size(sizes=(), *_):
    return sizes_of(sizes)


def _pairs(pairs=(), *_):
    """A dict of pairs, whose keys are texts and small numbers: others may be made to collide."""
    if isinstance(pairs, dict):
        return dict(pairs)
    if not isinstance(pairs, list | tuple):
        raise DamagedPickle("a dict made of something that is no pairs")
    return {pair[0]: pair[1] for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2 and is_safe_key(pair[0])}


def is_safe_key(key: object) -> bool:
    """Whether a key can be hashed quickly and cannot be made to collide with thousands of others."""
    return key is None or isinstance(key, str | float) or (isinstance(key, int) and -(2**64) < key < 2**64)


def _several(values=(), *_):
    return values if isinstance(values, list | tuple) else []


def _bytes(value=b"", *_):
    return value if isinstance(value, bytes) else b""


def _encoded(text="", code="latin1", *_):
    return text.encode("latin-1") if isinstance(text, str) else b""


def _array_of(data=None, dtype=None, state=None, *_):
    return Array(state)


def _array_of_buffer(data, dtype, shape, order="C", *_):
    return Array((1, shape, dtype, order == "F", data))


def _scalar(dtype, data=b"", *_):
    found = Array((1, (), dtype, False, data)).content()
    return found.item() if isinstance(found, np.ndarray) else None


def _nothing(*_):
    return None


def _instance(cls, *_):
    if not isinstance(cls, Name):
        raise DamagedPickle("an object of something that is no class")
    return cls()


_CALLS: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_sparse_tensor": _sparse_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_class,
    "torch.serialization._get_layout": _nothing,
    "torch.Size": _size,
    "torch.device": _first,
    "collections.OrderedDict": _pairs,
    "copyreg._reconstructor": _instance,
    "_codecs.encode": _encoded,
    "numpy.dtype": DType,
    "dill._dill._create_array": _array_of,
}
for _module in ("numpy.core", "numpy._core"):
    _CALLS[f"{_module}.multiarray._reconstruct"] = lambda *_: Array()
    _CALLS[f"{_module}.multiarray.scalar"] = _scalar
    _CALLS[f"{_module}.numeric._frombuffer"] = _array_of_buffer
for _module in ("builtins", "__builtin__"):
    _CALLS |= {f"{_module}.{name}": _several for name in ("set", "frozenset", "list", "tuple")}
    _CALLS |= {f"{_module}.dict": _pairs, f"{_module}.bytearray": _bytes, f"{_module}.complex": _nothing,
               f"{_module}.slice": _nothing, f"{_module}.object": Name("object")}  # fmt: skip
