"""The code bases whose SIREN checkpoints open here: a table of key names, frequencies and conventions.

A file never tells its frequency, axis order or value range: each dialect states what its writer does. A dialect
fits a file when every tensor has a place in it and the layers' shapes form a chain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shapes = Mapping[str, Sequence[int]]
Pairs = list[tuple[str, str]]  # names of weight and bias, in the order of evaluation

_IMAGENET = tuple(((0 - mean) / std, (1 - mean) / std) for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225)))
_WRAPPERS = r"(?:(?:state_dict|model_state_dict|model|module|_orig_mod|pipeline|0)\.)*"


@dataclass(frozen=True)
class Dialect:
    """How one code base writes a SIREN.

    `sine` and `readout` are patterns of a layer's name, the first with its number as its only group; where no
    layer is called `readout`, the one of the highest number is linear. `inside` is the wrapper that surrounds
    the state dict, `ignored` what takes no part. `ranges` and the order of `axes` hold for images; one range
    stands for all channels.
    """

    name: str
    source: str
    sine: str
    readout: str | None = None
    inside: str = _WRAPPERS
    ignored: str | None = None
    omega_0: float = 30.0
    hidden_omega: float = 30.0
    offset: float = 0.0
    low: float = -1.0
    high: float = 1.0
    axes: tuple[str, str] = ("row", "column")
    ranges: tuple[tuple[float, float], ...] = ((-1.0, 1.0),)
    note: str = ""

    def pairs(self, shapes: Shapes) -> tuple[Pairs, bool] | None:
        """Return weights and biases in order, and whether the last layer is linear; None where the dialect does not fit."""
        sines, readouts = {}, set()
        for key in shapes:
            layer = key.rpartition(".")[0]
            if not key.endswith((".weight", ".bias")):
                layer = ""
            if found := re.fullmatch(f"{self.inside}{self.sine}", layer):
                sines[int(found[1])] = layer
            elif self.readout and re.fullmatch(f"{self.inside}{self.readout}", layer):
                readouts.add(layer)
            elif not (self.ignored and re.fullmatch(self.ignored, key)):
                return None
        layers = [sines[number] for number in sorted(sines)] + sorted(readouts)
        pairs = [(f"{layer}.weight", f"{layer}.bias") for layer in layers]
        if min(sines, default=1) > 0 or len(readouts) > 1 or len(layers) < 2 or not _is_chain(pairs, shapes):
            return None  # numbers that do not start at 0 follow an encoding that is not in the file
        return pairs, bool(readouts) or self.readout is None


def _is_chain(pairs: Pairs, shapes: Shapes) -> bool:
    """Say whether each layer takes what the one before gives: weights (out, in), or a stack of them (b, out, in)."""
    width = None
    for weight, bias in pairs:
        shape = tuple(shapes.get(weight, ()))
        if len(shape) not in (2, 3) or tuple(shapes.get(bias, ())) != shape[:-1] or width not in (None, shape[-1]):
            return False
        width = shape[-2]
    return True


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("vsitzmann", "github.com/vsitzmann/siren", r"net\.net\.(\d+)\.0", note="activation = sine"),
        Dialect(
            "explore", "explore_siren notebook; NFN; DI-net", r"net\.(\d+)\.linear", r"net\.\d+", ignored=r"[1-9]\d*|1\..*",
            note="images are trained to (value - 0.5) / 0.5",
        ),
        Dialect("coin", "github.com/EmilienDupont/coin", r"net\.(\d+)\.linear", r"last_layer\.linear", ranges=((0.0, 1.0),)),
        Dialect(
            "lucidrains", "github.com/lucidrains/siren-pytorch", r"(?:net\.)?layers\.(\d+)", r"(?:net\.)?last_layer",
            ignored="grid", hidden_omega=1.0, ranges=((0.0, 1.0),),
        ),
        Dialect(
            "dalmia", "github.com/dalmia/siren", r"(?:network\.)?network\.(\d+)", hidden_omega=1.0, low=0.0,
            ranges=((0.0, 255.0),),
        ),
        Dialect(
            "implicit-zoo", "github.com/qimaqi/Implicit-Zoo", r"seq\.(\d+)", inside=r"params\.", axes=("x", "y"),
            ranges=_IMAGENET, note="values are normalized by the statistics of ImageNet",
        ),
        Dialect("dws", "github.com/AvivNavon/DWSNets", r"seq\.(\d+)", offset=0.5, axes=("x", "y"), ranges=((0.0, 1.0),)),
        Dialect("plain", "nn.Sequential of linear layers", r"(?:(?:net|layers|network)\.)?(\d+)", note="activation = sine"),
    )
}  # fmt: skip


def detect(shapes: Shapes) -> Dialect | None:
    """Return the first dialect that fits; the table runs from particular names to common ones.

    >>> detect({"seq.0.weight": (32, 2), "seq.0.bias": (32,), "seq.1.weight": (1, 32), "seq.1.bias": (1,)}).name
    'dws'
    """
    return next((dialect for dialect in DIALECTS.values() if dialect.pairs(shapes)), None)
