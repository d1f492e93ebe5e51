"""Floor 7: the table of contents of a store: which architectures, shards and items it holds.

    {"inrbridge_store": 1, "class_names": [..] or null,
     "architectures": {id: {format, options, domain, channels, channel_names, channel_ranges, tensors}},
     "shards": [{file, architecture, rows, bytes, sha256}],
     "items": [{name, shard, row, label, split, psnr, digest}]}

A manifest of a newer version is refused; keys that this version does not know are kept as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from inrbridge.errors import MissingFile, StoreError

FILE = "manifest.json"
VERSION = 1
REMEDY = "restore it from a copy, or pack the fields again."
SHARD_NAME = re.compile(r"shard-\d{5,}\.safetensors")  # a plain name: nothing outside the folder can be meant

Label = str | int | float | list | None  # a class by name or number; a real number or several to regress on; none


@dataclass(frozen=True)
class Architecture:
    """What items of one shard have in common: all but their weights."""

    format: str
    options: Mapping[str, object]  # keyword arguments of the format's `build`
    domain: Mapping[str, object]  # JSON of the domain
    channels: int
    channel_names: tuple[str, ...]
    channel_ranges: tuple[tuple[float, float] | None, ...]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]  # name -> (dtype, shape) of one item
    extra: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Equal for equal architectures."""
        return json.dumps(self.to_json(), sort_keys=True)

    def to_json(self) -> dict:
        return {
            "format": self.format,
            "options": dict(self.options),
            "domain": dict(self.domain),
            "channels": self.channels,
            "channel_names": list(self.channel_names),
            "channel_ranges": [None if r is None else list(r) for r in self.channel_ranges],
            "tensors": {name: [dtype, list(shape)] for name, (dtype, shape) in self.tensors.items()},
            **self.extra,
        }

    @classmethod
    def from_json(cls, data: Mapping) -> Architecture:
        known, extra = _split(data, cls)
        known["channels"] = int(known["channels"])
        known["channel_names"] = tuple(map(str, known["channel_names"]))
        ranges = known["channel_ranges"]
        known["channel_ranges"] = tuple(None if r is None else (float(r[0]), float(r[1])) for r in ranges)
        known["tensors"] = {n: (str(dtype), tuple(map(int, shape))) for n, (dtype, shape) in known["tensors"].items()}
        if not isinstance(known["options"], Mapping) or not isinstance(known["format"], str):
            raise TypeError("format must be a text and options a table")
        if {len(known["channel_names"]), len(known["channel_ranges"])} != {known["channels"]}:
            raise ValueError("channel_names and channel_ranges must have one entry for each channel")
        return cls(**known, extra=extra)


@dataclass(frozen=True)
class Shard:
    """One file of stacked states."""

    file: str
    architecture: str
    rows: int
    bytes: int
    sha256: str
    extra: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict:
        names = ("file", "architecture", "rows", "bytes", "sha256")
        return {name: getattr(self, name) for name in names} | dict(self.extra)

    @classmethod
    def from_json(cls, data: Mapping) -> Shard:
        known, extra = _split(data, cls)
        if not SHARD_NAME.fullmatch(known["file"]):
            raise ValueError(f'the shard name "{known["file"]}" is not of the form shard-00000.safetensors')
        return cls(str(known["file"]), str(known["architecture"]), int(known["rows"]), int(known["bytes"]),
                   str(known["sha256"]), extra)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One field: where its state lies and what is known of it."""

    name: str
    shard: int
    row: int
    label: Label = None
    split: str | None = None
    psnr: float | None = None
    digest: str | None = None  # of the file it was packed from: packing again tells it from another file of the same name
    extra: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict:
        data = {"name": self.name, "shard": self.shard, "row": self.row}
        optional = {"label": self.label, "split": self.split, "psnr": self.psnr, "digest": self.digest}
        return data | {name: value for name, value in optional.items() if value is not None} | dict(self.extra)

    @classmethod
    def from_json(cls, data: Mapping) -> Item:
        known, extra = _split(data, cls)
        label, psnr = known.get("label"), known.get("psnr")
        if not isinstance(known["name"], str) or not is_label(label):
            raise TypeError(f"item {known['name']!r} must have a text as name, and a text or numbers as label")
        if not isinstance(known.get("split"), str | None):
            raise TypeError(f"item {known['name']!r} must have a text as split")
        psnr = None if psnr is None else float(psnr)
        if not isinstance(known.get("digest"), str | None):
            raise TypeError(f"item {known['name']!r} must have a text as digest")
        place = (known["name"], int(known["shard"]), int(known["row"]))
        return cls(*place, label, known.get("split"), psnr, known.get("digest"), extra)


@dataclass
class Manifest:
    """The whole table; `architectures` by id, `shards` and `items` in the order of writing."""

    architectures: dict[str, Architecture] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    class_names: tuple[str, ...] | None = None  # None: those that occur
    extra: Mapping[str, object] = field(default_factory=dict)

    def architecture_of(self, item: Item) -> str:
        """Return the id of an item's architecture."""
        return self.shards[item.shard].architecture

    def format_of(self, item: Item) -> str:
        """Return the name of an item's format."""
        return self.architectures[self.architecture_of(item)].format

    def add_architecture(self, architecture: Architecture) -> str:
        """Return the id of an architecture, entering it where it is new."""
        for known_id, known in self.architectures.items():
            if known.key == architecture.key:
                return known_id
        number = sum(a.format == architecture.format for a in self.architectures.values())
        new_id = f"{architecture.format}-{number}"
        self.architectures[new_id] = architecture
        return new_id

    def to_text(self) -> str:
        """Return the JSON text, one item a line."""
        classes = None if self.class_names is None else list(self.class_names)
        architectures = {known_id: a.to_json() for known_id, a in self.architectures.items()}
        head = {"inrbridge_store": VERSION, **self.extra, "class_names": classes, "architectures": architectures}
        head = json.dumps(head, indent=1, allow_nan=False)[:-2]
        lists = {"shards": self.shards, "items": self.items}
        parts = [f',\n "{name}": [{_lines(records)}]' for name, records in lists.items()]
        return head + "".join(parts) + "\n}\n"

    @classmethod
    def from_text(cls, text: str, where: str) -> Manifest:
        """Read and check the JSON text; `where` names the file in errors."""
        try:
            data = json.loads(text)
            version = data.pop("inrbridge_store")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{where} is no manifest of a store or is damaged ({_reason(error)}); restore it from a copy, "
                "or pack the fields again."
            ) from error
        if not isinstance(version, int) or version > VERSION or version < 1:
            raise StoreError(
                f"{where} is a manifest of version {version!r}, this inrbridge reads up to {VERSION}: pip install -U inrbridge"
            )
        try:
            manifest = cls(
                {str(known_id): Architecture.from_json(a) for known_id, a in data.pop("architectures").items()},
                [Shard.from_json(shard) for shard in data.pop("shards")],
                [Item.from_json(item) for item in data.pop("items")],
            )
            classes = data.pop("class_names", None)
            manifest.class_names = None if classes is None else tuple(map(str, classes))
            manifest.extra = data
            manifest._check()
        except (ValueError, KeyError, AttributeError, TypeError, IndexError, OverflowError) as error:
            raise StoreError(f"{where} is damaged: {_reason(error)}; {REMEDY}") from error
        return manifest

    def _check(self) -> None:
        if len({shard.file for shard in self.shards}) < len(self.shards):
            raise ValueError("two shards have one file")
        for shard in self.shards:
            if shard.architecture not in self.architectures:
                raise ValueError(f'shard "{shard.file}" is of the architecture "{shard.architecture}", which is not listed')
            if shard.rows < 1 or shard.bytes < 1:
                raise ValueError(f'shard "{shard.file}" has {shard.rows} rows in {shard.bytes} bytes')
        seen, places = set(), set()
        for item in self.items:
            if not 0 <= item.shard < len(self.shards) or not 0 <= item.row < self.shards[item.shard].rows:
                raise ValueError(f'item "{item.name}" lies at row {item.row} of shard {item.shard}, which does not exist')
            if item.name in seen or (item.shard, item.row) in places:
                raise ValueError(f'item "{item.name}" occurs twice')
            seen.add(item.name)
            places.add((item.shard, item.row))

    @classmethod
    def read(cls, folder: Path) -> tuple[Manifest, str]:
        """Read a folder's manifest; return it with its text."""
        path = folder / FILE
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise MissingFile(
                f"There is no store at {folder}: {path} is missing; make one with inrbridge.pack(paths, out) or inrbridge fit."
            ) from error
        except (UnicodeDecodeError, OSError) as error:
            raise StoreError(f"Cannot read {path}: {_reason(error)}; {REMEDY}") from error
        return cls.from_text(text, str(path)), text


def is_label(value: object) -> bool:
    """Say whether a value is a class (text or whole number), a target (finite real numbers), or None."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(v, int | float) and is_label(v) for v in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def _lines(records: list) -> str:
    return ",".join("\n  " + json.dumps(record.to_json(), allow_nan=False) for record in records)


def _split(data: Mapping, kind: type) -> tuple[dict, dict]:
    """Separate the fields of a dataclass from keys that are not known."""
    names = set(kind.__dataclass_fields__) - {"extra"}
    return {k: v for k, v in data.items() if k in names}, {k: v for k, v in data.items() if k not in names}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError | AttributeError | OSError) else text
