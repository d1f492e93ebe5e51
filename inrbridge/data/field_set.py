"""Floor 7: fields listed in a manifest, of which any can be read; whether they lie packed or loose makes no difference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from inrbridge.data.manifest import Item, Manifest
from inrbridge.domains import Domain, domain_from_config
from inrbridge.errors import CannotOpen, InrBridgeError, StoreError
from inrbridge.field import Field
from inrbridge.native import build_native, check_native
from inrbridge.plugins import get_format
from inrbridge.stacking import FieldStack, Group


class FieldSet(ABC):
    """Fields of any formats, grouped by architecture, read only.

    Args:
        path: the folder they lie in.
        manifest: what is known of each.
    """

    def __init__(self, path: Path, manifest: Manifest):
        self.path, self.manifest = path, manifest
        self._templates: dict[str, Field] = {}

    @abstractmethod
    def rows(self, shard: int, rows: list[int]) -> dict[str, Tensor]:
        """Return the states (len(rows), ...) of these rows of a shard, each with the names and shapes of its architecture."""

    def __len__(self) -> int:
        return len(self.manifest.items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} fields, formats {', '.join(self.format_names) or 'none'})"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_templates": {}}  # a worker builds for itself

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
                parts.append(self.rows(shard, [row for row, _ in places]))
            states = parts[0] if len(parts) == 1 else {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
            positions = tuple(position for places in shards.values() for _, position in places)
            result.append((architecture, self._as_built(architecture, states), positions))
        return result

    def _as_built(self, architecture: str, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """Order the states as the module does and give them its dtypes: a store may hold them in fewer bits."""
        template = self.template(architecture).state_dict()
        return {name: states[name].to(value.dtype) for name, value in template.items()}
