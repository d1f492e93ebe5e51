"""Floor 8: the task of predicting a field for a field (Wang & Golland 2023, Algorithm 2): labels at points, or target fields."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.data.targets import Targets
from inrbridge.errors import ConfigError, StoreError
from inrbridge.training.tasks.base import Batch, Origin, Task
from inrbridge.training.tasks.tallies import PointClassTally, PointErrorTally

ACTIVATIONS = {"cross_entropy": "softmax", "bce": "sigmoid", "mse": "identity", "l1": "identity"}


class Dense(Task):
    """The output at the points of the targets, compared with these; the loss of a field is a weighted mean over the points.

    For target fields the weights are those of a quadrature, and the loss an integral over the domain; for labelled points it
    is the mean over those that are scored.

    Args:
        targets: of the items of the dataset, by name.
        loss: "cross_entropy" (classes, or shares of them), "bce" (of each channel by itself), "mse" or "l1" (means over the
            channels); "": "cross_entropy" for classes, "mse" for numbers.
        n: points of the targets of each field in a training step; 0: all.
        class_weights: of the classes in the loss; (): equal.
    """

    name = "dense"
    kind = "dense"
    has_labels = False

    def __init__(self, targets: Targets, loss: str = "", n: int = 0, class_weights: Sequence[float] = (),
                 label_smoothing: float = 0.0):  # fmt: skip
        self.targets, self.n, self.label_smoothing = targets, n, label_smoothing
        self.loss = loss or ("cross_entropy" if targets.are_classes else "mse")
        if self.loss in ("mse", "l1") and targets.are_classes:
            raise ConfigError(
                f'Got the loss "{self.loss}" for targets that are classes, expected "cross_entropy" or "bce"; set targets.loss.'
            )
        if self.loss == "cross_entropy" and len(targets.names) < 2:
            raise ConfigError(f"Got {len(targets.names)} class, expected at least two for cross entropy; see targets.source.")
        self.weights = torch.tensor(class_weights, dtype=torch.float32) if len(class_weights) else None
        if self.weights is not None and (len(class_weights) != len(targets.names) or min(class_weights) < 0):
            raise ConfigError(
                f"Got {len(class_weights)} class weights for the classes {', '.join(targets.names)}, expected one of 0 or more "
                "for each; set targets.class_weights."
            )

    @property
    def activation(self) -> str:
        """What turns the numbers of the net into values of the output."""
        return ACTIVATIONS[self.loss]

    @property
    def tells_classes(self) -> bool:
        """Whether the output is judged by classes."""
        return self.targets.are_classes or self.loss == "cross_entropy"

    @property
    def is_single(self) -> bool:
        """Whether one number tells two classes apart."""
        return self.loss == "bce" and self.targets.are_classes and len(self.targets.names) == 2

    def outputs(self, dataset) -> int:
        self.targets.check(dataset.names, dataset.domain)
        return len(self.output_names(dataset))

    def output_names(self, dataset) -> list[str]:
        return [self.targets.names[1]] if self.is_single else list(self.targets.names)

    def complete(self, batch: Batch, origin: Origin) -> Batch:
        names = [origin.dataset.names[i] for i in origin.indices]
        found = self.targets.at(names, batch.sampled.discretization, self.n, origin.chances, origin.seen)
        seen = None
        if getattr(origin.model, "skip", False):
            is_sampled = found.coords is batch.sampled.discretization.points
            seen = batch.sampled.values if is_sampled else origin.read(found.coords)
        return batch.with_targets(found, seen)

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        targets = batch.targets
        outputs = model(batch.sampled, at=targets.coords, seen=batch.seen)  # (b, m, k)
        self._check_width(outputs, targets.values)
        weights = targets.weights.to(outputs.dtype)
        errors, scales = self._errors(outputs, targets.values, model.training)
        weights = weights if scales is None else weights * scales
        return (errors * weights).sum(1) / weights.sum(1).clamp(min=torch.finfo(weights.dtype).tiny), outputs

    def _errors(self, outputs: Tensor, values: Tensor, is_training: bool) -> tuple[Tensor, Tensor | None]:
        """Return the error (b, m) at each point, and its further weight."""
        b, m, k = outputs.shape
        classes = None if self.weights is None else self.weights.to(outputs)
        if self.loss == "cross_entropy":
            truth = values.flatten() if values.ndim == 2 else values.to(outputs).flatten(0, 1)
            smoothing = self.label_smoothing if is_training else 0.0
            errors = nn.functional.cross_entropy(outputs.flatten(0, 1), truth, reduction="none", label_smoothing=smoothing)
            scales = None
            if classes is not None:
                scales = classes[values] if values.ndim == 2 else values.to(outputs) @ classes
            return errors.view(b, m), scales
        if self.loss == "bce":
            truth = self._one_hot(values, k).to(outputs)
            errors = nn.functional.binary_cross_entropy_with_logits(outputs, truth, reduction="none")
            if classes is not None and self.is_single:
                return errors[..., 0], classes[values]
            return (errors if classes is None else errors * classes * (k / classes.sum())).mean(-1), None
        difference = outputs - values.to(outputs)
        return (difference.square() if self.loss == "mse" else difference.abs()).mean(-1), None

    def _one_hot(self, values: Tensor, k: int) -> Tensor:
        if values.ndim == 3:
            return values
        return values[..., None] if k == 1 else nn.functional.one_hot(values, k)

    def _check_width(self, outputs: Tensor, values: Tensor) -> None:
        if values.ndim == 3 and values.shape[-1] != outputs.shape[-1]:
            raise ConfigError(
                f"Got {outputs.shape[-1]} outputs and targets of {values.shape[-1]} channels, expected as many; build the net "
                f"with classes = {values.shape[-1]}."
            )

    def tally(self, outputs, formats):
        if self.tells_classes:
            return PointClassTally(self.targets.names, formats)
        return PointErrorTally(formats, self.activation)

    def answers(self, outputs, class_names):
        raise StoreError("Got outputs that are fields, expected numbers; the task of dense prediction gives files.")
