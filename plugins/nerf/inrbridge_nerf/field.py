"""The field of a multilayer perceptron on positional encodings (Mildenhall et al. 2020, "NeRF", figure 7).

h = trunk(encoding(x)), a row of linear layers, each followed by ReLU; layers named in `skips` read the encoding beside h
values:    final(readout(h))
medium:    colours = sigmoid(o_0..2), density = softplus(o_3) of o = readout(h)
radiance:  density = softplus(density(h)), colours = sigmoid(colour(branch(encoding(direction) | feature(h))))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge import Domain, Product, Sphere, batched, errors, options
from inrbridge_nerf.convention import Convention, columns

HEADS = ("values", "medium", "radiance")
COLOURS = ("red", "green", "blue", "density")
ACTIVATIONS = {"relu": torch.relu, "softplus": functional.softplus, "tanh": torch.tanh}
FINALS = {"none": lambda x: x, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
FEATURES = ("linear", "active", "none")
_CACHE_NUMBERS = 2**18  # of a layer's values in a chunk, on a CPU
_DEVICE_NUMBERS = 2**26


class NerfField(nn.Module):
    """A perceptron on positional encodings, on `domain`; parameters are left unset, see `draw`.

    Args:
        width, layers: of the trunk.
        skips: numbers of the trunk's layers, above 0, that read the encoding beside the values of the layer before.
        frequencies, direction_frequencies: of positions (or of all coordinates, for values), and of directions.
        activation: after the trunk's and the branch's layers; `first_active=False` leaves it out after the first one.
        final: of the outputs of a field of values.
        head: "values", "medium" (colours and density) or "radiance" (on a Product with the sphere of directions).
        feature: the layer between trunk and branch is "linear", "active" or "none" (left out); feature_width: its outputs.
        branch: widths of the layers of colour that see the direction.
        axes, channel_ranges: what coordinates and values mean, where that is known.
    """

    format = "nerf"

    def __init__(self, domain: Domain, channels: int, *, width: int, layers: int, skips: Sequence[int] = (), frequencies: int,
                 direction_frequencies: int = 4, activation: str = "relu", first_active: bool = True, final: str = "none",
                 head: str = "values", feature: str = "linear", feature_width: int = 64, branch: Sequence[int] = (),
                 convention: Convention | None = None, axes: Sequence[str] | None = None,
                 channel_ranges: Sequence[Sequence[float] | None] | None = None):  # fmt: skip
        super().__init__()
        self.domain, self.channels = domain, channels
        self.width, self.layers, self.skips = width, layers, tuple(sorted(set(skips)))
        self.frequencies, self.direction_frequencies = frequencies, direction_frequencies
        self.activation, self.first_active, self.final = activation, first_active, final
        self.head, self.feature_kind, self.feature_width, self.branch_widths = head, feature, feature_width, tuple(branch)
        self.convention = convention or Convention()
        self.assumed: tuple[str, ...] = ()
        self.places = domain.a if head == "radiance" and isinstance(domain, Product) else domain
        self._check()
        self.channel_names = None if head == "values" else COLOURS
        known = (0.0, 1.0) if self.convention.colour == "sigmoid" else None
        self._own_ranges = None if head == "values" else (known, known, known, None)
        self.channel_ranges = tuple(pair and tuple(pair) for pair in channel_ranges) if channel_ranges else self._own_ranges
        self.axes = tuple(axes) if axes else None
        self.encoded = columns(self.places.dim, frequencies, self.convention.raw)
        self.trunk = nn.ModuleList(
            batched.unset_linear(self.encoded * (i == 0 or i in self.skips) + width * (i > 0), width) for i in range(layers)
        )
        if head == "radiance":
            self.density = batched.unset_linear(width, 1)
            self.feature = None if feature == "none" else batched.unset_linear(width, feature_width)
            self.seen = columns(3, direction_frequencies, self.convention.direction_raw)
            widths = (self.seen + (width if feature == "none" else feature_width), *self.branch_widths)
            self.branch = nn.ModuleList(batched.unset_linear(a, b) for a, b in pairwise(widths))
            self.colour = batched.unset_linear(widths[-1], 3)
        else:
            self.readout = batched.unset_linear(width, channels)

    def _check(self) -> None:
        for name, least, most in (("width", 1, 8192), ("layers", 1, 64), ("channels", 1, 4096), ("frequencies", 0, 64),
                                  ("direction_frequencies", 0, 64), ("feature_width", 1, 8192)):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise errors.ConfigError(f"Got {name} = {value!r}, expected a whole number from {least} to {most}.")
        for name, value, known in (
            ("head", self.head, HEADS),
            ("activation", self.activation, ACTIVATIONS),
            ("final", self.final, FINALS),
            ("feature layer", self.feature_kind, FEATURES),
        ):
            if value not in known:
                raise errors.unknown_name(name, value, known)
        if not all(isinstance(skip, int) and 0 < skip < self.layers for skip in self.skips):
            raise errors.ConfigError(f"Got skips = {list(self.skips)}, expected numbers of layers from 1 to {self.layers - 1}.")
        if len(self.branch_widths) > 64 or not all(isinstance(w, int) and 1 <= w <= 8192 for w in self.branch_widths):
            raise errors.ConfigError(f"Got branch = {list(self.branch_widths)[:65]}, expected at most 64 widths, each 1 to 8192.")
        if self.head != "values" and (self.places.dim != 3 or self.channels != 4):
            raise errors.ConfigError(
                f'Got head = "{self.head}" with {self.channels} channels on {self.domain}, expected red, green, blue and density '
                'in space; choose head="values".'
            )
        if self.head == "radiance" and not (isinstance(self.domain, Product) and self.domain.b == Sphere()):
            raise errors.ConfigError(f'Got head = "radiance" on {self.domain}, expected Product(Box, Sphere()).')

    @property
    def architecture(self) -> dict:
        """Keyword arguments of `NerfFormat.build` that make this field anew (JSON)."""
        facts = {"width": self.width, "layers": self.layers, "skips": list(self.skips), "frequencies": self.frequencies}
        facts |= {"head": self.head}
        if self.head == "radiance":
            facts |= {"direction_frequencies": self.direction_frequencies, "branch": list(self.branch_widths)}
            facts |= {"feature": self.feature_kind}
            facts |= {} if self.feature_kind == "none" else {"feature_width": self.feature_width}
        ranges = None if self.channel_ranges == self._own_ranges else [pair and list(pair) for pair in self.channel_ranges]
        extras = {
            "activation": (self.activation, "relu"),
            "first_active": (self.first_active, True),
            "final": (self.final, "none"),
            "convention": (options.changed_options(self.convention), None),
            "axes": (self.axes and list(self.axes), None),
            "channel_ranges": (ranges, None),
        }
        return facts | {name: value for name, (value, default) in extras.items() if value != default}

    def draw(self, generator: torch.Generator) -> None:
        """Draw the parameters: before ReLU uniform in +-sqrt(6 / inputs) (He et al. 2015), last layers in +-1 / sqrt(inputs).

        Columns of frequency 2^k are made 2^k times smaller, and the encoding's part as large again as it was: smooth fields
        come first, and high frequencies where they are needed.
        """
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name.endswith("bias"):
                    value.zero_()
                    continue
                last = name.startswith(("readout", "density", "colour", "feature"))
                bound = math.sqrt((1 if last else 6) / value.shape[1])
                value.uniform_(-bound, bound, generator=generator)
            dim = self.places.dim
            waves = 2.0 ** -torch.arange(self.frequencies).repeat_interleave(2 * dim)
            slopes = torch.cat([torch.ones(self.encoded - len(waves)), waves])
            slopes *= math.sqrt(self.encoded) / slopes.norm()
            for i in (0, *self.skips):
                self.trunk[i].weight[:, : self.encoded] *= slopes.to(self.trunk[i].weight)

    def forward(self, coords: Tensor) -> Tensor:
        """Evaluate at coords (..., d) in domain units: values (..., channels) in the dtype of coords."""
        self.domain.check_shape(coords)
        flat = coords.reshape(-1, coords.shape[-1])
        states = {name: value.unsqueeze(0) for name, value in self.named_parameters()}
        return self.evaluate_stack(states, flat)[0].reshape(*coords.shape[:-1], self.channels)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b fields of this architecture: coords (n, d) or (b, n, d) -> values (b, n, channels).

        `states` holds the stacked parameters: "trunk.i.weight" (b, out, in), "trunk.i.bias" (b, out), ... Twice
        differentiable in the states and in the coordinates. Coordinates that all fields share are encoded once.
        """
        single = next(iter(states.values()))
        x = coords if coords.dtype in (torch.float32, torch.float64) else coords.to(single.dtype)
        states = {name: value.to(x.dtype) for name, value in states.items()}
        if batched.asks_gradient(x, states.values()):
            return self._evaluate(states, *self._encode(x)).to(coords.dtype)
        points, fields = self._chunks(single.shape[0], x)
        with torch.no_grad():
            parts = []
            for part in points:
                features = self._encode(x[..., part, :])
                rows = []
                for some in fields:
                    its = {name: value[some] for name, value in states.items()}
                    rows.append(self._evaluate(its, *(value[some] if x.ndim == 3 else value for value in features)))
                parts.append(torch.cat(rows) if len(rows) > 1 else rows[0])
        return (parts[0] if len(parts) == 1 else torch.cat(parts, -2)).to(coords.dtype)

    def _chunks(self, b: int, x: Tensor) -> tuple[list[slice], list[slice]]:
        """Cut the points, and the b fields, so that a layer's values stay in a core's cache: few fields at many points each."""
        n, most = x.shape[-2], _CACHE_NUMBERS if x.device.type == "cpu" else _DEVICE_NUMBERS
        width = max(self.width, self.encoded)
        step = max(64, most // width)
        count = max(1, most // (width * max(1, min(n, step))))
        return batched.slices(n, step), batched.slices(b, count)

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the networks read of points (..., d): the network's coordinates, and features of places and directions."""
        entered = self.convention.enter(x[..., : self.places.dim], self.places.bounds)
        directions = x[..., self.places.dim :]
        if self.head == "radiance":
            directions = self.convention.directions(directions, self.direction_frequencies)
        return entered, self.convention.places(entered, self.frequencies), directions

    def _evaluate(self, states: Mapping[str, Tensor], entered: Tensor, encoded: Tensor, directions: Tensor) -> Tensor:
        last = self.head != "radiance"
        act = self.activation if self.activation == "relu" else ACTIVATIONS[self.activation]
        rows = [_layer(states, f"trunk.{i}", act if i or self.first_active else "identity") for i in range(self.layers)]
        rows += [_layer(states, "readout")] if last else []
        h = batched.perceptron(encoded, rows[: self.skips[0] if self.skips else len(rows)])
        for start, end in pairwise((*self.skips, len(rows))):
            h = batched.perceptron(_join(encoded, h), rows[start:end])
        if last:
            return self._read(h, entered)
        density = self.convention.density_of(batched.perceptron(h, [_layer(states, "density")]), entered)
        if self.feature_kind != "none":
            h = batched.perceptron(h, [_layer(states, "feature", act if self.feature_kind == "active" else "identity")])
        rows = [*(_layer(states, f"branch.{i}", act) for i in range(len(self.branch_widths))), _layer(states, "colour")]
        colours = batched.perceptron(_join(directions, h), rows)
        return torch.cat([self.convention.colour_of(colours), density], -1)

    def _read(self, out: Tensor, entered: Tensor) -> Tensor:
        if self.head == "values":
            return FINALS[self.final](out)
        return torch.cat([self.convention.colour_of(out[..., :3]), self.convention.density_of(out[..., 3:], entered)], -1)


def _layer(states: Mapping[str, Tensor], name: str, kind: str | Callable[[Tensor], Tensor] = "identity") -> batched.Layer:
    return batched.Layer(states[f"{name}.weight"], states[f"{name}.bias"], kind)


def _join(shared: Tensor, h: Tensor) -> Tensor:
    """Return (shared | h) of h (b, n, .) and what may be shared by all, (n, .)."""
    return torch.cat([shared.expand(len(h), *shared.shape[-2:]), h], -1)
