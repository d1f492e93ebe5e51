"""Floor 7: write a store, or add to one.

A shard is written whole under a temporary name, then renamed, then entered in the manifest, which is replaced in the same way:
whatever happens, the store on disk is the one before or the one after, and shards that were written are never touched again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from inrbridge.data.describing import architecture_of, check_finite, shorten
from inrbridge.data.manifest import FILE, Item, Label, Manifest, Shard, is_label
from inrbridge.data.store import Store, checksum
from inrbridge.errors import ShapeMismatch, StoreError
from inrbridge.field import Field, Stackable
from inrbridge.writing import written_whole

SHARD_BYTES = 256 * 2**20


@dataclasses.dataclass
class _Waiting:
    """Rows of one architecture that are not on disk yet."""

    parts: list[dict[str, Tensor]] = dataclasses.field(default_factory=list)  # states of some rows each
    records: list[dict] = dataclasses.field(default_factory=list)  # one a row
    bytes: int = 0

    def append(self, states: dict[str, Tensor], records: list[dict]) -> None:
        self.parts.append(states)
        self.records += records
        self.bytes += sum(value.numel() * value.element_size() for value in states.values())


class StoreWriter:
    """Adds fields to a store; makes it where there is none. Use it in a `with` block, or call `close`.

    Args:
        path: the folder.
        shard_items: fields in a shard at most; a full one is written at once.
        class_names: all classes in their order, where the labels that occur do not tell (None: those, sorted).

    >>> import tempfile; from inrbridge.domains import Box; from inrbridge.grid import GridField
    >>> with StoreWriter(tempfile.mkdtemp()) as writer:
    ...     writer.add(GridField(torch.rand(8, 8, 1), Box.centered(2)), name="first", label="cat", split="train")
    >>> writer.store().names
    ['first']
    """

    def __init__(self, path: str | Path, *, shard_items: int = 4096, class_names: Sequence[str] | None = None):
        self.path, self.shard_items = Path(path), shard_items
        if shard_items < 1:
            raise StoreError(f"Got shards of {shard_items} items, expected at least 1.")
        self._made_folder = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"Cannot make a store at {self.path} ({error.strerror}); choose a folder that can be written."
            ) from error
        if (self.path / FILE).exists():
            self._manifest, self._text = Manifest.read(self.path)
            Store(self.path)  # refuses to add to a store that lost a shard
        else:
            self._manifest, self._text = Manifest(), None
        if class_names is not None:
            self._manifest.class_names = tuple(map(str, class_names))
        self.names: set[str] = {item.name for item in self._manifest.items}
        self._digests = {item.name: item.digest for item in self._manifest.items}
        self._waiting: dict[str, _Waiting] = {}  # by architecture
        self._written_classes = None if self._text is None else self._manifest.class_names

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind, *error) -> None:
        if kind is not None and not self.names and self._text is None:
            if self._made_folder:
                with contextlib.suppress(OSError):
                    self.path.rmdir()  # nothing came of it
            return
        self.close()  # also after an error: what was added before is complete

    def __len__(self) -> int:
        return len(self.names)

    def digest_of(self, name: str) -> str | None:
        """Return the checksum of the file that a field came from, which was in the store when this writer opened it."""
        return self._digests.get(name)

    def add(self, field: Field, *, name: str, label: Label = None, split: str | None = None, psnr: float | None = None,
            digest: str | None = None) -> None:  # fmt: skip
        """Add one field.

        Args:
            name: unlike that of any other field in the store.
            label: class name or number; for a regression a real number or a list of them.
            split: "train", "test", or any other word.
            psnr: how closely the field follows its signal, in dB, where known.
            digest: checksum of the file it came from, where it came from one.

        Raises:
            CannotSave: the field cannot be built anew from a state.
            NotFinite: its parameters are damaged.
            StoreError: the name is taken, or the label is neither text nor number.
        """
        if not isinstance(field, Stackable):
            architecture_of(field, {})  # says what it lacks
        states = {key: value.detach()[None] for key, value in field.state_dict().items()}
        self._add(field, states, [name], [label], [split], [psnr], [digest])

    def add_states(
        self,
        template: Field,
        states: Mapping[str, Tensor],
        *,
        names: Sequence[str],
        labels: Sequence[Label] | None = None,
        splits: Sequence[str | None] | str | None = None,
        psnrs: Sequence[float | None] | Tensor | None = None,
    ) -> None:
        """Add b fields of one architecture at once: the template and its state dict stacked on axis 0 (b, ...)."""
        b = len(names)
        found = {key: tuple(value.shape) for key, value in states.items()}
        expected = {key: (b, *value.shape) for key, value in template.state_dict().items()}
        columns = {
            "labels": [None] * b if labels is None else list(labels),
            "splits": [splits] * b if splits is None or isinstance(splits, str) else list(splits),
            "psnrs": [None] * b if psnrs is None else [None if p is None else float(p) for p in psnrs],
        }
        if found != expected or b == 0 or any(len(column) != b for column in columns.values()):
            raise ShapeMismatch(
                f"Got {b} names, {', '.join(f'{len(column)} {what}' for what, column in columns.items())} and the states "
                f"{shorten(map(str, found.items()))}, expected one of each, and the states {shorten(map(str, expected.items()))}."
            )
        self._add(template, states, list(names), *columns.values(), [None] * b)

    def _add(self, field: Field, states: Mapping[str, Tensor], names, labels, splits, psnrs, digests) -> None:
        states = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in states.items()}
        self._check_names(names)
        for name, label, split in zip(names, labels, splits, strict=True):
            if not isinstance(split, str | None):
                raise StoreError(f'Got the split {split!r} for "{name}", expected a text or None.')
            if not is_label(label):
                raise StoreError(f'Got the label {label!r} for "{name}", expected a text, finite numbers, or None.')
        check_finite(names, states)
        architecture = architecture_of(field, states)
        name_of = self._manifest.add_architecture(architecture)
        for start in range(0, len(names), self.shard_items):
            rows = slice(start, start + self.shard_items)
            columns = {"name": names, "label": labels, "split": splits, "psnr": [_finite(p) for p in psnrs], "digest": digests}
            records = [dict(zip(columns, row, strict=True)) for row in zip(*(c[rows] for c in columns.values()), strict=True)]
            waiting = self._waiting.setdefault(name_of, _Waiting())
            waiting.append({key: value[rows] for key, value in states.items()}, records)
            self.names.update(names[rows])
            if len(waiting.records) >= self.shard_items or waiting.bytes >= SHARD_BYTES:
                self._write(name_of)

    def _check_names(self, names: Sequence[str]) -> None:
        strange = [name for name in names if not isinstance(name, str) or not name]
        taken = [name for name in names if name in self.names]
        if strange or taken or len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise StoreError(
                f"Got the names {shorten(map(str, strange or taken or twice))}, expected texts that no other field in "
                f"{self.path} has; number them, write to another folder, or leave out what the store holds already."
            )

    def flush(self) -> None:
        """Write what was added so far."""
        for architecture in list(self._waiting):
            self._write(architecture)
        if self._text is None or self._manifest.class_names != self._written_classes:
            self._write_manifest(self._manifest)

    close = flush

    def store(self) -> Store:
        """Write what was added so far and open the store."""
        self.flush()
        return Store(self.path)

    def _write(self, architecture: str) -> None:
        """Write the waiting rows of an architecture as one shard, and enter it."""
        waiting = self._waiting.pop(architecture)
        try:
            self._refuse_other_writers()
            states = {key: torch.cat([part[key] for part in waiting.parts]) for key in waiting.parts[0]}
            number = len(self._manifest.shards)
            path = self.path / f"shard-{number:05d}.safetensors"
            # not `save_file`, whose files no other user may read
            with written_whole(path, StoreError) as temporary:
                temporary.write_bytes(save(states))
            shard = Shard(path.name, architecture, len(waiting.records), path.stat().st_size, checksum(path))
            items = [Item(shard=number, row=row, **record) for row, record in enumerate(waiting.records)]
            self._write_manifest(
                Manifest(
                    self._manifest.architectures,
                    [*self._manifest.shards, shard],
                    [*self._manifest.items, *items],
                    self._manifest.class_names,
                    self._manifest.extra,
                )
            )
        except BaseException:
            self._waiting[architecture] = waiting  # nothing is lost when the disk was full: flush again
            raise

    def _write_manifest(self, manifest: Manifest) -> None:
        self._refuse_other_writers()
        text = manifest.to_text()
        with written_whole(self.path / FILE, StoreError) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._manifest, self._text, self._written_classes = manifest, text, manifest.class_names

    def _refuse_other_writers(self) -> None:
        path = self.path / FILE
        now = path.read_text(encoding="utf-8") if path.exists() else None
        if now != self._text:
            raise StoreError(
                f"{path} was changed by another writer since this one opened it, expected one writer at a time; "
                "write to folders of your own, or open a new StoreWriter and add again."
            )


def _finite(psnr: float | None) -> float | None:
    return psnr if psnr is None or math.isfinite(psnr) else None  # JSON has no infinity
