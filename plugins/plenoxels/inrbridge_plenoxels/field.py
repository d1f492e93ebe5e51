"""The field of a table of numbers in space: a lattice (Plenoxels) or an octree (PlenOctrees), interpolated or looked up.

row(p) = sum over the lattice points around p of weight * their rows, or the row of the leaf that p lies in
values:    row
medium:    density = act(row_0), colours = colour(row_1..3)
radiance:  density = act(row_0), colour_c = colour(sum_j basis_j(direction) row_(1 + c k + j)),  c = red, green, blue
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge import Box, Domain, Product, Sphere, batched, errors
from inrbridge_plenoxels.basis import Basis
from inrbridge_plenoxels.lattice import Lattice
from inrbridge_plenoxels.octree import Octree

HEADS = ("values", "medium", "radiance")
CHANNELS = ("red", "green", "blue", "density")
DENSITIES: dict[str, Callable[[Tensor], Tensor]] = {"softplus": functional.softplus, "relu": torch.relu}
COLOURS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "relu": lambda x: torch.relu(x + 0.5),  # of svox2
}
RANGES = ((0.0, 1.0), (0.0, 1.0), (0.0, 1.0), None)
FOG = -5.0  # of fresh densities: softplus(-5) = 0.0067 of a cell's optical depth, which neither hides nor stops learning
SPREAD = 1e-2  # of other fresh numbers
_CACHE_NUMBERS = 2**22  # of a chunk, on a CPU
_DEVICE_NUMBERS = 2**27


class PlenoxelField(nn.Module):
    """A table of numbers over `cells`, and what reads it; parameters are left unset, see `draw`.

    Args:
        cells: the lattice or octree in the box of the domain.
        head: "values", "medium" (colours and density) or "radiance" (on a Product with the sphere of directions).
        basis: functions of the direction, of a radiance field.
        density: "softplus" or "relu", times `density_scale`.
        colour: "sigmoid", or "relu": max(0, x + 1/2).
        padding: colours c become c (1 + 2 padding) - padding.
        axes, channel_ranges: what coordinates and values mean, where that is known.
    """

    format = "plenoxels"
    tables = ("table", "texture")

    def __init__(self, domain: Domain, channels: int, *, cells: Lattice | Octree, head: str = "values",
                 basis: Basis | None = None, density: str = "softplus", density_scale: float = 1.0, colour: str = "sigmoid",
                 padding: float = 0.0, axes: Sequence[str] | None = None,
                 channel_ranges: Sequence[Sequence[float] | None] | None = None):  # fmt: skip
        super().__init__()
        self.domain, self.channels = domain, channels
        self.cells, self.head, self.basis = cells, head, basis
        self.density, self.density_scale, self.colour, self.padding = density, float(density_scale), colour, float(padding)
        self.assumed: tuple[str, ...] = ()
        self.places = domain.a if head == "radiance" and isinstance(domain, Product) else domain
        self._check()
        self.channel_names = None if head == "values" else CHANNELS
        ranges = RANGES if channel_ranges is None and head != "values" else channel_ranges
        self.channel_ranges = tuple(pair and tuple(pair) for pair in ranges) if ranges else None
        self.axes = tuple(axes) if axes else None
        self.table = nn.Parameter(torch.empty(*cells.shape, self.columns))
        for name, shape in (basis.shapes() if basis else {}).items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        for name, value in cells.buffers().items():
            self.register_buffer(name, value)

    def _check(self) -> None:
        if self.head not in HEADS:
            raise errors.unknown_name("head", self.head, HEADS)
        if self.density not in DENSITIES:
            raise errors.unknown_name("density", self.density, DENSITIES)
        if self.colour not in COLOURS:
            raise errors.unknown_name("colour", self.colour, COLOURS)
        if self.head == "radiance" and not (isinstance(self.domain, Product) and self.domain.b == Sphere()):
            raise errors.ConfigError(f'Got head = "radiance" on {self.domain}, expected Product(Box, Sphere()).')
        if not isinstance(self.places, Box) or self.places.dim != self.cells.dim:
            raise errors.ConfigError(f"Got cells in {self.cells.dim} dimensions on {self.domain}, expected a Box of as many.")
        if self.head != "values" and (self.places.dim != 3 or self.channels != 4):
            raise errors.ConfigError(
                f'Got head = "{self.head}" with {self.channels} channels on {self.domain}, expected red, green, blue and density '
                'in space; choose head="values".'
            )
        if (self.head == "radiance") != (self.basis is not None):
            raise errors.ConfigError(f'Got head = "{self.head}" and basis {self.basis}, expected a basis of radiance alone.')
        if not isinstance(self.channels, int) or not 1 <= self.channels <= 4096:
            raise errors.ConfigError(f"Got {self.channels} channels, expected 1 to 4096.")
        if not (self.density_scale > 0 and math.isfinite(self.density_scale) and 0 <= self.padding < 1):
            raise errors.ConfigError(
                f"Got density_scale = {self.density_scale} and padding = {self.padding}, expected above 0, and 0 to 1."
            )
        if self.cells.rows * self.columns >= 2**33:
            raise errors.ConfigError(
                f"Got a table of {self.cells.rows} rows of {self.columns}, expected fewer than 2^33 numbers."
            )

    @property
    def columns(self) -> int:
        """Numbers in a row of the table."""
        return {"values": self.channels, "medium": 4, "radiance": 1 + 3 * (self.basis.components if self.basis else 0)}[self.head]

    @property
    def architecture(self) -> dict:
        """Keyword arguments of `PlenoxelsFormat.build` that make this field anew (JSON)."""
        facts = self.cells.to_options() | {"head": self.head}
        if self.basis:
            facts |= self.basis.to_options()
        if self.head != "values":
            facts |= {"density": self.density, "density_scale": self.density_scale, "colour": self.colour}
        known = self.channel_ranges if self.head == "values" or self.channel_ranges != RANGES else None
        ranges = known and [pair and list(pair) for pair in known]
        extras = {"padding": (self.padding, 0.0), "axes": (self.axes and list(self.axes), None), "channel_ranges": (ranges, None)}
        return facts | {name: value for name, (value, default) in extras.items() if value != default}

    def draw(self, generator: torch.Generator) -> None:
        """Draw the parameters: numbers near 0, densities near FOG (softplus) or just above 0 (relu), networks as `nn.Linear`."""
        with torch.no_grad():
            self.table.uniform_(-SPREAD, SPREAD, generator=generator)
            if self.head != "values":
                self.table[..., 0] += FOG if self.density == "softplus" else 2 * SPREAD
            for name in self.basis.shapes() if self.basis else {}:
                value = getattr(self, name)
                bound = 1 / math.sqrt(value.shape[-1]) if name.startswith("network") else 1.0
                value.uniform_(-bound, bound, generator=generator)

    def forward(self, coords: Tensor) -> Tensor:
        """Evaluate at coords (..., d) in domain units: values (..., channels) in the dtype of coords."""
        self.domain.check_shape(coords)
        states = {name: value.unsqueeze(0) for name, value in (*self.named_parameters(), *self.named_buffers())}
        values = self.evaluate_stack(states, coords.reshape(-1, coords.shape[-1]))
        return values[0].reshape(*coords.shape[:-1], self.channels)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b fields of this architecture: coords (n, d) or (b, n, d) -> values (b, n, channels).

        `states` holds the stacked state: "table" (b, *cells.shape, columns), "links", "child", ... Twice differentiable in the
        states and in the coordinates.
        """
        table = states["table"]
        x = coords if coords.dtype in (torch.float32, torch.float64) else coords.to(table.dtype)
        if batched.asks_gradient(x, states.values()):
            return self._evaluate(states, x).to(coords.dtype)
        with torch.no_grad():
            parts = [self._evaluate(states, x[..., part, :]) for part in self._chunks(x, len(table))]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, -2)).to(coords.dtype)

    def _chunks(self, x: Tensor, b: int) -> list[slice]:
        n, most = x.shape[-2], _CACHE_NUMBERS if x.device.type == "cpu" else _DEVICE_NUMBERS
        return batched.slices(n, max(64, most // max(1, b * (4 * self.cells.nearest + 2 * self.columns))))

    def _evaluate(self, states: Mapping[str, Tensor], x: Tensor) -> Tensor:
        table, dim = states["table"].flatten(1, -2), self.places.dim
        found, weights = self.cells.find(self._in_cube(x[..., :dim]), states, len(table))
        row = batched.table_rows(table, found.unsqueeze(0), weights.unsqueeze(0))
        if self.head == "values":
            return row
        density = self.density_scale * DENSITIES[self.density](row[..., :1])
        raw = row[..., 1:]
        if self.basis:
            functions = self.basis(x[..., dim:], states).unsqueeze(-2)  # (n, 1, k) or (b, n, 1, k)
            raw = (raw.unflatten(-1, (3, -1)) * functions).sum(-1)
        colours = COLOURS[self.colour](raw)
        if self.padding:
            colours = colours * (1 + 2 * self.padding) - self.padding
        return torch.cat([colours, density], -1)

    def _in_cube(self, points: Tensor) -> Tensor:
        low, size = self.places.low, self.places.size
        scale = points.new_tensor([1 / s for s in size])
        offset = points.new_tensor([-a / s for a, s in zip(low, size, strict=True)])
        return offset + points * scale  # in this order svox finds its leaves
