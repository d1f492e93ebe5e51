"""Floor 8: the task of telling classes apart (Wang & Golland 2023, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from inrbridge.errors import StoreError
from inrbridge.training.tasks.base import Task, shares


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
        highest = int(labels.max()) if labels.numel() else -1
        if dataset.class_names and highest >= len(dataset.class_names):
            raise StoreError(
                f"Got the label {highest} for {len(dataset.class_names)} classes, expected 0 to {len(dataset.class_names) - 1}; "
                "name every class, or correct the labels."
            )
        return len(dataset.class_names) or highest + 1

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
            "accuracy_by_format": shares(self.formats, hits, by_format),
            "confusion": self.counts.sum(0).long().tolist(),
        }
