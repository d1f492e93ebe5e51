"""Floor 7: pack files of any format into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from inrbridge.data.opening import OPENING_ERRORS, Claimed, check_any_has, claim
from inrbridge.data.sources import PerFile, Source, find_sources
from inrbridge.data.store import Store, checksum
from inrbridge.data.writer import StoreWriter
from inrbridge.errors import InrBridgeError, MissingFile, StoreError
from inrbridge.progress import Progress

UNCLAIMED, PACKED_ALREADY = "no format claims it", "it is in the store already"


def pack(
    paths: str | Path | Iterable[str | Path],
    out: str | Path,
    labels: PerFile | str | Path = None,
    splits: PerFile | str = None,
    format: str | None = None,
    *,
    names: PerFile = None,
    label_pattern: str | None = None,
    options: Mapping[str, object] | None = None,
    class_names: Sequence[str] | None = None,
    keep_going: bool = False,
    shard_items: int = 4096,
    on_error: Callable[[Path, InrBridgeError], None] | None = None,
    on_skip: Callable[[Path, str], None] | None = None,
    progress: bool | Callable | None = None,
) -> Store:
    """Open files as fields and write them to a store; a store that is there already is added to.

    Interrupted, it has written what it packed, and packing again goes on from there: files that are in the store are passed
    over. A file that holds several fields gives as many items, called NAME/0, NAME/1, ...

    Args:
        paths: files, or folders, of which every file is taken that a format claims, in the order of their paths.
        out: the folder of the store.
        labels: a CSV file with the header path,label or path,label,split; or one for each file in a sequence, by path or file
            name in a mapping, or a function of the path. None: `labels.csv` in the folder, where one lies there; else what a
            file itself tells; else the innermost folder that is no split and no part of a training run, below the folder
            given, or below the one around all files given.
        splits: likewise, or one word for all. None: the outermost folder called train, val or test, if there is one.
        format: of all files; None recognizes each.
        names: likewise; None: the path below that folder, without the suffix where that tells files apart.
        label_pattern: a regular expression with groups label, split or name (a single one without a name is the label), searched
            in the path, which begins with the name of the folder given.
        options: for the formats' `open`; each takes those that it has.
        keep_going: leave out what cannot be opened, after telling `on_error(path, error)`.
        on_skip: told of each file that is passed over, with the reason.
        progress: True shows how far it is.

    Returns:
        The store.

    Raises:
        MissingFile, CannotOpen, UnknownFormat: a file cannot be opened; those before it are in the store.
        StoreError: a name is taken, or the store is damaged.
    """
    options = dict(options or {})
    check_any_has(options, format)
    sources = find_sources(paths, labels, splits, names, label_pattern)
    failures = 0
    with (
        StoreWriter(out, shard_items=shard_items, class_names=class_names) as writer,
        Progress(len(sources), "pack", progress if len(sources) > 1 else None, unit="file") as bar,
    ):
        for source in sources:
            try:
                claimed = claim(source, format, options)
                told = UNCLAIMED if claimed is None else None if _add(writer, source, claimed) else PACKED_ALREADY
                if told is not None and on_skip is not None:
                    on_skip(source.path, told)
            except OPENING_ERRORS as error:
                if not keep_going:
                    raise
                failures += 1
                if on_error is not None:
                    on_error(source.path, error)
            bar.advance(fields=str(len(writer)))
        if not len(writer):
            raise MissingFile(
                f"Got {len(sources)} files, of which no format claims {len(sources) - failures} and {failures} do not open, "
                f"expected at least one field; ask about one: inrbridge info {sources[0].path}"
            )
        return writer.store()


def _add(writer: StoreWriter, source: Source, claimed: Claimed) -> bool:
    """Add the fields of a file that the store does not hold yet; False: it holds them all."""
    digest = checksum(source.path)
    missing = [index for index in claimed.indices if not _is_there(writer, source, index, digest)]
    for index, field in claimed.fields(missing):
        writer.add(field, **source.item(index, field), digest=digest)
    return bool(missing)


def _is_there(writer: StoreWriter, source: Source, index: int | None, digest: str) -> bool:
    name = source.name_of(index)
    if name not in writer.names:
        return False
    if writer.digest_of(name) != digest:
        raise StoreError(
            f'{writer.path} holds "{name}" already, of another file than {source.path}, expected names that no other field '
            "has; number them, write to another folder, or leave out what the store holds already."
        )
    return True
