"""Floor 8: the net that a run begins with: a new one, or that of a model folder, such as a converted network."""

from __future__ import annotations

import torch
from torch import nn

from inrbridge.errors import ConfigError
from inrbridge.models import build_model, model_class
from inrbridge.training.config import TrainConfig
from inrbridge.training.model_folder import Card, load_model, read_card
from inrbridge.training.seeding import derive, generator
from inrbridge.training.tasks import Task


def card_to_start_from(config: TrainConfig) -> Card | None:
    """Return the card of the model that a run begins with, None for a new net."""
    init = config.model.init
    if not init:
        return None
    if config.model.options:
        raise ConfigError(
            f"Got model.init = {init!r} and model.options, expected one of them: a net that is there has its options already."
        )
    return read_card(init)


def first_model(config: TrainConfig, train_set, task: Task) -> tuple[nn.Module, str]:
    """Return the net of the first step, on the CPU, and the name under which its class is found again.

    Raises:
        ConfigError: the net is for another task, domain, or number of channels or outputs.
    """
    card = card_to_start_from(config)
    if card is None:
        task.check(model_class(config.model.name))
        seed = config.run.seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            model = build_model(
                config.model.name, train_set.domain, len(train_set.channels), task.outputs(train_set),
                generator=generator(seed, "weights"), **config.model.options,
            )  # fmt: skip
        return model, config.model.name
    module, colon, _ = config.model.name.partition(":")
    model = load_model(config.model.init, trusted=[module] if colon else [])
    task.check(type(model))
    wanted = (train_set.domain, len(train_set.channels), task.outputs(train_set))
    if (model.domain, model.in_channels, model.classes) != wanted:
        raise ConfigError(
            f"Got model.init = {config.model.init!r}, a net from {model.in_channels} channels on {model.domain} to "
            f"{model.classes} outputs, expected one from {wanted[1]} on {wanted[0]} to {wanted[2]}, as the data asks; "
            "choose data of its kind."
        )
    if task.name == "classification" and list(train_set.class_names) not in ([], card.class_names):
        raise ConfigError(
            f"Got the classes {list(train_set.class_names)} for a net that knows {card.class_names}, expected the same in "
            "the same order; pass class_names to the dataset."
        )
    return model.train(), card.model["name"]
