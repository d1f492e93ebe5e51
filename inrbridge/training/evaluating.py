"""Floor 8: measure a model on a dataset, under any discretization.

The points are fixed by (sampler, n, seed), so that a score can be repeated, and compared under other points.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from inrbridge.data import FieldDataset
from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, StoreError
from inrbridge.nn.sampled import Sampled
from inrbridge.sampling.fixed import fixed_points
from inrbridge.training.config import load_config
from inrbridge.training.distributed import World, processes
from inrbridge.training.model_folder import Card, load_model
from inrbridge.training.seeding import Noise, derive
from inrbridge.training.tasks import Batch, Origin, Task, get_task, make_task

DEFAULT_POINTS = {"sampler": "lattice", "n": 1024, "seed": 0}


def evaluate(model: nn.Module | str | Path, dataset, *, split: str | None = None, formats: Sequence[str] | None = None,
             sampler: str | None = None, n: int | None = None, seed: int | None = None, batch_size: int = 64,
             device: str | None = None, task: str | None = None, targets=None) -> dict:  # fmt: skip
    """Measure a model.

    Args:
        model: a net, or the folder of a trained one.
        dataset: a FieldDataset, or the path of a store; `split` and `formats` choose from a store.
        sampler, n, seed: points of the evaluation; None: those recorded with the model, else 1024 lattice points of seed 0.
        device: None: where the net is; for a folder, a GPU where there is one.
        targets: `data.targets.Targets` of the fields by name, or their path, for a dense net; None: those that it learned from.

    Returns:
        accuracy, accuracy_by_format, confusion (rows: true class), loss, fields, classes, and sampler, n, seed, seconds;
        for regression mse and mse_by_format; for dense nets miou, accuracy, iou_by_class and confusion over the points of the
        targets, or mse and mae.

    Raises:
        StoreError: no fields, labels missing, or classes that the model does not know.
    """
    check_batch_size(batch_size)
    model, device = net_on(model, device)
    card: Card | None = getattr(model, "card", None)
    with processes(device) as world:
        dataset = open_dataset(dataset, card, split, formats)
        task_ = _task(task, card, dataset, targets)
        points = {**DEFAULT_POINTS, **(card.points if card else {}), **without_none(sampler=sampler, n=n, seed=seed)}
        discretization = fixed_points(dataset.domain, **points, device=world.device)
        was_training = model.training
        model.to(world.device).eval()
        started = time.perf_counter()
        result = measure(model, dataset, task_, discretization, batch_size, world, card.class_names if card else None)
        model.train(was_training)
    classes = list(card.class_names if card else dataset.class_names)
    facts = {**points, "n": len(discretization), "seconds": time.perf_counter() - started}
    return {**result, **({"classes": classes} if task_.name == "classification" else {}), **facts}


def _task(name: str | None, card: Card | None, dataset, targets) -> Task:
    """Return the task to measure by: that of the card, unless another is named."""
    name = name or (card.task if card else "classification")
    if name != "dense":
        return get_task(name)
    learned = card.training if card and card.task == "dense" else {}
    return make_task(load_config({**learned, "task": "dense"}), dataset.domain, targets)


def check_batch_size(size: int) -> None:
    """Raise ConfigError unless a size is a whole number of at least 1."""
    if not isinstance(size, int) or size < 1:
        raise ConfigError(f"Got batch_size={size!r}, expected a whole number of at least 1, such as 64.")


def net_on(model: nn.Module | str | Path, device: str | None) -> tuple[nn.Module, str]:
    """Return the net, loaded where a folder is given, and the name of the device to use it on."""
    if isinstance(model, str | Path):
        return load_model(model), device or "auto"
    first = next(model.parameters(), None)
    return model, device or ("cpu" if first is None else str(first.device))


def open_dataset(dataset, card: Card | None, split: str | None, formats: Sequence[str] | None):
    """Return a dataset as it is, or the one of a store, aligned to what the model takes."""
    if not isinstance(dataset, str | Path):
        return dataset
    chosen = {"split": split or None, "formats": list(formats) if formats else None}
    if card is None:
        return FieldDataset(dataset, **chosen)
    classes = card.class_names if card.task == "classification" else None
    return FieldDataset(dataset, **chosen, domain=card.domain, channels=card.channels, class_names=classes, **card.view)


@torch.no_grad()
def measure(model: nn.Module, dataset, task: Task, discretization: Discretization, batch_size: int, world: World,
            class_names: Sequence[str] | None = None) -> dict:  # fmt: skip
    """Apply a net in evaluation mode to all fields, shared among the processes; return the figures of the task.

    Args:
        class_names: the classes in the net's order; the dataset's own labels are translated to it by name.
    """
    task.check(type(model))
    translation = check_measurable(dataset, task, class_names)
    outputs = len(class_names) if class_names and task.name == "classification" else task.outputs(dataset)
    names = sorted(set(dataset.formats))
    number = {name: i for i, name in enumerate(names)}
    tally = task.tally(outputs, names)
    mine = world.share(list(range(len(dataset))))
    for start in range(0, len(mine), batch_size):
        indices = mine[start : start + batch_size]
        labels = torch.as_tensor(dataset.labels)[indices] if task.has_labels else None
        if labels is not None:
            labels = (labels if translation is None else translation[labels]).to(world.device)
        stack = dataset.stack(indices).to(world.device)
        values = stack(discretization.points)
        formats = torch.tensor([number[dataset.formats[i]] for i in indices])
        noise = Noise((derive(0, "noise", i) for i in indices), world.device)
        batch = Batch(Sampled(discretization, values), labels, formats, noise)
        batch = task.complete(batch, Origin(model, dataset, indices, stack))
        tally.add(*task.losses(model, batch), batch)
    world.add_up(tally.sums)
    return tally.result()


def check_measurable(dataset, task: Task, class_names: Sequence[str] | None) -> Tensor | None:
    """Refuse a dataset without fields, labels or known classes; return the model's number of each class, None: the same."""
    if len(dataset) == 0:
        raise StoreError("Got a dataset without fields, expected at least one; choose another split or other formats.")
    task.outputs(dataset)
    return _translation(dataset.class_names, class_names) if class_names and task.name == "classification" else None


def without_none(**options) -> dict:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _translation(given: Sequence[str], known: Sequence[str]) -> Tensor | None:
    """Return for each class number of a dataset the model's; None where they agree."""
    if list(given) == list(known):
        return None
    strange = [name for name in given if name not in known]
    if strange:
        raise StoreError(
            f"Got a dataset with the classes {strange}, which the model does not know; expected some of {list(known)}. "
            "Measure it on a store of its own classes."
        )
    return torch.tensor([list(known).index(name) for name in given])
