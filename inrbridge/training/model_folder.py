"""Floor 8: a trained model as a folder that can be sent, published and loaded again.

    config.json         architecture and arguments, task, domain, channels, classes, points, formats with versions
    model.safetensors   the weights
    README.md           the card: what it is, on which data, how good, which command made it

This is the layout of the Hugging Face hub. Loading reads tensors and JSON only, and runs no code that the folder names, except
where the caller passes the class.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import nn

from inrbridge import __version__
from inrbridge.data.view import View
from inrbridge.domains import Domain, domain_from_config
from inrbridge.errors import CannotOpen, ConfigError, InrBridgeError, MissingFile
from inrbridge.models import INRNet, build_model
from inrbridge.plugins import registry
from inrbridge.training.checkpoint import compare_tensors, load_tensors_into, save_tensors
from inrbridge.writing import written_whole

API = 1  # of this folder; a reader refuses what is newer


@dataclass(frozen=True)
class Card:
    """What `config.json` says of a model. All values are JSON."""

    model: dict  # of INRNet.config(): name, domain, in_channels, classes, options
    task: str
    channels: list[str]
    class_names: list[str]
    view: dict = field(default_factory=dict)  # of data.View: how fields are aligned
    points: dict = field(default_factory=dict)  # sampler, n, seed of its evaluation
    formats: dict = field(default_factory=dict)  # name -> distribution and version, of the fields it learned from
    metrics: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)  # the whole TrainConfig
    command: str = ""
    steps: int = 0
    activation: str = ""  # of a net whose output is a field: what turns its numbers into values
    inrbridge: str = __version__
    api: int = API

    @property
    def domain(self) -> Domain:
        return domain_from_config(self.model["domain"])

    @classmethod
    def of(cls, net: INRNet, *, channels: Sequence[str] | None = None, class_names: Sequence[str] | None = None,
           sampler: str = "lattice", n: int | None = None, activation: str = "identity", command: str = "") -> Card:  # fmt: skip
        """Return the card of a net that no run here has trained.

        Args:
            channels: names of its input channels; None numbers them. class_names: of its outputs, likewise.
            sampler, n: of its evaluation; n None: as many points as the net's own discretization has.
            activation: of an output that is a field.
        """
        channels, class_names = (
            [str(i) for i in range(count)] if names is None else list(names)
            for names, count in ((channels, net.in_channels), (class_names, net.classes))
        )
        for what, names, count in (("channels", channels, net.in_channels), ("classes", class_names, net.classes)):
            if len(names) != count:
                raise ConfigError(f"Got names of {len(names)} {what}, expected {count}, as many as the net has.")
        return cls(model=net.config(), task=net.kind, channels=channels, class_names=class_names, view=View().to_json(),
                   points={"sampler": sampler, "n": n or len(net.own_discretization()), "seed": 0}, command=command,
                   activation=activation if net.kind == "dense" else "")  # fmt: skip


def save_model(folder: str | Path, model: nn.Module, card: Card) -> None:
    """Write config.json, model.safetensors and README.md, each under a temporary name first."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "model.safetensors") as path:
        save_tensors(path, model.state_dict())
    texts = {"README.md": _readme(card, folder.name), "config.json": json.dumps(asdict(card), indent=1) + "\n"}
    for name, text in texts.items():
        with written_whole(folder / name) as path:
            path.write_text(text, encoding="utf-8")


def read_card(folder: str | Path) -> Card:
    """Read the config.json of a model folder.

    Raises:
        MissingFile: no folder, or one without config.json.
        CannotOpen: config.json is damaged, or of a newer inrbridge.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        begun = Path(folder) / "config.toml"
        known, command = ("a run that has not finished", f" {begun} --resume") if begun.is_file() else ("no model", "")
        raise MissingFile(
            f'"{folder}" holds {known}, expected the folder of a trained model with config.json; run: inrbridge train{command}'
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["api"] > API:
            raise CannotOpen(f"{path} was written by inrbridge {content['inrbridge']}, which is newer; pip install -U inrbridge")
        card = Card(**{name: content[name] for name in (f.name for f in fields(Card)) if name in content})
        for key in ("name", "domain", "in_channels", "classes", "options"):
            card.model[key]
        return card
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InrBridgeError):
            raise
        raise CannotOpen(f"{path} is damaged ({type(error).__name__}: {error}); copy or train the model again.") from error


def load_model(folder: str | Path, *, model: nn.Module | None = None, trusted: Sequence[str] = ()) -> nn.Module:
    """Load a trained model, in evaluation mode on the CPU; its card is in `.card`.

    Args:
        folder: written by `train`.
        model: a net of your own class to fill; needed where the folder names a class outside inrbridge.models.
        trusted: names of modules from which the folder may take its class; they are imported.

    Raises:
        MissingFile, CannotOpen: nothing there, or damaged.
        ConfigError: the folder names a class that was not passed or trusted.
    """
    card, weights = read_card(folder), Path(folder) / "model.safetensors"
    if model is None:
        module, colon, _ = card.model["name"].partition(":")
        if colon and module not in trusted:
            raise ConfigError(
                f"The model in {folder} is of the class {card.model['name']}; loading never imports code that a file names. Pass "
                f'load_model(..., trusted=["{module}"]), or --trust {module} on the command line, if you trust that package.'
            )
        with torch.device("meta"), contextlib.suppress(NotImplementedError):  # some nets compute with values while they are built
            compare_tensors(_build(card, folder), weights)
        model = _build(card, folder)
    load_tensors_into(model, weights)
    model.card = card
    return model.eval()


def _build(card: Card, folder: str | Path) -> nn.Module:
    spec = card.model
    try:
        return build_model(spec["name"], card.domain, spec["in_channels"], spec["classes"], **spec["options"])
    except NotImplementedError:
        raise
    except (TypeError, ValueError, RuntimeError, LookupError) as error:
        raise CannotOpen(
            f"Cannot build the model {spec['name']} as {folder}/config.json describes it: {error} Install the inrbridge that "
            f"wrote it ({card.inrbridge}), or train the model again."
        ) from error


def format_versions(names: Sequence[str]) -> dict:
    """Return {format: {distribution, version}} of installed formats."""
    found = {}
    for name in sorted(set(names)):
        try:
            registry().get(name)
        except InrBridgeError:  # fields made in memory may come from no installed format
            found[name] = {"distribution": "", "version": ""}
        else:
            owner = registry().owner(name)
            found[name] = {"distribution": owner.distribution, "version": owner.version}
    return found


def _readme(card: Card, title: str) -> str:
    data, run = card.training.get("data", {}), card.training.get("run", {})
    scores = [f"| {name} | {value:.4g} |" for name, value in card.metrics.items() if isinstance(value, int | float)]
    for name, shares in card.metrics.items():
        if isinstance(shares, dict):
            scores += [f"| {name.partition('_by_')[0]} on {key} | {value:.4g} |" for key, value in shares.items()]
    formats = ", ".join(f"{name} ({by['distribution']} {by['version']})".replace(" ( )", "") for name, by in card.formats.items())
    points = f"{card.points.get('n')} points of the sampler {card.points.get('sampler')}, seed {card.points.get('seed')}"
    makes = card.task == "generation"
    lines = [
        "---", "library_name: inrbridge", "tags: [implicit-neural-representation, inr-net]", "---", "",
        f"# {title}", "",
        f"An INR-Net ({card.model['name']}) for {card.task}: it {'makes fields' if makes else 'takes fields of any format'} on "
        f"{card.domain}", "with the channels "
        + ", ".join(card.channels) + ".", "",
        "## Data", "",
        *([f"Store `{data.get('store') or 'given in memory'}`, split `{data.get('train_split') or 'all'}`.",
           f"Formats: {formats or 'none named'}."] if card.training else ["Not trained here: the weights were given."]),
        f"Classes: {', '.join(card.class_names) if card.class_names and not makes else 'none'}.", "",
        "## Metrics", "",
        f"Split `{data.get('eval_split') or 'none'}`, {points}; training seed {run.get('seed', 0)}, {card.steps} steps."
        if card.training else f"Evaluated on {points}.", "",
        *(["| figure | value |", "|---|---|", *scores] if scores else ["Not measured."]), "",
        "## Use", "",
        "    inrbridge generate FOLDER -n 16 -o DIR" if makes else "    inrbridge predict FOLDER FILES..."
        + (" -o DIR" if card.task == "dense" else ""), "",
        f"Made by inrbridge {card.inrbridge}" + (f" with `{card.command}`." if card.command else "."), "",
        "## Licence", "",
        "Not stated: name the licence of the training data and of these weights here before you publish them.", "",
    ]  # fmt: skip
    return "\n".join(lines)
