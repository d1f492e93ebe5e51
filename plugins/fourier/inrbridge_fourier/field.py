"""The Fourier-feature field: random Fourier features and a ReLU MLP (Tancik et al. 2020, "Fourier Features Let
Networks Learn High Frequency Functions in Low Dimensional Domains").

    u = coords mapped from the domain's bounds to [0, 1]^d
    features = [cos(2 pi B u), sin(2 pi B u)],   B (m, d) fixed, entries normal with deviation sigma (cycles per unit)
    value = final(MLP(features))
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge import Domain, errors

# A chunk of this many activations stays in a core's cache: measured up to twice as fast as one pass on small networks.
_CACHE_NUMBERS = 2**18

FINALS = {"identity": lambda values: values, "sigmoid": torch.sigmoid}


class FourierField(nn.Module):
    """An MLP with ReLU layers of the given hidden sizes on m random Fourier features; parameters are left unset.

    `angle` multiplies B u (2 pi, or 1 where a file holds angular frequencies). `final` follows the readout:
    "identity" or "sigmoid". `normalize=False` feeds the coordinates as they are. `axes` and `channel_ranges`
    say what the coordinates and values of the file mean, where that is known.
    """

    format = "fourier"

    def __init__(self, domain: Domain, channels: int, features: int, hidden: Sequence[int], *, sigma: float | None = 5.0,
                 angle: float = 2 * math.pi, final: str = "identity", normalize: bool = True, axes: Sequence[str] | None = None,
                 channel_ranges: Sequence[Sequence[float]] | None = None):  # fmt: skip
        super().__init__()
        self.domain, self.channels, self.channel_names = domain, channels, None
        self.features, self.hidden, self.sigma = features, tuple(hidden), sigma if sigma is None else float(sigma)
        self.angle, self.final, self.normalize = float(angle), final, normalize
        self.axes = tuple(axes) if axes else None
        self.channel_ranges = tuple(pair and tuple(pair) for pair in channel_ranges) if channel_ranges else None
        self.assumed: tuple[str, ...] = ()
        if not self.hidden or min(self.hidden) < 1 or features < 1:
            raise errors.ConfigError(
                f"Got hidden layers {self.hidden} on {features} features, expected at least one unit of each."
            )
        if final not in FINALS:
            raise errors.unknown_name("final activation", final, FINALS)
        self.register_buffer("frequencies", torch.empty(features, domain.dim))
        widths = (2 * features, *self.hidden, channels)
        self.layers = nn.ModuleList(_unset_linear(a, b) for a, b in pairwise(widths))

    @property
    def architecture(self) -> dict:
        """Keyword arguments of `FourierFormat.build` that make this network anew (JSON)."""
        uniform = len(set(self.hidden)) == 1
        facts = {
            "width": self.hidden[0] if uniform else list(self.hidden),
            "layers": len(self.hidden),
            "features": self.features,
            "sigma": self.sigma,  # None: the frequencies came with a file
        }
        extras = {
            "angle": (self.angle, 2 * math.pi),
            "final": (self.final, "identity"),
            "normalize": (self.normalize, True),
            "axes": (self.axes and list(self.axes), None),
            "channel_ranges": (self.channel_ranges and [pair and list(pair) for pair in self.channel_ranges], None),
        }
        return facts | {name: value for name, (value, default) in extras.items() if value != default}

    def draw(self, generator: torch.Generator) -> None:
        """Draw B from the normal distribution, weights and biases uniform as `nn.Linear` does."""
        with torch.no_grad():
            self.frequencies.normal_(0.0, 1.0 if self.sigma is None else self.sigma, generator=generator)
            for layer in self.layers:
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, coords: Tensor) -> Tensor:
        """Evaluate at coords (..., d) in domain units: values (..., channels) in the dtype of coords."""
        self.domain.check_shape(coords)
        x = self._mapped(coords)
        phase = (self.angle * x) @ self.frequencies.to(x.dtype).mT
        x = torch.cat([phase.cos(), phase.sin()], -1)
        *hidden, readout = self.layers
        for layer in hidden:
            x = torch.relu(functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype)))
        x = functional.linear(x, readout.weight.to(x.dtype), readout.bias.to(x.dtype))
        return FINALS[self.final](x).to(coords.dtype)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b networks of this architecture: coords (n, d) or (b, n, d) -> values (b, n, channels).

        `states` holds the stacked parameters: "frequencies" (b, m, d), "layers.i.weight" (b, out, in),
        "layers.i.bias" (b, out). Differentiable in the states and in the coordinates.
        """
        x = self._mapped(coords)
        frequencies = states["frequencies"].to(x.dtype)
        pairs = [
            (states[f"layers.{i}.weight"].to(x.dtype), states[f"layers.{i}.bias"].to(x.dtype)) for i in range(len(self.layers))
        ]
        x = (self.angle * x).expand(len(frequencies), *x.shape[-2:])
        tensors = [x, frequencies, *(tensor for pair in pairs for tensor in pair)]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return self._stacked(frequencies, pairs, x).to(coords.dtype)
        with torch.no_grad():
            parts = [
                self._stacked(frequencies[part], [(w[part], v[part]) for w, v in pairs], x[part]) for part in self._chunks(x)
            ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(coords.dtype)

    def _stacked(self, frequencies: Tensor, pairs: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        phase = torch.bmm(x, frequencies.mT)  # (b, n, m)
        x = torch.cat([phase.cos(), phase.sin()], -1)  # (b, n, 2m)
        for weight, bias in pairs[:-1]:
            x = torch.baddbmm(bias.unsqueeze(1), x, weight.mT).relu_()
        weight, bias = pairs[-1]
        return FINALS[self.final](torch.baddbmm(bias.unsqueeze(1), x, weight.mT))

    def _chunks(self, x: Tensor) -> Iterator[slice]:
        b, n, _ = x.shape
        step = max(1, _CACHE_NUMBERS // max(1, n * max(2 * self.features, *self.hidden))) if x.device.type == "cpu" else b
        return (slice(start, start + step) for start in range(0, b, step)) if b else iter([slice(0, 0)])

    def _mapped(self, coords: Tensor) -> Tensor:
        # half precision would lose the phase of 2 pi B u: those coordinates are lifted to the parameters' dtype
        x = coords if coords.dtype in (torch.float32, torch.float64) else coords.to(self.frequencies.dtype)
        low, high = self.domain.bounds
        if not self.normalize or (all(a == 0 for a in low) and all(b == 1 for b in high)):
            return x
        return (x - x.new_tensor(low)) / x.new_tensor([b - a for a, b in zip(low, high, strict=True)])


def _unset_linear(fan_in: int, fan_out: int) -> nn.Linear:
    # made without values first: `nn.Linear` would draw from the global generator
    return nn.Linear(fan_in, fan_out, device="meta").to_empty(device=torch.get_default_device())
