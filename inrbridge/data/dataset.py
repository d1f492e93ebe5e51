"""Floor 7: fields of a store, of whatever formats, as one dataset on one domain with one channel list.

Every architecture is aligned once; a minibatch is a stack with one group for each architecture that occurs in it. Its values
tell nothing of the format they came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from inrbridge.data.alignment import align
from inrbridge.data.channels import PHYSICAL, RANGES, Range, are_matter, canonical_channels, is_unnamed, taken_in_order
from inrbridge.data.describing import shorten
from inrbridge.data.field_set import FieldSet
from inrbridge.data.loose import open_store
from inrbridge.data.placing import Axis, Corners, Directions, positions_of
from inrbridge.data.view import View
from inrbridge.domains import Box, Domain
from inrbridge.errors import CannotAlign, StoreError, did_you_mean
from inrbridge.field import Field
from inrbridge.stacking import FieldStack, Group
from inrbridge.transforms import has_directions


class FieldDataset:
    """Items of a store, or of a folder of field files, aligned.

    Args:
        store: a `Store` or its folder; or a `LooseFolder`, or any folder of field files.
        split: only items of this split.
        formats, exclude_formats: only items of these formats, or of all others.
        domain: where all fields are seen. None: the domain of the store's first architecture, which others reach if all are
            boxes of one dimension; without directions of view where some fields have none, where `directions` says how to
            take them off, and where none of the channels asked for depends on them.
        channels: names of the channels, "rgb" for the colours. None: those that all fields share.
        ranges: range of values by channel name. None: colours in [0, 1], else what the first architecture that knows says;
            density and signed distance keep their units.
        crop, axes, at: by format name ("*" for all others), or alone for all formats: the corners of the part that is seen,
            which coordinates are kept, in the order of the dataset's, and where the others are held, as in `align`.
        directions, length, ramp: how directions of view are taken off, and how occupancy is made, as in `align`.
        class_names: the classes in the order of their numbers. None: the store's own, over all splits.

    Raises:
        StoreError: the store is damaged, or has no such split or format.
        CannotAlign: the items do not fit one domain and channel list; the text says what to pass.
    """

    def __init__(
        self,
        store: FieldSet | str | Path,
        split: str | None = None,
        formats: Sequence[str] | None = None,
        exclude_formats: Sequence[str] | None = None,
        domain: Domain | None = None,
        channels: str | Sequence[str] | None = None,
        *,
        ranges: Mapping[str, Range] | None = None,
        crop: Mapping[str, Corners] | Corners | None = None,
        axes: Mapping[str, Sequence[Axis]] | Sequence[Axis] | None = None,
        at: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
        directions: Directions | None = None,
        length: float | None = None,
        ramp: float = 0.0,
        class_names: Sequence[str] | None = None,
    ):
        self.store = store if isinstance(store, FieldSet) else open_store(store)
        manifest = self.store.manifest
        self.view = View(ranges, crop, axes, at, directions, length, ramp)
        self.indices = self._select(split, formats, exclude_formats)
        if not self.indices:
            raise StoreError(
                f"Got no field of {self.store} with split={split!r}, formats={formats!r}, exclude_formats={exclude_formats!r}, "
                "expected at least one; choose another split or other formats, or add fields with fit or pack."
            )
        self.items = [self.store.items[i] for i in self.indices]
        self.formats = [manifest.format_of(item) for item in self.items]
        used = list(dict.fromkeys(manifest.architecture_of(item) for item in self.items))
        # What is not told follows from the whole store where that is possible, so that its splits agree.
        everything = list(dict.fromkeys(manifest.architecture_of(item) for item in self.store.items))
        self._wanted = channels if channels is None else canonical_channels(channels)
        self._takes_off_directions = directions is not None or (self._wanted is not None and are_matter(self._wanted))
        self.domain: Domain = domain or self._common(self._shared_domain, everything, used)
        self.channels: tuple[str, ...] = self._wanted or self._common(self._shared_channels, everything, used)
        self.ranges: dict[str, Range] = dict(ranges) if ranges is not None else self._shared_ranges(everything)
        self.view = replace(self.view, ranges=self.ranges)
        self.class_names: list[str] = list(map(str, class_names)) if class_names is not None else self._class_names()
        self._templates: dict[str, Field] = {}
        for architecture in used:
            self._template(architecture)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"FieldDataset({len(self)} fields, {self.domain}, channels={self.channels}, formats={sorted(set(self.formats))})"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_templates": {}}  # a worker builds for itself

    @property
    def names(self) -> list[str]:
        """The name of each field."""
        return [item.name for item in self.items]

    @cached_property
    def labels(self) -> Tensor:
        """Class numbers (len,), or real targets (len,) or (len, k).

        Raises:
            StoreError: some items have no label, or one that is no class.
        """
        missing = [item.name for item in self.items if item.label is None]
        if missing:
            raise StoreError(
                f"Got {len(missing)} of {len(self)} items without a label: {shorten(missing)}; expected one each. Pack or fit "
                "them again with labels, choose a split that has them, or use dataset.stack(indices), which needs none."
            )
        if self._has_targets:
            try:
                return torch.tensor([item.label for item in self.items], dtype=torch.get_default_dtype())
            except (ValueError, TypeError) as error:
                raise StoreError("Got labels of several kinds, expected classes only, or equally many numbers each.") from error
        number = {name: i for i, name in enumerate(self.class_names)}
        strange = sorted({str(item.label) for item in self.items} - set(number))
        if strange:
            raise StoreError(
                f"Got items of the classes {shorten(strange)}, expected some of {shorten(self.class_names)}; "
                "pass all of them as class_names, or leave these items out."
            )
        return torch.tensor([number[str(item.label)] for item in self.items], dtype=torch.long)

    def field(self, index: int) -> Field:
        """Return one field, aligned."""
        return self.stack([index])[0]

    def stack(self, indices: Iterable[int] | Tensor) -> FieldStack:
        """Return these fields as a stack, in this order, aligned and frozen."""
        rows = [self.indices[i] for i in _integers(indices)]
        if not rows:
            raise StoreError("Got no indices, expected at least one field of the dataset.")
        groups = [Group(self._template(name), states, positions) for name, states, positions in self.store.read(rows)]
        return FieldStack(groups)

    def batch(self, indices: Iterable[int] | Tensor) -> tuple[FieldStack, Tensor]:
        """Return these fields as a stack, and their labels (b,) or (b, k)."""
        indices = _integers(indices)
        return self.stack(indices), self.labels[torch.tensor(indices, dtype=torch.long)]

    def _select(self, split, formats, exclude_formats) -> list[int]:
        manifest = self.store.manifest
        for name in (*(formats or ()), *(exclude_formats or ())):
            if name not in self.store.format_names:
                raise StoreError(
                    f'Got the format "{name}", but {self.store.path} holds {", ".join(self.store.format_names) or "nothing"}.'
                    f"{did_you_mean(name, self.store.format_names)}"
                )
        splits = {item.split for item in manifest.items}
        if split is not None and split not in splits:
            known = ", ".join(sorted(s for s in splits if s is not None)) or "none at all"
            raise StoreError(
                f'Got the split "{split}", but the splits of {self.store.path} are: {known}; expected one of them, '
                'or an empty one ("", in Python None) for all items.'
            )
        wanted = set(formats if formats is not None else self.store.format_names) - set(exclude_formats or ())
        return [
            index
            for index, item in enumerate(manifest.items)
            if (split is None or item.split == split) and manifest.format_of(item) in wanted
        ]

    def _common(self, shared, everything: list[str], used: list[str]):
        try:
            return shared(everything)
        except CannotAlign:
            if set(used) == set(everything):
                raise
            return shared(used)

    def _shared_domain(self, architectures: list[str]) -> Domain:
        domains = list(dict.fromkeys(self._cut_domain(name) for name in architectures))
        if self._takes_off_directions or not all(has_directions(domain) for domain in domains):
            domains = list(dict.fromkeys(positions_of(domain) for domain in domains))
        elif all(isinstance(domain.a, Box) and (domain.a.dim, domain.b) == (3, domains[0].b) for domain in domains):
            return domains[0]
        boxes = all(isinstance(domain, Box) and domain.dim == domains[0].dim for domain in domains)
        if len(domains) > 1 and not boxes:
            found = shorten(f"{name} on {self._cut_domain(name)}" for name in architectures)
            raise CannotAlign(
                f"Got fields on several domains: {found}; expected one domain, or boxes of one dimension. Pass domain=..., "
                "choose planar slices with axes={format: (0, 1)}, or leave formats out with exclude_formats=[...]."
            )
        return domains[0]

    def _cut_domain(self, architecture: str) -> Domain:
        cut = self.view.cut(self.store.manifest.architectures[architecture].format)
        if all(value is None for value in cut.values()):
            return self.store.domain_of(architecture)
        return align(self.store.template(architecture), channels=self._wanted, **cut, directions=self.view.directions).domain

    def _shared_channels(self, architectures: list[str]) -> tuple[str, ...]:
        lists = [self.store.manifest.architectures[name].channel_names for name in architectures]
        named = list(dict.fromkeys(canonical_channels(names) for names in lists if not is_unnamed(names)))
        if len({len(names) for names in lists}) == 1 and len(named) <= 1:
            return named[0] if named else tuple(lists[0])
        shared = tuple(c for c in named[0] if all(c in names for names in named)) if named else ()
        if not shared or not all(len(names) == len(shared) for names in lists if is_unnamed(names)):
            found = shorten(f"{name}: {', '.join(names)}" for name, names in zip(architectures, lists, strict=True))
            raise CannotAlign(
                f"Got fields with different channels ({found}), expected some that all have; pass channels=..., such as "
                '("gray",) or "rgb", which are made of each other, or ("occupancy",), which is made of sdf or density, '
                "or leave formats out with exclude_formats=[...]."
            )
        return shared

    def _shared_ranges(self, architectures: list[str]) -> dict[str, Range]:
        found: dict[str, Range] = {}
        for name in architectures:
            described = self.store.manifest.architectures[name]
            channels = canonical_channels(described.channel_names)
            channels = self.channels if taken_in_order(channels, self.channels) else channels
            for channel, known in zip(channels, described.channel_ranges, strict=True):
                if known is not None and channel not in PHYSICAL:
                    found.setdefault(channel, RANGES.get(channel, known))
        return found

    def _template(self, architecture: str) -> Field:
        if architecture not in self._templates:
            format = self.store.manifest.architectures[architecture].format
            template = self.store.template(architecture)
            self._templates[architecture] = align(template, self.domain, self.channels, **self.view.of(format))
        return self._templates[architecture]

    @property
    def _has_targets(self) -> bool:
        return any(isinstance(item.label, float | list) for item in self.items)

    def _class_names(self) -> list[str]:
        if self.store.manifest.class_names is not None:
            return list(self.store.manifest.class_names)
        labels = {item.label for item in self.store.items if isinstance(item.label, str | int)}
        # numbers in their order, before words in theirs
        return list(dict.fromkeys(str(v) for v in sorted(labels, key=lambda v: (isinstance(v, str), v))))


def _integers(indices: Iterable[int] | Tensor) -> list[int]:
    return indices.tolist() if isinstance(indices, Tensor) else [int(i) for i in indices]
