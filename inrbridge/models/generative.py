"""Floor 6: nets that learn to generate fields (Wang & Golland 2023, Algorithm 3): what they share, each with its own loss.

Such a net holds a `Generator` and whatever teaches it. For samples of real fields and normal noise it gives the loss of each
field, real and generated fields being compared at the points of the samples; for noise alone it gives fields.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.models.generator import Generator
from inrbridge.models.net import INRNet
from inrbridge.nn import Sampled

Noise = Callable[[int], Tensor]  # width -> new normal numbers (b, width), a row for each field


class GenerativeNet(INRNet):
    """A net that is trained to generate. Subclasses state `name`, fill `options` and write `losses(real, noise)`.

    Args:
        classes: channels of the fields, equal to `in_channels`.
        latent: length of a field's noise.
        generator_options: of the `Generator`.
        average: share that the running average of the generator's weights keeps in each step, (1 + s) / (10 + s) in step s
            while that is less; the average makes the fields in evaluation mode. 0: there is none.
    """

    kind = "generation"

    def __init__(self, domain: Domain, in_channels: int, classes: int, options: dict[str, object], *, latent: int,
                 generator_options: Mapping[str, object], average: float, generator: torch.Generator | None):  # fmt: skip
        if classes != in_channels:
            raise ShapeMismatch(
                f"Got fields of {in_channels} channels and {classes} to generate, expected as many; build the net with "
                f"classes = {in_channels}."
            )
        if not 0 <= average < 1:
            raise ConfigError(f"Got average={average}, expected 0 up to, but not, 1.")
        made = part("generator", domain, in_channels, classes, {"latent": latent, **generator_options}, generator)
        super().__init__(domain, in_channels, classes, made.points, options)
        self.latent, self.generator = made.latent, made
        self.average = average
        self.averaged = copy.deepcopy(made).requires_grad_(False) if average else None
        self.register_buffer("num_averaged", torch.tensor(0) if average else None)

    @property
    def rate_factors(self) -> dict[str, float]:
        """Factors of the learning rate, by the first name of the parameters that they belong to."""
        return {}

    @property
    def final(self) -> Generator:
        """The generator to make fields with: the average of its past weights, where that is kept."""
        return self.generator if self.averaged is None else self.averaged

    def losses(self, real: Sampled, noise: Noise) -> Tensor:
        """Return the losses (b,) of samples of b real fields; randomness comes from the noise alone."""
        raise TypeError(f"{type(self).__name__} does not define losses(real, noise); write it in the subclass.")

    def forward(self, given: Sampled | Tensor, noise: Noise | None = None, discretization: Discretization | None = None):
        """Return the losses (b,) of samples, or for vectors (b, latent) the fields on the discretization, as samples."""
        if isinstance(given, Tensor):
            return (self.generator if self.training else self.final)(given, discretization)
        if self.training:
            self._keep_average()
        return self.losses(self._checked(given), noise)

    @torch.no_grad()
    def _keep_average(self) -> None:
        """Let the average follow, as running statistics do: once a training step, before the weights change again."""
        if self.averaged is not None:
            step = int(self.num_averaged)
            share = min(self.average, (1 + step) / (10 + step))
            for kept, now in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
                kept.lerp_(now, 1 - share)
            self.num_averaged += 1


def part(name: str, domain: Domain, in_channels: int, outputs: int, options: Mapping[str, object],
         generator: torch.Generator | None) -> INRNet:  # fmt: skip
    """Build a net that is part of another one."""
    from inrbridge.models import build_model  # the list of architectures names this file's classes too

    return build_model(name, domain, in_channels, outputs, generator=generator, **options)


def frozen(net: nn.Module, *inputs) -> Tensor:
    """Apply a net without letting gradients reach its weights; they flow to the inputs alone."""
    weights = {name: value.detach() for name, value in net.named_parameters()}
    return torch.func.functional_call(net, weights, inputs)
