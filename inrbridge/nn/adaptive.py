"""Floor 5: adaptive instance normalization, whose means and deviations other data decide (Wang & Golland 2023, eq. 130)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrbridge.errors import ShapeMismatch
from inrbridge.nn.channels import check_channels
from inrbridge.nn.linear import Linear
from inrbridge.nn.norm import InstanceNorm
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.weights import promoted


class AdaptiveInstanceNorm(nn.Module):
    """Give each channel of a field the mean m_i and deviation s_i that a condition says.

    g_i(x) = (f_i(x) - mu_i) / sqrt(sigma_i^2 + eps) * s_i + m_i, with mu and sigma the integrals over the domain. A condition
    is a vector, from which a learned layer makes s_i = 1 + .. and m_i; or another field, whose own s_i and m_i are taken
    over (style transfer, Huang & Belongie 2017). Means and deviations of both are integrals, so that the style may lie on
    another discretization, or another domain.

    Args:
        channels: c of the field.
        features: length of the vectors; None: the condition is a field.
        eps: added to variances.
        generator: source of the initial weights.
    """

    def __init__(
        self, channels: int, features: int | None = None, *, eps: float = 1e-5, generator: torch.Generator | None = None
    ):
        super().__init__()
        self.channels, self.features = channels, features
        self.norm = InstanceNorm(channels, eps=eps)
        self.style = None if features is None else Linear(features, 2 * channels, generator=generator)

    def forward(self, sampled: Sampled, condition: Tensor | Sampled) -> Sampled:
        """Normalize the b fields of `sampled` to the condition: vectors (b, features), or b fields or one of as many channels."""
        check_channels(sampled, self.channels, f"AdaptiveInstanceNorm({self.channels})")
        scale, mean = self._from_field(condition) if self.features is None else self._from_vector(condition)
        if len(scale) not in (1, len(sampled.values)):
            raise ShapeMismatch(
                f"Got {len(scale)} conditions for {len(sampled.values)} fields, expected as many, or one for all."
            )
        return sampled.with_values(torch.addcmul(mean[:, None], self.norm(sampled).values, scale[:, None]))

    def _from_vector(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(vector, Tensor) or vector.ndim != 2 or vector.shape[1] != self.features:
            got = f"a tensor {tuple(vector.shape)}" if isinstance(vector, Tensor) else f"a {type(vector).__name__}"
            raise ShapeMismatch(
                f"Got {got} as the condition of an AdaptiveInstanceNorm, expected vectors (fields, {self.features}); "
                "build it without `features` to take the style of another field."
            )
        scale, mean = nn.functional.linear(vector, self.style.weight, self.style.bias).chunk(2, dim=1)
        return 1 + scale, mean

    def _from_field(self, style: Sampled) -> tuple[Tensor, Tensor]:
        if not isinstance(style, Sampled):
            raise ShapeMismatch(
                f"Got a {type(style).__name__} as the condition of an AdaptiveInstanceNorm, expected a Sampled, the field whose "
                "style to take; build it with `features` to take vectors."
            )
        check_channels(style, self.channels, "the style of an AdaptiveInstanceNorm")
        values, weights = promoted(style)
        mean = weights @ values
        variance = weights @ (values - mean[:, None]) ** 2
        return (variance + self.norm.eps).sqrt().to(style.values), mean.to(style.values)

    def extra_repr(self) -> str:
        return f"{self.channels}, features={self.features}"
