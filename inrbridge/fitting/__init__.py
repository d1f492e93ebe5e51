"""Floor 8: turn signals into fields of a chosen format, many at once, into a store or a list."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from inrbridge.data.store import Store
from inrbridge.data.writer import StoreWriter
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, PluginError, StoreError
from inrbridge.field import Field, Stackable, channel_names
from inrbridge.fitting.descending import optimize
from inrbridge.fitting.distilling import Deviation, deviation, distill
from inrbridge.fitting.measures import Measure
from inrbridge.fitting.optimizing import fields_at_once, psnr, sample_targets
from inrbridge.fitting.planning import Fingerprints, Job, deal, plan_jobs, samples_signals, seeded
from inrbridge.fitting.threads import run_side_by_side
from inrbridge.io import build_field
from inrbridge.plugins import get_format
from inrbridge.progress import Progress
from inrbridge.signals import read_signals
from inrbridge.stacking import FieldStack, evaluate_states, stack

__all__ = ["Deviation", "deal", "deviation", "distill", "fit"]


def fit(
    signals: object,
    format: str | Sequence[str] = "siren",
    out: str | Path | None = None,
    *,
    steps: int | None = None,
    lr: float | None = None,
    labels: Sequence[str | int] | None = None,
    splits: str | Sequence[str | None] | Mapping[str, float] | None = None,
    names: Sequence[str] | None = None,
    domain: Domain | None = None,
    seed: int = 0,
    batch: int = 512,
    points: int | None = None,
    oversample: float = 2,
    resume: bool = True,
    progress: bool | Callable[[int, int | None, Mapping], object] | None = None,
    device: str | torch.device | None = None,
    format_options: Mapping[str, Mapping[str, object]] | None = None,
    **options: object,
) -> Store | list[Field]:
    """Fit fields to signals.

    Fields of one format are optimised side by side and do not influence one another: a field's first weights are drawn by the
    seed and its name, and its result is the same, up to rounding, in any company. A format that can read a signal off (grids)
    is not optimised. The errors of a field with a channel "density" are counted as `fitting.measures` says: as light sees them.

    Args:
        signals: a folder, a file, an array, a callable, a field, `Signal`s, or a list of these (see `signals.read_signals`).
        format: the format's name, or one name for each signal.
        out: folder of the store to make or to go on with; None returns the fields.
        steps, lr: of Adam with a cosine schedule; default: what the format advises.
        labels, names: one for each signal, in place of those read with it.
        splits: one word for all, one for each signal, or shares such as {"train": 0.8, "test": 0.2}; default: what the folders
            say.
        domain: where samples lie; [-1, 1]^d unless given. A callable needs it.
        batch: fields that are finished and written together.
        points: points a step; default `oversample` times as many along each axis as the signal has samples, at most 4096.
        resume: go on with a store that exists; fields that it holds are left out, and must have been fitted alike.
        progress: True tells on standard error; a callable gets (done, total, figures).
        device: where to compute; default the CPU.
        format_options: options of single formats in a mixed fit, e.g. {"siren": {"omega_0": 20, "steps": 300}}.
        **options: of the format's `build` (or `sample`), e.g. width=32; in a mixed fit each format takes those that it knows.

    Returns:
        The store, or without `out` the fields in the order of the signals, each with its PSNR in dB as `.psnr`.

    Raises:
        ConfigError, UnknownFormat, ShapeMismatch: a setting that does not exist or does not fit.
        StoreError: the store holds fields of the same names that were fitted otherwise.
        NotFinite: the optimisation diverged.

    >>> fields = fit([torch.zeros(8, 8)], "grid")
    >>> fields[0](torch.zeros(1, 2)).shape
    torch.Size([1, 1])
    """
    if not isinstance(batch, int) or batch < 1:
        raise ConfigError(f"Got batch={batch!r}, expected a whole number of at least 1.")
    found = read_signals(signals, names=names, labels=labels, domain=domain)
    jobs = plan_jobs(found, format, options, format_options or {}, splits, steps=steps, lr=lr, seed=seed, points=points,
                     oversample=oversample)  # fmt: skip
    try:
        device = torch.device(device or "cpu")
    except RuntimeError as error:
        raise ConfigError(f'Got device={device!r}, expected "cpu", "cuda" or "cuda:N".') from error
    if out is not None:
        return _fit_store(jobs, Path(out), batch, resume, progress, device)
    fields: dict[str, Field] = {}
    with Progress(_work(jobs), "fit", progress) as bar:
        for part, fitted, qualities in _fit_batches(jobs, batch, device, bar):
            for job, field, quality in zip(part, fitted, qualities, strict=True):
                field.psnr = quality
                fields[job.signal.name] = field
    return [fields[job.signal.name] for job in jobs]


def _fit_store(jobs: list[Job], out: Path, batch: int, resume: bool, progress, device: torch.device) -> Store:
    writer = StoreWriter(out)
    if writer.names and not resume:
        raise StoreError(f"{out} holds {len(writer.names)} fields already; fit into another folder, or go on with resume=True.")
    jobs = Fingerprints(out).open_jobs(jobs, writer.names)
    with Progress(_work(jobs), "fit", progress) as bar:
        for part, fitted, qualities in _fit_batches(jobs, batch, device, bar):
            if isinstance(fitted, FieldStack):
                group = fitted.groups[0]
                writer.add_states(
                    group.template,
                    group.states,
                    names=[job.signal.name for job in part],
                    labels=[job.signal.label for job in part],
                    splits=[job.split for job in part],
                    psnrs=qualities,
                )
            else:
                for job, field, quality in zip(part, fitted, qualities, strict=True):
                    writer.add(field, name=job.signal.name, label=job.signal.label, split=job.split, psnr=quality)
            writer.flush()
    return writer.store()


def _work(jobs: Sequence[Job]) -> int:
    return sum(max(1, job.steps) for job in jobs)


def _fit_batches(jobs: Sequence[Job], batch: int, device: torch.device, bar: Progress) -> Iterator[tuple]:
    """Yield (jobs, their fields, their PSNR) batch by batch; a batch holds jobs of one group."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.group, []).append(job)
    all_qualities: list[float] = []
    for members in groups.values():
        for start in range(0, len(members), batch):
            part = members[start : start + batch]
            fitted, qualities = _fit_batch(part, device, bar)
            all_qualities += qualities
            bar.advance(0, fields=len(all_qualities), psnr=sum(all_qualities) / len(all_qualities))
            yield part, fitted, qualities


def _fit_batch(jobs: Sequence[Job], device: torch.device, bar: Progress) -> tuple[FieldStack | list[Field], list[float]]:
    """Fit jobs of one group; return their fields, stacked where they were optimised, and their PSNR."""
    sampled = _sample(jobs)
    if sampled is not None:
        together = stack(sampled)
        qualities = psnr(lambda rows, points: together(points)[rows], [job.signal for job in jobs], Measure.of(sampled[0]))
        bar.advance(_work(jobs))
        return sampled, qualities
    first = jobs[0]
    pool = first.plan.pool(first.signal.field.domain, seeded(first.seed, "points")).to(device)
    order = first.plan.order(first.steps, seeded(first.seed, "order"))
    template, states = _fresh(jobs[:1])
    template.to(device)
    asking = threading.Lock()  # a user's callable need not bear two threads at once

    def fit_slice(part: Sequence[Job], tick: Callable[[int], object]) -> tuple[dict[str, Tensor], list[float]]:
        signals = [job.signal for job in part]
        with asking:
            targets = sample_targets(signals, pool)
        own, states = _fresh(part)  # of this thread: modules that know no stacks lend their parameters while they are evaluated
        own.to(device)
        states = {name: value.to(device) for name, value in states.items()}
        states = optimize(own, states, pool, targets, order, first.lr, lambda steps: tick(steps * len(part)))

        def evaluate(rows: list[int], points: Tensor) -> Tensor:
            chosen = {name: value[rows] for name, value in states.items()}
            return evaluate_states(own, chosen, points.to(device)).cpu()

        with asking:
            return {name: value.cpu() for name, value in states.items()}, psnr(evaluate, signals, Measure.of(own))

    threads = torch.get_num_threads() if device.type == "cpu" else 1
    size = fields_at_once(states, first.plan, len(jobs), device)
    slices = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    parts = run_side_by_side(fit_slice, slices, threads, bar.advance)
    qualities = [quality for _, part in parts for quality in part]
    bar.advance(0 if order else len(jobs))
    states = {name: torch.cat([part[name] for part, _ in parts]) for name in parts[0][0]}
    return FieldStack.from_states(template.to("cpu"), states), qualities


def _sample(jobs: Sequence[Job]) -> list[Field] | None:
    """Read the fields off the signals, where their format can."""
    format = get_format(jobs[0].format)
    if not samples_signals(format):
        return None
    fields = []
    for job in jobs:
        signal = job.signal.field
        field = format.sample(signal, signal.domain, signal.channels, **job.options)
        if field is None:
            return None
        fields.append(_named(field, signal))
    return fields


def _fresh(jobs: Sequence[Job]) -> tuple[nn.Module, dict[str, Tensor]]:
    """Build the first fields of jobs; return one of them, and their states stacked on axis 0."""
    fields = []
    for job in jobs:
        signal = job.signal.field
        field = build_field(job.format, signal.domain, signal.channels, generator=job.generator(), **job.options)
        if not isinstance(field, nn.Module) or not isinstance(field, Stackable):
            raise PluginError(
                f'Format "{job.format}" built a {type(field).__name__}, expected an nn.Module with `architecture`; '
                "choose a format that builds trainable fields."
            )
        fields.append(field)
    rows = [field.state_dict() for field in fields]
    return _named(fields[0], jobs[0].signal.field), {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _named(field: Field, signal: Field) -> Field:
    names = getattr(signal, "channel_names", None)
    if names is not None and len(names) == field.channels:
        field.channel_names = channel_names(signal)
    return field
