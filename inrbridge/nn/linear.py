"""Floor 5: pointwise layers: mixing of channels, activations, positional encodings.

Wang & Golland 2023, appendix C, eq. (126)-(127).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from inrbridge.errors import ConfigError, ShapeMismatch, unknown_name
from inrbridge.nn.channels import check_channels
from inrbridge.nn.sampled import Sampled

SMALLEST_SUM = 1e-6  # of the weights of an output channel, relative to the sum of their sizes


class Linear(nn.Module):
    """Mix channels at each point: g_j(x) = sum_i W_ji f_i(x) + b_j (eq. 126), a 1x1 convolution.

    Args:
        in_channels, out_channels: `weight` is (out_channels, in_channels), as in torch.nn.Linear.
        bias: whether to add b_j.
        normalized: use W_ji = w_ji / sum_k w_jk (eq. 127), whose rows sum to 1; w starts positive. A sum near 0, where the
            quotient has no limit, is held SMALLEST_SUM away from it.
        generator: source of the initial weights; None: torch's default one.

    >>> Linear(3, 8).weight.shape
    torch.Size([8, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True, *, normalized: bool = False,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__()
        self.in_channels, self.out_channels, self.normalized = in_channels, out_channels, normalized
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights from U(-1/sqrt(in), 1/sqrt(in)), as torch does; normalized ones from U(1/2, 3/2)."""
        bound = 1 / math.sqrt(max(1, self.in_channels))
        low, high = (0.5, 1.5) if self.normalized else (-bound, bound)
        nn.init.uniform_(self.weight, low, high, generator=generator)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    @classmethod
    def from_discrete(cls, layer: nn.Module) -> Linear:
        """Copy a torch.nn.Linear, or a Conv1d/2d/3d whose kernel is 1 in every axis (groups become a block matrix)."""
        weight = layer.weight.detach()
        if any(size != 1 for size in weight.shape[2:]):
            raise ShapeMismatch(
                f"Got a kernel of shape {tuple(weight.shape)}, expected size 1 in every axis; use Conv for larger ones."
            )
        weight = weight.flatten(1)
        groups = getattr(layer, "groups", 1)  # torch.nn.Linear has none
        if groups > 1:
            weight = torch.block_diag(*weight.chunk(groups))
        copy = cls(weight.shape[1], weight.shape[0], bias=layer.bias is not None).to(weight)
        with torch.no_grad():
            copy.weight.copy_(weight)
            if layer.bias is not None:
                copy.bias.copy_(layer.bias)
        return copy

    @property
    def matrix(self) -> Tensor:
        """The matrix W (out_channels, in_channels) that acts on the channels."""
        if not self.normalized:
            return self.weight
        total = self.weight.sum(1, keepdim=True)
        floor = SMALLEST_SUM * self.weight.detach().abs().sum(1, keepdim=True).clamp(min=SMALLEST_SUM)
        sign = torch.where(total < 0, -1.0, 1.0).to(total)
        return self.weight / torch.where(total.abs() < floor, sign * floor, total)

    def forward(self, sampled: Sampled) -> Sampled:
        check_channels(sampled, self.in_channels, f"Linear({self.in_channels}, {self.out_channels})")
        return sampled.with_values(nn.functional.linear(sampled.values, self.matrix, self.bias))

    def extra_repr(self):
        return f"{self.in_channels}, {self.out_channels}, bias={self.bias is not None}, normalized={self.normalized}"


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "hardswish": nn.functional.hardswish,
    "identity": torch.positive,
    "leaky_relu": nn.functional.leaky_relu,
    "mish": nn.functional.mish,
    "relu": nn.functional.relu,
    "relu6": nn.functional.relu6,
    "sigmoid": torch.sigmoid,
    "silu": nn.functional.silu,
    "sin": torch.sin,
    "softplus": nn.functional.softplus,
    "tanh": torch.tanh,
}


class Activation(nn.Module):
    """Apply sigma to every value: H[f](x) = sigma(f(x)) (Wang & Golland 2023, section 3.1).

    Args:
        function: a name ("relu", "gelu", "silu", "tanh", "sin", ...) or any pointwise callable; a module is registered,
            its parameters are trained.

    >>> Activation("relu")
    Activation(relu)
    """

    def __init__(self, function: str | Callable[[Tensor], Tensor] = "relu"):
        super().__init__()
        if isinstance(function, str) and function not in _ACTIVATIONS:
            raise unknown_name("activation", function, _ACTIVATIONS, ConfigError)
        self.name = function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)
        self.function = _ACTIVATIONS[function] if isinstance(function, str) else function

    def forward(self, sampled: Sampled) -> Sampled:
        values = self.function(sampled.values)
        if values.shape != sampled.values.shape:
            raise ShapeMismatch(
                f"Got values of shape {tuple(values.shape)} from the activation {self.name}, expected "
                f"{tuple(sampled.values.shape)}; an activation acts on each value by itself."
            )
        return sampled.with_values(values)

    def extra_repr(self):
        return self.name


class PositionalEncoding(nn.Module):
    """Tell the net where it is: sinusoids of the coordinates (appendix C, "Positional encoding").

    With u_a in [0, 1] the place along axis a between the domain's bounds, feature number (2 l + s) d + a is
    sin(2 pi F_l u_a) for s = 0 and cos(2 pi F_l u_a) for s = 1, F_l = frequencies[l] in cycles across the domain.

    Args:
        frequencies: F; whole numbers give features without a seam on a torus.
        mode: "add" adds amplitude * feature (j mod 2 d len(F)) to channel j; "concat" appends all features as
            2 d len(F) more channels.
        amplitude: factor of every feature.
    """

    def __init__(self, frequencies: Sequence[float] = (0.5, 1.0, 2.0, 4.0), mode: str = "add", amplitude: float = 1.0):
        super().__init__()
        if mode not in ("add", "concat"):
            raise unknown_name("mode of a positional encoding", mode, ("add", "concat"), ConfigError)
        if not frequencies:
            raise ConfigError("Got no frequencies for a positional encoding, expected at least one, for instance (1.0, 2.0).")
        self.frequencies, self.mode, self.amplitude = tuple(float(f) for f in frequencies), mode, float(amplitude)

    def out_channels(self, in_channels: int, dim: int) -> int:
        """Channels of the output, given those of the input and the coordinates of the domain."""
        return in_channels + (2 * dim * len(self.frequencies) if self.mode == "concat" else 0)

    def features(self, sampled: Sampled) -> Tensor:
        """Return the features (n, 2 d len(frequencies)) at the points, without the amplitude."""
        points = sampled.discretization.points.to(sampled.values)
        low, high = (torch.as_tensor(v, dtype=points.dtype, device=points.device) for v in sampled.discretization.domain.bounds)
        frequencies = torch.as_tensor(self.frequencies, dtype=points.dtype, device=points.device)
        angles = 2 * math.pi * ((points - low) / (high - low))[:, None] * frequencies[:, None]  # (n, l, d)
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)  # (n, l, 2, d)

    def forward(self, sampled: Sampled) -> Sampled:
        features = self.amplitude * self.features(sampled)
        b, _, c = sampled.values.shape
        if self.mode == "concat":
            return sampled.with_values(torch.cat([sampled.values, features.expand(b, -1, -1)], dim=2))
        return sampled.with_values(sampled.values + features[:, torch.arange(c, device=features.device) % features.shape[1]])

    def extra_repr(self):
        return f"{self.frequencies}, mode={self.mode}, amplitude={self.amplitude}"
