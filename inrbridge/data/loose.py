"""Floor 7: read a folder of field files as if it were packed, and write nothing.

Every file is opened once, to learn what is in it. States are kept in memory up to a budget; the rest is opened again
when it is asked for, so that a folder larger than the memory can be learnt from, slowly: pack it to be quick.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inrbridge.data.describing import architecture_of, check_finite, shorten
from inrbridge.data.field_set import FieldSet
from inrbridge.data.manifest import FILE, Item, Manifest, Shard
from inrbridge.data.opening import OPENING_ERRORS, Entry, check_any_has, claim
from inrbridge.data.sources import PerFile, find_sources
from inrbridge.data.store import Store
from inrbridge.errors import LeftOut, MissingFile, StoreError
from inrbridge.field import Field

MEMORY = 2 * 2**30  # bytes of states that are kept


class LooseFolder(FieldSet):
    """A folder of field files of any formats, read as a store of them would be.

    Its manifest is the one that packing would write: one shard for each architecture, in the order in which they occur.

    Args:
        path: the folder. Files that no format claims are passed over; those that do not open are left out with a warning.
        format, options, labels, splits, label_pattern: as for `pack`.
        memory: bytes of states that are kept; those beyond are opened again at each use.

    Raises:
        MissingFile: there is no folder, or no field in it.
        StoreError: two files would have one name.
    """

    def __init__(self, path: str | Path, *, format: str | None = None, options: Mapping[str, object] | None = None,
                 labels: PerFile | str | Path = None, splits: PerFile | str = None, label_pattern: str | None = None,
                 memory: int = MEMORY):  # fmt: skip
        super().__init__(Path(path), Manifest())
        self.memory = memory
        self._entries: list[list[Entry]] = []  # by shard and row
        self._kept: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._free = memory
        self._records: list[list[dict]] = []
        check_any_has(options or {}, format)
        failed = []
        for source in find_sources(self.path, labels, splits, pattern=label_pattern):
            try:
                claimed = claim(source, format, options or {})
                if claimed is None:
                    continue
                for index, field in claimed.fields():
                    self._enter(source.item(index, field), field, claimed.entry(index))
            except OPENING_ERRORS as error:
                failed.append(str(error) if str(source.path) in str(error) else f"{source.path}: {error}")
        if failed:
            what = "1 file" if len(failed) == 1 else f"{len(failed)} files"
            warnings.warn(f"Left out {what} of {self.path}. {shorten(failed, 3)}", LeftOut, stacklevel=2)
        self._close(failed)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_kept": {}, "_free": self.memory}  # a worker opens for itself

    def rows(self, shard: int, rows: list[int]) -> dict[str, Tensor]:
        states = [self._state(shard, row) for row in rows]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def _enter(self, record: dict, field: Field, entry: Entry) -> None:
        state = {name: value.detach().to("cpu").contiguous() for name, value in field.state_dict().items()}
        states = {name: value[None] for name, value in state.items()}
        architecture = architecture_of(field, states)
        check_finite([record["name"]], states)
        name = self.manifest.add_architecture(architecture)
        number = list(self.manifest.architectures).index(name)
        if number == len(self._entries):
            self._entries.append([])
            self._records.append([])
        self._entries[number].append(entry)
        self._records[number].append(record)
        self._keep(number, len(self._entries[number]) - 1, state)

    def _keep(self, shard: int, row: int, state: dict[str, Tensor]) -> None:
        size = sum(value.numel() * value.element_size() for value in state.values())
        if size <= self._free:
            self._free -= size
            self._kept[shard, row] = state

    def _state(self, shard: int, row: int) -> dict[str, Tensor]:
        if (shard, row) not in self._kept:
            entry = self._entries[shard][row]
            state = entry.open().state_dict()
            expected = self.manifest.architectures[self.manifest.shards[shard].architecture].tensors
            if {name: tuple(value.shape) for name, value in state.items()} != {
                name: shape for name, (_, shape) in expected.items()
            }:
                raise StoreError(f"{entry.path} was changed since this folder was opened, expected it as it was; open it again.")
            self._keep(shard, row, {name: value.detach().contiguous() for name, value in state.items()})
            return state
        return self._kept[shard, row]

    def _close(self, failed: list[str]) -> None:
        """Put the records into the manifest, shard by shard."""
        names = list(self.manifest.architectures)
        for number, records in enumerate(self._records):
            self.manifest.shards.append(Shard(f"shard-{number:05d}.safetensors", names[number], len(records), 0, ""))
            self.manifest.items += [Item(shard=number, row=row, **record) for row, record in enumerate(records)]
        del self._records
        if not self.manifest.items:
            raise MissingFile(
                f"There is no store at {self.path} ({FILE} is missing), nor any file in it that a format opens"
                f"{f' ({shorten(failed, 1)})' if failed else ''}; check the path, or make a store: inrbridge fit, inrbridge pack."
            )
        twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if twice:
            raise StoreError(f"Got several fields with the names {shorten(twice)}, expected one each; rename the files.")


def open_store(path: str | Path) -> FieldSet:
    """Open a folder: a store, or field files that lie loose.

    Raises:
        MissingFile, StoreError: as `Store` and `LooseFolder` do.
    """
    path = Path(path)
    if path.is_dir() and not (path / FILE).exists() and any(path.iterdir()):
        return LooseFolder(path)
    return Store(path)
