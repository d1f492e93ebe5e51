"""Floor 8: apply a trained model to fields or to files of any format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from inrbridge.data import align
from inrbridge.data.opening import Entry, entries_of
from inrbridge.data.view import View
from inrbridge.errors import ConfigError, InrBridgeError
from inrbridge.field import Field
from inrbridge.nn.sampled import Sampled
from inrbridge.sampling.fixed import fixed_points
from inrbridge.stacking import FieldStack, stack
from inrbridge.training.distributed import choose_device
from inrbridge.training.evaluating import DEFAULT_POINTS, check_batch_size, net_on, without_none
from inrbridge.training.model_folder import Card
from inrbridge.training.tasks import get_task


def predict(model: nn.Module | str | Path, fields: Field | str | Path | Iterable, *, format: str | None = None,
            sampler: str | None = None, n: int | None = None, seed: int | None = None, batch_size: int = 64,
            device: str | None = None, keep_going: bool = False) -> list[dict]:  # fmt: skip
    """Apply a model that `load_model` or `train` gave, or its folder.

    Args:
        fields: fields, paths, or a mixture; each is brought to the model's domain and channels. A folder stands for the
            field files in it, a file of several fields for each of them.
        format: of the files; None asks the installed formats.
        sampler, n, seed, device: as in `evaluate`.
        keep_going: give {"path", "error"} for what cannot be opened or aligned, instead of raising.

    Returns:
        One dict per field, in order: path (None for a field in memory; FILE/0, FILE/1, ... of several), and label and
        probabilities {class: share}, or, for a regression, value.
    """
    check_batch_size(batch_size)
    model, device = net_on(model, device)
    card: Card | None = getattr(model, "card", None)
    if card is None:
        raise ConfigError(
            "Got a net without a card, expected the folder of a trained model, or what load_model(folder) gives; "
            "a net of your own is called directly: net(fields, discretization)."
        )
    is_one = isinstance(fields, str | Path) or (callable(fields) and not isinstance(fields, FieldStack))
    items = list(_opened_or_not([fields] if is_one else fields, format))
    place = choose_device(device)
    points = {**DEFAULT_POINTS, **card.points, **without_none(sampler=sampler, n=n, seed=seed)}
    discretization = fixed_points(card.domain, **points, device=place)
    answers: list[dict] = [{"path": str(item) if isinstance(item, Entry) else None} for item in items]
    task = get_task(card.task)
    was_training = model.training
    model.to(place).eval()
    for start in range(0, len(items), batch_size):
        ready: list[tuple[int, Field]] = []
        for i in range(start, min(start + batch_size, len(items))):
            try:
                ready.append((i, _prepared(items[i], card)))
            except InrBridgeError as error:
                if not keep_going:
                    raise
                path = answers[i]["path"]
                answers[i]["error"] = str(error) if path is None or path in str(error) else f"{path}: {error}"
        if ready:
            with torch.no_grad():
                values = stack([field for _, field in ready]).to(place)(discretization.points)
                outputs = task.predict(model, Sampled(discretization, values)).cpu()
            for (i, _), answer in zip(ready, task.answers(outputs, card.class_names), strict=True):
                answers[i].update(answer)
    model.train(was_training)
    return answers


def _opened_or_not(fields: Iterable, format: str | None) -> Iterator[Field | Entry]:
    for item in fields:
        if isinstance(item, str | Path):
            yield from entries_of(item, format)
        else:
            yield item


def _prepared(item: Field | Entry, card: Card) -> Field:
    """Open a file and align the field as the fields of the training set were."""
    field = item.open() if isinstance(item, Entry) else item
    view = View.from_json(card.view).of(getattr(field, "format", None))
    return align(field, card.domain, card.channels, **view)
