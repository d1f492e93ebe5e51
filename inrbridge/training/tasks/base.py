"""Floor 8: what a task is: the loss of a minibatch and the figures that sum up an evaluation.

A task gives one loss per item, not their mean, so that unequal shares of processes and a last, shorter minibatch weigh
every field the same. It receives the net and the whole minibatch: a task whose targets are themselves fields reads them
at the points of `batch.sampled`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

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


def shares(formats: Sequence[str], sums: Tensor, counts: Tensor) -> Mapping[str, float]:
    """Return sum / count by name, for the formats that were seen."""
    return {name: float(s / n) for name, s, n in zip(formats, sums, counts, strict=True) if n > 0}
