"""What a reader of a foreign file works with: its tensors, what was told, what is assumed; and the parts it hands back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from inrbridge import Assumptions, Box, Domain, errors
from inrbridge.foreign import real_tensor, told_box
from inrbridge.options import changed_options
from inrbridge_ngp.levels import GridSpec, growth_between
from inrbridge_ngp.networks import ACTIVATIONS, WIDTHS, Layer, count_network, find_network, unpack_network

LEAST_LOG2, MOST_LOG2 = 8, 24  # of tables tried where the file does not tell; smaller ones fit by chance


@dataclass(frozen=True)
class Told:
    """The options of `NgpFormat.open`; None where nothing was said."""

    low: float | Sequence[float] | None = None
    high: float | Sequence[float] | None = None
    extent: float | None = None
    frame: str = "file"
    convention: str = "file"
    contraction: str | None = None
    density_scale: float | None = None
    appearance: str | None = None
    levels: int | None = None
    features: int | None = None
    log2_table: int | None = None
    base: int | None = None
    finest: float | None = None
    growth: float | None = None
    size: int | Sequence[int] | None = None
    extra: Sequence[float] | None = None
    activation: str | None = None
    dim: int | None = None
    channels: int | None = None

    @property
    def names(self) -> list[str]:
        """The options that were given."""
        return list(changed_options(self))


@dataclass(frozen=True)
class Source:
    """A foreign file: tensors under bare names, plain values of the file and of the sidecar."""

    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, object]
    sidecar: Mapping[str, object]
    sidecar_name: str
    assume: Assumptions
    told: Told

    def tensor(self, name: str, *shape: int | None) -> Tensor:
        """Return a tensor in single or double precision; its shape is checked where numbers are given.

        Raises:
            CannotOpen: it is absent, or of another shape or kind.
        """
        return real_tensor(self.tensors, name, *shape)

    def vector(self, name: str) -> Tensor:
        """Return a tensor of one axis."""
        return self.tensor(name, None)

    def number(self, name: str) -> float | None:
        """Return a stored number, a tensor of one element or a plain value; None where there is none."""
        found = self.tensors.get(name)
        if found is not None and found.numel() == 1:
            return float(found)
        value = self.scalars.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def layers(self, name: str) -> list[Layer]:
        """Collect the linear layers "<name>.i.weight" (out, in) and "<name>.i.bias" in the order of their numbers."""
        numbers = sorted(
            int(part) for key in self.tensors if key.startswith(f"{name}.") and key.endswith(".weight")
            for part in [key[len(name) + 1 : -len(".weight")]] if part.isdigit()
        )  # fmt: skip
        if numbers != list(range(len(numbers))) or not numbers:
            raise errors.CannotOpen(f'its layers "{name}.i.weight" have the numbers {numbers[:8]}, expected 0, 1, 2, ...')
        found: list[Layer] = []
        width = None
        for number in numbers:
            weight = self.tensor(f"{name}.{number}.weight", None, width)
            key = f"{name}.{number}.bias"
            found.append((weight, self.tensor(key, weight.shape[0]) if key in self.tensors else None))
            width = weight.shape[0]
        return found


@dataclass
class Parts:
    """What a reader found: the domain, the options of `build` and the state of the field."""

    domain: Domain
    channels: int
    options: dict
    state: dict[str, Tensor]
    names: tuple[str, ...] | None = None
    axes: tuple[str, ...] | None = None
    convention: dict = field(default_factory=dict)
    ranges: Sequence | None = None
    up: str | None = None

    def add_grid(self, spec: GridSpec, table: Tensor) -> None:
        """Take a grid with its rows (rows, features)."""
        self.options |= spec.to_options()
        self.state["table"] = table

    def add_network(self, name: str, layers: Sequence[Layer]) -> None:
        """Take the layers of the network "base" or "colour"."""
        biased = [bias is not None for _, bias in layers]
        kind = "none" if not any(biased) else "all" if all(biased) and len(layers) > 1 else "first" if biased[0] else ""
        widths = {weight.shape[0] for weight, _ in layers[:-1]}
        if len(widths) > 1 or not kind or any(biased[1:]) != (kind == "all"):
            raise errors.CannotOpen(f"its network has hidden layers of the widths {sorted(widths)}, expected one width.")
        prefix = "" if name == "base" else f"{name}_"
        self.options |= {f"{prefix}layers": len(layers) - 1, f"{prefix}bias": kind}
        self.options[f"{prefix}width"] = widths.pop() if widths else 64
        for i, (weight, bias) in enumerate(layers):
            self.state[f"{name}.{i}.weight"] = weight
            if bias is not None:
                self.state[f"{name}.{i}.bias"] = bias


def colour_layers(
    layers: list[Layer], order: Sequence[str], sizes: Mapping[str, int], constant: Tensor | None = None
) -> list[Layer]:
    """Sort the columns of a colour network's first layer into harmonics | all outputs of the base network.

    Args:
        order: what the columns are, of "harmonics", "outputs", "geometry" (the outputs but the first) and "constant".
        sizes: how many columns of each; "outputs" is always given.
        constant: values of the constant inputs, which become part of the first bias; None: zeros.
    """
    weight, bias = layers[0]
    wanted = sum(sizes[name] for name in order)
    if weight.shape[1] != wanted or layers[-1][0].shape[0] != 3:
        raise errors.CannotOpen(
            f"its colour network takes {weight.shape[1]} inputs and gives {layers[-1][0].shape[0]} outputs, expected {wanted} "
            f"({', '.join(f'{sizes[name]} of {name}' for name in order)}) and 3."
        )
    columns = dict(zip(order, weight.split([sizes[name] for name in order], 1), strict=True))
    columns.setdefault("harmonics", weight.new_zeros(weight.shape[0], sizes["harmonics"]))
    if "outputs" not in columns:
        columns["outputs"] = torch.cat([torch.zeros_like(weight[:, :1]), columns["geometry"]], 1)
    if constant is not None and "constant" in columns:
        shift = columns["constant"] @ constant.to(weight.dtype)
        bias = shift if bias is None else bias + shift
    return [(torch.cat([columns["harmonics"], columns["outputs"]], 1), bias), *layers[1:]]


def corners(source: Source, low: Sequence[float], high: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the corners of the scene's box, those told in place of those given; one number serves all coordinates."""
    box = told_box(source.told.low, source.told.high, low, high)
    return box.low, box.high


def unbounded(source: Source, low: Sequence[float], high: Sequence[float], default: float = 5.0) -> Box:
    """Return the box in which unbounded space is looked at: `extent` times the scene's."""
    extent = source.assume.choose("extent", source.told.extent, default)
    if not (math.isfinite(extent) and extent > 0):
        raise errors.ConfigError(f"Got extent = {extent}, expected a number above 0.")
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    half = [extent * (b - a) / 2 for a, b in zip(low, high, strict=True)]
    source.assume.note(f"space is unbounded, its domain is cut at {extent:g} times the scene's box")
    return Box([m - h for m, h in zip(middle, half, strict=True)], [m + h for m, h in zip(middle, half, strict=True)])


def find_grid(
    source: Source, count: int, outputs: int, *, dim: int = 3, levels: int = 16, features: int = 2, log2_table: int = 19,
    base: int = 16, finest: Iterable[float] = (2048,), network: bool = True, width: int | None = None,
) -> tuple[GridSpec, int, int]:  # fmt: skip
    """Find the grid, and the network before it, that have `count` parameters in tiny-cuda-nn's order.

    What was told is kept; else the defaults are tried first, then tables of other sizes and the next `finest`.

    Returns:
        The grid, and width and hidden layers of the network.

    Raises:
        CannotOpen: nothing fits.
    """
    told = source.told
    levels, features, base = (
        int(source.assume.choose(name, given, default, kind=int))
        for name, given, default in (
            ("levels", told.levels, levels), ("features", told.features, features), ("base", told.base, base),
        )
    )  # fmt: skip
    others = (table for table in range(MOST_LOG2, LEAST_LOG2 - 1, -1) if table != log2_table)
    tables = [told.log2_table] if told.log2_table else [log2_table, *others]
    growths = [told.growth] if told.growth else [growth_between(base, far, levels) for far in _told_or(told.finest, finest)]
    # the usual width before all else: with another one a wrong table may fit by chance
    for chosen in ((width,) if width else WIDTHS) if network else (0,):
        for growth, table in product(growths, tables):
            spec = GridSpec(dim, levels, features, table, base, growth)
            rest = count - spec.rows * features
            if rest < 0 or (rest > 0 and not network):
                continue
            found = find_network(rest, spec.outputs, outputs, (chosen,)) if network else (0, 0)
            if found:
                source.assume.note(f"log2_table = {table}, growth = {growth:.6g} (fit the number of parameters)")
                return spec, *found
    raise errors.CannotOpen(
        f"its {count} parameters fit no grid of {levels} levels with {features} features from {base} to "
        f"{', '.join(f'{far:g}' for far in _told_or(told.finest, finest))} points; tell levels, features, base, finest, "
        "log2_table."
    )


def _told_or(told: float | None, defaults: Iterable[float]) -> list[float]:
    return list(defaults) if told is None else [float(told)]


def cut(vector: Tensor, spec: GridSpec, outputs: int, width: int, layers: int) -> tuple[list[Layer], Tensor]:
    """Cut a vector "network, then grid" into layers and the table."""
    count = count_network(spec.outputs, outputs, width, layers)
    if vector.numel() != count + spec.rows * spec.features:
        raise errors.CannotOpen(
            f"it has {vector.numel()} parameters, expected {count} of the network and {spec.rows * spec.features} of the grid."
        )
    network = unpack_network(vector[:count], spec.outputs, outputs, width, layers, padding=0.0)
    return network, vector[count:].reshape(spec.rows, spec.features)


def colour_network(vector: Tensor, inputs: int) -> list[Layer]:
    """Cut the vector of a stand-alone colour network, whose padded inputs are 1."""
    found = find_network(vector.numel(), inputs, 3)
    if found is None:
        raise errors.CannotOpen(f"its colour network has {vector.numel()} parameters, which fit no network of {inputs} inputs.")
    return unpack_network(vector, inputs, 3, *found, padding=1.0)


def activation(name: str) -> str:
    """Return our name of one of tiny-cuda-nn's activations."""
    plain = {key.replace("-", ""): key for key in ACTIVATIONS}
    found = plain.get(str(name).lower().replace("_", "").replace(" ", "").replace("-", ""))
    if found is None:
        raise errors.CannotOpen(f'its network has the activation "{name}", expected one of {", ".join(ACTIVATIONS)}.')
    return found
