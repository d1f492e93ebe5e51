"""Floor 8: the configuration of a training run: frozen dataclasses, read from TOML, written back as TOML.

Precedence: the defaults below < the file < `--set section.key=value`. Unknown keys and values of a wrong type are
errors. This file imports no torch, so that writing or checking a configuration is instant; whether a *name* (of a
sampler, a model, a split) exists is asked where it is used.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inrbridge.errors import ConfigError, MissingFile
from inrbridge.training.toml import parse_toml, parse_value

LOSSES = ("cross_entropy", "bce", "mse", "l1")  # of a dense task
TASKS = ("classification", "regression", "dense", "generation")


def _key(default, help: str):
    """Declare one key: its default, and the comment that `to_toml` writes above it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class DataConfig:
    """Which fields to learn from."""

    store: str = _key("", "folder of the store (written by `inrbridge fit` or `inrbridge pack`)")
    train_split: str = _key("train", 'split to learn from; "" takes every item')
    eval_split: str = _key("test", 'split to measure on; "" measures nothing')
    formats: tuple[str, ...] = _key((), "formats to learn from; [] takes all")
    eval_formats: tuple[str, ...] = _key((), "formats to measure on; [] takes all")
    domain: dict = field(
        default_factory=dict,
        metadata={"help": 'common domain, e.g. {type = "box", low = [-1, -1], high = [1, 1]}; {} takes the store\'s own'},
    )
    channels: tuple[str, ...] = _key((), "common channels by name; [] takes the store's own")
    crop: dict = field(
        default_factory=dict,
        metadata={
            "help": 'corners of the part that is seen, by format, e.g. {ngp = [[-1, -1, 0], [1, 1, 2]]}; "*" is all others'
        },
    )
    axes: dict = field(
        default_factory=dict,
        metadata={
            "help": 'coordinates to keep, by format, e.g. {plenoxels = [0, 1]} for planar slices, {"*" = ["x", "-z", "y"]}'
        },
    )
    at: dict = field(
        default_factory=dict, metadata={"help": "where the others are held, by format, e.g. {plenoxels = [0, 0, 0.5]}"}
    )
    directions: int | tuple[float, ...] = _key(
        0, "of view, for radiance fields: how many to average over, or one to look along, e.g. [0, 0, 1]; 0: not said"
    )
    length: float = _key(0.0, "path over which density is felt as occupancy; 0: 1/16 of the domain's side")
    ramp: float = _key(0.0, "thickness of the shell where signed distance becomes occupancy; 0: a step")
    batch_size: int = _key(64, "fields in a minibatch, over all processes together")


@dataclass(frozen=True)
class TargetsConfig:
    """What the output of a dense net is compared with (Algorithm 2), by the names of the fields in the store."""

    source: str = _key("", "a store or folder of fields, or labelled points: .npz, .safetensors, or a folder of them or of .png")
    loss: str = _key("", '"cross_entropy", "bce", "mse" or "l1"; "": "cross_entropy" for classes, "mse" for numbers')
    n: int = _key(1024, "points of the targets of each field in a step; 0: all labels, or for fields the points of the step")
    ignore: int = _key(-1, "the class that is not scored")
    class_names: tuple[str, ...] = _key((), "names of the classes in the order of their numbers; [] numbers them")
    class_weights: tuple[float, ...] = _key((), "weights of the classes in the loss; [] weighs all alike")
    channels: tuple[str, ...] = _key((), "channels of target fields; [] takes those they share")


@dataclass(frozen=True)
class ModelConfig:
    """Which network to train."""

    name: str = _key("convnet", 'an architecture (inrbridge models lists them), or "package.module:Class"')
    options: dict = field(default_factory=dict, metadata={"help": "keyword arguments of that model"})
    init: str = _key("", 'folder of a model to go on from (of `inrbridge convert`, or a run), in place of a new one; "": none')


@dataclass(frozen=True)
class PointsConfig:
    """Where the fields are evaluated (Algorithm 1: a freshly drawn discretization in each step)."""

    sampler: str | tuple[str, ...] = _key(
        "lattice", 'sampler, or a list to draw from in each step; "shrunk:density" weighs its crowded points'
    )
    n: int | tuple[int, ...] = _key(1024, "points, or a list of sizes to draw from in each step")
    pool: int = _key(0, "0: new points in each step; k: draw from k fixed discretizations, whose samples are remembered")
    cache: int = _key(1024, "memory in MiB for the remembered samples of a pool; 0 remembers none")
    eval_sampler: str = _key("lattice", "sampler of evaluation")
    eval_n: int = _key(0, "points of evaluation; 0: the largest of n")
    eval_seed: int = _key(0, "seed of the points of evaluation")

    @property
    def samplers(self) -> tuple[str, ...]:
        return (self.sampler,) if isinstance(self.sampler, str) else self.sampler

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.n,) if isinstance(self.n, int) else self.n


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights are changed, and for how long."""

    name: str = _key("adamw", '"adamw" or "sgd"')
    lr: float = _key(1e-3, "highest learning rate")
    betas: tuple[float, ...] = _key((0.9, 0.999), "decay of the moments of adamw; of sgd the first is the momentum")
    weight_decay: float = _key(0.01, "decay of weight matrices; biases and scales are spared")
    schedule: str = _key("cosine", '"cosine" falls to 0 at the last step, "constant" stays')
    warmup: int = _key(0, "steps over which the learning rate rises from 0")
    epochs: int = _key(10, "passes over the training split")
    steps: int = _key(0, "number of steps; 0: as many as `epochs` asks for")
    clip: float = _key(1.0, "largest norm of the gradient; 0 does not clip")
    label_smoothing: float = _key(0.0, "share of the target spread over all classes, in [0, 1)")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of where a field is read (boxes; shifts, flips and noise on a torus too) and of its values."""

    noise: float = _key(0.0, "standard deviation of the noise on coordinates, in units of the point spacing")
    shift: float = _key(0.0, "largest shift, as a share of the domain's size")
    scale: float = _key(0.0, "largest relative change of scale, below 1")
    rotate: float = _key(0.0, "largest angle of a rotation about the centre, in radians")
    crop: float = _key(1.0, "smallest share of each side that a random part of the domain keeps as the whole view; 1: all")
    flip: tuple[int, ...] = _key((), "axes that are mirrored in half of the cases")
    border: str = _key("clamp", 'where coordinates go that leave the domain: "clamp", "reflect" or "circular"')
    brightness: float = _key(0.0, "largest number added to all channels")
    contrast: float = _key(0.0, "largest relative change of the distance to the middle of a channel's range, below 1")
    saturation: float = _key(0.0, "largest relative change of the distance of a colour to its grey, below 1")
    drop: float = _key(0.0, "chance of each channel to be set to 0, below 1")

    @property
    def moves(self) -> bool:
        """Whether fields are read elsewhere."""
        return bool(self.noise or self.shift or self.scale or self.rotate or self.crop != 1 or self.flip)

    @property
    def recolours(self) -> bool:
        """Whether values are changed."""
        return bool(self.brightness or self.contrast or self.saturation or self.drop)

    @property
    def is_active(self) -> bool:
        return self.moves or self.recolours


@dataclass(frozen=True)
class RunConfig:
    """Where and how the run itself goes on."""

    out: str = _key("run", "folder of the run: model, checkpoints, metrics.jsonl")
    seed: int = _key(0, "seed of weights, order, points, augmentation and dropout")
    device: str = _key("auto", '"auto" takes a GPU where there is one; "cpu", "cuda", "cuda:1"')
    threads: int = _key(0, "CPU threads of this process; 0 leaves torch's own choice")
    deterministic: bool = _key(False, "refuse kernels whose results vary from run to run")
    checkpoint_every: int = _key(0, "steps between resumable checkpoints; 0: at the end of each epoch")
    keep: int = _key(2, "resumable checkpoints to keep")
    eval_every: int = _key(1, "epochs between evaluations; 0: only at the end")
    log_every: int = _key(10, "steps between lines of metrics.jsonl")
    tensorboard: bool = _key(False, "write TensorBoard events too (needs the package tensorboard)")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run. Change one with `dataclasses.replace` or build it with `load_config`."""

    task: str = _key("classification", '"classification", "regression", "dense" or "generation"')
    data: DataConfig = field(default_factory=DataConfig)
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    points: PointsConfig = field(default_factory=PointsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self):
        _check_ranges(self)

    def to_dict(self) -> dict:
        """Return nested plain values, tuples as lists: what JSON and TOML can hold."""
        return _plain(dataclasses.asdict(self))


def load_config(source: TrainConfig | Mapping | str | Path | None = None, sets: Iterable[str] = ()) -> TrainConfig:
    """Merge the defaults, a source (path of a TOML file, nested dict, or TrainConfig) and `a.b=c` settings.

    >>> load_config({"points": {"n": 256}}, ["optimizer.lr=0.1"]).optimizer.lr
    0.1

    Raises:
        ConfigError: an unknown key, a value of the wrong type or range, or a file that is not TOML.
        MissingFile: a path that leads to nothing.
    """
    where = "the configuration"
    if source is None:
        merged: dict = {}
    elif isinstance(source, TrainConfig):
        merged = source.to_dict()
    elif isinstance(source, Mapping):
        merged = _plain(source)
    elif isinstance(source, str | Path):
        where = str(source)
        merged = _read(Path(source))
    else:
        raise ConfigError(f"Got {source!r} as a configuration, expected the path of a TOML file, a dict or a TrainConfig.")
    for setting in sets:
        _merge_setting(merged, setting)
    return _build(TrainConfig, merged, "", where)


def _read(path: Path) -> dict:
    if not path.is_file():
        raise MissingFile(f'Got "{path}", which is no file, expected a TOML configuration; write one: inrbridge config init')
    return parse_toml(path.read_text(encoding="utf-8"), str(path))


def _merge_setting(merged: dict, setting: str) -> None:
    key, equals, text = setting.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        raise ConfigError(f'Got the setting "{setting}", expected section.key=value, for example optimizer.lr=0.01.')
    place = merged
    for name in names[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise ConfigError(
                f'Got the setting "{setting}", but "{name}" holds a value, not a section; see: inrbridge config show'
            )
    place[names[-1]] = parse_value(text)


def _build(cls: type, given: Mapping, prefix: str, where: str):
    hints = typing.get_type_hints(cls)
    for name in given:
        if name not in hints:
            raise ConfigError(_unknown_key(cls, prefix + str(name), where))
    values = {}
    for name, value in given.items():
        hint, key = hints[name], prefix + name
        if not dataclasses.is_dataclass(hint):
            values[name] = _fit(value, hint, key, where)
        elif isinstance(value, Mapping):
            values[name] = _build(hint, value, key + ".", where)
        else:
            raise ConfigError(f'Got {value!r} for "{key}" in {where}, expected a section [{key}] with keys.')
    return cls(**values)


def _unknown_key(cls: type, key: str, where: str) -> str:
    siblings = [f.name for f in dataclasses.fields(cls)]
    prefix, _, name = key.rpartition(".")
    start = f"{prefix}." if prefix else ""
    elsewhere = [known for known in all_keys() if known.rpartition(".")[2] == name]  # right key, wrong section
    near = elsewhere[:1] or difflib.get_close_matches(key, [start + sibling for sibling in siblings], n=1, cutoff=0.5)
    hint = f' Did you mean "{near[0]}"?' if near else ""
    return f'There is no key "{key}" in {where}; expected one of: {", ".join(siblings)}.{hint}'


def all_keys() -> list[str]:
    """Return every dotted key of a configuration."""
    keys = []
    for section, hint in typing.get_type_hints(TrainConfig).items():
        keys += [f"{section}.{f.name}" for f in dataclasses.fields(hint)] if dataclasses.is_dataclass(hint) else [section]
    return keys


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "a table"}


def _describe(hint) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a list, each item {_WORDS[typing.get_args(hint)[0]]}"
    return _WORDS[hint]


def _matches(value, hint) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_matches(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_matches(item, typing.get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _fit(value, hint, key: str, where: str):
    if not _matches(value, hint):
        raise ConfigError(f'Got {value!r} for "{key}" in {where}, expected {_describe(hint)}; see: inrbridge config show')
    if hint is float:
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _check_ranges(config: TrainConfig) -> None:
    data, points, optimizer, augment, run = config.data, config.points, config.optimizer, config.augment, config.run
    targets = config.targets
    rules = [
        ("task", config.task, config.task in TASKS, f"one of {', '.join(TASKS)}"),
        ("data.batch_size", data.batch_size, data.batch_size >= 1, "at least 1"),
        ("data.directions", data.directions, _are_directions(data.directions), "a number of directions, or three numbers"),
        ("data.length", data.length, data.length >= 0, "0 or more"),
        ("data.ramp", data.ramp, data.ramp >= 0, "0 or more"),
        ("targets.loss", targets.loss, targets.loss in ("", *LOSSES), f"one of {', '.join(LOSSES)}"),
        ("targets.n", targets.n, targets.n >= 0, "0 or more"),
        ("points.n", points.n, points.sizes and min(points.sizes) >= 1, "whole numbers of at least 1"),
        ("points.sampler", points.sampler, bool(points.samplers), "at least one sampler"),
        ("points.pool", points.pool, points.pool >= 0, "0 or more"),
        ("points.cache", points.cache, points.cache >= 0, "0 or more"),
        ("points.eval_n", points.eval_n, points.eval_n >= 0, "0 or more"),
        ("optimizer.name", optimizer.name, optimizer.name in ("adamw", "sgd"), '"adamw" or "sgd"'),
        ("optimizer.schedule", optimizer.schedule, optimizer.schedule in ("cosine", "constant"), '"cosine" or "constant"'),
        ("optimizer.lr", optimizer.lr, optimizer.lr > 0, "above 0"),
        ("optimizer.betas", optimizer.betas, _are_betas(optimizer.betas), "two numbers from 0 up to, but not, 1"),
        ("optimizer.weight_decay", optimizer.weight_decay, optimizer.weight_decay >= 0, "0 or more"),
        ("optimizer.warmup", optimizer.warmup, optimizer.warmup >= 0, "0 or more"),
        ("optimizer.epochs", optimizer.epochs, optimizer.epochs >= 1 or optimizer.steps >= 1, "at least 1, or optimizer.steps"),
        ("optimizer.steps", optimizer.steps, optimizer.steps >= 0, "0 or more"),
        ("optimizer.clip", optimizer.clip, optimizer.clip >= 0, "0 or more"),
        ("optimizer.label_smoothing", optimizer.label_smoothing, 0 <= optimizer.label_smoothing < 1, "0 up to, but not, 1"),
        ("augment.noise", augment.noise, augment.noise >= 0, "0 or more"),
        ("augment.shift", augment.shift, augment.shift >= 0, "0 or more"),
        ("augment.rotate", augment.rotate, augment.rotate >= 0, "0 or more"),
        ("augment.crop", augment.crop, 0 < augment.crop <= 1, "above 0, at most 1"),
        ("augment.brightness", augment.brightness, augment.brightness >= 0, "0 or more"),
        *(
            (f"augment.{name}", getattr(augment, name), 0 <= getattr(augment, name) < 1, "0 up to, but not, 1")
            for name in ("scale", "contrast", "saturation", "drop")
        ),
        ("run.out", run.out, bool(run.out), "the name of a folder"),
        ("run.threads", run.threads, run.threads >= 0, "0 or more"),
        ("run.checkpoint_every", run.checkpoint_every, run.checkpoint_every >= 0, "0 or more"),
        ("run.keep", run.keep, run.keep >= 1, "at least 1"),
        ("run.eval_every", run.eval_every, run.eval_every >= 0, "0 or more"),
        ("run.log_every", run.log_every, run.log_every >= 1, "at least 1"),
    ]
    for key, value, holds, expected in rules:
        if not holds:
            raise ConfigError(f'Got {value!r} for "{key}", expected {expected}; change it in the file or with --set {key}=...')


def _are_betas(values: tuple[float, ...]) -> bool:
    return len(values) == 2 and all(0 <= value < 1 for value in values)


def _are_directions(value: int | tuple[float, ...]) -> bool:
    return value >= 0 if isinstance(value, int) else len(value) == 3 and any(value)
