"""Floor 8: the task of predicting real numbers (Wang & Golland 2023, Algorithm 1 with another loss)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inrbridge.errors import ShapeMismatch
from inrbridge.training.tasks.base import Task, shares


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
            "mse_by_format": shares(self.formats, self.errors, self.counts),
        }
