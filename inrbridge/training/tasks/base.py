"""Floor 8: what a task is: the loss of a minibatch and the figures that sum up an evaluation.

A task gives one loss per item, not their mean, so that unequal shares of processes and a last, shorter minibatch weigh
every field the same. It receives the net and the whole minibatch: a task whose targets are themselves fields reads them
at the points of `batch.sampled`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Generator, Tensor, nn

from inrbridge.data.targets import PointTargets, Seen
from inrbridge.errors import ConfigError
from inrbridge.nn.sampled import Sampled


@dataclass(frozen=True, eq=False)
class Batch:
    """A minibatch: b fields seen on one discretization, their labels, and the number of each one's format."""

    sampled: Sampled  # values (b, n, c)
    labels: Tensor | None  # (b, ...); None where the task asks for none
    formats: Tensor | None = None  # (b,) integers; None where nobody asks
    noise: Callable[[int], Tensor] | None = None  # width -> new normal numbers (b, width), which follow from seed and step
    targets: PointTargets | None = None  # of a dense task
    seen: Tensor | None = None  # values (b, m, c) of the fields at the points of the targets, for nets with a skip

    def with_targets(self, targets: PointTargets, seen: Tensor | None) -> Batch:
        """Return the same minibatch with targets."""
        return replace(self, targets=targets, seen=seen)


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a minibatch comes from, for a task that needs more of it: the net, and items of a dataset by number.

    read: coords (m, d) or (b, m, d) -> values (b, m, c) of the fields, as the net sees them. seen: how it sees them; None: as
    they are. chances: (what for) -> a generator that follows from seed and step; None in an evaluation, where nothing is drawn.
    """

    model: nn.Module
    dataset: object
    indices: list[int]
    read: Callable[[Tensor], Tensor]
    seen: Seen | None = None
    chances: Callable[..., Generator] | None = None


class Tally(Protocol):
    """Sums over an evaluation, as float64 tensors that may be added up over processes."""

    sums: list[Tensor]

    def add(self, losses: Tensor, outputs: Tensor, batch: Batch) -> None: ...

    def result(self) -> dict: ...


class Task(ABC):
    """What a net is trained for."""

    name: str
    kind = "classification"  # of the nets that can be trained for it, `INRNet.kind`
    has_labels = True  # whether it asks for the labels of the fields

    def check(self, architecture: type[nn.Module]) -> None:
        """Raise ConfigError unless nets of a class are of the kind that this task trains; one that is no INRNet says nothing."""
        kind = getattr(architecture, "kind", self.kind)
        if kind != self.kind:
            raise ConfigError(
                f'Got the model "{architecture.name}", which is for {kind}, for the task "{self.name}"; choose another '
                f"model.name, one that is for {self.kind}, or another task."
            )

    @abstractmethod
    def outputs(self, dataset) -> int:
        """Return how many numbers the net must give for each field of this dataset."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Apply the net to a minibatch; return the losses (b,) and its outputs."""

    def output_names(self, dataset) -> list[str]:
        """Return what the numbers of the net are called, as far as anything is known."""
        return list(dataset.class_names) or [str(i) for i in range(self.outputs(dataset))]

    def complete(self, batch: Batch, origin: Origin) -> Batch:
        """Return the minibatch with all that the loss needs of its fields."""
        return batch

    def predict(self, model: nn.Module, sampled: Sampled) -> Tensor:
        """Return the outputs (b, k) for fields of which nothing else is known."""
        return model(sampled)

    @abstractmethod
    def tally(self, outputs: int, formats: Sequence[str]) -> Tally:
        """Return an empty tally for fields of these formats."""

    @abstractmethod
    def answers(self, outputs: Tensor, class_names: Sequence[str]) -> list[dict]:
        """Turn outputs (b, k) into one plain answer per field."""


def shares(formats: Sequence[str], sums: Tensor, counts: Tensor) -> Mapping[str, float]:
    """Return sum / count by name, for the formats that were seen."""
    return {name: float(s / n) for name, s, n in zip(formats, sums, counts, strict=True) if n > 0}
