"""The field of a multiresolution grid and small networks (Müller et al. 2022, "Instant Neural Graphics Primitives").

features = grid(u) of the coordinates u in the unit cube,   o = base(features)
values:    final(o)
medium:    colours = sigmoid(o_0..2), density = exp(o_3)
radiance:  density = exp(o_0), colours = sigmoid(colour(harmonics(direction) | o))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from inrbridge import Domain, Product, Sphere, batched, errors, options
from inrbridge_ngp.convention import Convention
from inrbridge_ngp.cuda import evaluate_on_cuda, wants_cuda
from inrbridge_ngp.levels import GridSpec
from inrbridge_ngp.networks import ACTIVATIONS, BIASES, Layer, evaluate, layers_of

HEADS = ("values", "medium", "radiance")
UPWARD = ("x", "y", "z", "-x", "-y", "-z")
COLOURS = ("red", "green", "blue", "density")
TABLE_SPREAD = 1e-2  # of fresh tables; the paper's 1e-4 learns as well and starts later
_OWN_NUMBERS = 2**20  # of the corners of a few fields, each at its own points: fresh memory for all is dearer than finding them
_CACHE_NUMBERS = 2**22  # of a chunk's corners or features, on a CPU: one pass over 48 fields at 1024 points measured quickest
_DEVICE_NUMBERS = 2**26


class NgpField(nn.Module):
    """A grid of features and what reads it, on `domain`; parameters are left unset, see `draw`.

    Args:
        grid: the multiresolution grid; None leaves it out.
        frequencies: sines of so many octaves of u beside the grid, in tiny-cuda-nn's order.
        planes: (side, features) of three square grids of features, on the planes xy, xz and yz, whose sum stands beside.
        raw: u itself stands beside.
        width, layers, activation, bias: of the base network; `layers` counts hidden ones; `bias` is "none", "first" or "all".
        final: activation of the outputs of a field of values.
        head: "values", "medium" (colours and density) or "radiance" (on a Product with the sphere of directions).
        geometry: outputs of the base network in a radiance field.
        harmonics: degrees of the spherical harmonics of the direction.
        colour_width, colour_layers, colour_bias: of the colour network.
        axes, channel_ranges: what coordinates and values mean, where that is known.
        up: which coordinate points upward, where that is known: "x" the first, "y" the second, "z" the third.
    """

    format = "ngp"
    tables = ("table", "planes")

    def __init__(self, domain: Domain, channels: int, *, grid: GridSpec | None, frequencies: int = 0,
                 planes: Sequence[int] | None = None, raw: bool = False, width: int = 64, layers: int = 1,
                 activation: str = "relu", final: str = "none", bias: str = "none", head: str = "values", geometry: int = 16,
                 harmonics: int = 4, colour_width: int = 64, colour_layers: int = 2, colour_bias: str = "none",
                 convention: Convention | None = None, axes: Sequence[str] | None = None,
                 channel_ranges: Sequence[Sequence[float] | None] | None = None, up: str | None = None):  # fmt: skip
        super().__init__()
        self.domain, self.channels = domain, channels
        self.grid, self.frequencies, self.planes_shape, self.raw = grid, frequencies, planes and tuple(planes), raw
        self.width, self.layers, self.activation, self.final, self.bias = width, layers, activation, final, bias
        self.head, self.geometry, self.harmonics = head, geometry, harmonics
        self.colour_width, self.colour_layers, self.colour_bias = colour_width, colour_layers, colour_bias
        self.convention, self.up = convention or Convention(), up
        self.evaluator = "auto"
        self.assumed: tuple[str, ...] = ()
        self._recall = batched.Recall()
        self.places = domain.a if head == "radiance" and isinstance(domain, Product) else domain
        self._check()
        self.channel_names = None if head == "values" else COLOURS
        if channel_ranges is None and head != "values":
            known = (0.0, 1.0) if self.convention.colour == "sigmoid" or self.convention.tone else None
            channel_ranges = (known, known, known, None)
        self.channel_ranges = tuple(pair and tuple(pair) for pair in channel_ranges) if channel_ranges else None
        self.axes = tuple(axes) if axes else None
        if grid is not None:
            self.table = nn.Parameter(torch.empty(grid.rows, grid.features))
        if self.planes_shape:
            side, features = self.planes_shape
            self.planes = nn.Parameter(torch.empty(3, side, side, features))
        outputs = {"values": channels, "medium": 4, "radiance": geometry}[head]
        self.base = _unset_network(self.inputs, outputs, width, layers, bias)
        if head == "radiance":
            self.colour = _unset_network(harmonics**2 + geometry, 3, colour_width, colour_layers, colour_bias)
        if self.convention.tone:
            self.tone = nn.ModuleList([_Three(1, colour_width, True), _Three(colour_width, 1, False)])

    def _check(self) -> None:
        for name, most in (("width", 4096), ("geometry", 4096), ("colour_width", 4096), ("harmonics", 8), ("channels", 4096)):
            if not 1 <= getattr(self, name) <= most:
                raise errors.ConfigError(f"Got {name} = {getattr(self, name)}, expected 1 to {most}.")
        for name, most in (("layers", 64), ("colour_layers", 64), ("frequencies", 128)):
            if not 0 <= getattr(self, name) <= most:
                raise errors.ConfigError(f"Got {name} = {getattr(self, name)}, expected 0 to {most}.")
        if self.up is not None and self.up not in UPWARD:
            raise errors.unknown_name("upward axis", self.up, UPWARD)
        for name, known in (("head", HEADS), ("activation", ACTIVATIONS), ("final", ACTIVATIONS), ("bias", BIASES),
                            ("colour_bias", BIASES)):  # fmt: skip
            if getattr(self, name) not in known:
                raise errors.unknown_name(name, getattr(self, name), known)
        if self.planes_shape and (len(self.planes_shape) != 2 or not all(1 <= n <= 4096 for n in self.planes_shape)):
            raise errors.ConfigError(f"Got planes = {list(self.planes_shape)}, expected [side, features], each 1 to 4096.")
        dim = self.places.dim
        if self.inputs < 1 or (self.grid and self.grid.dim != dim) or (self.planes_shape and dim != 3):
            raise errors.ConfigError(
                f"Got features of {self.grid.dim if self.grid else 3} coordinates on {self.domain}, expected some, of as many."
            )
        if self.head != "values" and (dim != 3 or self.channels != 4):
            raise errors.ConfigError(
                f'Got head = "{self.head}" with {self.channels} channels on {self.domain}, expected red, green, blue and density '
                'in space; choose head="values".'
            )
        if self.head == "radiance" and not (isinstance(self.domain, Product) and self.domain.b == Sphere()):
            raise errors.ConfigError(f'Got head = "radiance" on {self.domain}, expected Product(Box, Sphere()).')
        if self.grid is not None and self.grid.rows * self.grid.features > 2**31:
            raise errors.ConfigError(f"Got a grid of {self.grid.rows} rows, expected at most 2^31 numbers; lower log2_table.")

    @property
    def inputs(self) -> int:
        """Width of what the base network reads."""
        dim = self.places.dim
        width = self.grid.outputs if self.grid else 0
        width += 2 * dim * self.frequencies + (dim if self.raw else 0)
        return width + (self.planes_shape[1] if self.planes_shape else 0)

    @property
    def architecture(self) -> dict:
        """Keyword arguments of `NgpFormat.build` that make this field anew (JSON)."""
        facts = self.grid.to_options() if self.grid else {"levels": 0}
        facts |= {"width": self.width, "layers": self.layers, "head": self.head}
        if self.head == "radiance":
            facts |= {"geometry": self.geometry, "harmonics": self.harmonics}
            facts |= {"colour_width": self.colour_width, "colour_layers": self.colour_layers}
        elif self.convention.tone:
            facts |= {"colour_width": self.colour_width}
        ranges = self.channel_ranges and [pair and list(pair) for pair in self.channel_ranges]
        extras = {
            "frequencies": (self.frequencies, 0),
            "planes": (self.planes_shape and list(self.planes_shape), None),
            "raw": (self.raw, False),
            "activation": (self.activation, "relu"),
            "final": (self.final, "none"),
            "bias": (self.bias, "none"),
            "colour_bias": (self.colour_bias, "none"),
            "convention": (options.changed_options(self.convention), {}),
            "axes": (self.axes and list(self.axes), None),
            "channel_ranges": (ranges, None),
            "up": (self.up, None),
        }
        return facts | {name: value for name, (value, default) in extras.items() if value != default}

    def draw(self, generator: torch.Generator) -> None:
        """Draw the parameters: tables near 0, matrices uniform in +-sqrt(6 / (in + out)), biases 0."""
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name in ("table", "planes"):
                    value.uniform_(-TABLE_SPREAD, TABLE_SPREAD, generator=generator)
                elif name.endswith("weight"):
                    bound = math.sqrt(6 / (value.shape[-1] + value.shape[-2]))
                    value.uniform_(-bound, bound, generator=generator)
                else:
                    value.zero_()

    def forward(self, coords: Tensor) -> Tensor:
        """Evaluate at coords (..., d) in domain units: values (..., channels) in the dtype of coords."""
        self.domain.check_shape(coords)
        flat = coords.reshape(-1, coords.shape[-1])
        if wants_cuda(self, flat):
            return evaluate_on_cuda(self, flat).reshape(*coords.shape[:-1], self.channels).to(coords.dtype)
        states = {name: value.unsqueeze(0) for name, value in self.named_parameters()}
        return self.evaluate_stack(states, flat)[0].reshape(*coords.shape[:-1], self.channels)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b fields of this architecture: coords (n, d) or (b, n, d) -> values (b, n, channels).

        `states` holds the stacked parameters: "table" (b, rows, features), "base.i.weight" (b, out, in), ... Twice
        differentiable in the states and in the coordinates.
        """
        single = next(iter(states.values()))
        x = coords if coords.dtype in (torch.float32, torch.float64) else coords.to(single.dtype)
        if batched.asks_gradient(x, states.values()):
            return self._evaluate(states, x, single.shape[0]).to(coords.dtype)
        with torch.no_grad():
            return self._in_parts(states, x, single.shape[0]).to(coords.dtype)

    def _in_parts(self, states: Mapping[str, Tensor], x: Tensor, b: int) -> Tensor:
        """Evaluate some fields after the other where each has its points, and some points after the other."""
        n, corners = x.shape[-2], 2**self.places.dim * (self.grid.levels if self.grid else 1)
        on_cpu = x.device.type == "cpu"
        if x.ndim == 3:
            step = max(1, (_OWN_NUMBERS if on_cpu else _DEVICE_NUMBERS) // max(1, n * corners))
            if step < b:
                some = [{name: value[part] for name, value in states.items()} for part in batched.slices(b, step)]
                points = x.split(step)
                return torch.cat([self._in_parts(*pair, len(pair[1])) for pair in zip(some, points, strict=True)])
        corners = corners * b if x.ndim == 3 else corners
        features = b * max(self.width, self.inputs, self.colour_width if self.head == "radiance" else 1)
        step = max(64, (_CACHE_NUMBERS if on_cpu else _DEVICE_NUMBERS) // max(corners, features, 1))
        parts = [self._evaluate(states, x[..., part, :], b) for part in batched.slices(n, step)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)

    def _evaluate(self, states: Mapping[str, Tensor], x: Tensor, b: int) -> Tensor:
        dim = self.places.dim
        u, seen = self.convention.enter(x[..., :dim], self.places.bounds)
        features = self._features(states, u, b)
        layers = layers_of(states, "base", len(self.base))
        out = evaluate(layers, features, self.activation)
        directions = x[..., dim:] if self.head == "radiance" else None
        return self.read(out, seen, directions, states)

    def read(self, out: Tensor, seen: Tensor | None, directions: Tensor | None, states: Mapping[str, Tensor]) -> Tensor:
        """Turn the base network's outputs (b, n, .) into values (b, n, channels)."""
        if self.head == "values":
            return ACTIVATIONS[self.final](out)
        if self.head == "medium":
            return torch.cat([self.colours(out[..., :3], states), self.convention.density_of(out[..., 3:], _column(seen))], -1)
        density = self.convention.density_of(out[..., :1], _column(seen))
        angles = self.convention.harmonics(directions, self.harmonics).expand(*out.shape[:-1], -1)
        layers = layers_of(states, "colour", len(self.colour))
        colours = evaluate(layers, torch.cat([angles, out], -1), "relu")
        return torch.cat([self.colours(colours, states), density], -1)

    def colours(self, raw: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        """Turn the outputs (b, n, 3) of the last network into colours."""
        if not self.convention.tone:
            return self.convention.colour_of(raw)
        b, n, _ = raw.shape
        layers: list[Layer] = [
            (weight.flatten(0, 1), None if bias is None else bias.flatten(0, 1)) for weight, bias in layers_of(states, "tone", 2)
        ]
        mapped = evaluate(layers, raw.mT.reshape(3 * b, n, 1), "relu")
        return torch.sigmoid(mapped.reshape(b, 3, n).mT)

    def _features(self, states: Mapping[str, Tensor], u: Tensor, b: int) -> Tensor:
        """Return what the base network reads at u (n, dim) or (b, n, dim): (b, n, inputs)."""
        parts, flat = [], u.reshape(-1, u.shape[-1])
        if self.frequencies:
            parts.append(octaves(u, self.frequencies))
        if self.raw:
            parts.append(u)
        if self.planes_shape:
            side = self.planes_shape[0]
            parts.append(_look_up(states["planes"].flatten(1, 3), *_plane_cells(flat, side), shared=u.ndim == 2))
        if self.grid:
            many = b > 1 and u.ndim == 2  # for one field alone memory would be dearer than time
            found = self._recall(self.grid.cells, flat) if many else self.grid.cells(flat)
            parts.append(_look_up(states["table"], *found, shared=u.ndim == 2))
        found = torch.cat([part.expand(b, *part.shape[-2:]) for part in parts], -1) if len(parts) > 1 else parts[0]
        found = found.expand(b, *found.shape[-2:])
        blank = self.convention.blanks(u)
        return found if blank is None else torch.where(blank.unsqueeze(-1), torch.zeros_like(found), found)


def octaves(u: Tensor, count: int) -> Tensor:
    """Return sin(2^k pi u), sin(2^k pi u + pi / 2) for k < count: (..., d) -> (..., 2 d count), as tiny-cuda-nn does.

    Not the cosine: in the highest octaves rounding makes it another number, and networks have learnt these.
    """
    phase = u.unsqueeze(-1) * (math.pi * 2.0 ** torch.arange(count, dtype=u.dtype, device=u.device))
    return torch.stack([torch.sin(phase), torch.sin(phase + math.pi / 2)], -1).flatten(-3)


def _look_up(tables: Tensor, rows: Tensor, weights: Tensor, shared: bool) -> Tensor:
    """Sum weighted rows of all fields at once.

    Args:
        tables: (b, r, f).
        rows, weights: (levels, m, corners), where m counts the points, or those of all fields one field after the other.

    Returns:
        (b, n, levels f).
    """
    if not shared:
        rows, weights = (values.unflatten(1, (len(tables), -1)) for values in (rows, weights))
    return batched.table_rows(tables, rows, weights)


def _plane_cells(u: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Find the corners of three planes around u (m, 3): rows and weights (1, m, 12); nothing lies beyond the border."""
    position = u * (side - 1)
    floor = position.detach().floor()
    ends = torch.stack([floor, floor + 1], -1)  # (m, 3, 2)
    weight = position - floor
    pair = torch.stack([1 - weight, weight], -1) * ((ends >= 0) & (ends <= side - 1))
    ends = ends.clamp(0, side - 1).long()
    rows, weights = [], []
    for plane, (across, down) in enumerate(((0, 1), (0, 2), (1, 2))):
        rows.append((plane * side + ends[:, down, :, None]) * side + ends[:, across, None, :])
        weights.append(pair[:, down, :, None] * pair[:, across, None, :])
    return torch.stack(rows, 1).reshape(1, -1, 12), torch.stack(weights, 1).reshape(1, -1, 12)


def _column(seen: Tensor | None) -> Tensor | None:
    return None if seen is None else seen.unsqueeze(-1)


class _Three(nn.Module):
    """A linear layer for each of three colours; left unset."""

    def __init__(self, inputs: int, outputs: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(3, outputs)) if bias else None


def _unset_network(inputs: int, outputs: int, width: int, layers: int, bias: str) -> nn.ModuleList:
    widths = [inputs, *[width] * layers, outputs]
    return nn.ModuleList(
        batched.unset_linear(widths[i], widths[i + 1], bias == "all" or (bias == "first" and i == 0)) for i in range(layers + 1)
    )
