"""Floor 8: what is learned: the loss of a minibatch and the figures that sum up an evaluation.

A task gives one loss per item, not their mean, so that unequal shares of processes and a last, shorter minibatch weigh
every field the same. It receives the net and the whole minibatch: a task whose targets are themselves fields reads them
at the points of `batch.sampled`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from inrbridge.errors import ShapeMismatch, StoreError, unknown_name
from inrbridge.nn.sampled import Sampled


@dataclass(frozen=True, eq=False)
class Batch:
    """A minibatch: b fields seen on one discretization, their labels, and the number of each one's format."""

    sampled: Sampled  # values (b, n, c)
    labels: Tensor  # (b, ...)
    formats: Tensor | None = None  # (b,) integers; None where nobody asks


class Tally(Protocol):
    """Sums over an evaluation, as float64 tensors that may be added up over processes."""

    sums: list[Tensor]

    def add(self, losses: Tensor, outputs: Tensor, batch: Batch) -> None: ...

    def result(self) -> dict: ...


class Task(ABC):
    """What a net is trained for."""

    name: str

    @abstractmethod
    def outputs(self, dataset) -> int:
        """Return how many numbers the net must give for each field of this dataset."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Apply the net to a minibatch; return the losses (b,) and its outputs."""

    @abstractmethod
    def tally(self, outputs: int, formats: Sequence[str]) -> Tally:
        """Return an empty tally for fields of these formats."""

    @abstractmethod
    def answers(self, outputs: Tensor, class_names: Sequence[str]) -> list[dict]:
        """Turn outputs (b, k) into one plain answer per field."""


class Classification(Task):
    """Cross entropy and accuracy; labels (b,) are class numbers, -1 meaning none."""

    name = "classification"

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing

    def outputs(self, dataset) -> int:
        labels = torch.as_tensor(dataset.labels)
        missing = int((labels < 0).sum()) if labels.numel() else 0
        if labels.is_floating_point() or missing:
            found, remedy = f"{missing} of {len(labels)} items without a label", "or choose a split that has them."
            if labels.is_floating_point():
                found, remedy = "real numbers as labels", 'or set task = "regression".'
            raise StoreError(
                f"Got {found}, expected a class for every item: give labels to `inrbridge fit` or `inrbridge pack`, {remedy}"
            )
        return len(dataset.class_names) or int(labels.max()) + 1

    def losses(self, model, batch):
        logits = model(batch.sampled)  # (b, classes)
        smoothing = self.label_smoothing if model.training else 0.0
        return nn.functional.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=smoothing), logits

    def tally(self, outputs, formats):
        return ClassTally(outputs, formats)

    def answers(self, outputs, class_names):
        rows = outputs.double().softmax(-1).tolist()
        return [
            {
                "label": class_names[max(range(len(row)), key=row.__getitem__)],
                "probabilities": dict(zip(class_names, row, strict=True)),
            }
            for row in rows
        ]


class ClassTally:
    """A confusion matrix for each format: entry [f, t, p] counts fields of format f and class t taken for class p."""

    def __init__(self, classes: int, formats: Sequence[str]):
        self.formats = list(formats)
        self.counts = torch.zeros(len(self.formats), classes, classes, dtype=torch.float64)
        self.loss = torch.zeros(1, dtype=torch.float64)
        self.sums = [self.counts, self.loss]

    def add(self, losses, outputs, batch):
        _, classes, _ = self.counts.shape
        cell = (batch.formats.cpu() * classes + batch.labels.cpu()) * classes + outputs.argmax(-1).cpu()
        self.counts += torch.bincount(cell, minlength=self.counts.numel()).view_as(self.counts)
        self.loss += losses.double().sum().cpu()

    def result(self):
        fields = self.counts.sum()
        hits = self.counts.diagonal(dim1=1, dim2=2).sum(-1)  # (formats,)
        by_format = self.counts.sum((1, 2))
        return {
            "accuracy": float(hits.sum() / fields),
            "loss": float(self.loss / fields),
            "fields": int(fields),
            "accuracy_by_format": _shares(self.formats, hits, by_format),
            "confusion": self.counts.sum(0).long().tolist(),
        }


class Regression(Task):
    """Mean squared error; labels (b,) or (b, k) are real numbers."""

    name = "regression"

    def outputs(self, dataset) -> int:
        labels = torch.as_tensor(dataset.labels)
        return 1 if labels.ndim == 1 else labels.shape[1]

    def losses(self, model, batch):
        outputs = model(batch.sampled)  # (b, k)
        targets = batch.labels.to(outputs).reshape(len(batch.labels), -1)
        if targets.shape != outputs.shape:
            raise ShapeMismatch(
                f"Got {outputs.shape[1]} outputs a field and {targets.shape[1]} target numbers, expected as many; build "
                f"the net with classes = {targets.shape[1]}."
            )
        return (outputs - targets).square().mean(-1), outputs

    def tally(self, outputs, formats):
        return ErrorTally(formats)

    def answers(self, outputs, class_names):
        return [{"value": row[0] if len(row) == 1 else row} for row in outputs.tolist()]


class ErrorTally:
    """Sums of squared errors and counts for each format."""

    def __init__(self, formats: Sequence[str]):
        self.formats = list(formats)
        self.errors = torch.zeros(len(self.formats), dtype=torch.float64)
        self.counts = torch.zeros(len(self.formats), dtype=torch.float64)
        self.sums = [self.errors, self.counts]

    def add(self, losses, outputs, batch):
        self.errors.index_add_(0, batch.formats.cpu(), losses.double().cpu())
        self.counts += torch.bincount(batch.formats.cpu(), minlength=len(self.formats))

    def result(self):
        mean = float(self.errors.sum() / self.counts.sum())
        return {
            "mse": mean,
            "loss": mean,
            "fields": int(self.counts.sum()),
            "mse_by_format": _shares(self.formats, self.errors, self.counts),
        }


def _shares(formats: Sequence[str], sums: Tensor, counts: Tensor) -> Mapping[str, float]:
    return {name: float(s / n) for name, s, n in zip(formats, sums, counts, strict=True) if n > 0}


def get_task(name: str, label_smoothing: float = 0.0) -> Task:
    """Return the task of a name: "classification" or "regression"."""
    tasks = {"classification": lambda: Classification(label_smoothing), "regression": Regression}
    if name not in tasks:
        raise unknown_name("task", name, tasks)
    return tasks[name]()
