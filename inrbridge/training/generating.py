"""Floor 8: let a trained model make fields (Wang & Golland 2023, Algorithm 3, after training)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from inrbridge.errors import ConfigError
from inrbridge.models import GenerativeNet, Generator
from inrbridge.outputs import ModelField
from inrbridge.training.model_folder import Card, load_model
from inrbridge.training.seeding import Noise, derive


def generate(model: nn.Module | str | Path, n: int = 16, seed: int = 0, *, points: int | None = None) -> list[ModelField]:
    """Let a model make fields of noise.

    Args:
        model: a net of task "generation", or the folder of one.
        n: how many. Field i is the same for the same seed, however many are asked for.
        seed: of the noise, 0 or more.
        points: how many the layers of the generator work on; None: as many as in the evaluation of the model. What comes
            out is evaluated anywhere.

    Returns:
        Fields that hold the generator and their vector: `save_field` writes each as one file, which opens like any other.

    Raises:
        ConfigError: the model does not generate, or a number is out of range.
    """
    return list(generated(model, n, seed, points=points))


def generated(model: nn.Module | str | Path, n: int = 16, seed: int = 0, *, points: int | None = None) -> Iterator[ModelField]:
    """Make the fields of `generate` one by one, as they are asked for."""
    for name, value, least in (("n", n, 1), ("seed", seed, 0), ("points", 1 if points is None else points, 1)):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"Got {name}={value!r}, expected a whole number of at least {least}.")
    model = load_model(model) if isinstance(model, str | Path) else model
    card: Card | None = getattr(model, "card", None)
    if not isinstance(model, GenerativeNet | Generator):
        task = f"a model for {card.task}" if card else f"a {type(model).__name__}"
        raise ConfigError(
            f'Got {task}, expected one that generates; train it with task = "generation" and model.name = "vae" or "gan".'
        )
    maker = model.final if isinstance(model, GenerativeNet) else model
    place = {"sampler": "lattice", "n": maker.points, "seed": 0, **(card.points if card else {})}
    if points is not None:
        place["n"] = points
    names = card.channels if card else None
    for i in range(n):
        vector = Noise([derive(seed, "latent", i)])(maker.latent)[0]
        yield ModelField(maker, vector.to(next(maker.parameters())), points=place, channel_names=names)
