"""Floor 6: variational autoencoders of fields (Kingma & Welling 2014), whose reconstruction error is an integral."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.models.generative import GenerativeNet, Noise, part
from inrbridge.nn import Sampled


class VAE(GenerativeNet):
    """An encoder L2 -> R^(2k) and a generator R^k -> L2, trained together.

    The loss of a field f with reconstruction g is  int |f - g|^2 + beta KL(N(mean, variance) || N(0, 1)),  the integral under
    the normalized measure and averaged over the channels. For noise of variance s^2 at each of m independent places,
    beta = 2 s^2 / m.

    Args:
        latent: k. beta: weight of the divergence.
        encoder: name of an architecture whose outputs are numbers. encoder_options, generator_options: of the two nets.
        average: as of GenerativeNet.
    """

    name = "vae"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, latent: int = 16, beta: float = 1e-3,
                 encoder: str = "convnet", encoder_options: Mapping[str, object] | None = None,
                 generator_options: Mapping[str, object] | None = None, average: float = 0.0,
                 generator: torch.Generator | None = None):  # fmt: skip
        if beta < 0:
            raise ConfigError(f"Got beta={beta}, expected 0 or more.")
        options = {"latent": latent, "beta": beta, "encoder": encoder, "encoder_options": dict(encoder_options or {}),
                   "generator_options": dict(generator_options or {}), "average": average}  # fmt: skip
        super().__init__(domain, in_channels, classes, options, latent=latent, generator_options=generator_options or {},
                         average=average, generator=generator)  # fmt: skip
        self.beta = beta
        self.encoder = part(encoder, domain, in_channels, 2 * latent, encoder_options or {}, generator)

    def encode(self, fields: Sampled) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance (b, latent) of the vectors of fields."""
        mean, log_variance = self.encoder(fields).chunk(2, dim=-1)
        return mean, log_variance.clamp(-20, 10)

    def reconstruct(self, fields: Sampled) -> Sampled:
        """Return the fields that the means of the vectors stand for, at the same points."""
        return self.final(self.encode(fields)[0], fields.discretization)

    def losses(self, real: Sampled, noise: Noise) -> Tensor:
        mean, log_variance = self.encode(real)
        made = self.generator(mean + noise(self.latent) * (0.5 * log_variance).exp(), real.discretization)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return squared_error(real, made) + self.beta * divergence


def squared_error(a: Sampled, b: Sampled) -> Tensor:
    """Return int |a - b|^2 (b,) under the normalized measure, averaged over the channels."""
    return (a.values - b.values).square().mean(-1) @ a.weights
