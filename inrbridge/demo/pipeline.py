"""Floor 9: the phases of the demo: fit, train, evaluate, leave one format out, report."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from inrbridge.data import FieldDataset, Store
from inrbridge.demo.digits import PLANE, Participant, assign, load_digits, participants, signals
from inrbridge.demo.report import write_report
from inrbridge.errors import PluginError
from inrbridge.fitting import fit
from inrbridge.training import TrainConfig, evaluate, load_config, train

SAMPLERS = ("lattice", "sobol", "halton", "grid", "uniform", "shrunk")


@dataclass(frozen=True)
class Settings:
    """Size of a demo run."""

    items: int | None = None  # None: all digits
    test_share: float = 0.2
    points: int = 256
    epochs: int = 14
    batch_size: int = 64
    widths: tuple[int, ...] = (32, 64, 64)
    fit_steps: int | None = None  # None: what each format needs
    seed: int = 0


QUICK = Settings(items=480, points=128, epochs=12, batch_size=32, widths=(16, 32, 32), fit_steps=100)


def run_demo(out: str | Path, settings: Settings | None = None, progress: bool = True,
             say: Callable[[str], None] = lambda line: None) -> dict:  # fmt: skip
    """Run the whole job and write everything into a folder.

    Args:
        out: new folder for the store, the trained model, the report and the pictures.
        settings: sizes and seed; `QUICK` for a run of some seconds.
        progress: show bars on standard error.
        say: receives one line at the start of each phase.

    Returns:
        The report: accuracy, accuracy_by_format, accuracy_by_points, accuracy_by_sampler, leave_one_format_out,
        psnr_by_format, seconds, and what they were measured on. Accuracies are shares in [0, 1].
    """
    settings = settings or Settings()
    out = Path(out)
    taking_part, absent = participants()
    if len(taking_part) < 2:
        raise PluginError(
            f"Got {len(taking_part)} format that can hold an image, expected at least 2 for a mixed dataset; "
            "install some: pip install inrbridge-siren inrbridge-fourier"
        )
    seconds: dict[str, float] = {}
    with _phase("fit", seconds, say, f"fitting digits as fields: {', '.join(p.name for p in taking_part)}"):
        store, psnr = _fit(out / "store", taking_part, settings, progress)
    views = {"axes": {p.name: (0, 1) for p in taking_part if p.dim == 3}}
    datasets = {split: FieldDataset(store, split, domain=PLANE, channels=["gray"], **views) for split in ("train", "test")}
    with _phase("train", seconds, say, "training one INR-Net on all formats, new points in each step"):
        summary = _train(out / "model", datasets["train"], datasets["test"], settings, progress)
    with _phase("evaluate", seconds, say, "evaluating under other points"):
        result, by_points, by_sampler = _evaluate(summary.model, datasets["test"], settings)
    with _phase("leave_one_format_out", seconds, say, "training without each format, testing on it"):
        left_out = {p.name: _leave_out(out, store, p.name, views, settings, progress) for p in taking_part}
    report = {
        "accuracy": result["accuracy"],
        "accuracy_by_format": result["accuracy_by_format"],
        "accuracy_by_points": by_points,
        "accuracy_by_sampler": by_sampler,
        "leave_one_format_out": {name: held for name, (held, _) in left_out.items()},
        "leave_one_format_out_rest": {name: rest for name, (_, rest) in left_out.items()},
        "psnr_by_format": psnr,
        "confusion": result["confusion"],
        "fields": {split: dict(Counter(data.formats)) for split, data in datasets.items()},
        "points": settings.points,
        "formats_absent": absent,
        "threads": {"fit": torch.get_num_threads(), "train": 1},
        "seed": settings.seed,
        "seconds": seconds,
    }
    with _phase("report", seconds, say, f"drawing the report into {out}"):
        write_report(out, report, datasets["test"], settings.points)
    seconds["total"] = sum(seconds.values())
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Nets as small as these gain little from several threads, and wait long for them where others use the machine too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _phase(name: str, seconds: dict[str, float], say: Callable[[str], None], line: str) -> Iterator[None]:
    say(line)
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def _fit(folder: Path, taking_part: list[Participant], settings: Settings, progress: bool) -> tuple[Store, dict[str, float]]:
    images, labels = load_digits(settings.items)
    splits, formats = assign(labels, [p.name for p in taking_part], settings.test_share, settings.seed)
    made = signals(images, labels, formats, {p.name: p.dim for p in taking_part})
    options = {p.name: dict(p.options) for p in taking_part}
    if settings.fit_steps is not None:
        for chosen in options.values():
            if "steps" in chosen:
                chosen["steps"] = settings.fit_steps
    store = fit(made, formats, folder, splits=splits, seed=settings.seed, format_options=options, progress=progress)
    by_format: dict[str, list[float]] = {}
    for item in store.items:
        by_format.setdefault(store.manifest.format_of(item), []).append(item.psnr)
    return store, {name: sum(min(v, 99.0) for v in values) / len(values) for name, values in sorted(by_format.items())}


def _config(folder: Path, settings: Settings) -> TrainConfig:
    return load_config({
        "data": {"batch_size": settings.batch_size},
        "model": {"name": "convnet", "options": {"widths": list(settings.widths), "strides": [1, 2, 2], "resolution": 8,
                                                 "points": settings.points}},
        "points": {"sampler": "lattice", "n": settings.points, "pool": 0},
        "optimizer": {"lr": 5e-3, "warmup": 40, "epochs": settings.epochs, "label_smoothing": 0.05},
        "run": {"out": str(folder), "seed": settings.seed, "eval_every": 0, "checkpoint_every": 10**9},
    })  # fmt: skip


@_one_thread()
def _train(folder: Path, train_set: FieldDataset, test_set: FieldDataset, settings: Settings, progress: bool):
    return train(_config(folder, settings), train_set, eval_dataset=test_set, progress=progress, command="inrbridge demo")


@_one_thread()
def _evaluate(model, test_set: FieldDataset, settings: Settings) -> tuple[dict, dict[str, float], dict[str, float]]:
    """The result on the training resolution; accuracy by number of points, and by sampler at equal number."""
    n = settings.points
    result = evaluate(model, test_set, sampler="lattice", n=n)

    def accuracy(sampler: str, m: int) -> float:
        alike = (sampler, m) == ("lattice", n)
        return (result if alike else evaluate(model, test_set, sampler=sampler, n=m))["accuracy"]

    by_points = {str(m): accuracy("lattice", m) for m in (n // 2, n, 2 * n, 4 * n)}
    return result, by_points, {name: accuracy(name, n) for name in SAMPLERS}


@_one_thread()
def _leave_out(out: Path, store: Store, name: str, views: dict, settings: Settings, progress: bool) -> tuple[float, float]:
    """Train on all formats but one: accuracy on the test fields of that format, and on those of the others."""
    common = {"domain": PLANE, "channels": ["gray"], "exclude_formats": [name]}
    known = {split: FieldDataset(store, split, **common, **views) for split in ("train", "test")}
    unknown = FieldDataset(
        store, "test", [name], domain=PLANE, channels=["gray"], class_names=known["train"].class_names, **views
    )
    model = _train(out / f"model-without-{name}", known["train"], known["test"], settings, progress).model
    return tuple(evaluate(model, data, sampler="lattice", n=settings.points)["accuracy"] for data in (unknown, known["test"]))
