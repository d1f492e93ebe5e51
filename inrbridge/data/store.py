"""Floor 7: read a store: a folder of `manifest.json` and `shard-*.safetensors` of stacked states.

Shards are memory-mapped, each process maps its own on first use, and a minibatch copies only the rows it asks for. Sizes are
compared when a store is opened, tensor tables when a shard is first used, and checksums by `verify`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from inrbridge.container import build_native, check_native
from inrbridge.data.manifest import Item, Manifest
from inrbridge.domains import Domain, domain_from_config
from inrbridge.errors import CannotOpen, InrBridgeError, StoreError
from inrbridge.field import Field
from inrbridge.plugins import get_format
from inrbridge.stacking import FieldStack, Group

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Store:
    """A packed dataset of fields on disk, read only.

    Args:
        path: the folder.

    Raises:
        MissingFile: there is no store.
        StoreError: its manifest is damaged, or a shard is missing or of the wrong size.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.manifest, _ = Manifest.read(self.path)
        self._tensors: dict[int, dict[str, Tensor]] = {}  # shard -> its mapped tensors, of this process
        self._templates: dict[str, Field] = {}
        self._check_sizes()

    def __len__(self) -> int:
        return len(self.manifest.items)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self)} fields, formats {', '.join(self.format_names) or 'none'})"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_tensors": {}, "_templates": {}}  # a worker maps and builds for itself

    @property
    def items(self) -> list[Item]:
        """What is known of each field, in the order of writing."""
        return self.manifest.items

    @property
    def names(self) -> list[str]:
        """The name of each field; no two are equal."""
        return [item.name for item in self.manifest.items]

    @property
    def format_names(self) -> list[str]:
        """The formats that occur, sorted."""
        return sorted({a.format for a in self.manifest.architectures.values()})

    def architecture_of(self, index: int) -> str:
        """Return the id of the architecture of field `index`."""
        return self.manifest.architecture_of(self.items[index])

    def template(self, architecture: str) -> Field:
        """Return a field of an architecture; its weights mean nothing.

        Raises:
            UnknownFormat: the format is not installed.
            StoreError: the format does not build what the manifest describes.
        """
        if architecture not in self._templates:
            described = self.manifest.architectures[architecture]
            header = {
                "domain": described.domain,
                "channels": described.channels,
                "channel_names": list(described.channel_names),
                "architecture": described.options,
            }
            format = get_format(described.format)
            try:
                check_native(header, {name: shape for name, (_, shape) in described.tensors.items()}, format)
                field = build_native(header, format)
            except CannotOpen as error:
                raise StoreError(
                    f'Cannot build the architecture "{architecture}" of {self.path}: {error} '
                    f"Pack the fields again, or install the version of {described.format} that they were written with."
                ) from error
            if any(r is not None for r in described.channel_ranges):
                field.channel_ranges = described.channel_ranges
            self._templates[architecture] = field.requires_grad_(False) if isinstance(field, nn.Module) else field
        return self._templates[architecture]

    def domain_of(self, architecture: str) -> Domain:
        """Return the domain on which an architecture lives; its format need not be installed."""
        try:
            return domain_from_config(self.manifest.architectures[architecture].domain)
        except InrBridgeError as error:
            raise StoreError(f'The domain of "{architecture}" in {self.path} is damaged: {error}') from error

    def field(self, index: int) -> Field:
        """Return one field."""
        return self.stack([range(len(self))[index]])[0]

    def stack(self, indices: Iterable[int]) -> FieldStack:
        """Return fields that share domain and channels as a stack, in this order."""
        groups = [Group(self.template(name), states, positions) for name, states, positions in self.read(indices)]
        return FieldStack(groups)

    def read(self, indices: Iterable[int]) -> list[tuple[str, dict[str, Tensor], tuple[int, ...]]]:
        """Read the states of fields.

        Returns:
            One (architecture id, states (rows, ...), positions) for each architecture that occurs: row i of the states
            belongs to indices[positions[i]].
        """
        wanted: dict[str, dict[int, list[tuple[int, int]]]] = {}  # architecture -> shard -> (row, position)
        for position, index in enumerate(indices):
            item = self.manifest.items[int(index)]
            shards = wanted.setdefault(self.manifest.architecture_of(item), {})
            shards.setdefault(item.shard, []).append((item.row, position))
        result = []
        for architecture, shards in wanted.items():
            parts = []
            for shard, places in shards.items():
                rows = torch.tensor([row for row, _ in places])
                parts.append({name: value.index_select(0, rows) for name, value in self._mapped(shard).items()})
            states = parts[0] if len(parts) == 1 else {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
            positions = tuple(position for places in shards.values() for _, position in places)
            result.append((architecture, self._as_built(architecture, states), positions))
        return result

    def _as_built(self, architecture: str, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """Order the states as the module does and give them its dtypes: a store may hold them in fewer bits."""
        template = self.template(architecture).state_dict()
        return {name: states[name].to(value.dtype) for name, value in template.items()}

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


def shorten(names: Iterable[str], most: int = 5) -> str:
    """Join names, the first few of many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
