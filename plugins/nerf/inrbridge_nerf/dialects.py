"""The code bases whose checkpoints open here: what they call their layers, and how they put them together.

A file is known by the names of its tensors; no tensor is read for it. Names decide, not shapes: the encodings of four code
bases have equally many columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inrbridge import Probe

_WRAPPERS = {"state_dict", "model_state_dict", "model", "_model", "module", "_orig_mod", "network", "pipeline",
             "radiance_field_state_dict", "radiance_field", "models"}  # fmt: skip
_NETWORKS = {
    "fine": {"network_fine_state_dict", "model_fine_state_dict", "nerf_fine", "field_fine", "network_fine", "model_fine", "fine"},
    "coarse": {
        "network_fn_state_dict",
        "model_coarse_state_dict",
        "nerf_coarse",
        "field_coarse",
        "network_fn",
        "model_coarse",
        "coarse",
    },
}
_NETWORK_OF = {word: network for network, words in _NETWORKS.items() for word in words}


@dataclass(frozen=True)
class Encoding:
    """How a code base encodes coordinates: columns nested in `order` (f frequency, s sine and cosine, c coordinate), the
    coordinates themselves `raw` "first", "last" or before "each" one's waves; see `Convention` for the rest."""

    order: str = "fsc"
    raw: str = "first"
    unit: float = 1.0
    highest: float | None = None
    direction_highest: float | None = None
    cosine: str = "cosine"

    @property
    def formula(self) -> str:
        """Say in a line what is encoded."""
        factor = "" if self.unit == 1 else "2 pi "
        spread = "k = 0, 1, .." if self.highest is None else f"k spread over 0 to {self.highest:g} ({self.direction_highest:g})"
        words = {"f": "frequencies", "s": "sine and cosine", "c": "coordinates"}
        nested = " within ".join(words[letter] for letter in reversed(self.order))
        return f"sin, cos({factor}2^k x), {spread}; nested: {nested}; x {self.raw}"


@dataclass(frozen=True)
class Dialect:
    """How one code base writes a field.

    Attributes:
        trunk, branch: names of layers, "{}" their number, which counts from `start` in the trunk, or all names, a space
            between; `first` the name of the trunk's first layer where it has another.
        density, feature, colour: names of the layers of a radiance field; no `feature`: the branch reads the trunk.
        readout: name of the layer that stands for all these where directions are not seen.
        encoding_first, direction_first: whether the encoding stands before the values of the layer it joins.
        first_active, feature_active: whether ReLU follows the first layer, and the feature layer.
        density_activation: "relu", "softplus" or "sigmoid"; colours always have a sigmoid.
        always_raw: the coordinates themselves are always among the encoding; other widths are another network's.
        mark: name of a plain value that tells its files from those of another code base with the same names of layers.
        others: patterns of names that may be there and are not needed.
    """

    name: str
    source: str
    trunk: str
    branch: str
    density: str
    colour: str
    feature: str | None = None
    readout: str | None = None
    start: int = 0
    first: str | None = None
    encoding: Encoding = Encoding()
    encoding_first: bool = True
    direction_first: bool = False
    first_active: bool = True
    feature_active: bool = False
    density_activation: str = "relu"
    always_raw: bool = False
    mark: str = ""
    others: str = r"(?!)"

    def layers(self, names: set[str]) -> Layers | None:
        """Sort the names of a network's tensors; None where some are missing or left over."""
        trunk = [self.first] if self.first else []
        trunk += _row(self.trunk, self.start, names)
        branch = _row(self.branch, 0, names)
        if self.readout and f"{self.readout}.weight" in names:
            found, spare = Layers(tuple(trunk), readout=self.readout), {f"{b}.{part}" for b in branch for part in _PARTS}
        else:
            found, spare = Layers(tuple(trunk), tuple(branch), self.density, self.feature, self.colour), set()
        left = {name for name in names - found.tensors - spare if not re.match(self.others, name)}
        return found if trunk and names >= found.tensors and not left else None


_PARTS = ("weight", "bias")


@dataclass(frozen=True)
class Layers:
    """Names of the layers of a network."""

    trunk: tuple[str, ...]
    branch: tuple[str, ...] = ()
    density: str | None = None
    feature: str | None = None
    colour: str | None = None
    readout: str | None = None

    @property
    def tensors(self) -> set[str]:
        """Names of all their tensors."""
        heads = [name for name in (self.density, self.feature, self.colour, self.readout) if name]
        return {f"{name}.{part}" for name in (*self.trunk, *self.branch, *heads) for part in _PARTS}


def _row(pattern: str, start: int, names: set[str]) -> list[str]:
    """Return the names of layers numbered without a gap from `start` on, or those that the pattern lists."""
    if "{}" not in pattern:
        return pattern.split()
    found: list[str] = []
    while f"{pattern.format(start + len(found))}.weight" in names:
        found.append(pattern.format(start + len(found)))
    return found


_YENCHENLIN = Dialect(
    "yenchenlin", "github.com/yenchenlin/nerf-pytorch and its many copies", "pts_linears.{}", "views_linears.{}",
    "alpha_linear", "rgb_linear", "feature_linear", "output_linear",
)  # fmt: skip

_TINY = Dialect(
    "krrish-tiny", "github.com/krrish94/nerf-pytorch: tiny_nerf.py, VeryTinyNeRFModel", "layer1 layer2", "", "", "",
    readout="layer3", always_raw=True,
)  # fmt: skip

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        replace(
            _YENCHENLIN, name="autonerf", source="github.com/piyushmundhra/AutoNeRF", density_activation="sigmoid",
            mark="input_ch_dir",
        ),
        _YENCHENLIN,
        replace(_YENCHENLIN, name="bmild", source="github.com/bmild/nerf"),
        Dialect(
            "krrish", "github.com/krrish94/nerf-pytorch: FlexibleNeRFModel", "layers_xyz.{}", "layers_dir.{}", "fc_alpha",
            "fc_rgb", "fc_feat", "fc_out", first="layer1", encoding_first=False, first_active=False, feature_active=True,
        ),
        Dialect(
            "krrish-replicate", "github.com/krrish94/nerf-pytorch: ReplicateNeRFModel", "layer1 layer2", "layer4 layer5",
            "fc_alpha", "fc_rgb", "layer3",
        ),
        Dialect(
            "krrish-multihead", "github.com/krrish94/nerf-pytorch: MultiHeadNeRFModel", "layer1 layer2", "layer4 layer5",
            "layer3_1", "layer6", "layer3_2", feature_active=True,
        ),
        replace(
            _TINY, name="jiayi-pan-tiny", source="github.com/Jiayi-Pan/NeRF: TinyNeRF", encoding=Encoding("cfs", "each"),
            mark="its.0",
        ),
        _TINY,
        Dialect(
            "nerf-pl", "github.com/kwea123/nerf_pl", "xyz_encoding_{}.0", "dir_encoding.{}", "sigma", "rgb.0",
            "xyz_encoding_final", start=1,
        ),
        Dialect(
            "nerfacc", "github.com/nerfstudio-project/nerfacc: VanillaNeRFRadianceField of its examples",
            "mlp.base.hidden_layers.{}", "mlp.rgb_layer.hidden_layers.{}", "mlp.sigma_layer.output_layer",
            "mlp.rgb_layer.output_layer", "mlp.bottleneck_layer.output_layer", encoding_first=False,
            encoding=Encoding("sfc", cosine="shifted sine"), others=r"(posi|view)_encoder\.scales$",
        ),
        Dialect(
            "nerfstudio", "github.com/nerfstudio-project/nerfstudio: vanilla-nerf", "mlp_base.layers.{}", "mlp_head.layers.{}",
            "field_output_density.net", "field_heads.0.net", density_activation="softplus", direction_first=True,
            encoding=Encoding("scf", "last", 6.283185307179586, 8.0, 4.0, "shifted sine"),
        ),
        Dialect(
            "jiayi-pan", "github.com/Jiayi-Pan/NeRF", "fc_{}.0", "fc_dir.{}", "sigma", "rgb.0", "fc_noact", start=1,
            encoding=Encoding("cfs", "each"),
        ),
    )
}  # fmt: skip


def split(name: str) -> tuple[str, str, str]:
    """Take the words that wrap a state dict from the name of a tensor.

    Returns:
        Those words, which of two networks they name ("fine", "coarse", ""), and the name in the network.

    >>> split("pipeline._model.module.field_fine.mlp_base.layers.0.weight")
    ('pipeline._model.module.field_fine', 'fine', 'mlp_base.layers.0.weight')
    """
    words, network, place = name.split("."), "", 0
    while place < len(words) and (words[place] in _WRAPPERS or (words[place] in _NETWORK_OF and not network)):
        network = network or _NETWORK_OF.get(words[place], "")
        place += 1
    return ".".join(words[:place]), network, ".".join(words[place:])


@dataclass(frozen=True)
class Found:
    """A network in a file: its dialect, layers, and where its tensors are: name in the network -> name in the file."""

    dialect: Dialect
    network: str
    layers: Layers
    tensors: Mapping[str, str]


def find_networks(probe: Probe, told: str | None = None) -> list[Found]:
    """Return the networks of a file, the fine one first; none where the file is of another kind.

    Args:
        told: dialect to prefer where the names fit it, whatever marks the file has.
    """
    if probe.magic == "npy":
        named = name_arrays(probe.tensors)
        layers = named and DIALECTS["bmild"].layers(set(named))
        return [Found(DIALECTS["bmild"], "", layers, named)] if layers else []
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for name in probe.tensors:
        prefix, network, bare = split(name)
        groups.setdefault((network, prefix), {})[bare] = name
    found = []
    for (network, _), tensors in groups.items():
        for dialect in sorted(DIALECTS.values(), key=lambda one: one.name != told):
            if dialect.name == "bmild" or (dialect.mark and dialect.mark not in probe.scalars and dialect.name != told):
                continue
            layers = dialect.layers(set(tensors))
            if layers is not None:
                found.append(Found(dialect, network, layers, tensors))
                break
    return sorted(found, key=lambda one: ("fine", "", "coarse").index(one.network))


def name_arrays(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str] | None:
    """Name the arrays of a list as yenchenlin's code calls them; None where the list is no network of bmild's.

    The arrays are weights (in, out) and biases by turns: the trunk, then bottleneck, branch, colour, density; or the trunk
    and one layer of 4 or 5 outputs.
    """
    count = len(shapes)
    if count < 4 or count % 2 or list(shapes) != [str(i) for i in range(count)]:
        return None
    pairs = [(shapes[str(i)], shapes[str(i + 1)]) for i in range(0, count, 2)]
    if not all(len(weight) == 2 and len(bias) == 1 and weight[1] == bias[0] for weight, bias in pairs):
        return None
    outputs = [weight[1] for weight, _ in pairs]
    if len(pairs) > 4 and outputs[-2:] == [3, 1]:
        heads = ["feature_linear", "views_linears.0", "rgb_linear", "alpha_linear"]
    elif outputs[-1] in (4, 5):
        heads = ["output_linear"]
    else:
        return None
    layers = [f"pts_linears.{i}" for i in range(len(pairs) - len(heads))] + heads
    return {f"{layer}.{part}": str(2 * i + j) for i, layer in enumerate(layers) for j, part in enumerate(_PARTS)}
