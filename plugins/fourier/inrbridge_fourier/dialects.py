"""The code bases whose Fourier-feature checkpoints open here: a table of tensor names, readers and conventions.

A dialect fits a file when its frequencies are there and every other tensor has a place. Names decide, then the shapes of
the layers, which must follow one another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from inrbridge_fourier.naming import Names, Shapes, find_names

_SHARED = r"(?:.*?\.)??layers\.(\d+)(?:\.layers\.0)?"
_SEQUENCE = r"(?!(?:.*\.)?seq\.\d+$|(?:.*\.)?field_(?:coarse|fine)\.).+"  # `seq` is of SIRENs, the others are of NeRFs
_UNIT, _SIGNED = ((0.0, 1.0),), ((-1.0, 1.0),)


@dataclass(frozen=True)
class Dialect:
    """How one code base writes a Fourier-feature network: when a file is its, how to read it, what it leaves out.

    `find` tells the names of the parts, None where the file is of another kind; `reader` is "module:function" in this package.
    `maps_domain`: the code maps [low, high] to [0, 1] itself, instead of taking the coordinates as they are. `ranges` and `axes`
    hold for images; `volume` names the one value of a point in space.
    """

    name: str
    source: str
    find: Callable[[Shapes], object | None]
    reader: str = "layered:read_layers"
    low: float = 0.0
    high: float = 1.0
    final: str = "identity"
    activation: str = "relu"
    beta: float = 1.0
    order: str = "cos-sin"
    raw: str = "last"
    maps_domain: bool = False
    ranges: tuple[tuple[float, float], ...] = _UNIT
    axes: tuple[str, str] = ("row", "column")
    volume: str | None = None
    notes: tuple[str, ...] = ()


def _find_dinet(shapes: Shapes) -> Names | None:
    layers = tuple((f"layers.{number}.weight", None) for number in (0, 3, 6, 9))
    norms = [f"layers.{number}.{kind}" for number in (2, 5, 8) for kind in ("weight", "bias", "running_mean", "running_var")]
    width = None
    for name, _ in layers:
        shape = tuple(shapes.get(name, ()))
        if len(shape) != 3 or shape[2] != 1 or 0 in shape or width not in (None, shape[1]):
            return None
        width = shape[0]
    rows, columns = (*shapes.get("_B", ()), 0, 0)[:2]
    fits = len(shapes.get("_B", ())) == 2 and 1 <= rows <= 4 and shapes["layers.0.weight"][1] == 2 * columns
    sizes = [tuple(shapes.get(name, ())) for name in norms]
    return Names("_B", True, layers) if fits and all(len(size) == 1 for size in sizes) else None


def _find_shared(shapes: Shapes) -> Names | None:
    names = find_names(shapes, _SHARED, r"(?:.*\.)?b", raw=False)
    return names if names and any(weight.endswith(".layers.0.weight") for weight, _ in names.layers) else None


def _find_with_frequencies(shapes: Shapes, **how) -> Names | None:
    names = find_names(shapes, **how)
    return names if names and names.encoding else None


def _find_kees(shapes: Shapes, first: int) -> Names | None:
    """Layers that are counted from `first`, on frequencies or on the coordinates themselves, which may enter again later."""
    names = find_names(shapes, r"(?:.*\.)?lin\d+", r"(?:.*\.)?b", raw=False, skips=True)
    if names is None or not re.fullmatch(rf"(?:.*\.)?lin{first}\.weight", names.layers[0][0]):
        return None
    return names if names.encoding or names.has_raw else None


@dataclass(frozen=True)
class FilterNames:
    """The layers of a multiplicative filter network: its filters, the layers between them, and the readout behind each level."""

    filters: tuple[str, ...]
    layers: tuple[str, ...]
    readouts: tuple[tuple[int, str], ...]


def _find_filters(shapes: Shapes) -> FilterNames | None:
    found: dict[str, dict[int, str]] = {"filters": {}, "linear": {}, "output_linear": {}}
    for key in shapes:
        match = re.fullmatch(r"((?:.*?\.)??(?:(filters)\.(\d+)\.linear|(output_linear|linear)(?:\.(\d+))?))\.(weight|bias)", key)
        if match is None:
            return None
        kind, number = match[2] or match[4], match[3] or match[5]
        if kind == "linear" and number is None:
            return None
        found[kind][-1 if number is None else int(number)] = match[1]
    filters, layers, readouts = (dict(sorted(found[kind].items())) for kind in ("filters", "linear", "output_linear"))
    if list(filters) != list(range(len(layers) + 1)) or list(layers) != list(range(len(layers))) or not layers or not readouts:
        return None
    width, dim = (*shapes.get(f"{filters[0]}.weight", ()), 0, 0)[:2]
    expected = {name: (width, dim) for name in filters.values()} | {name: (width, width) for name in layers.values()}
    expected |= {name: (shapes.get(f"{name}.bias", (0,))[0], width) for name in readouts.values()}
    for name, shape in expected.items():
        weight, bias = tuple(shapes.get(f"{name}.weight", ())), tuple(shapes.get(f"{name}.bias", ()))
        if weight != shape or bias != shape[:1] or 0 in shape:
            return None
    levels = tuple((len(layers) if number == -1 else number, name) for number, name in readouts.items())
    return FilterNames(tuple(filters.values()), tuple(layers.values()), levels)


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "dinet", "DI-net RFFNet", _find_dinet, "layered:read_dinet", low=-1.0, final="sigmoid", maps_domain=True,
        ),
        Dialect(
            "jmclong", "github.com/jmclong/random-fourier-features-pytorch, its image example", _find_shared,
            "layered:read_shared", final="sigmoid",
        ),
        Dialect(
            "bacon", "github.com/computational-imaging/bacon; github.com/boschresearch/multiplicative-filter-networks",
            _find_filters, "filtered:read_filters", low=-0.5, high=0.5, ranges=_SIGNED, volume="sdf",
        ),
        Dialect(
            "kees", "github.com/Yannick-Kees/Learning-geometric-phase-field-representations",
            partial(_find_kees, first=0), "layered:read_kees", low=-0.5, high=0.5, activation="softplus", beta=100.0,
            ranges=_SIGNED, volume="phase", notes=("a phase field: values are near -1 or +1 away from the surface",),
        ),
        Dialect(
            "kees-relu", "the first networks of github.com/Yannick-Kees/Learning-geometric-phase-field-representations",
            partial(_find_kees, first=1), "layered:read_kees", low=-0.5, high=0.5, final="tanh", ranges=_SIGNED, volume="phase",
            notes=("a phase field: values are near -1 or +1 away from the surface",),
        ),
        Dialect(
            "nerfstudio", "nerfstudio's FFEncoding, RFFEncoding and MLP",
            partial(_find_with_frequencies, layer=_SEQUENCE, encoding=r"(?:.*\.)?b_matrix", wide=True, repeats=True),
            "layered:read_nerfstudio", order="sin-cos",
        ),
        Dialect(
            "tancik", "github.com/tancik/fourier-feature-networks: the layers of stax, saved with their frequencies",
            partial(_find_with_frequencies, layer=r"(?:.*\.)?\d+", encoding=r"(?:.*\.)?(?:[Bb]|[Bb]_gauss|bvals)|\d+", wide=None,
                    raw=False, flip=True),
            "layered:read_stax", final="sigmoid", order="sin-cos", axes=("x", "y"),
        ),
        Dialect(
            "sequential", "rff.layers.GaussianEncoding and linear layers with ReLU between them",
            partial(_find_with_frequencies, layer=_SEQUENCE, encoding=r"(?:.*\.)?b"),
        ),
        Dialect(
            "gaussian", "PyTorch after Tancik et al. 2020: frequencies called B, and linear layers with ReLU between them",
            partial(_find_with_frequencies, layer=_SEQUENCE, encoding=r"(?:.*\.)?(?:_?B|[Bb]_gauss|gaussian\w*|freqs?)",
                    wide=None),
            order="sin-cos",
        ),
    )
}  # fmt: skip


def detect(shapes: Shapes) -> Dialect | None:
    """Return the first dialect that fits; the table runs from particular names to common ones."""
    return next((dialect for dialect in DIALECTS.values() if dialect.find(shapes) is not None), None)


def find_bare(shapes: Shapes) -> Names | None:
    """Return the names of a network that was saved without the encoding before it."""
    names = find_names(shapes, _SEQUENCE, r"(?!)")
    return names if names and not names.encoding else None
