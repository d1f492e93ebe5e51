"""Floor 8: tasks by name. A task says what a net is trained for: the loss of a minibatch and the figures of an evaluation."""

from __future__ import annotations

from pathlib import Path

from inrbridge.data.targets import Targets, open_targets
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, unknown_name
from inrbridge.training.config import TASKS, TrainConfig
from inrbridge.training.tasks.base import Batch, Origin, Tally, Task
from inrbridge.training.tasks.classification import Classification
from inrbridge.training.tasks.dense import Dense
from inrbridge.training.tasks.generation import Generation
from inrbridge.training.tasks.regression import Regression

__all__ = ["Batch", "Classification", "Dense", "Generation", "Origin", "Regression", "Tally", "Task", "get_task", "make_task"]


def get_task(name: str, label_smoothing: float = 0.0) -> Task:
    """Return the task of a name: "classification", "regression" or "generation"."""
    tasks = {
        "classification": lambda: Classification(label_smoothing), "regression": Regression, "generation": Generation,
    }  # fmt: skip
    if name == "dense":
        raise ConfigError('Got the task "dense" without targets, expected them: targets="labels.npz", or a store of fields.')
    if name not in tasks:
        raise unknown_name("task", name, TASKS)
    return tasks[name]()


def make_task(config: TrainConfig, domain: Domain, targets: Targets | str | Path | None = None) -> Task:
    """Return the task of a configuration for fields on a domain, with the targets given, else those that [targets] names."""
    asked = config.targets
    if config.task != "dense":
        if targets is not None or asked.source:
            raise ConfigError(f'Got targets for the task "{config.task}", expected none; set task = "dense", or leave them out.')
        return get_task(config.task, config.optimizer.label_smoothing)
    source = targets if targets is not None else asked.source
    if source == "":
        raise ConfigError(
            'Got no targets for the task "dense", expected a store of fields, or labels by name, in "targets.source".'
        )
    if isinstance(source, str | Path):
        source = open_targets(source, domain, class_names=asked.class_names, ignore=asked.ignore, channels=asked.channels,
                              are_classes=asked.loss == "cross_entropy")  # fmt: skip
    return Dense(source, asked.loss, asked.n, asked.class_weights, config.optimizer.label_smoothing)
