"""Floor 8: apply a trained model to fields or to files of any format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
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
from inrbridge.training.predicting_fields import predict_fields
from inrbridge.training.settling import settled
from inrbridge.training.tasks import get_task


def predict(model: nn.Module | str | Path, fields: Field | str | Path | Iterable, *, format: str | None = None,
            sampler: str | None = None, n: int | None = None, seed: int | None = None, batch_size: int = 64,
            device: str | None = None, keep_going: bool = False, out: str | Path | None = None,
            tol: float | None = None, max_n: int | None = None) -> list[dict]:  # fmt: skip
    """Apply a model that `load_model` or `train` gave, or its folder.

    Args:
        fields: fields, paths, or a mixture; each is brought to the model's domain and channels. A folder stands for the
            field files in it, a file of several fields for each of them, an image or sound for the grid of its samples.
        format: of the files; None asks the installed formats.
        sampler, n, seed, device: as in `evaluate`.
        keep_going: give {"path", "error"} for what cannot be opened or aligned, instead of raising.
        out: folder for the outputs of a dense net, a file named as its input for each (format "output"); None: they are given.
        tol: double the points of each field until the outputs (of a classifier: logits) move less than this, up to `max_n`
            points, 16 n if absent, as `settled` does; each answer then has points, moved (how far, at the last look), settled.

    Returns:
        One dict per field, in order: path (None for a field in memory; FILE/0, FILE/1, ... of several), and label and
        probabilities {class: share}, or, for a regression, value; for a dense net field, or output (its file), and shares of the
        domain {class: share} or means {channel: value}.
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
    if max_n is not None and tol is None:
        raise ConfigError("Got max_n without tol, expected both; pass tol, such as 0.1, or n for a fixed number of points.")
    if card.task == "dense":
        if tol is not None:
            raise ConfigError("Got tol for a net whose outputs are fields, expected one that gives numbers; leave tol out.")
        was_training = model.training
        model.to(place).eval()
        answers = predict_fields(model, card, items, discretization, points, out, keep_going)
        model.train(was_training)
        return answers
    answers: list[dict] = [{"path": str(item) if isinstance(item, Entry) else None} for item in items]
    task = get_task(card.task)
    was_training = model.training
    model.to(place).eval()
    for start in range(0, len(items), batch_size):
        ready: list[tuple[int, Field]] = []
        for i in range(start, min(start + batch_size, len(items))):
            try:
                ready.append((i, prepared(items[i], card)))
            except InrBridgeError as error:
                if not keep_going:
                    raise
                path = answers[i]["path"]
                answers[i]["error"] = str(error) if path is None or path in str(error) else f"{path}: {error}"
        if ready:
            chosen, facts = [field for _, field in ready], [{}] * len(ready)
            if tol is None:
                with torch.no_grad():
                    outputs = task.predict(model, Sampled(discretization, stack(chosen).to(place)(discretization.points)))
            else:
                found = settled(partial(task.predict, model), chosen, tol=tol, max_n=max_n, device=place, **points)
                outputs, facts = found.outputs, found.facts()
            for (i, _), answer, fact in zip(ready, task.answers(outputs.cpu(), card.class_names), facts, strict=True):
                answers[i].update(answer | fact)
    model.train(was_training)
    return answers


def _opened_or_not(fields: Iterable, format: str | None) -> Iterator[Field | Entry]:
    for item in fields:
        if isinstance(item, str | Path):
            yield from entries_of(item, format, signals=True)
        else:
            yield item


def prepared(item: Field | Entry, card: Card) -> Field:
    """Open a file and align the field as the fields of the model's training set were."""
    field = item.open() if isinstance(item, Entry) else item
    view = View.from_json(card.view).of(getattr(field, "format", None))
    return align(field, card.domain, card.channels, **view)
