"""Readers of tiny-cuda-nn's own world: snapshots of instant-ngp, and vectors of parameters beside their JSON configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge import Box, Product, Sphere, errors
from inrbridge_ngp.levels import MOST_DIMENSIONS, GridSpec, growth_between
from inrbridge_ngp.networks import count_network, padded, unpack_network
from inrbridge_ngp.source import Parts, Source, activation, colour_layers

DIMENSIONS = {"nerf": 3, "sdf": 3, "image": 2, "volume": 3}
OUTPUTS = {"sdf": 1, "image": 3, "volume": 4}
NAMES = {"sdf": ("sdf",), "image": ("red", "green", "blue"), "volume": ("red", "green", "blue", "density")}
FINEST = 2048.0  # lattice points over the unit cube, where the configuration does not tell
MOST_SIDE = 2**17  # of a picture whose size is found by its parameters
MOST_CASCADES = 8  # grids of occupied cells, each about twice the box of the one before


@dataclass(frozen=True)
class Config:
    """A part of a configuration: dotted names below `prefix`."""

    values: Mapping[str, object]
    prefix: str

    def has(self, name: str) -> bool:
        """Say whether a value is there."""
        return f"{self.prefix}{name}" in self.values

    def number(self, name: str, default: float) -> float:
        """Return a finite number."""
        value = self.values.get(f"{self.prefix}{name}", default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise errors.CannotOpen(f'its "{self.prefix}{name}" is {value!r}, expected a number.')
        return value

    def whole(self, name: str, default: int, most: int = 2**31) -> int:
        """Return a whole number of 0 to `most`."""
        value = self.number(name, default)
        if value != int(value) or not 0 <= value <= most:
            raise errors.CannotOpen(f'its "{self.prefix}{name}" is {value!r}, expected a whole number of 0 to {most}.')
        return int(value)

    def text(self, name: str, default: str) -> str:
        """Return a text."""
        value = self.values.get(f"{self.prefix}{name}", default)
        if not isinstance(value, str):
            raise errors.CannotOpen(f'its "{self.prefix}{name}" is {value!r}, expected a text.')
        return value


@dataclass(frozen=True)
class Encoding:
    """What a configuration says of the features of positions; `growth` of the grid may be open."""

    dim: int
    frequencies: int = 0
    raw: bool = False
    grid: Mapping[str, object] | None = None

    @property
    def growth(self) -> float | None:
        """The factor from level to level, if it is told or does not matter."""
        return self.grid["growth"] if self.grid else 1.0

    @property
    def width(self) -> int:
        """Number of features."""
        if self.grid:
            return self.grid["levels"] * self.grid["features"]
        return self.dim if self.raw else 2 * self.dim * self.frequencies

    @property
    def padding(self) -> float:
        """Value of the features added up to a multiple of 16."""
        return 0.0 if self.grid else 1.0

    def spec(self, growth: float) -> GridSpec | None:
        """Return the grid with this growth."""
        return GridSpec(self.dim, **{**self.grid, "growth": growth}) if self.grid else None


def read_encoding(config: Config, dim: int, told, *, in_ngp: bool) -> Encoding:
    """Read the configuration of an encoding; instant-ngp has other defaults than tiny-cuda-nn."""
    kind = config.text("otype", "OneBlob").lower()
    if kind == "frequency":
        return Encoding(dim, frequencies=config.whole("n_frequencies", 12, 128))
    if kind == "identity" and config.number("scale", 1.0) == 1 and config.number("offset", 0.0) == 0:
        return Encoding(dim, raw=True)
    if kind not in ("grid", "hashgrid", "densegrid", "tiledgrid"):
        raise errors.CannotOpen(f'its encoding is "{config.text("otype", "OneBlob")}", expected a grid, Frequency or Identity.')
    default = {"densegrid": "Dense", "tiledgrid": "Tiled"}.get(kind, "Hash")
    grid = config.text("type", default).lower()
    features = config.whole("n_features_per_level", 2, 8)
    levels = config.whole("n_levels", 16, 128)
    for name in ("n_features", "n_grid_features"):
        if config.has(name) and config.whole(name, 0) and features:
            levels = config.whole(name, 0) // features
    log2_table = config.whole("log2_hashmap_size", 15 if in_ngp else 19, 30)
    base = config.whole("base_resolution", 0 if in_ngp else 16) or 2 ** (log2_table // dim)
    growth = told.growth or config.number("per_level_scale", 0.0)
    if growth <= 0 and not in_ngp:
        growth = growth_between(base, 256, levels) if grid == "dense" else 2.0
    hashes = {"coherentprime": "coherent-prime", "prime": "prime", "reversedprime": "reversed-prime"}
    named = config.text("hash", "CoherentPrime")
    if named.lower() not in hashes:
        raise errors.CannotOpen(f'its grid is hashed by "{named}", expected CoherentPrime, Prime or ReversedPrime.')
    if config.values.get(f"{config.prefix}fixed_point_pos"):
        raise errors.CannotOpen("its grid counts positions in fixed point, which is not read.")
    return Encoding(dim, grid={
        "levels": levels, "features": features, "log2_table": log2_table, "base": base, "growth": growth if growth > 0 else None,
        "grid": grid, "hash": hashes[named.lower()], "interpolation": config.text("interpolation", "Linear").lower(),
    })  # fmt: skip


@dataclass(frozen=True)
class Network:
    """What a configuration says of a network."""

    width: int
    layers: int
    activation: str
    final: str

    @classmethod
    def of(cls, config: Config) -> Network:
        """Read width, hidden layers and activations."""
        inner, final = config.text("activation", "ReLU"), config.text("output_activation", "None")
        width, layers = config.whole("n_neurons", 128, 4096) or 1, config.whole("n_hidden_layers", 5, 64)
        return cls(width, layers, activation(inner), activation(final))

    def count(self, inputs: int, outputs: int) -> int:
        """Return the number of its parameters."""
        return count_network(inputs, outputs, self.width, self.layers)

    def cut(self, vector: Tensor, inputs: int, outputs: int, padding: float):
        """Cut its vector into layers."""
        return unpack_network(vector, inputs, outputs, self.width, self.layers, padding)


def read_parameters(source: Source) -> Tensor:
    """Return the parameters of a snapshot in single precision, their number checked first."""
    blob = source.tensors.get("snapshot.params_binary")
    kind = Config(source.scalars, "snapshot.").text("params_type", "__half")
    count = Config(source.scalars, "snapshot.").whole("n_params", 0, 2**33)
    sizes = {"__half": torch.float16, "half": torch.float16, "float": torch.float32}
    if blob is None or blob.ndim != 1 or kind not in sizes:
        raise errors.CannotOpen(f'it has no "snapshot.params_binary" of type __half or float, got type "{kind}".')
    dtype = sizes[kind]
    if blob.numel() != count * dtype.itemsize or not count:
        raise errors.CannotOpen(
            f"its n_params is {count} of type {kind}, and it holds {blob.numel()} bytes of them, expected "
            f"{count * dtype.itemsize}."
        )
    return blob.to(torch.uint8).contiguous().view(dtype).float()


def read_snapshot(source: Source) -> Parts:
    """A snapshot of instant-ngp: nerf, sdf, image or volume."""
    snapshot = Config(source.scalars, "snapshot.")
    if snapshot.whole("version", 0) < 1:
        raise errors.CannotOpen("its snapshot is of version 0, expected 1 or later; load and save it again in instant-ngp.")
    mode = snapshot.text("mode", "nerf").lower()
    if mode not in DIMENSIONS:
        raise errors.CannotOpen(f'its mode is "{mode}", expected one of {", ".join(DIMENSIONS)}.')
    parameters = read_parameters(source)
    _check_density_grid(source)
    encoding = read_encoding(Config(source.scalars, "encoding."), DIMENSIONS[mode], source.told, in_ngp=True)
    network = Network.of(Config(source.scalars, "network."))
    if mode == "nerf":
        return _read_nerf(source, parameters, encoding, network)
    outputs = OUTPUTS[mode]
    spec = _solve_growth(source, mode, encoding, parameters.numel() - network.count(encoding.width, outputs))
    parts = Parts(Box.unit(encoding.dim), outputs, {"head": "values", "activation": network.activation, "final": network.final},
                  {}, names=NAMES[mode], axes=("x", "y", "z")[: encoding.dim])  # fmt: skip
    _take_base(parts, parameters, encoding, network, spec, outputs)
    if mode == "image":
        parts.ranges = ((0.0, 1.0),) * 3
        source.assume.note("coordinates are (x, y) in [0, 1], y down; colours are sRGB unless it was trained in linear ones")
    elif mode == "sdf":
        source.assume.note("coordinates are those of the unit cube around the mesh; distances in these units, negative inside")
    else:
        source.assume.note("coordinates are those of the unit cube; colours are radiance, density is per voxel index")
    return parts


def _check_density_grid(source: Source) -> None:
    """Compare the length of the grid of occupied cells with its size; nothing is evaluated by it."""
    blob, side = source.tensors.get("snapshot.density_grid_binary"), source.number("snapshot.density_grid_size")
    if blob is None:
        return
    cells = 0 if side is None or side != int(side) else int(side) ** 3
    if not cells or blob.numel() % (2 * cells) or not 1 <= blob.numel() // (2 * cells) <= MOST_CASCADES:
        raise errors.CannotOpen(
            f"its density grid has {blob.numel()} bytes, expected 2 for each of {cells} cells in 1 to {MOST_CASCADES} cascades."
        )


def _take_base(parts: Parts, vector: Tensor, encoding: Encoding, network: Network, spec: GridSpec | None, outputs: int) -> None:
    """Cut "network, then encoding" and take both; the configuration's other features go into the options."""
    count = network.count(encoding.width, outputs)
    rows = spec.rows * spec.features if spec else 0
    if vector.numel() != count + rows:
        raise errors.CannotOpen(
            f"it has {vector.numel()} parameters, expected {count} of its network and {rows} of its encoding; tell "
            "finest or growth."
        )
    parts.add_network("base", network.cut(vector[:count], encoding.width, outputs, encoding.padding))
    parts.options["activation"] = network.activation
    if spec:
        parts.add_grid(spec, vector[count:].reshape(spec.rows, spec.features))
    else:
        parts.options |= {"levels": 0, "frequencies": encoding.frequencies, "raw": encoding.raw}


def _read_nerf(source: Source, parameters: Tensor, encoding: Encoding, network: Network) -> Parts:
    told, scalars = source.told, source.scalars
    dataset = Config(scalars, "snapshot.nerf.dataset.")
    scene = dataset.number("aabb_scale", Config(scalars, "snapshot.nerf.").number("aabb_scale", 1))
    if not 0 < scene <= 2**20:
        raise errors.CannotOpen(f"its aabb_scale is {scene}, expected a number above 0.")
    degree, extra = _directions(source, dataset)
    rgb = Network.of(Config(scalars, "rgb_network."))
    if rgb.activation != "relu" or rgb.final != "none" or network.final != "none":
        raise errors.CannotOpen(
            f"its networks have the activations {rgb.activation}, {rgb.final} and {network.final}, expected relu inside and none "
            "at the end."
        )
    outputs = Config(scalars, "network.").whole("n_output_dims", 16, 4096)
    front = padded(degree**2) - degree**2 if extra is None else 0  # harmonics alone are padded in front
    back = 0 if extra is None else padded(degree**2 + extra) - degree**2 - extra
    inputs = padded(outputs) + front + degree**2 + (extra or 0) + back
    finest, grid, growth = (told.finest or FINEST) * scene, encoding.grid, encoding.growth
    if grid and (growth is None or told.finest is not None):
        source.assume.choose("finest", told.finest, FINEST)
        growth = growth_between(grid["base"], finest, grid["levels"])
    spec = encoding.spec(growth)
    counts = [network.count(encoding.width, outputs), rgb.count(inputs, 3), spec.rows * spec.features if spec else 0]
    if parameters.numel() != sum(counts):
        raise errors.CannotOpen(
            f"its n_params is {parameters.numel()}, expected {sum(counts)}: {counts[0]} of the density network, {counts[1]} of "
            f"the colour network, {counts[2]} of the grid with finest = {finest:g}; tell finest or growth."
        )
    density, colour, table = parameters.split(counts)
    half = 0.5 * min(128.0, scene)
    box = Box([0.5 - half] * 3, [0.5 + half] * 3)
    is_hdr = scalars.get("snapshot.nerf.dataset.is_hdr") is True
    convention = {"low": box.low, "high": box.high, "colour": "exp" if is_hdr else "sigmoid"}
    options = {"head": "radiance", "geometry": outputs, "harmonics": degree}
    parts = Parts(Product(box, Sphere()), 4, options, {}, axes=("x", "y", "z"), convention=convention)
    if scalars.get("snapshot.nerf.dataset.from_mitsuba") is not True:  # the first coordinate is the y of a transforms.json, ..
        parts.axes, parts.up = ("y", "z", "x"), "y"
    _take_base(parts, torch.cat([density, table]), encoding, network, spec, outputs)
    layers = rgb.cut(colour, inputs, 3, padding=1.0)
    sizes = {"outputs": outputs, "pad": padded(outputs) - outputs, "front": front, "harmonics": degree**2, "extra": extra or 0,
             "back": back, "constant": (extra or 0) + front + back}  # fmt: skip
    weight, bias = layers[0]
    columns = dict(zip(("outputs", "pad", "front", "harmonics", "extra", "back"),
                       weight.split([sizes[n] for n in ("outputs", "pad", "front", "harmonics", "extra", "back")], 1),
                       strict=True))  # fmt: skip
    ones = torch.cat([columns["front"], columns["back"]], 1)
    constant = torch.cat([_extra(source, extra or 0), torch.ones(ones.shape[1])])
    merged = torch.cat([columns["harmonics"], columns["outputs"], columns["extra"], ones], 1)
    order = ("harmonics", "outputs") + (("constant",) if len(constant) else ())
    parts.add_network("colour", colour_layers([(merged, bias), *layers[1:]], order, sizes, constant))
    source.assume.note("colours are sRGB unless it was trained in linear ones")
    return parts


def _extra(source: Source, count: int) -> Tensor:
    """Return the values of the colour network's extra inputs."""
    told = source.told.extra
    if told is None:
        if count:
            source.assume.note(f"extra = 0 for its {count} extra inputs (direction of light, latents of images)")
        return torch.zeros(count)
    values = [float(value) for value in ([told] if isinstance(told, int | float) else told)]
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise errors.ConfigError(f"Got extra = {values}, expected {count} finite numbers.")
    return torch.tensor(values)


def _directions(source: Source, dataset: Config) -> tuple[int, int | None]:
    """Return the degrees of the directions' harmonics, and how many extra inputs follow; None where none can."""
    config = Config(source.scalars, "dir_encoding.")
    lights = 3 if source.scalars.get("snapshot.nerf.dataset.has_light_dirs") is True else 0
    extra = dataset.whole("n_extra_learnable_dims", 0, 4096) + lights
    kind = config.text("otype", "Composite").lower()
    if kind == "composite":
        first, second = Config(source.scalars, "dir_encoding.nested.0."), Config(source.scalars, "dir_encoding.nested.1.")
        rest = second.text("otype", "Identity").lower()
        if first.text("otype", "SphericalHarmonics").lower() == "sphericalharmonics" and (rest == "identity" or not extra):
            return max(1, first.whole("degree", 4, 8)), extra
    elif kind == "sphericalharmonics" and not extra:
        return max(1, config.whole("degree", 4, 8)), None
    raise errors.CannotOpen(f'its directions are encoded by "{config.text("otype", "Composite")}", expected SphericalHarmonics.')


def _solve_growth(source: Source, mode: str, encoding: Encoding, count: int) -> GridSpec | None:
    """Return the grid with `count` parameters: the writer knew the size of the picture or volume, its file does not tell it."""
    if not encoding.grid:
        return None
    told, grid = source.told, encoding.grid
    finest = told.finest
    if finest is None and told.size is not None:
        size = [told.size] if isinstance(told.size, int) else list(told.size)
        finest = max(size) / 2 if mode == "image" else float(max(size))
    if finest is None and mode == "sdf":
        finest = source.assume.choose("finest", None, FINEST) if encoding.growth is None else None
    if finest is not None and grid["levels"] > 1:
        return encoding.spec(growth_between(grid["base"], finest, grid["levels"]))
    if encoding.growth or grid["levels"] < 2:
        return encoding.spec(encoding.growth or 1.0)
    least, most = _fitting_sides(encoding, count, 2 if mode == "image" else 1)
    if least != most:
        found = f"{least} to {most}" if least < most else "none"
        raise errors.CannotOpen(
            f"its {count} parameters of the grid fit a longest side of {found} samples, and the file does not tell it; open it "
            "with size=[height, width]."
        )
    source.assume.note(f"size = {least} samples along the longest side (fits the number of parameters)")
    return encoding.spec(growth_between(grid["base"], least / (2 if mode == "image" else 1), grid["levels"]))


def _fitting_sides(encoding: Encoding, count: int, divisor: int) -> tuple[int, int]:
    """Return the first and the last longest side, in samples, whose grid has `count` parameters; it grows with the side."""

    def first(reached) -> int:
        low, high = 1, MOST_SIDE
        while low < high:
            middle = (low + high) // 2
            spec = encoding.spec(growth_between(encoding.grid["base"], middle / divisor, encoding.grid["levels"]))
            low, high = (low, middle) if reached(spec.rows * spec.features) else (middle + 1, high)
        return low

    return first(lambda found: found >= count), first(lambda found: found > count) - 1


def read_vector(source: Source) -> Parts:
    """One vector "params" of tiny-cuda-nn's bindings, its configuration in a JSON file beside it."""
    config = Config(source.sidecar, "")
    vector = source.vector("params")
    told = source.told
    dim = int(told.dim or config.whole("n_input_dims", 0, MOST_DIMENSIONS))
    outputs = int(told.channels or config.whole("n_output_dims", 0, 4096))
    if not 1 <= dim <= MOST_DIMENSIONS or outputs < 1:
        raise errors.CannotOpen(
            f"{source.sidecar_name or 'it'} tells {dim} inputs and {outputs} outputs; add n_input_dims and n_output_dims "
            "there, or open it with dim=... and channels=..."
        )
    encoding = read_encoding(Config(source.sidecar, "encoding."), dim, told, in_ngp=False)
    network = Network.of(Config(source.sidecar, "network."))
    spec = encoding.spec(encoding.growth) if encoding.grid else None
    parts = Parts(Box.unit(dim), outputs, {"head": "values", "final": network.final}, {})
    _take_base(parts, vector, encoding, network, spec, outputs)
    source.assume.note("coordinates are those of the unit cube")
    return parts
