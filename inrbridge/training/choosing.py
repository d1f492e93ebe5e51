"""Floor 8: some of the fields of stores and files, seen as a model sees them: what it is calibrated on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from inrbridge.data import FieldDataset, Store
from inrbridge.data.opening import entries_of
from inrbridge.errors import ConfigError
from inrbridge.field import Field
from inrbridge.training.model_folder import Card
from inrbridge.training.predicting import prepared


def some_fields(sources: Iterable[str | Path], card: Card, count: int, *, split: str | None = None, seed: int = 0) -> list[Field]:
    """Return up to `count` fields, chosen by the seed, on the domain and with the channels of a model.

    Args:
        sources: stores, field files, images, or folders of them.
        split: of the stores; None: all.
    """
    entries = []
    for source in sources:
        if (Path(source) / "manifest.json").is_file():
            dataset = FieldDataset(Store(source), split=split, domain=card.domain, channels=card.channels, **card.view)
            entries += [(dataset, i) for i in range(len(dataset))]
        else:
            entries += [(entry, None) for entry in entries_of(source, signals=True)]
    if not entries:
        raise ConfigError("Got no sources of fields, expected stores, files or folders of them.")
    chosen = torch.randperm(len(entries), generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()
    return [prepared(origin, card) if i is None else origin.field(i) for origin, i in (entries[place] for place in chosen)]
