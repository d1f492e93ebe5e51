"""The Fourier-feature field: random Fourier features and an MLP (Tancik et al. 2020, "Fourier Features Let
Networks Learn High Frequency Functions in Low Dimensional Domains").

    u = coords mapped from the domain's bounds to [0, 1]^d
    features = [u if raw, cos(2 pi B u), sin(2 pi B u)],   B (m, d) fixed, entries normal with deviation sigma (cycles per unit)
    value = final(MLP(features)),   the layers named in `skips` read (h | u)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge import Domain, batched, errors
from inrbridge_fourier.evaluation import in_chunks, meaning, to_unit

ACTIVATIONS = {
    "relu": torch.relu_,  # in place: what a linear layer gives is needed no more
    "softplus": functional.softplus,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sine": torch.sin,
}
FINALS = {"identity": lambda values: values, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


class FourierField(nn.Module):
    """An MLP with hidden layers of the given sizes on m random Fourier features; parameters are left unset.

    `angle` multiplies B u (2 pi, or 1 where a file holds angular frequencies). `activation` stands between the layers ("relu";
    "softplus" has the sharpness `beta`), `final` after the readout: "identity", "sigmoid" or "tanh". `raw` puts the coordinates
    before the features, of which there may then be none; `skips` are the numbers of the layers that read the coordinates once
    more. `normalize=False` feeds the coordinates as they are. `axes` and
    `channel_ranges` say what the coordinates and values of the file mean, where known.
    """

    format = "fourier"

    def __init__(self, domain: Domain, channels: int, features: int, hidden: Sequence[int], *, sigma: float | None = 5.0,
                 angle: float = 2 * math.pi, activation: str = "relu", beta: float = 1.0, final: str = "identity",
                 raw: bool = False, skips: Sequence[int] = (), normalize: bool = True, axes: Sequence[str] | None = None,
                 channel_ranges: Sequence[Sequence[float]] | None = None):  # fmt: skip
        super().__init__()
        self.domain, self.channels, self.channel_names = domain, channels, None
        self.features, self.hidden, self.sigma = features, tuple(hidden), sigma if sigma is None else float(sigma)
        self.angle, self.final, self.normalize = float(angle), final, normalize
        self.activation, self.beta, self.raw, self.skips = activation, float(beta), raw, tuple(skips)
        self.axes = tuple(axes) if axes else None
        self.channel_ranges = tuple(pair and tuple(pair) for pair in channel_ranges) if channel_ranges else None
        self.assumed: tuple[str, ...] = ()
        if not self.hidden or min(self.hidden) < 1 or features < (0 if raw else 1):
            raise errors.ConfigError(
                f"Got hidden layers {self.hidden} on {features} features, expected at least one unit of each, and no features "
                "only beside the coordinates (raw)."
            )
        if not set(self.skips) <= set(range(1, len(self.hidden) + 1)):
            raise errors.ConfigError(f"Got skips {self.skips}, expected numbers of layers from 1 to {len(self.hidden)}.")
        for kind, name, known in (("final activation", final, FINALS), ("activation", activation, ACTIVATIONS)):
            if name not in known:
                raise errors.unknown_name(kind, name, known)
        self.register_buffer("frequencies", torch.empty(features, domain.dim))
        fan_ins = [2 * features + raw * domain.dim, *(size + (i in self.skips) * domain.dim for i, size in enumerate(hidden, 1))]
        self.layers = nn.ModuleList(batched.unset_linear(a, b) for a, b in zip(fan_ins, (*hidden, channels), strict=True))

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
            "activation": (self.activation, "relu"),
            "beta": (self.beta, 1.0),
            "final": (self.final, "identity"),
            "raw": (self.raw, False),
            "skips": (list(self.skips), []),
        }
        facts |= {name: value for name, (value, default) in extras.items() if value != default}
        return facts | meaning(self)

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
        x = to_unit(coords, self.domain, self.frequencies.dtype, self.normalize)
        pairs = [(layer.weight.to(x.dtype), layer.bias.to(x.dtype)) for layer in self.layers]
        phase = (self.angle * x) @ self.frequencies.to(x.dtype).mT
        h = torch.cat([x, phase.cos(), phase.sin()] if self.raw else [phase.cos(), phase.sin()], -1)
        for i, (weight, bias) in enumerate(pairs):
            if i:
                h = functional.softplus(h, self.beta) if self.activation == "softplus" else ACTIVATIONS[self.activation](h)
            h = functional.linear(torch.cat([h, x], -1) if i in self.skips else h, weight, bias)
        return FINALS[self.final](h).to(coords.dtype)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b networks of this architecture: coords (n, d) or (b, n, d) -> values (b, n, channels).

        `states` holds the stacked parameters: "frequencies" (b, m, d), "layers.i.weight" (b, out, in),
        "layers.i.bias" (b, out). Differentiable in the states and in the coordinates.
        """
        x = to_unit(coords, self.domain, self.frequencies.dtype, self.normalize)
        if self.raw or self.skips:  # the coordinates are joined to what layers gave: a few fields at a time
            return in_chunks(self._joined, states, x, max(2 * self.features, *self.hidden)).to(coords.dtype)
        return batched.perceptron(self.angle * x, [self._waves(states), *self._rows(states)]).to(coords.dtype)

    def _joined(self, x: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        """Evaluate with coordinates (b, n, d) before the features, or beside the values that some layers read."""
        h = batched.perceptron(self.angle * x, [self._waves(states)]) if self.features else x[..., :0]
        h = torch.cat([x, h], -1) if self.raw else h
        layers, start = self._rows(states), 0
        for end in (*sorted(self.skips), len(layers)):
            h = batched.perceptron(h, layers[start:end])
            h, start = h if end == len(layers) else torch.cat([h, x], -1), end
        return h

    def _waves(self, states: Mapping[str, Tensor]) -> batched.Layer:
        frequencies = states["frequencies"]
        return batched.Layer(torch.cat([frequencies, frequencies], 1), None, "waves")

    def _rows(self, states: Mapping[str, Tensor]) -> list[batched.Layer]:
        last = len(self.layers) - 1
        kinds = [*[self._kind()] * last, self.final]
        return [batched.Layer(states[f"layers.{i}.weight"], states[f"layers.{i}.bias"], kinds[i]) for i in range(last + 1)]

    def _kind(self) -> str | Callable[[Tensor], Tensor]:
        if self.activation == "softplus":
            return partial(functional.softplus, beta=self.beta)
        return self.activation if self.activation in ("relu", "sine") else ACTIVATIONS[self.activation]
