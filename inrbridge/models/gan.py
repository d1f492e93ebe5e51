"""Floor 6: generators that learn from a critic (Goodfellow et al. 2014), an INR-Net that sees real and generated fields."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.models.generative import GenerativeNet, Noise, frozen, part
from inrbridge.nn import BatchNorm, Sampled

LOSSES = ("relativistic", "logistic", "hinge")


class GAN(GenerativeNet):
    """A generator R^k -> L2 and a critic L2 -> R, each trained against the other in one step.

    With D(f) the critic's value of a real field, D(g) that of a generated one, u = softplus:

    - "relativistic" (Jolicoeur-Martineau 2019): critic u(D(g) - D(f)), generator u(D(f) - D(g)), in pairs;
    - "logistic" (Goodfellow et al. 2014, not saturating): critic u(-D(f)) + u(D(g)), generator u(-D(g));
    - "hinge" (Lim & Ye 2017): critic max(0, 1 - D(f)) + max(0, 1 + D(g)), generator -D(g).

    The critic is held flat around both kinds of field by penalty / 2 int |dD/df|^2 (Mescheder et al. 2018; both kinds: Huang
    et al. 2024), where dD/df is the functional derivative under the normalized measure. It is estimated by a difference,
    ((D(f + h u) - D(f)) / h)^2 for white noise u (Lin et al. 2025), whose values have the variance 1 / weight at each point:
    so the penalty tends to a limit as points are added, and asks for no second derivative.

    Args:
        latent: k. loss: one of the three. penalty: its weight; 0: none.
        step: h, in units of the fields' values.
        critic: name of an architecture whose output is a number. Its opinion of a field must not depend on the others of the
            minibatch: no BatchNorm. critic_options, generator_options: of the two nets; None: {"norm": "layer"} for the critic.
        critic_rate: factor of the learning rate of the critic.
        average: as of GenerativeNet.
    """

    name = "gan"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, latent: int = 32, loss: str = "relativistic",
                 penalty: float = 1e-4, step: float = 3e-3, critic: str = "convnet",
                 critic_options: Mapping[str, object] | None = None, generator_options: Mapping[str, object] | None = None,
                 critic_rate: float = 3.0, average: float = 0.995, generator: torch.Generator | None = None):  # fmt: skip
        if critic_options is None:
            critic_options = {"norm": "layer"}
        if loss not in LOSSES:
            raise ConfigError(f'Got loss "{loss}", expected one of: {", ".join(LOSSES)}.')
        if penalty < 0 or step <= 0 or critic_rate <= 0:
            raise ConfigError(
                f"Got penalty={penalty}, step={step} and critic_rate={critic_rate}, expected 0 or more, and both others above 0."
            )
        options = {"latent": latent, "loss": loss, "penalty": penalty, "step": step, "critic": critic,
                   "critic_options": dict(critic_options), "generator_options": dict(generator_options or {}),
                   "critic_rate": critic_rate, "average": average}  # fmt: skip
        super().__init__(domain, in_channels, classes, options, latent=latent, generator_options=generator_options or {},
                         average=average, generator=generator)  # fmt: skip
        self.loss, self.penalty, self.step, self.critic_rate = loss, penalty, step, critic_rate
        self.critic = part(critic, domain, in_channels, 1, critic_options, generator)
        if any(isinstance(layer, BatchNorm) for layer in self.critic.modules()):
            raise ConfigError(
                f'Got a critic "{critic}" with BatchNorm, which makes its opinion of a field depend on the others, expected '
                'another normalization; set model.options.critic_options.norm to "layer".'
            )

    @property
    def rate_factors(self) -> dict[str, float]:
        return {"critic": self.critic_rate}

    def losses(self, real: Sampled, noise: Noise) -> Tensor:
        made = self.generator(noise(self.latent), real.discretization)
        return self.critic_losses(real, made, noise) + self.generator_losses(real, made)

    def critic_losses(self, real: Sampled, made: Sampled, noise: Noise) -> Tensor:
        """Return what the critic is to lower (b,); no gradient reaches the generator."""
        both = real.with_values(torch.cat([real.values, made.values.detach()]))
        opinions = self.critic(both)[:, 0]
        losses = _critic_loss(self.loss, *opinions.chunk(2))
        if self.penalty:
            u = noise(2 * real.values[0].numel()).view(len(both.values) // 2, 2, -1, real.channels).transpose(0, 1).flatten(0, 1)
            moved = both.with_values(both.values + self.step * u / both.weights.sqrt()[:, None])
            slopes = (self.critic(moved)[:, 0] - opinions) / self.step
            losses = losses + self.penalty / 2 * sum(slopes.square().chunk(2))
        return losses

    def generator_losses(self, real: Sampled, made: Sampled) -> Tensor:
        """Return what the generator is to lower (b,); no gradient reaches the critic."""
        opinions = frozen(self.critic, made)[:, 0]
        if self.loss == "hinge":
            return -opinions
        if self.loss == "logistic":
            return softplus(-opinions)
        with torch.no_grad():
            others = self.critic(real)[:, 0]
        return softplus(others - opinions)


def _critic_loss(name: str, real: Tensor, made: Tensor) -> Tensor:
    if name == "relativistic":
        return softplus(made - real)
    if name == "logistic":
        return softplus(-real) + softplus(made)
    return relu(1 - real) + relu(1 + made)
