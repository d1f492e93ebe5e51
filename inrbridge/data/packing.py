"""Floor 7: pack files of any format into a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from inrbridge.data.manifest import FILE, SHARD_NAME, Label
from inrbridge.data.store import Store
from inrbridge.data.writer import StoreWriter
from inrbridge.errors import InrBridgeError, MissingFile, ShapeMismatch
from inrbridge.io import open_field

SPLITS = ("train", "val", "valid", "validation", "test")

PerFile = Sequence | Mapping | Callable | None


def pack(
    paths: str | Path | Iterable[str | Path],
    out: str | Path,
    labels: PerFile = None,
    splits: PerFile | str = None,
    format: str | None = None,
    *,
    names: PerFile = None,
    class_names: Sequence[str] | None = None,
    keep_going: bool = False,
    shard_items: int = 4096,
    on_error: Callable[[Path, InrBridgeError], None] | None = None,
) -> Store:
    """Open files as fields and write them to a store; a store that is there already is added to.

    Args:
        paths: files, or folders, of which every file is taken, in the order of their paths.
        out: the folder of the store.
        labels: one for each file in a sequence, by path or file name in a mapping, or a function of the path. None: the name
            of the file's folder, unless that is the folder given, or the one around all files given.
        splits: likewise, or one word for all. None: the outermost folder called train, val or test, if there is one.
        format: of all files; None recognizes each.
        names: likewise; None: the path below that folder, without the suffix where that tells files apart.
        keep_going: leave out what cannot be opened, after telling `on_error(path, error)`.

    Returns:
        The store.

    Raises:
        MissingFile, CannotOpen, UnknownFormat: a file cannot be opened; those before it are in the store.
        StoreError: a name is taken, or the store is damaged.
    """
    found = list(_files([paths] if isinstance(paths, str | Path) else paths))
    if not found:
        raise MissingFile("Got no files to pack, expected at least one; check the folder's name.")
    columns = {
        "label": _column(labels, found, "labels", _label_of),
        "split": [splits] * len(found) if isinstance(splits, str) else _column(splits, found, "splits", _split_of),
        "name": _names(found) if names is None else _column(names, found, "names", None),
    }
    with StoreWriter(out, shard_items=shard_items, class_names=class_names) as writer:
        for (path, _), *values in zip(found, *columns.values(), strict=True):
            try:
                writer.add(open_field(path, format), **dict(zip(columns, values, strict=True)))
            except InrBridgeError as error:
                if not keep_going:
                    raise
                if on_error is not None:
                    on_error(path, error)
        return writer.store()


def _files(paths: Iterable[str | Path]) -> Iterable[tuple[Path, Path]]:
    """Yield each file with the folder below which its name, label and split are read from its path."""
    given = [Path(path).absolute() for path in paths]
    files = [path for path in given if path.is_file()]
    above = Path(os.path.commonpath([path.parent for path in files])) if files else None
    for path in given:
        if path.is_file():
            yield path, above
        elif path.is_dir():
            inside = (p for p in sorted(path.rglob("*")) if p.is_file() and not _is_part_of_a_store(p))
            yield from ((p, path) for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts))
        else:
            raise MissingFile(f"There is nothing at {path}, expected a file or folder to pack; check the path.")


def _is_part_of_a_store(path: Path) -> bool:
    """Say whether a file belongs to a store, such as the one being written, which may lie in a folder that is packed."""
    return (path.name == FILE or SHARD_NAME.fullmatch(path.name) is not None) and (path.parent / FILE).exists()


def _names(found: list[tuple[Path, Path]]) -> list[str]:
    full = [path.relative_to(root) for path, root in found]
    short = [path.with_suffix("").as_posix() for path in full]
    return short if len(set(short)) == len(short) else [path.as_posix() for path in full]


def _column(given: PerFile, found: list[tuple[Path, Path]], what: str, default: Callable[[Path, Path], object] | None) -> list:
    if given is None:
        return [default(path, root) for path, root in found]
    if isinstance(given, Mapping):
        return [given.get(str(path), given.get(path.name, given.get(path.stem))) for path, _ in found]
    if callable(given):
        return [given(path) for path, _ in found]
    given = [value.item() if hasattr(value, "item") else value for value in given]
    if len(given) != len(found):
        raise ShapeMismatch(f"Got {len(given)} {what} for {len(found)} files, expected one for each, in the order of the files.")
    return given


def _label_of(path: Path, root: Path) -> Label:
    folder = path.relative_to(root).parent.name
    return folder if folder and folder not in SPLITS else None


def _split_of(path: Path, root: Path) -> str | None:
    return next((part for part in path.relative_to(root).parent.parts if part in SPLITS), None)
