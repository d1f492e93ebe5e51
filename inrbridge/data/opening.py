"""Floor 7: open the files of a dataset: who claims one, how many fields it holds, and each of them in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from inrbridge.data.sources import Source, find_sources
from inrbridge.errors import (
    AmbiguousFormat,
    CannotOpen,
    CannotSave,
    ConfigError,
    InrBridgeError,
    MissingFile,
    NotFinite,
    PluginError,
    UnknownName,
    did_you_mean,
)
from inrbridge.field import Field
from inrbridge.formats import Format
from inrbridge.io import absent_readers, count_fields, identify_probe, look, open_field, open_fields
from inrbridge.plugins import all_formats, get_format
from inrbridge.signals import read_signal

SIGNALS = ("png", "jpeg", "wav")
# what a single file can be guilty of; a full disk or a wrong pattern is no reason to go on with the next file
OPENING_ERRORS = (AmbiguousFormat, CannotOpen, CannotSave, ConfigError, NotFinite, PluginError, UnknownName)


@dataclass(frozen=True)
class Entry:
    """One field of a file, not yet opened: the format (None: to be recognized) and the options to open it with."""

    path: Path
    format: str | None = None
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.path) if "index" not in self.options else f"{self.path}/{self.options['index']}"

    def open(self) -> Field:
        """Open the field; raises as `open_field` does."""
        return open_field(self.path, self.format, **self.options)


@dataclass(frozen=True)
class SignalEntry(Entry):
    """An image or sound: its samples as a grid field, which passes through each of them."""

    def open(self) -> Field:
        """Read the samples; raises as `read_signal` does."""
        return read_signal(self.path).field


@dataclass(frozen=True)
class Claimed:
    """A file, the format that opens it, how many fields it holds, and the options to open it with."""

    path: Path
    format: str
    count: int
    options: Mapping[str, object]

    @property
    def indices(self) -> list[int | None]:
        """The numbers of its fields; [None] for a file of one."""
        return [None] if self.count == 1 else list(range(self.count))

    def entry(self, index: int | None) -> Entry:
        """Return one of its fields, not yet opened."""
        return Entry(self.path, self.format, {**self.options, **({} if index is None else {"index": index})})

    def fields(self, among: list[int | None] | None = None) -> Iterator[tuple[int | None, Field]]:
        """Open its fields in turn, all of them or those of some numbers."""
        indices = self.indices if among is None else among
        if len(indices) == self.count > 1:
            yield from enumerate(open_fields(self.path, self.format, **self.options))
            return
        for index in indices:
            yield index, self.entry(index).open()


def claim(source: Source, format: str | None, options: Mapping[str, object]) -> Claimed | None:
    """Ask who opens a file; None: no format recognizes it, and it was not named by the caller.

    Args:
        format: of all files; None asks every format.
        options: for `open`; each format takes those that it has, unless `format` is given, which must have all.

    Raises:
        InrBridgeError: the file is damaged, or claimed by several formats; no format recognizes it and it was named; its
            reader is known and not installed.
    """
    probe = look(source.path)
    name = format
    if name is None:
        try:
            name = identify_probe(probe)
        except UnknownName:
            if source.is_named or absent_readers(probe):
                raise
            return None
    chosen = get_format(name)
    known = chosen.options("open")
    mine = dict(options) if format is not None else {key: value for key, value in options.items() if key in known}
    count = 1 if "index" in mine else count_fields(probe, chosen)
    return Claimed(source.path, name, count, mine)


def entries_of(path: str | Path, format: str | None = None, *, signals: bool = False) -> list[Entry]:
    """List the fields at a path: one, or those of a file that holds several, or those of a folder that is none itself.

    What no format claims is listed only where nothing else is: opening it tells why. With `signals` images and sounds are fields
    too, unless a format is named.
    """
    path = Path(path)
    if path.is_dir() and not _is_claimed(path):
        try:
            sources = find_sources(path)
        except MissingFile:
            return [Entry(path, format)]
    else:
        sources = [Source(path, path.name)]
    found = []
    for source in sources:
        try:
            if signals and format is None and look(source.path).magic in SIGNALS:
                found.append(SignalEntry(source.path))
                continue
            claimed = claim(source, format, {})
        except InrBridgeError:
            found.append(Entry(source.path, format))
        else:
            found += [] if claimed is None else [claimed.entry(index) for index in claimed.indices]
    return found or [Entry(path, format)]


def _is_claimed(path: Path) -> bool:
    try:
        identify_probe(look(path))
    except InrBridgeError:
        return False
    return True


def check_any_has(options: Mapping[str, object], format: str | None) -> None:
    """Raise ConfigError for an option that no format has which may open the files."""
    formats: list[Format] = all_formats() if format is None else [get_format(format)]
    known = {name for each in formats for name in each.options("open")}
    for name in options:
        if name not in known:
            whose = f'Format "{format}" has' if format is not None else "No installed format has"
            raise ConfigError(
                f'{whose} no option "{name}" of `open`; expected among: {", ".join(sorted(known)) or "none"}.'
                f"{did_you_mean(name, known)}"
            )
