"""Floor 8: figures of a run as they come: `metrics.jsonl` always, TensorBoard on request, anything else by protocol."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from inrbridge.errors import MissingDependency


class Tracker(Protocol):
    """What a run reports to: an object of your own with these two methods may be passed to `train(trackers=[...])`."""

    def log(self, figures: Mapping, step: int) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object per line in `metrics.jsonl`, each with its step.

    Args:
        after: forget the lines beyond this step, so that a resumed run leaves the file of an uninterrupted one.
    """

    def __init__(self, path: Path, after: int = 0):
        kept = [line for line in _lines(path) if _step(line) <= after] if after else []
        replacement = path.with_name(path.name + ".new")
        replacement.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(replacement, path)
        self._file = path.open("a", encoding="utf-8")

    def log(self, figures, step):
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()

    def close(self):
        self._file.close()


class TensorBoard:
    """Scalars for TensorBoard; nested figures become `name/part`."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependency(
                "run.tensorboard needs the package tensorboard, which is not installed: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder))

    def log(self, figures, step):
        for name, value in figures.items():
            for part, number in value.items() if isinstance(value, Mapping) else [("", value)]:
                if isinstance(number, int | float):
                    self._writer.add_scalar(f"{name}/{part}" if part else name, number, step)

    def close(self):
        self._writer.close()


def read_metrics(folder: str | Path) -> list[dict]:
    """Return the lines of a run's metrics.jsonl; a last line cut off by a crash is left out."""
    return [json.loads(line) for line in _lines(Path(folder) / "metrics.jsonl")]


def _lines(path: Path) -> list[str]:
    whole = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            json.loads(line)
        except json.JSONDecodeError:
            continue
        whole.append(line)
    return whole


def _step(line: str) -> int:
    return json.loads(line).get("step", 0)
