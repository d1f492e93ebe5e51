"""Floor 7: which files may be fields, and what each is called, labelled and which split it is in.

In that order of trust: what the caller passes, a table (`labels.csv` in the folder, or another one), a pattern that the paths
match, what a file itself tells, and its folders. The same rule serves `pack` and a folder that is read without packing.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inrbridge.data.manifest import FILE, SHARD_NAME, Label, is_label
from inrbridge.errors import CannotOpen, ConfigError, MissingFile, ShapeMismatch
from inrbridge.field import Field

TABLE = "labels.csv"  # read where it lies in a folder of fields
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "valid", "validation": "validation", "test": "test",
          "testing": "test"}  # fmt: skip
_PARTS_OF_A_RUN = ("checkpoints", "nerfstudio_models")  # folders that training programs make inside a folder of one run

PerFile = Sequence | Mapping | Callable | None


@dataclass(frozen=True)
class Source:
    """A file, with what is known of the fields in it before it is opened."""

    path: Path
    name: str
    label: Label = None
    split: str | None = None
    is_named: bool = True  # by the caller; else found in a folder, where files of other kinds may lie
    is_told: bool = True  # the label; else its folder's name stands for it

    def name_of(self, index: int | None) -> str:
        """Return the name of a field of this file; `index` None: it holds only this one."""
        return self.name if index is None else f"{self.name}/{index}"

    def item(self, index: int | None, field: Field) -> dict:
        """Return name, label and split of a field of this file."""
        label, own = self.label, getattr(field, "label", None)
        if not self.is_told and own is not None and is_label(own):
            label = own
        return {"name": self.name_of(index), "label": label, "split": self.split}


def find_sources(
    paths: str | Path | Iterable[str | Path],
    labels: PerFile | str | Path = None,
    splits: PerFile | str = None,
    names: PerFile = None,
    pattern: str | None = None,
) -> list[Source]:
    """List files with their names, labels and splits; the arguments are those of `pack`.

    Raises:
        MissingFile: there is none, or nothing at one of the paths.
        ConfigError, CannotOpen, ShapeMismatch: pattern, table or column do not fit the files.
    """
    given = [Path(path).absolute() for path in ([paths] if isinstance(paths, str | Path) else paths)]
    found = list(_files(given))
    if not found:
        raise MissingFile("Got no files to pack, expected at least one; check the folder's name.")
    files = [(path, root) for path, root, _ in found]
    if labels is None and pattern is None and len(given) == 1 and (given[0] / TABLE).is_file():
        labels = given[0] / TABLE
    rows: list[Mapping[str, object]] = [{} for _ in files]
    if pattern is not None:
        rows = _matches(pattern, files)
    elif isinstance(labels, str | Path):
        rows, labels = _table_rows(Path(labels), files), None
    told = [row.get("label") for row in rows] if any("label" in row for row in rows) else None
    columns = {
        "label": told if told is not None and labels is None else _column(labels, files, "labels", _label_of),
        "split": [splits] * len(files) if isinstance(splits, str) else _column(splits, files, "splits", _split_of),
        "name": _names(files) if names is None else _column(names, files, "names", None),
    }
    for what, given_by_hand in (("split", splits), ("name", names)):
        if given_by_hand is None:
            columns[what] = [row.get(what) or value for row, value in zip(rows, columns[what], strict=True)]
    is_told = told is not None or labels is not None
    return [
        Source(path, name, label, SPLITS.get(split, split), is_named, is_told)
        for (path, _, is_named), label, split, name in zip(found, *columns.values(), strict=True)
    ]


def _files(given: Iterable[Path]) -> Iterator[tuple[Path, Path, bool]]:
    """Yield each file, the folder below which name, label and split are read from its path, and whether it was named."""
    given = list(given)
    files = [path for path in given if path.is_file()]
    above = Path(os.path.commonpath([path.parent for path in files])) if files else None
    for path in given:
        if path.is_file():
            yield path, above, True
        elif path.is_dir():
            for found in sorted(path.rglob("*")):
                is_hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
                if found.is_file() and not is_hidden and found != path / TABLE and not _is_part_of_a_store(found):
                    yield found, path, False
        else:
            raise MissingFile(f"There is nothing at {path}, expected a file or folder to pack; check the path.")


def _is_part_of_a_store(path: Path) -> bool:
    """Say whether a file belongs to a store, such as the one being written, which may lie in a folder that is packed."""
    return (path.name == FILE or SHARD_NAME.fullmatch(path.name) is not None) and (path.parent / FILE).exists()


def _names(files: list[tuple[Path, Path]]) -> list[str]:
    full = [path.relative_to(root) for path, root in files]
    short = [path.with_suffix("").as_posix() for path in full]
    return short if len(set(short)) == len(short) else [path.as_posix() for path in full]


def _column(given: PerFile, files: list[tuple[Path, Path]], what: str, default: Callable[[Path, Path], object] | None) -> list:
    if given is None:
        return [default(path, root) for path, root in files]
    if isinstance(given, Mapping):
        return [given.get(str(path), given.get(path.name, given.get(path.stem))) for path, _ in files]
    if callable(given):
        return [given(path) for path, _ in files]
    given = [value.item() if hasattr(value, "item") else value for value in given]
    if len(given) != len(files):
        raise ShapeMismatch(f"Got {len(given)} {what} for {len(files)} files, expected one for each, in the order of the files.")
    return given


def _label_of(path: Path, root: Path) -> Label:
    """Return the innermost folder that can be a class: neither a split, nor a run of a training program, nor part of one."""
    folders = list(path.relative_to(root).parent.parts)
    if folders and folders[-1] in _PARTS_OF_A_RUN:
        folders = folders[:-2]
    return next((folder for folder in reversed(folders) if folder not in SPLITS), None)


def _split_of(path: Path, root: Path) -> str | None:
    return next((part for part in path.relative_to(root).parent.parts if part in SPLITS), None)


def _matches(pattern: str, files: list[tuple[Path, Path]]) -> list[dict[str, str]]:
    """Return what the groups label, split and name of a regular expression (one without a name is the label) find in each
    path, which begins with the name of the folder that was given."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f'Got the pattern "{pattern}", which is no regular expression ({error}); correct it.') from error
    strange = set(compiled.groupindex) - {"label", "split", "name"}
    if strange or compiled.groups == 0:
        raise ConfigError(
            f'Got the pattern "{pattern}", expected a group for the label, such as "_(\\d+)s/net", or groups named label, split '
            'and name, such as "(?P<split>training|testing)_(?P<label>\\d+)_".'
        )
    rows = []
    for path, root in files:
        found = list(compiled.finditer(path.relative_to(root.parent).as_posix()))[-1:]  # the last one: nearest to the file
        words = {} if not found else found[0].groupdict() or {"label": found[0][1]}
        rows.append({name: word for name, word in words.items() if word is not None})
    if not any(rows):
        raise ConfigError(
            f'Got the pattern "{pattern}", which no path matches, such as '
            f"{files[0][0].relative_to(files[0][1].parent).as_posix()}; correct it."
        )
    return rows


def _table_rows(table: Path, files: list[tuple[Path, Path]]) -> list[Mapping[str, object]]:
    """Return the row of a table for each file; empty for a file that it does not name."""
    named = read_table(table)
    found = [next((named[key] for key in (str(path), path.name, path.stem) if key in named), {}) for path, _ in files]
    if not any(found):
        raise CannotOpen(
            f"The table {table} names none of the {len(files)} files, such as {files[0][0].name}; "
            "write their paths relative to the table."
        )
    return found


def read_table(path: Path) -> dict[str, dict[str, object]]:
    """Read a CSV file with the header path,label or path,label,split; paths are relative to the file.

    Lines FILE,LABEL without a header are taken, too: FILE is a path or a plain file name. A column of numbers, not all of them
    whole, is read as numbers to regress on.

    Returns:
        Rows {"label": ..., "split": ...} by absolute path; without a header by file name as well.

    Raises:
        CannotOpen: it cannot be read, or has other columns.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CannotOpen(f"Cannot read labels from {path} ({error}), expected CSV with the header path,label,split.") from error
    lines = [[cell.strip() for cell in line] for line in lines if line]
    header = [cell.lower() for cell in lines[0]] if lines else []
    has_header = {"path", "label"} <= set(header)
    columns, body = (header, lines[1:]) if has_header else (["path", "label"], lines)
    wrong = [line for line in body if len(line) != len(columns)]
    if wrong or not body:
        raise CannotOpen(
            f"{path} holds {f'the line {wrong[0]}' if wrong else 'no line'}, expected FILE,LABEL on each, below a header "
            "path,label or path,label,split."
        )
    records = [dict(zip(columns, line, strict=True)) for line in body]
    targets = _targets([record["label"] for record in records])
    rows: dict[str, dict[str, object]] = {}
    for record, target in zip(records, targets, strict=True):
        row = {"label": target} | ({"split": record["split"]} if record.get("split") else {})
        rows[os.path.abspath(path.absolute().parent / record["path"])] = row
        if not has_header:
            rows.setdefault(record["path"], row)
    return rows


def _targets(labels: list[str]) -> list[Label]:
    """Return real numbers where all labels are numbers and not all whole; else the texts, None for empty ones."""
    told = [label for label in labels if label]
    try:
        numbers = [float(label) for label in told]
    except ValueError:
        numbers = []
    are_real = bool(numbers) and not all(label.lstrip("+-").isdigit() for label in told)
    return [(float(label) if are_real else label) if label else None for label in labels]
