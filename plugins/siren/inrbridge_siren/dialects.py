"""The code bases whose SIREN checkpoints open here: a table of key names, frequencies and conventions.

A file never tells its frequency, axis order or value range: each dialect states what its writer does. A dialect
fits a file when every tensor has a place in it and the layers' shapes form a chain; names decide, not sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Shapes = Mapping[str, Sequence[int]]
Pairs = list[tuple[str, str | None]]  # names of weight and bias (None without one), in the order of evaluation
Ranges = tuple[tuple[float, float], ...]

MOST_COORDINATES = 16  # a first layer with more inputs reads features, not coordinates
_IMAGENET = tuple(((0 - mean) / std, (1 - mean) / std) for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225)))
_WORDS = "state_dict|model_state_dict|model_state|model|module|_orig_mod|pipeline|net_state_dict|weights|siren|inr|0"
_WRAPPERS = rf"(?:(?:{_WORDS})\.)*"
_KERAS = r"(?:model_weights\.)?dense(?:_(\d+))?\.(?:.*\.)?kernel:0"
_BESIDE = r"(?:optim\w*|\w*scheduler\w*)\..*"  # what a training run saves next to its network


@dataclass(frozen=True)
class LayerNames:
    """How the layers of a state dict are called.

    `sine` and `readout` are patterns of a layer's name, the first with its number as its only group; where no
    layer is called `readout`, the one of the highest number is linear. `inside` is the wrapper that surrounds the state dict,
    `others` is the pattern of tensors that are no layers. The numbers start at one of `starts`; where it is 1, an encoding
    without weights comes first. `wide`: the first layer may read features. `bare`: the layers may all come without a bias.
    """

    sine: str
    readout: str | None = None
    inside: str = _WRAPPERS
    others: str | None = None
    starts: tuple[int, ...] = (0,)
    wide: bool = False
    bare: bool = False

    def pairs(self, shapes: Shapes) -> tuple[Pairs, bool] | None:
        """Return weights and biases in order, and whether the last layer is linear; None where the names do not fit."""
        sines, readouts = {}, set()
        for key in shapes:
            layer = key.rpartition(".")[0] if key.endswith((".weight", ".bias")) else ""
            if found := re.fullmatch(f"{self.inside}{self.sine}", layer):
                sines[int(found[1])] = layer
            elif self.readout and re.fullmatch(f"{self.inside}{self.readout}", layer):
                readouts.add(layer)
            elif not (self.others and re.fullmatch(f"{self.inside}(?:{self.others})", key)) and not re.fullmatch(_BESIDE, key):
                return None
        layers = [sines[number] for number in sorted(sines)] + sorted(readouts)
        has_bias = not self.bare or any(f"{layer}.bias" in shapes for layer in layers)
        pairs = [(f"{layer}.weight", f"{layer}.bias" if has_bias else None) for layer in layers]
        if min(sines, default=-1) not in self.starts or len(readouts) > 1 or len(layers) < 2 or not _is_chain(pairs, shapes):
            return None
        width = shapes[pairs[0][0]][-1]
        if width > MOST_COORDINATES and not self.wide:
            return None
        return pairs, bool(readouts) or self.readout is None

    def number(self, key: str) -> int:
        """Return the number of the sine layer that a tensor belongs to."""
        return int(re.fullmatch(f"{self.inside}{self.sine}", key.rpartition(".")[0])[1])


def _is_chain(pairs: Pairs, shapes: Shapes) -> bool:
    """Say whether each layer takes what the one before gives: weights (out, in), or a stack of them (b, out, in)."""
    width, stacked = None, None
    for weight, bias in pairs:
        shape = tuple(shapes.get(weight, ()))
        fits = bias is None or tuple(shapes.get(bias, ())) == shape[:-1]
        if len(shape) not in (2, 3) or not fits or width not in (None, shape[-1]):
            return False
        if 0 in shape or stacked not in (None, shape[:-2]):
            return False
        width, stacked = shape[-2], shape[:-2]
    return True


@dataclass(frozen=True)
class OrderedNames:
    """Layers of any names, evaluated in the order of the file; the last one is linear."""

    def pairs(self, shapes: Shapes) -> tuple[Pairs, bool] | None:
        """Return weights and biases in order; None where there is anything else, or they do not chain."""
        layers = list(dict.fromkeys(key.rpartition(".")[0] for key in shapes))
        pairs = [(f"{layer}.weight", f"{layer}.bias") for layer in layers]
        fits = len(shapes) == 2 * len(layers) and len(layers) > 1 and _is_chain(pairs, shapes)
        return (pairs, True) if fits and shapes[pairs[0][0]][-1] <= MOST_COORDINATES else None

    def number(self, key: str) -> int:
        """Return 0: nothing is known to come before the first layer."""
        return 0


def keras_kernels(shapes: Shapes) -> list[str]:
    """Return the names of the weights of a Keras file's layers "dense", "dense_1", ..., in order."""
    found = {int(match[1] or 0): name for name in shapes if (match := re.fullmatch(_KERAS, name))}
    return [found[number] for number in sorted(found)]


def _is_distance_network(shapes: Shapes) -> bool:
    """Say whether the layers of a Keras file lead from three coordinates to one value."""
    sizes = [tuple(shapes[name]) for name in keras_kernels(shapes)]
    return len(sizes) > 1 and all(len(size) == 2 for size in sizes) and sizes[0][0] == 3 and sizes[-1][1] == 1


@dataclass(frozen=True)
class Dialect:
    """How one code base writes a SIREN.

    A file is its when its tensors have these `layers`, or when each of the patterns of `marks` is the whole name of some tensor
    or plain value, and `check` agrees with the shapes.
    `reader` is "module:function" in this package. `ranges` and the order of `axes` hold for images; one range stands for all
    channels, and no range says that it is not known. `volume` names the one value of a point in space. `sound` holds the
    defaults that differ for one coordinate. A dialect `on_request` is never found by names, only chosen.
    """

    name: str
    source: str
    layers: LayerNames | OrderedNames | None = None
    marks: tuple[str, ...] = ()
    check: Callable[[Shapes], bool] | None = None
    reader: str = "layered:read_layers"
    activation: str = "sine"
    omega_0: float = 30.0
    hidden_omega: float = 30.0
    final: str = "identity"
    offset: float = 0.0
    low: float = -1.0
    high: float = 1.0
    axes: tuple[str, str] = ("row", "column")
    ranges: Ranges = ((-1.0, 1.0),)
    volume: str | None = None
    sound: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    on_request: bool = False

    def fits(self, shapes: Shapes, scalars: Iterable[str] = ()) -> bool:
        """Say whether a file with these tensors, and plain values of these names, is of this code base."""
        names = [*shapes, *scalars]
        if self.marks and all(any(re.fullmatch(mark, name) for name in names) for mark in self.marks):
            return self.check is None or self.check(shapes)
        return self.layers is not None and self.layers.pairs(shapes) is not None

    def default(self, name: str, dim: int) -> object:
        """Return what the code base takes for an option, for fields of `dim` coordinates."""
        return dict(self.sound).get(name, getattr(self, name)) if dim == 1 else getattr(self, name)


_UNIT: Ranges = ((0.0, 1.0),)
_FUNCTA = r"(?:params\.)?\w*modulated_siren/modulated_siren_layer"

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "hypernetwork", "github.com/vsitzmann/siren: hypernetworks, neural processes", reader="layered:refuse_hypernetwork",
            marks=(r"(?:.*\.)?(?:hypo_net\..*|nets\.\d+\.net\.\d+\.0\.weight)",),
        ),
        Dialect(
            "vsitzmann", "github.com/vsitzmann/siren, DeepReach",
            LayerNames(r"net\.net\.(\d+)\.0", others=r"rbf_layer\.(?:centres|sigmas|freq)", wide=True),
            volume="sdf", sound=(("low", -100.0), ("high", 100.0)),
        ),
        Dialect(
            "explore", "explore_siren notebook; NFN; DI-net",
            LayerNames(r"net\.(\d+)\.linear", r"net\.\d+", others=r"[1-9]\d*|1\..*"),
            sound=(("omega_0", 3000.0),),
        ),
        Dialect(
            "coin", "github.com/EmilienDupont/coin", LayerNames(r"net\.(\d+)\.linear", r"last_layer\.linear", bare=True),
            ranges=_UNIT,
            notes=("its decoder clamps the values to [0, 1]: open with final=clamp for the same",),
        ),
        Dialect(
            "lucidrains", "github.com/lucidrains/siren-pytorch",
            LayerNames(r"(?:net\.)?layers\.(\d+)", r"(?:net\.)?last_layer",
                       others=r"grid|modulator\.layers\.\d+\.0\.(?:weight|bias)", bare=True),
            reader="modulated:read_lucidrains", hidden_omega=1.0, ranges=_UNIT,
        ),
        Dialect(
            "dalmia", "github.com/dalmia/siren", LayerNames(r"(?:network\.)?network\.(\d+)"), hidden_omega=1.0, low=0.0,
            ranges=((0.0, 255.0),),
        ),
        Dialect(
            "implicit-zoo", "github.com/qimaqi/Implicit-Zoo", LayerNames(r"seq\.(\d+)", inside=r"params\."), axes=("x", "y"),
            ranges=_IMAGENET, notes=("values are normalized by the statistics of ImageNet",),
        ),
        Dialect(
            "dws", "github.com/AvivNavon/DWSNets, neural-graphs, ScaleGMN",
            LayerNames(r"seq\.(\d+)", others=r"seq\.0\.b|coef|x|y|layers\.\d+\.(?:weight|bias|b)", starts=(0, 1), wide=True),
            offset=0.5, axes=("x", "y"), ranges=_UNIT,
        ),
        Dialect(
            "functa", "github.com/google-deepmind/functa", reader="modulated:read_functa",
            marks=(rf"{_FUNCTA}/linear\.w", rf"{_FUNCTA}_1/linear\.w"), offset=0.5, low=0.0, ranges=_UNIT,
        ),
        Dialect(
            "functa-modulations", "github.com/google-deepmind/functa", reader="modulated:refuse_modulations",
            marks=(r"(?:train|test)\.modulation",),
        ),
        Dialect(
            "inr2vec", "github.com/CVLAB-Unibo: inr2vec, nf2vec", LayerNames(r"layers\.(\d+)\.0", r"layers\.\d+"),
            marks=("params", "pcd"), reader="flattened:read_inr2vec", ranges=(),
            notes=("the value is what it was fitted to: a distance, or a logit of one",),
        ),
        Dialect(
            "fit-a-nef", "github.com/samuelepapa/fit-a-nef, neural-field-arena", marks=("params", "param_config"),
            reader="flattened:read_fit_a_nef", omega_0=8.0, hidden_omega=8.0, axes=("x", "y"), ranges=(),
            notes=("values are normalized by the mean and deviation of their data set",),
        ),
        Dialect(
            "neural-implicit-queries", "github.com/nmwsharp/neural-implicit-queries",
            marks=(r"0000\.(?:dense\.A|spatial_transformation\.R)",),
            reader="interchange:read_niq", volume="sdf",
        ),
        Dialect(
            "thingi10k", "github.com/u2ni/ICML2021: the weight-encoded shapes of Thingi10k, by Keras",
            marks=(r"(?:model_weights\.)?dense\..*kernel:0",), check=_is_distance_network, reader="interchange:read_keras",
            activation="relu", final="tanh", volume="sdf", notes=("the shape fits a ball of radius 0.9",),
        ),
        Dialect("plain", "nn.Sequential of linear layers", LayerNames(r"(?:(?:net|layers|network)\.)?(\d+)"), volume="sdf"),
        Dialect("ordered", "linear layers of any names, in the order of the file", OrderedNames(), volume="sdf", on_request=True),
    )
}  # fmt: skip


def detect(shapes: Shapes, scalars: Iterable[str] = ()) -> Dialect | None:
    """Return the first dialect that fits; the table runs from particular names to common ones.

    >>> detect({"seq.0.weight": (32, 2), "seq.0.bias": (32,), "seq.1.weight": (1, 32), "seq.1.bias": (1,)}).name
    'dws'
    """
    known = (dialect for dialect in DIALECTS.values() if not dialect.on_request)
    return next((dialect for dialect in known if dialect.fits(shapes, scalars)), None)
