"""Floor 8: training (Wang & Golland 2023, Algorithm 1).

Each step takes a minibatch of fields with their labels, draws a discretization, reads the fields there, and changes the net's
weights by the gradient of the loss. Everything random is a function of seed and step, so a run resumes bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from inrbridge.errors import ConfigError, NotFinite, StoreError
from inrbridge.nn import use_generator
from inrbridge.progress import Progress
from inrbridge.sampling.fixed import fixed_points
from inrbridge.training.augmenting import check_augment
from inrbridge.training.checkpoint import load_step, save_step
from inrbridge.training.config import RunConfig, TrainConfig, load_config
from inrbridge.training.distributed import World, processes
from inrbridge.training.evaluating import check_measurable, measure
from inrbridge.training.minibatches import Minibatches
from inrbridge.training.model_folder import Card, format_versions, save_model
from inrbridge.training.optimizing import learning_rate, make_optimizer
from inrbridge.training.run_folder import datasets_of, newest_checkpoint, open_run, view_of
from inrbridge.training.seeding import derive
from inrbridge.training.starting import first_model
from inrbridge.training.tasks import Task, make_task
from inrbridge.training.tracking import JsonLines, TensorBoard, Tracker

SHOWN = ("loss", "eval_miou", "eval_accuracy", "eval_mse", "eval_energy")  # beside the bar of progress


@dataclass(frozen=True)
class RunSummary:
    """What came out of a run: `metrics` of the last evaluation, and the net itself."""

    folder: Path
    steps: int
    total: int
    seconds: float
    loss: float
    metrics: dict
    model: nn.Module = field(repr=False, compare=False)

    @property
    def is_finished(self) -> bool:
        return self.steps == self.total


def train(config: TrainConfig | Mapping | str | Path | None = None, dataset=None, *, eval_dataset=None, targets=None,
          sets: Sequence[str] = (), resume: bool = False, stop_at: int | None = None, trackers: Sequence[Tracker] = (),
          progress=None, command: str = "") -> RunSummary:  # fmt: skip
    """Train a net; write checkpoints, metrics.jsonl and the finished model into `run.out`.

    Args:
        config: path of a TOML file, dict or TrainConfig; None is the defaults. `sets` are "section.key=value" on top.
        dataset, eval_dataset: FieldDatasets to use instead of those that [data] names.
        targets: `data.targets.Targets` of the items of both by name, for a dense task, or the path of some; None: those that
            [targets] names.
        resume: go on from the newest checkpoint in `run.out`, from the start where there is none.
        stop_at: stop after this step with a checkpoint, as an interruption would.
        trackers: further receivers of the figures.
        progress: True talks on standard error; a callable(done, total, figures) is called.
        command: the command line, for the model's card.

    Raises:
        ConfigError: a configuration that does not fit, or a folder that holds a run already.
        StoreError, MissingFile: no data, or no labels.
        NotFinite: the loss diverged.
    """
    config = load_config(config, sets)
    with processes(config.run.device) as world, _machine(config.run, world):
        train_set, eval_set = datasets_of(config, dataset, eval_dataset)
        run = _Run(config, world, train_set, eval_set, make_task(config, train_set.domain, targets))
        try:
            return run.go(resume, stop_at, trackers, progress, command)
        finally:
            run.parallel = None  # it holds on to the group of processes, which is about to end


class _Run:
    """The parts of one run and the loop over its steps."""

    def __init__(self, config: TrainConfig, world: World, train_set, eval_set, task: Task):
        if len(train_set) == 0:
            raise StoreError("Got a training set without fields, expected at least one; see data.train_split and data.formats.")
        if min(config.data.batch_size, len(train_set)) < world.size:
            raise StoreError(
                f"Got minibatches of {min(config.data.batch_size, len(train_set))} fields for {world.size} processes, expected "
                "at least one field for each; raise data.batch_size or start fewer processes."
            )
        self.config, self.world, self.train_set, self.eval_set = config, world, train_set, eval_set
        check_augment(config.augment, train_set.domain, train_set.channels)
        device = world.device
        self.task = task
        self.class_names = list(train_set.class_names)
        if eval_set is not None:
            check_measurable(eval_set, self.task, self.class_names)
        model, self.model_name = first_model(config, train_set, self.task)
        self.model = model.to(device)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.parallel = world.parallel(self.model)
        self.dropout = torch.Generator()
        use_generator(self.model, self.dropout)
        self.per_epoch = max(1, len(train_set) // config.data.batch_size)
        self.minibatches = Minibatches(config, world, train_set, task, self.per_epoch)
        self.total = config.optimizer.steps or config.optimizer.epochs * self.per_epoch
        self.window = torch.zeros(2, dtype=torch.float64, device=device)  # sum of losses and of fields since the last line
        self.formats = format_versions(train_set.formats)

    @property
    def eval_points(self) -> dict:
        points = self.config.points
        return {"sampler": points.eval_sampler, "n": points.eval_n or max(points.sizes), "seed": points.eval_seed}

    def go(self, resume: bool, stop_at: int | None, trackers: Sequence[Tracker], progress, command: str) -> RunSummary:
        config, world, started = self.config, self.world, time.perf_counter()
        folder = Path(config.run.out)
        world.require_same("formats", self.formats)
        world.on_main(lambda: open_run(folder, config, resume))
        done = self._resume(newest_checkpoint(folder)) if resume else 0
        last = self.total if stop_at is None else min(stop_at, self.total)
        metrics: dict = {}
        trackers = self._trackers(folder, done, trackers) if world.is_main else []
        with contextlib.ExitStack() as stack:
            for tracker in trackers:
                stack.callback(tracker.close)
            bar = stack.enter_context(Progress(last - done, "train", progress if world.is_main else None))
            for step in range(done, last):
                self._step(step)
                figures = self._figures(step, started) if self._is_due(step + 1, config.run.log_every) else {}
                if self._eval_due(step + 1):
                    metrics = self._measure()
                    figures |= {f"eval_{name}": value for name, value in metrics.items() if name != "confusion"}
                if figures:
                    for tracker in trackers:
                        tracker.log({"epoch": (step + 1) / self.per_epoch, **figures}, step + 1)
                    self.loss = figures.get("loss", self.loss)
                bar.advance(1, **{name: figures[name] for name in SHOWN if name in figures})
                if self._is_due(step + 1, config.run.checkpoint_every or self.per_epoch) or step + 1 == last:
                    self._save(folder, step + 1)
        if last == self.total:
            metrics = metrics or self._measure()
            self.model.card = self._card(metrics, command)
            world.on_main(lambda: save_model(folder, self.model, self.model.card))
        return RunSummary(folder, last, self.total, time.perf_counter() - started, self.loss, metrics, self.model.eval())

    loss = float("nan")  # of the last line that was logged

    def _is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.total

    def _eval_due(self, step: int) -> bool:
        every = self.config.run.eval_every * self.per_epoch
        return self.eval_set is not None and (step == self.total or (every > 0 and step % every == 0))

    def _step(self, step: int) -> None:
        count, batch = len(self.minibatches.items(step)), self.minibatches.read(step, self.model)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optimizer, step, self.total) * group["factor"]
        self.parallel.train()
        with self._dropout(step):
            losses, _ = self.task.losses(self.parallel, batch)
        self.optimizer.zero_grad(set_to_none=True)
        # processes average their gradients: scaled by their number, the sum over fields becomes the mean of the minibatch
        (losses.sum() * (self.world.size / count)).backward()
        if self.config.optimizer.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip)
        self.optimizer.step()
        self.window += torch.stack([losses.detach().double().sum(), losses.new_tensor(len(losses), dtype=torch.float64)])

    @contextlib.contextmanager
    def _dropout(self, step: int) -> Iterator[None]:
        """Seed the dropout of a step: the layers' generator, and torch's own for layers of other origin."""
        seed = derive(self.config.run.seed, "dropout", step, self.world.rank)
        self.dropout.manual_seed(seed)
        with torch.random.fork_rng(devices=[self.world.device] if self.world.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def _figures(self, step: int, started: float) -> dict:
        self.world.add_up([self.window])
        total, count = self.window.tolist()
        self.window.zero_()
        loss = total / count
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise NotFinite(
                f"Got a loss of {loss} by step {step + 1}, expected a finite one; lower optimizer.lr, or set optimizer.clip. "
                f"The last checkpoint in {self.config.run.out} is from before."
            )
        return {
            "loss": loss,
            "lr": learning_rate(self.config.optimizer, step, self.total),
            "seconds": time.perf_counter() - started,
        }

    def _measure(self) -> dict:
        if self.eval_set is None:
            return {}
        discretization = fixed_points(self.eval_set.domain, **self.eval_points, device=self.world.device)
        self.model.eval()
        names = self.class_names if self.task.name == "classification" else None
        return measure(self.model, self.eval_set, self.task, discretization, self.config.data.batch_size, self.world, names)

    def _save(self, folder: Path, step: int) -> None:
        self.world.add_up([self.window])  # the checkpoint holds the sum; it stays with process 0
        extra = {"window": self.window.tolist(), "loss": None if self.loss != self.loss else self.loss}
        if not self.world.is_main:
            self.window.zero_()
        self.world.on_main(lambda: save_step(folder, step, self.model, self.optimizer, extra, self.config.run.keep))

    def _resume(self, path: Path | None) -> int:
        if path is None:
            return 0
        state = load_step(path, self.model, self.optimizer)
        if self.world.is_main:
            self.window += torch.tensor(state["window"], dtype=torch.float64, device=self.world.device)
        self.loss = float("nan") if state["loss"] is None else state["loss"]
        if state["step"] > self.total:
            raise ConfigError(
                f"Got a run of {self.total} steps to resume, but {path} is beyond it; raise optimizer.steps or optimizer.epochs."
            )
        return state["step"]

    def _trackers(self, folder: Path, done: int, more: Sequence[Tracker]) -> list[Tracker]:
        kept: list[Tracker] = [JsonLines(folder / "metrics.jsonl", after=done)]
        if self.config.run.tensorboard:
            kept.append(TensorBoard(folder / "tensorboard"))
        return [*kept, *more]

    def _card(self, metrics: dict, command: str) -> Card:
        return Card(
            model={**self.model.config(), "name": self.model_name},
            task=self.task.name,
            channels=list(self.train_set.channels),
            class_names=self.task.output_names(self.train_set),
            view=view_of(self.train_set, self.config.data).to_json(),
            points=self.eval_points,
            formats=self.formats,
            metrics={name: value for name, value in metrics.items() if name != "confusion"},
            training=self.config.to_dict(),
            command=command,
            steps=self.total,
            activation=getattr(self.task, "activation", ""),
        )


@contextlib.contextmanager
def _machine(run: RunConfig, world: World) -> Iterator[None]:
    """Set threads and determinism for the time of a run."""
    threads, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if run.threads:
        torch.set_num_threads(run.threads)
    if run.deterministic:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(was_deterministic)
