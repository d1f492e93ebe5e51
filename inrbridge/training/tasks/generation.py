"""Floor 8: the task of generating fields like those of a dataset (Wang & Golland 2023, Algorithm 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrbridge.errors import ConfigError
from inrbridge.models import VAE, GenerativeNet
from inrbridge.models.vae import squared_error
from inrbridge.nn.sampled import Sampled
from inrbridge.training.tasks.base import Task, shares


@dataclass(frozen=True, eq=False)
class Generated:
    """Fields that a net made of noise, one for each real field, at the same points; and the errors of a reconstruction."""

    fields: Sampled
    errors: Tensor | None = None  # int |f - reconstruction of f|^2 (b,)


class Generation(Task):
    """The model's own loss; fields need no labels."""

    name = "generation"
    kind = "generation"
    has_labels = False

    def check(self, architecture):
        super().check(architecture)
        if not issubclass(architecture, GenerativeNet):
            name = getattr(architecture, "name", architecture.__name__)
            raise ConfigError(
                f'Got the model "{name}" for the task "generation", expected one that learns to generate, with a loss of its '
                'own: set model.name to "vae" or "gan".'
            )

    def outputs(self, dataset) -> int:
        return len(dataset.channels)

    def output_names(self, dataset):
        return list(dataset.channels)

    def losses(self, model, batch):
        if model.training:
            return model(batch.sampled, batch.noise), None
        made = model(batch.noise(model.latent), None, batch.sampled.discretization)
        errors = squared_error(batch.sampled, model.reconstruct(batch.sampled)) if isinstance(model, VAE) else None
        return model(batch.sampled, batch.noise), Generated(made, errors)

    def tally(self, outputs, formats):
        return DistanceTally(formats)

    def predict(self, model, sampled):
        if not isinstance(model, VAE):
            raise ConfigError(
                f'Got fields for the model "{model.name}", which makes fields and takes none; let it make some: '
                "inrbridge generate RUN -n 16 -o DIR"
            )
        return model.encode(sampled)[0]

    def answers(self, outputs, class_names):
        return [{"value": row} for row in outputs.tolist()]


class DistanceTally:
    """How far generated fields are from real ones: the energy distance (Szekely & Rizzo 2013), and errors of reconstruction.

    With X, X' real, Y, Y' generated and |.| the norm of L2 under the normalized measure, an integral:
    2 E|X - Y| - E|X - X'| - E|Y - Y'|, 0 for equal distributions. The means go over the pairs within each minibatch, a field
    and itself left out, so that the estimate is not biased; for a true 0 it scatters around 0.
    """

    def __init__(self, formats: Sequence[str]):
        self.formats = list(formats)
        # sums, then numbers of pairs: real with made and real with real of each format; real with real and made with made of all
        self.across, self.alike = (torch.zeros(2, len(self.formats), dtype=torch.float64) for _ in range(2))
        self.real, self.made = (torch.zeros(2, dtype=torch.float64) for _ in range(2))
        self.errors, self.counts = torch.zeros(2, len(self.formats), dtype=torch.float64)
        self.losses = torch.zeros(1, dtype=torch.float64)
        self.sums = [self.across, self.alike, self.real, self.made, self.errors, self.counts, self.losses]

    def add(self, losses, outputs, batch):
        real, made = batch.sampled, outputs.fields
        b, member = len(real.values), nn.functional.one_hot(batch.formats.cpu(), len(self.formats)).double()  # (b, formats)
        counts = member.sum(0)
        within, between = distances(real, real), distances(real, made)
        self.across += torch.stack([member.T @ between.sum(1), b * counts])
        self.alike += torch.stack([(member * (within @ member)).sum(0), counts * (counts - 1)])
        pairs = within.new_tensor(b * (b - 1))
        self.real += torch.stack([within.sum(), pairs])
        self.made += torch.stack([distances(made, made).sum(), pairs])
        self.counts += counts
        self.losses += losses.double().sum().cpu()
        if outputs.errors is not None:
            self.errors += member.T @ outputs.errors.double().cpu()

    def result(self):
        figures: dict = {"fields": int(self.counts.sum()), "loss": float(self.losses / self.counts.sum())}
        if self.real[1] > 0:  # there was a pair
            apart, alike = (shares(self.formats, *sums) for sums in (self.across, self.alike))
            real, made = (float(total / pairs) for total, pairs in (self.real, self.made))
            mean = float(self.across[0].sum() / self.across[1].sum())
            figures["energy"] = 2 * mean - real - made
            figures["energy_by_format"] = {name: 2 * apart[name] - share - made for name, share in alike.items()}
        if self.errors.any():
            figures["mse"] = float(self.errors.sum() / self.counts.sum())
            figures["mse_by_format"] = shares(self.formats, self.errors, self.counts)
        return figures


def distances(a: Sampled, b: Sampled) -> Tensor:
    """Return the distances (a, b) in L2 under the normalized measure of all pairs of fields."""
    scale = a.weights.double().sqrt()[:, None]
    left, right = ((s.values.double() * scale).flatten(1) for s in (a, b))
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").cpu()
