"""The SIREN field: sine layers and a linear readout (Sitzmann et al. 2020, "Implicit Neural Representations
with Periodic Activation Functions").

    x_0 = coords mapped from the domain's bounds to [-1, 1]^d, or features of them
    x_{i+1} = sin(omega_i (W_i x_i + b_i)),   value = final(W_L x_L + b_L)

Networks of the same code bases with another activation, x_{i+1} = activation(W_i x_i + b_i), are evaluated by the same class.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge import Domain, batched, errors
from inrbridge_siren.encoding import ENCODINGS, make_encoding

ACTIVATIONS = {
    "sine": torch.sin,
    **{name: batched.ACTIVATIONS[name] for name in ("relu", "sigmoid", "tanh", "selu", "softplus", "elu")},
}
FINALS = ("identity", "sigmoid", "tanh", "clamp", "sine")
_CACHE_NUMBERS = 2**18  # features of a chunk of fields, which then stay in a core's cache


class SirenField(nn.Module):
    """An MLP of sine layers of the given hidden sizes on `domain`; parameters are left unset.

    `omega_0` is the frequency of the first sine layer, `hidden_omega` of the others. `final` follows the
    readout: "identity", "sigmoid", "tanh", "clamp" (to [0, 1]), or "sine" (of hidden_omega times it). `normalize=False` feeds
    the coordinates as they are. `activation` other than "sine" has no frequencies. `encoding` replaces the coordinates by
    `features` waves or bumps (see `inrbridge_siren.encoding`), waves of F (angle x), with the coordinates before them if `raw`.
    `axes` and `channel_ranges` say what the coordinates and values of the file mean, where that is known.
    """

    format = "siren"

    def __init__(self, domain: Domain, channels: int, hidden: Sequence[int], *, omega_0: float = 30.0, hidden_omega: float = 30.0,
                 activation: str = "sine", final: str = "identity", normalize: bool = True, encoding: str = "none",
                 features: int = 0, angle: float = 2 * math.pi, raw: bool = False, axes: Sequence[str] | None = None,
                 channel_ranges: Sequence[Sequence[float]] | None = None):  # fmt: skip
        super().__init__()
        self.domain, self.channels, self.channel_names = domain, channels, None
        self.hidden = tuple(hidden)
        self.omega_0, self.hidden_omega, self.final, self.normalize = float(omega_0), float(hidden_omega), final, normalize
        self.activation = activation
        self.axes = tuple(axes) if axes else None
        self.channel_ranges = tuple(pair and tuple(pair) for pair in channel_ranges) if channel_ranges else None
        self.assumed: tuple[str, ...] = ()
        if not self.hidden or min(self.hidden) < 1:
            raise errors.ConfigError(f"Got hidden layers {self.hidden}, expected at least one, each of at least one unit.")
        for kind, name, known in (
            ("final activation", final, FINALS), ("activation", activation, ACTIVATIONS), ("encoding", encoding, ENCODINGS)
        ):  # fmt: skip
            if name not in known:
                raise errors.unknown_name(kind, name, known)
        if encoding != "none" and features < 1:
            raise errors.ConfigError(f'Got {features} features of the encoding "{encoding}", expected at least one.')
        self.encoding = make_encoding(encoding, domain.dim, features, angle=angle, raw=raw)
        self._encoding_facts = {"encoding": encoding, "features": features}
        self._encoding_facts |= {"angle": float(angle), "raw": raw} if encoding == "waves" else {}
        widths = (domain.dim if self.encoding is None else self.encoding.width, *self.hidden, channels)
        self.layers = nn.ModuleList(batched.unset_linear(a, b) for a, b in pairwise(widths))

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
            "activation": (self.activation, "sine"),
            "final": (self.final, "identity"),
            "normalize": (self.normalize, True),
            "axes": (self.axes and list(self.axes), None),
            "channel_ranges": (self.channel_ranges and [pair and list(pair) for pair in self.channel_ranges], None),
        }
        facts |= {name: value for name, (value, default) in extras.items() if value != default}
        return facts if self.encoding is None else facts | self._encoding_facts

    def draw(self, generator: torch.Generator) -> None:
        """Draw the parameters as the paper does (section 3.2), biases as `nn.Linear` does."""
        with torch.no_grad():
            if self.encoding is not None:
                self.encoding.draw(generator)
            for index, layer in enumerate(self.layers):
                fan_in = layer.in_features
                bound = 1 / fan_in if index == 0 else math.sqrt(6 / fan_in) / self.hidden_omega
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)

    def forward(self, coords: Tensor) -> Tensor:
        """Evaluate at coords (..., d) in domain units: values (..., channels) in the dtype of coords."""
        self.domain.check_shape(coords)
        x = self._mapped(coords)
        if self.encoding is not None:
            x = self.encoding(x, {**dict(self.encoding.named_parameters()), **dict(self.encoding.named_buffers())})
        *hidden, readout = self.layers
        for index, layer in enumerate(hidden):
            x = self._activate(functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype)), index)
        x = functional.linear(x, readout.weight.to(x.dtype), readout.bias.to(x.dtype))
        return self._finish(x).to(coords.dtype)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b networks of this architecture: coords (n, d) or (b, n, d) -> values (b, n, channels).

        `states` holds the stacked parameters: "layers.i.weight" (b, out, in), "layers.i.bias" (b, out), and those of the
        encoding, "encoding.frequencies" (b, m, d). Differentiable in the states and in the coordinates.
        """
        x = self._mapped(coords)
        if self.encoding is None:
            return self._stacked(states, x).to(coords.dtype)
        states = {name: value.to(x.dtype) for name, value in states.items()}
        x = x.expand(len(states["layers.0.weight"]), *x.shape[-2:])
        some = [slice(None)] if batched.asks_gradient(x, states.values()) else self._chunks(x)
        parts = [self._stacked({name: value[part] for name, value in states.items()}, x[part]) for part in some]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(coords.dtype)

    def as_layers(self, states: Mapping[str, Tensor], coords: Tensor) -> tuple[Tensor, list[batched.Layer]] | None:
        """Return what `batched.perceptron` takes to evaluate b networks; None where an encoding comes first."""
        return None if self.encoding is not None else (self._mapped(coords), self._rows(states))

    def _stacked(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        if self.encoding is not None:
            start = "encoding."
            x = self.encoding(x, {name[len(start) :]: value for name, value in states.items() if name.startswith(start)})
        return batched.perceptron(x, self._rows(states))

    def _rows(self, states: Mapping[str, Tensor]) -> list[batched.Layer]:
        last, omegas = len(self.layers) - 1, [self.omega_0, *[self.hidden_omega] * (len(self.layers) - 1)]
        kinds = [*[self.activation] * last, {"clamp": _clamp}.get(self.final, self.final)]
        names = [(f"layers.{i}.weight", f"layers.{i}.bias") for i in range(last + 1)]
        return [batched.Layer(states[w], states[b], kinds[i], omegas[i]) for i, (w, b) in enumerate(names)]

    def _activate(self, x: Tensor, index: int) -> Tensor:
        if self.activation != "sine":
            return ACTIVATIONS[self.activation](x)
        return torch.sin((self.omega_0 if index == 0 else self.hidden_omega) * x)

    def _chunks(self, x: Tensor) -> list[slice]:
        b, n, _ = x.shape
        widest = max(*self.hidden, self.layers[0].in_features)
        return batched.slices(b, max(1, _CACHE_NUMBERS // max(1, n * widest)) if x.device.type == "cpu" else max(1, b))

    def _finish(self, values: Tensor) -> Tensor:
        if self.final == "identity":
            return values
        if self.final == "sine":
            return torch.sin(self.hidden_omega * values)
        return _clamp(values) if self.final == "clamp" else ACTIVATIONS[self.final](values)

    def _mapped(self, coords: Tensor) -> Tensor:
        # half precision would lose the phase of omega * (W x + b): those coordinates are lifted to the parameters' dtype
        x = coords if coords.dtype in (torch.float32, torch.float64) else coords.to(self.layers[0].weight.dtype)
        low, high = self.domain.bounds
        if not self.normalize or (all(a == -1 for a in low) and all(b == 1 for b in high)):
            return x
        middle, half = ([(b + s * a) / 2 for a, b in zip(low, high, strict=True)] for s in (1, -1))
        return (x - x.new_tensor(middle)) / x.new_tensor(half)


def _clamp(values: Tensor) -> Tensor:
    return values.clamp(0, 1)
