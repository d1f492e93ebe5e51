"""Floor 5: pickles read without running anything in them.

A pickle is a program for a machine with a stack. This one knows all its instructions but carries out only those that build
plain values: names are answered by `records.look_up`, calls go to the records it returns and to nothing else, attributes are
never set, only texts and numbers become keys. Every instruction and every copy is paid for from one budget.
"""

from __future__ import annotations

import codecs
import struct
import warnings
from collections.abc import Callable
from typing import BinaryIO

from inrbridge.containers.contents import first_line
from inrbridge.containers.records import (
    Array,
    DamagedPickle,
    DType,
    Name,
    RefusedPickle,
    Shell,
    StorageRef,
    is_safe_key,
    look_up,
    storage_of,
)

MAX_OPERATIONS = 1_000_000  # of one pickle; a module of ten thousand tensors takes a third of it
MAX_CLASSES = 10_000
LONGEST_INTEGER, LONGEST_LINE = 255, 2**26  # bytes
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first of the pickles in an old torch file

_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_TEXTS = {b"T": ("<i", "latin-1"), b"U": ("<B", "latin-1"), b"X": ("<I", "utf-8"), b"\x8c": ("<B", "utf-8"),
          b"\x8d": ("<Q", "utf-8"), b"B": ("<I", ""), b"C": ("<B", ""), b"\x8e": ("<Q", ""), b"\x96": ("<Q", "")}  # fmt: skip
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}


Step = Callable[["InertReader"], object]


def load_inert(stream: BinaryIO, size: int) -> object:
    """Read one pickle from a stream of `size` bytes, which then stands right behind it.

    Raises:
        RefusedPickle: it asks to run something.
        DamagedPickle: it cannot be followed, or would take more time or memory than its size accounts for.
    """
    return InertReader(stream, size).load()


class InertReader:
    """The machine; `storages` are those that the pickle refers to, by key, and `asked` all classes and functions it names."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream, self.size = stream, size
        self.stack: list[object] = []
        self.below: list[list[object]] = []  # stacks under the marks
        self.memo: dict[int, object] = {}
        self.asked: dict[tuple[str, str], Name | str] = {}
        self.storages: dict[str, StorageRef] = {}
        self.left = MAX_OPERATIONS

    def load(self) -> object:
        """Carry out instructions up to the end of the pickle and return the object on the stack.

        Raises:
            RefusedPickle, DamagedPickle: as `load_inert`.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of broken escapes in old texts
                while (code := self.read(1)) != b".":
                    self.pay(1)
                    step = _STEPS.get(code)
                    if step is None:
                        raise DamagedPickle(f"it has an unknown instruction {code!r}, or one that refers to something outside it")
                    step(self)
                return self.stack.pop()
        except (RefusedPickle, DamagedPickle):
            raise
        except MemoryError:
            raise DamagedPickle("it claims more memory than there is") from None
        except Exception as error:  # an instruction may stumble in any way over what it finds on the stack
            raise DamagedPickle(f"{type(error).__name__}: {first_line(error)}") from error

    def read(self, count: int) -> bytes:
        """Return the next bytes; all of them must be there before memory is taken."""
        if count < 0 or (count > 64 and count > self.size - self.stream.tell()):
            raise DamagedPickle("it is truncated, or claims more than its size")
        found = self.stream.read(count)
        if len(found) < count:
            raise DamagedPickle("it is truncated")
        return found

    def line(self) -> str:
        """Return the rest of the line."""
        found = self.stream.readline(LONGEST_LINE)
        if not found.endswith(b"\n"):
            raise DamagedPickle("it is truncated")
        return found[:-1].decode("latin-1")

    def number(self, kind: str) -> int:
        """Return a packed number."""
        return struct.unpack(kind, self.read(struct.calcsize(kind)))[0]

    def pay(self, cost: int) -> None:
        """Take from the budget."""
        self.left -= cost
        if self.left < 0:
            raise DamagedPickle(f"it has more than {MAX_OPERATIONS} operations")

    def since_mark(self) -> list[object]:
        """Take all that lies on the stack above the last mark."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def call(self, function: object, arguments: object) -> None:
        """Put on the stack what an allowed call gives."""
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise DamagedPickle("it calls something that is no function")
        made = function(*arguments)
        self.pay(len(made) if isinstance(made, dict) else len(made) // 64 if isinstance(made, bytes) else 0)
        self.stack.append(made)

    def name(self, module: object, name: object) -> None:
        """Put the record of a class or function on the stack."""
        key = (module, name)
        if not (isinstance(module, str) and isinstance(name, str)) or key not in self.asked:
            found = look_up(module, name)
            if len(self.asked) >= MAX_CLASSES:
                raise DamagedPickle(f"it names more than {MAX_CLASSES} classes")
            self.asked[key] = found
        self.stack.append(self.asked[key])

    def refer(self, pid: object) -> None:
        """Put what lies outside the pickle on the stack."""
        found = storage_of(pid)
        if isinstance(found, StorageRef):
            found = self.storages.setdefault(found.key, found)
        self.stack.append(found)

    def keep(self, index: int) -> None:
        """Remember the top of the stack."""
        if not 0 <= index < 2**32:  # such numbers cannot be made to collide
            raise DamagedPickle("it counts what it remembers wrongly")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        """Put what is remembered on the stack."""
        if index not in self.memo:
            raise DamagedPickle("it recalls what it never remembered")
        self.stack.append(self.memo[index])

    def extend(self, values: list[object]) -> None:
        """Add values to the list on the stack."""
        owner = self.stack[-1]
        owner = owner.items if isinstance(owner, Shell) else owner
        if not isinstance(owner, list):
            raise DamagedPickle("it appends to something that is no list")
        owner.extend(values)

    def fill(self, values: list[object]) -> None:
        """Set keys of the dict on the stack; keys that are no texts or numbers are left out with their values."""
        owner = self.stack[-1]
        owner = owner.state if isinstance(owner, Shell) else owner
        if not isinstance(owner, dict) or len(values) % 2:
            raise DamagedPickle("it sets keys of something that is no dict")
        owner.update((key, value) for key, value in zip(values[::2], values[1::2], strict=True) if is_safe_key(key))

    def build(self) -> None:
        """Give a state to the object on the stack; plain containers have none to be set."""
        state, owner = self.stack.pop(), self.stack[-1]
        if isinstance(owner, Shell | Array | DType):
            self.pay(owner.take_state(state))
        elif not isinstance(owner, dict | list):
            raise DamagedPickle("it gives a state to something that has none")


def _number_of(kind: str) -> Step:
    return lambda m: m.stack.append(m.number(kind))


def _text_of(width: str, encoding: str) -> Step:
    def step(m: InertReader) -> None:
        content = m.read(m.number(width))
        m.stack.append(content.decode(encoding, "replace") if encoding else content)

    return step


def _constant(value: object) -> Step:
    return lambda m: m.stack.append(value)


def _mark(m: InertReader) -> None:
    m.below.append(m.stack)
    m.stack = []


def _pop(m: InertReader) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.since_mark()


def _integer(text: str) -> int | bool:
    if text in ("00", "01"):
        return text == "01"
    if len(text) > 2 * LONGEST_INTEGER:
        raise DamagedPickle("an integer without end")
    return int(text.removesuffix("L"))


def _long(m: InertReader, length: int) -> None:
    if length > LONGEST_INTEGER:
        raise DamagedPickle("an integer without end")
    m.stack.append(int.from_bytes(m.read(length), "little", signed=True))


def _text_of_line(m: InertReader) -> None:
    line = m.line()
    if len(line) < 2 or line[0] != line[-1] or line[0] not in "\"'":
        raise DamagedPickle("a text without quotes")
    m.stack.append(codecs.escape_decode(line[1:-1].encode("latin-1"))[0].decode("latin-1"))


def _tuple(m: InertReader, count: int) -> None:
    if len(m.stack) < count:
        raise DamagedPickle("its stack is empty")
    m.stack[-count:] = [tuple(m.stack[-count:])]


def _dict(m: InertReader) -> None:
    values = m.since_mark()
    m.stack.append({})
    m.fill(values)


def _call(m: InertReader, has_keywords: bool = False) -> None:
    if has_keywords:  # of which no record takes any
        m.stack.pop()
    arguments, function = m.stack.pop(), m.stack.pop()
    m.call(function, arguments)


def _object(m: InertReader) -> None:
    function, *arguments = m.since_mark()
    m.call(function, tuple(arguments))


def _instance(m: InertReader) -> None:
    m.name(m.line(), m.line())
    function = m.stack.pop()
    m.call(function, tuple(m.since_mark()))


def _name_of_stack(m: InertReader) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.name(module, name)


def _closed(m: InertReader, kind: type) -> None:
    values = m.since_mark()
    m.stack.append(kind(values))


_STEPS: dict[bytes, Step] = {
    **{code: _number_of(kind) for code, kind in _NUMBERS.items()},
    **{code: _text_of(width, encoding) for code, (width, encoding) in _TEXTS.items()},
    **{code: _constant(value) for code, value in _CONSTANTS.items()},
    # what stands around the values
    b"\x80": lambda m: m.read(1), b"\x95": lambda m: m.read(8), b"\x98": lambda m: None,
    # numbers and texts on lines of their own, long integers
    b"I": lambda m: m.stack.append(_integer(m.line())), b"L": lambda m: m.stack.append(_integer(m.line())),
    b"F": lambda m: m.stack.append(float(m.line())), b"S": _text_of_line,
    b"V": lambda m: m.stack.append(m.line().encode("latin-1").decode("raw-unicode-escape", "replace")),
    b"\x8a": lambda m: _long(m, m.number("<B")), b"\x8b": lambda m: _long(m, m.number("<I")),
    # the stack and the memory
    b"(": _mark, b"0": _pop, b"1": lambda m: m.since_mark(), b"2": lambda m: m.stack.append(m.stack[-1]),
    b"p": lambda m: m.keep(_integer(m.line())), b"q": lambda m: m.keep(m.number("<B")), b"r": lambda m: m.keep(m.number("<I")),
    b"\x94": lambda m: m.keep(len(m.memo)),
    b"g": lambda m: m.recall(_integer(m.line())), b"h": lambda m: m.recall(m.number("<B")),
    b"j": lambda m: m.recall(m.number("<I")),
    # containers; a set is a list here
    b"}": lambda m: m.stack.append({}), b"]": lambda m: m.stack.append([]), b"\x8f": lambda m: m.stack.append([]),
    b"l": lambda m: _closed(m, list), b"t": lambda m: _closed(m, tuple), b"\x91": lambda m: _closed(m, list), b"d": _dict,
    b"\x85": lambda m: _tuple(m, 1), b"\x86": lambda m: _tuple(m, 2), b"\x87": lambda m: _tuple(m, 3),
    b"a": lambda m: m.extend([m.stack.pop()]), b"e": lambda m: m.extend(m.since_mark()),
    b"\x90": lambda m: m.extend(m.since_mark()),
    b"s": lambda m: m.fill([m.stack.pop(), m.stack.pop()][::-1]), b"u": lambda m: m.fill(m.since_mark()),
    # names, calls, states, and what lies outside
    b"c": lambda m: m.name(m.line(), m.line()), b"\x93": _name_of_stack,
    b"R": _call, b"\x81": _call, b"\x92": lambda m: _call(m, has_keywords=True), b"o": _object, b"i": _instance,
    b"b": InertReader.build,
    b"P": lambda m: m.refer(m.line()), b"Q": lambda m: m.refer(m.stack.pop()),
}  # fmt: skip
