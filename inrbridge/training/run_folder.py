"""Floor 8: the folder of a run, and the datasets that a configuration names."""

from __future__ import annotations

from pathlib import Path

from inrbridge.data import FieldDataset, open_store
from inrbridge.data.view import View
from inrbridge.domains import domain_from_config
from inrbridge.errors import CannotSave, ConfigError
from inrbridge.training.checkpoint import steps_of
from inrbridge.training.config import DataConfig, TrainConfig, load_config
from inrbridge.training.starting import card_to_start_from
from inrbridge.training.toml import to_toml
from inrbridge.writing import written_whole

FREE = ("optimizer.steps", "optimizer.epochs", "run.")  # keys that may change when a run is resumed


def open_run(folder: Path, config: TrainConfig, resume: bool) -> None:
    """Make the folder and write the merged configuration into it.

    Raises:
        ConfigError: the folder holds a run that was not to be resumed, one of another configuration, or other files.
        CannotSave: it cannot be written.
    """
    path = folder / "config.toml"
    if path.is_file() and not resume:
        raise ConfigError(
            f"Got run.out = {str(folder)!r}, which holds a run already, expected a new folder; go on with it (--resume), "
            "or choose another: --set run.out=NAME"
        )
    if path.is_file():
        _check_same(load_config(path), config, folder)
    elif folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"Got run.out = {str(folder)!r}, which is a file, expected a folder; choose another: --set run.out=NAME"
        )
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise ConfigError(  # a run writes a README.md and more, and must not replace those of others
            f"Got run.out = {str(folder)!r}, which holds files that are no run, expected a new or empty folder; "
            "choose another: --set run.out=NAME"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(to_toml(config), encoding="utf-8")
    except OSError as error:  # CannotSave is one
        raise CannotSave(f"Cannot write into run.out = {str(folder)!r} ({error}); choose another: --set run.out=NAME") from error


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the last resumable checkpoint of a run, None where there is none yet."""
    steps = steps_of(folder)
    return steps[-1] if steps else None


def _check_same(before: TrainConfig, now: TrainConfig, folder: Path) -> None:
    old, new = dict(_leaves(before.to_dict())), dict(_leaves(now.to_dict()))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key) and not key.startswith(FREE)]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"Got {key} = {new.get(key)!r}, but the run in {folder} was started with {old.get(key)!r}; resume it with "
            "what it was started with (only run.* and the length may change), or start anew: --set run.out=NAME"
        )


def _leaves(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def datasets_of(config: TrainConfig, dataset, eval_dataset) -> tuple:
    """Return (training set, evaluation set or None): those given, else those of the store that [data] names."""
    data = config.data
    if dataset is not None:
        return dataset, eval_dataset
    if not data.store:
        raise ConfigError(
            'Got no data, expected the folder of a store in "data.store"; write one: inrbridge fit, or inrbridge pack'
        )
    store, start = open_store(data.store), card_to_start_from(config)
    domain, channels, class_names = (None,) * 3 if start is None else (start.domain, start.channels, start.class_names)
    dataset = FieldDataset(
        store, split=data.train_split or None, formats=list(data.formats) or None,
        domain=domain_from_config(data.domain) if data.domain else domain, channels=list(data.channels) or channels,
        class_names=class_names if config.task == "classification" else None, **_options_of(data),
    )  # fmt: skip
    if eval_dataset is None and data.eval_split:
        # seen as the training set is: domain, channels, ranges and the order of the classes
        eval_dataset = FieldDataset(
            store, split=data.eval_split, formats=list(data.eval_formats) or None,
            domain=dataset.domain, channels=dataset.channels,
            class_names=dataset.class_names, **{**_options_of(data), "ranges": dataset.ranges},
        )  # fmt: skip
    return dataset, eval_dataset


def view_of(dataset, data: DataConfig) -> View:
    """Return how a dataset sees its fields; one of another class than FieldDataset may tell its ranges alone."""
    return dataset.view if isinstance(dataset, FieldDataset) else View(dataset.ranges, **_options_of(data))


def _options_of(data: DataConfig) -> dict:
    """Return how a configuration says that fields are seen, as keyword arguments of FieldDataset."""
    directions = data.directions if data.directions != 0 else None
    return {
        "crop": data.crop, "axes": data.axes, "at": data.at, "directions": directions, "length": data.length or None,
        "ramp": data.ramp,
    }  # fmt: skip
