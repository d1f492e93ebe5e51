"""Floor 8: tasks by name. A task says what a net is trained for: the loss of a minibatch and the figures of an evaluation."""

from __future__ import annotations

from inrbridge.errors import unknown_name
from inrbridge.training.tasks.base import Batch, Tally, Task
from inrbridge.training.tasks.classification import Classification
from inrbridge.training.tasks.generation import Generation
from inrbridge.training.tasks.regression import Regression

__all__ = ["Batch", "Classification", "Generation", "Regression", "Tally", "Task", "get_task"]


def get_task(name: str, label_smoothing: float = 0.0) -> Task:
    """Return the task of a name: "classification", "regression" or "generation"."""
    tasks = {
        "classification": lambda: Classification(label_smoothing), "regression": Regression, "generation": Generation,
    }  # fmt: skip
    if name not in tasks:
        raise unknown_name("task", name, tasks)
    return tasks[name]()
