"""Floor 5: what a look at a file finds, and the bounded walk over nested values that every container shares."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

MAX_NAMES = 100_000  # tensors and scalars listed of one file
MAX_DEPTH = 16  # nested dicts, lists and modules looked into
MAX_TEXT = 4096  # a longer text beside the tensors is left out
MAX_KEY = 1024  # characters of one key; names are made of keys, and one long key may stand before many names
MAX_CHARACTERS = 2**25  # of all names together
LARGEST_INTEGER = 2**64
FREE_BYTES = 256 * 2**20  # of memory that a file may claim whatever its size
FREE_RATIO = 4  # and for every byte of it: tensors may share their numbers, or be expanded a little


@dataclass
class Contents:
    """What a file holds: tensor name -> shape and dtype, plain values, text metadata, and what is wrong with it."""

    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, object] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    listing: tuple[str, ...] = ()
    damage: str = ""  # broken bytes: nobody can open this
    refused: str = ""  # bytes that would have to be executed
    is_inert: bool = False  # a pickle of more than tensors: followed, but nothing in it was run

    def take(self, name: str, value: object) -> None:
        """List one leaf: a tensor, array or reference by its shape, a plain value as it is, anything else not at all."""
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            self.tensors[name], self.dtypes[name] = tuple(value.shape), str(value.dtype).removeprefix("torch.")
        elif is_plain(value):
            self.scalars[name] = value


def is_plain(value: object) -> bool:
    """Whether a value is None, a truth value, a number of at most 64 bits or a text of moderate length."""
    if isinstance(value, int):
        return -LARGEST_INTEGER < value < LARGEST_INTEGER
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) <= MAX_TEXT)


def claims_too_much(claimed: int, size: int) -> str:
    """Say that tensors claim more memory than a file of `size` bytes accounts for; empty where they do not."""
    if claimed <= FREE_RATIO * size + FREE_BYTES:
        return ""
    return f"its tensors claim {claimed} bytes of memory and the file has {size}"


def claimed_bytes(shape: Iterable[int], dtype: str) -> int:
    """Memory of a tensor, by the first number in its dtype's name: bits ("float32", "BF16"); a byte where there is none."""
    bits = re.search(r"\d+", dtype)
    return math.prod(shape) * max(int(bits[0]) // 8 if bits else 1, 1)


Children = Callable[[object], Iterable[tuple[object, object]] | None]


def plain_children(value: object) -> Iterable[tuple[object, object]] | None:
    """The (key, child) pairs of a dict, list or tuple; None for a leaf."""
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else None


def walk(node: object, children: Children = plain_children, *, names: int = MAX_NAMES, depth: int = MAX_DEPTH):
    """Yield dotted names and leaves of nested values: ("state_dict.net.0.weight", tensor).

    Bounded in names, depth and characters, for a value may stand in many places, and even inside itself. Keys are texts and
    numbers; what lies under others is left out.
    """
    pending: list[tuple[str, object, int]] = [("", node, 0)]
    left, characters = names, MAX_CHARACTERS
    while pending and left > 0:
        name, value, level = pending.pop()
        left -= 1
        pairs = children(value)
        if pairs is None:
            yield name, value
        elif level < depth:
            below = []
            for key, child in islice(pairs, left):
                if not _is_key(key):
                    continue
                below.append((f"{name}.{key}" if name else str(key), child, level + 1))
                characters -= len(below[-1][0])
                if characters < 0:
                    return
            pending.extend(reversed(below))


def _is_key(key: object) -> bool:
    if isinstance(key, str):
        return len(key) <= MAX_KEY
    return isinstance(key, float) or (isinstance(key, int) and -LARGEST_INTEGER < key < LARGEST_INTEGER)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, shortened; its own words may be missing or broken."""
    try:
        return str(error).strip().split("\n")[0][:200]
    except Exception:  # the text of an error may quote a value that has none
        return "it has no text"
