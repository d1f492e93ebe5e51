"""Floor 8: figures of outputs that are compared with targets point by point, summed over a whole split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inrbridge.outputs.field import ACTIVATIONS
from inrbridge.training.tasks.base import Batch, shares


class PointClassTally:
    """A confusion matrix for each format: entry [f, t, p] sums the weights of the points of class t taken for class p.

    The intersection over union of a class is taken over all points of the split, not field by field; classes that neither the
    truth nor the prediction has are left out of the mean.
    """

    def __init__(self, names: Sequence[str], formats: Sequence[str]):
        self.names, self.formats = list(names), list(formats)
        size = len(self.names)
        self.counts = torch.zeros(len(self.formats), size, size, dtype=torch.float64)
        self.loss, self.fields = torch.zeros(2, 1, dtype=torch.float64)
        self.sums = [self.counts, self.loss, self.fields]

    def add(self, losses: Tensor, outputs: Tensor, batch: Batch) -> None:
        size, targets = len(self.names), batch.targets
        truth = targets.values if targets.values.ndim == 2 else targets.values.argmax(-1)
        taken = outputs.argmax(-1) if outputs.shape[-1] > 1 else (outputs[..., 0] > 0).long()
        cell = (batch.formats.to(truth.device)[:, None] * size + truth) * size + taken
        weights = targets.weights.double().flatten()
        self.counts += torch.bincount(cell.flatten(), weights, minlength=self.counts.numel()).view_as(self.counts).cpu()
        self.loss += losses.double().sum().cpu()
        self.fields += len(losses)

    def result(self) -> dict:
        total = self.counts.sum(0)
        by_class, mean = _overlaps(total)
        right, every = self.counts.diagonal(dim1=1, dim2=2).sum(-1), self.counts.sum((1, 2))
        present = [i for i in range(len(self.formats)) if every[i] > 0]
        return {
            "miou": mean,
            "accuracy": float(total.diagonal().sum() / total.sum()),
            "loss": float(self.loss / self.fields),
            "fields": int(self.fields),
            "miou_by_format": {self.formats[i]: _overlaps(self.counts[i])[1] for i in present},
            "accuracy_by_format": shares(self.formats, right, every),
            "iou_by_class": {name: float(v) for name, v in zip(self.names, by_class, strict=True) if not v.isnan()},
            "confusion": total.tolist(),
        }


def _overlaps(counts: Tensor) -> tuple[Tensor, float]:
    """Return intersection over union of each class, NaN where it does not occur, and their mean."""
    hits = counts.diagonal()
    found = hits / (counts.sum(0) + counts.sum(1) - hits)
    return found, float(found.nanmean())


class PointErrorTally:
    """Weighted means over the points of squared and absolute errors, their sums over fields, for each format."""

    def __init__(self, formats: Sequence[str], activation: str):
        self.formats, self.activation = list(formats), activation
        # squared errors, absolute errors, losses, fields
        self.totals = torch.zeros(4, len(self.formats), dtype=torch.float64)
        self.sums = [self.totals]

    def add(self, losses: Tensor, outputs: Tensor, batch: Batch) -> None:
        targets = batch.targets
        difference = (ACTIVATIONS[self.activation](outputs) - targets.values).double()
        weights = targets.weights.double()
        weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        squared, absolute = ((v.mean(-1) * weights).sum(1) for v in (difference.square(), difference.abs()))
        found = torch.stack([squared, absolute, losses.double(), torch.ones_like(squared)]).cpu()
        self.totals.index_add_(1, batch.formats.cpu(), found)

    def result(self) -> dict:
        squared, absolute, loss, fields = self.totals
        total = fields.sum()
        return {
            "mse": float(squared.sum() / total),
            "mae": float(absolute.sum() / total),
            "loss": float(loss.sum() / total),
            "fields": int(total),
            "mse_by_format": shares(self.formats, squared, fields),
            "mae_by_format": shares(self.formats, absolute, fields),
        }
