"""Floor 7: read a store: a folder of `manifest.json` and `shard-*.safetensors` of stacked states.

Shards are memory-mapped, each process maps its own on first use, and a minibatch copies only the rows it asks for. Sizes are
compared when a store is opened, tensor tables when a shard is first used, and checksums by `verify`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inrbridge.data.describing import DTYPE_NAMES, shorten
from inrbridge.data.field_set import FieldSet
from inrbridge.data.manifest import Manifest
from inrbridge.errors import StoreError


class Store(FieldSet):
    """A packed dataset of fields on disk, read only.

    Args:
        path: the folder.

    Raises:
        MissingFile: there is no store.
        StoreError: its manifest is damaged, or a shard is missing or of the wrong size.
    """

    def __init__(self, path: str | Path):
        super().__init__(Path(path), Manifest.read(Path(path))[0])
        self._tensors: dict[int, dict[str, Tensor]] = {}  # shard -> its mapped tensors, of this process
        self._check_sizes()

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_tensors": {}}  # a worker maps for itself

    def rows(self, shard: int, rows: list[int]) -> dict[str, Tensor]:
        wanted = torch.tensor(rows)
        return {name: value.index_select(0, wanted) for name, value in self._mapped(shard).items()}

    def verify(self) -> None:
        """Read everything and compare the checksums.

        Raises:
            StoreError: some shards are damaged; the text names them and the fields they hold.
        """
        self._check_sizes()
        damaged = []
        for number, shard in enumerate(self.manifest.shards):
            if checksum(self.path / shard.file) != shard.sha256:
                damaged.append(number)
            else:
                self._mapped(number)
        if damaged:
            lost = [item.name for item in self.items if item.shard in damaged]
            raise StoreError(
                f"The checksum of {', '.join(self.manifest.shards[n].file for n in damaged)} in {self.path} is wrong: "
                f"{len(lost)} fields are damaged ({shorten(lost)}); restore the files from a copy, or pack these fields again."
            )

    def _check_sizes(self) -> None:
        for shard in self.manifest.shards:
            path = self.path / shard.file
            size = path.stat().st_size if path.is_file() else None
            if size != shard.bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                raise StoreError(
                    f"{path} {found}, expected {shard.bytes} bytes with {shard.rows} fields; restore it from a copy, "
                    "or pack the fields again."
                )

    def _mapped(self, number: int) -> Mapping[str, Tensor]:
        if number not in self._tensors:
            shard = self.manifest.shards[number]
            path, expected = self.path / shard.file, self.manifest.architectures[shard.architecture].tensors
            try:
                with safe_open(path, framework="pt") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            except (SafetensorError, OSError) as error:
                raise StoreError(f"{path} is damaged ({error}); restore it from a copy, or pack its fields again.") from error
            found = {name: (DTYPE_NAMES.get(v.dtype, str(v.dtype)), tuple(v.shape)) for name, v in tensors.items()}
            if found != {name: (dtype, (shard.rows, *shape)) for name, (dtype, shape) in expected.items()}:
                raise StoreError(
                    f"{path} holds the tensors {shorten(map(str, sorted(found.items())))}, which is not what the manifest says; "
                    "restore both from a copy, or pack the fields again."
                )
            self._tensors[number] = tensors
        return self._tensors[number]


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
