"""Floor 8: apply a trained dense net: the outputs as fields of their own, in memory or in files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from inrbridge.data.opening import Entry
from inrbridge.data.view import View
from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, InrBridgeError
from inrbridge.field import Field
from inrbridge.formats import Probe
from inrbridge.io import save_field
from inrbridge.outputs import ModelField
from inrbridge.training.model_folder import Card


def output_of(model: nn.Module, card: Card, field: Field, points: dict) -> ModelField:
    """Return the output of a dense net for one field, which is seen as those of the training set were."""
    view = {"channels": list(card.channels), **View.from_json(card.view).of(getattr(field, "format", None))}
    return ModelField(model, field, points=points, view=view, activation=card.activation or "identity",
                      channel_names=card.class_names)  # fmt: skip


def predict_fields(model: nn.Module, card: Card, items: Iterable[Field | Entry], discretization: Discretization, points: dict,
                   out: str | Path | None, keep_going: bool) -> list[dict]:  # fmt: skip
    """Apply a dense net; see `predict`.

    Returns:
        One dict per field: path; "output", the file written, or "field"; and what the output is on the whole: "shares", of the
        domain that each class has, or "means", of each channel.
    """
    items = list(items)
    answers, taken = [], {item.path.resolve() for item in items if isinstance(item, Entry)}
    for item in items:
        answer: dict = {"path": str(item) if isinstance(item, Entry) else None}
        answers.append(answer)
        try:
            field = output_of(model, card, item.open() if isinstance(item, Entry) else item, points)
            answer.update(summary(field, discretization))
            if out is None:
                answer["field"] = field
            else:
                target = _free(Path(out), answer["path"], taken)
                save_field(field.cpu(), target)
                answer["output"] = str(target)
        except InrBridgeError as error:
            if not keep_going:
                raise
            told = str(error)
            answer["error"] = told if answer["path"] is None or answer["path"] in told else f"{answer['path']}: {told}"
    return answers


@torch.no_grad()
def summary(field: ModelField, discretization: Discretization) -> dict:
    """Return the share of the domain that each class has, or the mean of each channel: integrals."""
    values = field(discretization.points).double()
    weights = discretization.weights.double() / discretization.weights.double().sum()
    if field.are_classes:
        taken = nn.functional.one_hot(values.argmax(-1), field.channels).double()
        return {"shares": dict(zip(field.channel_names, (weights @ taken).tolist(), strict=True))}
    return {"means": dict(zip(field.channel_names, (weights @ values).tolist(), strict=True))}


def _free(folder: Path, path: str | None, taken: set[Path]) -> Path:
    """Return a name in the folder for the output of a file: that of the file; for FILE/3 FILE-3; of equal ones with a number.

    Only outputs of before are replaced: no input, and no file of another kind.
    """
    if not folder.is_dir():
        raise ConfigError(f"Got the folder {folder} for outputs, which is not there, expected one; make it first.")
    whole = Path(path or "field")
    stem = f"{whole.parent.stem}-{whole.name}" if whole.name.isdigit() and whole.parent.is_file() else whole.stem
    number, target = 1, folder / f"{stem}.safetensors"
    while target.resolve() in taken or (target.exists() and Probe(target).native.get("format") != ModelField.format):
        number += 1
        target = folder / f"{stem}-{number}.safetensors"
    taken.add(target.resolve())
    return target
