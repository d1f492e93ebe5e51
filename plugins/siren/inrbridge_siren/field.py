"""The SIREN field: sine layers and a linear readout (Sitzmann et al. 2020, "Implicit Neural Representations
with Periodic Activation Functions").

    x_0 = coords mapped from the domain's bounds to [-1, 1]^d
    x_{i+1} = sin(omega_i (W_i x_i + b_i)),   value = final(W_L x_L + b_L)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge import Domain, errors

# A chunk of this many activations stays in a core's cache: measured twice as fast as one pass over
# 600 fields (2-32-32-1, 1024 points), and never slower.
_CACHE_NUMBERS = 2**18

FINALS = ("identity", "sigmoid", "sine")


class SirenField(nn.Module):
    """An MLP of sine layers of the given hidden sizes on `domain`; parameters are left unset.

    `omega_0` is the frequency of the first sine layer, `hidden_omega` of the others. `final` follows the
    readout: "identity", "sigmoid", or "sine" (of hidden_omega times it). `normalize=False` feeds the coordinates as they are.
    `axes` and `channel_ranges` say what the coordinates and values of the file mean, where that is known.
    """

    format = "siren"

    def __init__(self, domain: Domain, channels: int, hidden: Sequence[int], *, omega_0: float = 30.0, hidden_omega: float = 30.0,
                 final: str = "identity", normalize: bool = True, axes: Sequence[str] | None = None,
                 channel_ranges: Sequence[Sequence[float]] | None = None):  # fmt: skip
        super().__init__()
        self.domain, self.channels, self.channel_names = domain, channels, None
        self.hidden = tuple(hidden)
        self.omega_0, self.hidden_omega, self.final, self.normalize = float(omega_0), float(hidden_omega), final, normalize
        self.axes = tuple(axes) if axes else None
        self.channel_ranges = tuple(pair and tuple(pair) for pair in channel_ranges) if channel_ranges else None
        self.assumed: tuple[str, ...] = ()
        if not self.hidden or min(self.hidden) < 1:
            raise errors.ConfigError(f"Got hidden layers {self.hidden}, expected at least one, each of at least one unit.")
        if final not in FINALS:
            raise errors.unknown_name("final activation", final, FINALS)
        widths = (domain.dim, *self.hidden, channels)
        self.layers = nn.ModuleList(_unset_linear(a, b) for a, b in pairwise(widths))

    @property
    def architecture(self) -> dict:
        """Keyword arguments of `SirenFormat.build` that make this network anew (JSON)."""
        uniform = len(set(self.hidden)) == 1
        facts = {
            "width": self.hidden[0] if uniform else list(self.hidden),
            "layers": len(self.hidden),
            "omega_0": self.omega_0,
            "hidden_omega": self.hidden_omega,
        }
        extras = {
            "final": (self.final, "identity"),
            "normalize": (self.normalize, True),
            "axes": (self.axes and list(self.axes), None),
            "channel_ranges": (self.channel_ranges and [pair and list(pair) for pair in self.channel_ranges], None),
        }
        return facts | {name: value for name, (value, default) in extras.items() if value != default}

    def draw(self, generator: torch.Generator) -> None:
        """Draw the parameters as the paper does (section 3.2), biases as `nn.Linear` does."""
        with torch.no_grad():
            for index, layer in enumerate(self.layers):
                fan_in = layer.in_features
                bound = 1 / fan_in if index == 0 else math.sqrt(6 / fan_in) / self.hidden_omega
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)

    def forward(self, coords: Tensor) -> Tensor:
        """Evaluate at coords (..., d) in domain units: values (..., channels) in the dtype of coords."""
        self.domain.check_shape(coords)
        x = self._mapped(coords)
        *sines, readout = self.layers
        for index, layer in enumerate(sines):
            x = functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
            x = torch.sin(self._omega(index) * x)
        x = functional.linear(x, readout.weight.to(x.dtype), readout.bias.to(x.dtype))
        return self._finish(x).to(coords.dtype)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b networks of this architecture: coords (n, d) or (b, n, d) -> values (b, n, channels).

        `states` holds the stacked parameters: "layers.i.weight" (b, out, in), "layers.i.bias" (b, out).
        Differentiable in the states and in the coordinates.
        """
        x = self._mapped(coords)
        pairs = [
            (states[f"layers.{i}.weight"].to(x.dtype), states[f"layers.{i}.bias"].to(x.dtype)) for i in range(len(self.layers))
        ]
        b = pairs[0][0].shape[0]
        x = x.expand(b, *x.shape[-2:])
        if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for pair in pairs for t in pair)):
            return self._stacked(pairs, x).to(coords.dtype)
        with torch.no_grad():
            parts = [self._stacked([(w[part], v[part]) for w, v in pairs], x[part], reuse=True) for part in self._chunks(x)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(coords.dtype)

    def _stacked(self, pairs: list[tuple[Tensor, Tensor]], x: Tensor, reuse: bool = False) -> Tensor:
        for index, (weight, bias) in enumerate(pairs[:-1]):
            x = torch.baddbmm(bias.unsqueeze(1), x, weight.mT)  # (b, n, width)
            omega = self._omega(index)
            x = x.mul_(omega).sin_() if reuse else torch.sin(omega * x)
        weight, bias = pairs[-1]
        return self._finish(torch.baddbmm(bias.unsqueeze(1), x, weight.mT))

    def _chunks(self, x: Tensor) -> Iterator[slice]:
        b, n, _ = x.shape
        step = max(1, _CACHE_NUMBERS // max(1, n * max(self.hidden))) if x.device.type == "cpu" else b
        return (slice(start, start + step) for start in range(0, b, step)) if b else iter([slice(0, 0)])

    def _finish(self, values: Tensor) -> Tensor:
        if self.final == "sine":
            return torch.sin(self.hidden_omega * values)
        return torch.sigmoid(values) if self.final == "sigmoid" else values

    def _omega(self, index: int) -> float:
        return self.omega_0 if index == 0 else self.hidden_omega

    def _mapped(self, coords: Tensor) -> Tensor:
        # half precision would lose the phase of omega * (W x + b): those coordinates are lifted to the parameters' dtype
        x = coords if coords.dtype in (torch.float32, torch.float64) else coords.to(self.layers[0].weight.dtype)
        low, high = self.domain.bounds
        if not self.normalize or (all(a == -1 for a in low) and all(b == 1 for b in high)):
            return x
        middle, half = ([(b + s * a) / 2 for a, b in zip(low, high, strict=True)] for s in (1, -1))
        return (x - x.new_tensor(middle)) / x.new_tensor(half)


def _unset_linear(fan_in: int, fan_out: int) -> nn.Linear:
    # made without values first: `nn.Linear` would draw from the global generator
    return nn.Linear(fan_in, fan_out, device="meta").to_empty(device=torch.get_default_device())
