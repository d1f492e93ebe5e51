"""What a reader of a foreign file works with: its tensors, what was told, what is assumed; and the parts it hands back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from inrbridge import Assumptions, errors
from inrbridge.foreign import real_tensor
from inrbridge_siren.dialects import Dialect

Layer = tuple[Tensor, Tensor]  # weight (out, in), bias (out,)

_FIRST = ("first_omega_0", "first_omega", "w0_initial")
_HIDDEN = ("hidden_omega_0", "hidden_omega")
_ANY = ("omega_0", "omega", "w0", "omega0")


@dataclass(frozen=True)
class Told:
    """The options of `SirenFormat.open`; None where nothing was said."""

    omega_0: float | None = None
    hidden_omega: float | None = None
    activation: str | None = None
    final: str | None = None
    low: float | Sequence[float] | None = None
    high: float | Sequence[float] | None = None
    size: Sequence[int] | None = None
    index: int | None = None
    latent: Sequence[float] | None = None
    modulations: str | Path | None = None
    split: str | None = None
    encoding: str | None = None
    dim: int | None = None
    sigma: float | None = None
    width: int | None = None
    layers: int | None = None
    convention: str = "file"


@dataclass(frozen=True)
class Source:
    """A foreign file: its tensors, plain values of the file and of the configuration beside it."""

    path: Path
    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, object]
    sidecar: Mapping[str, object]
    sidecar_name: str
    dialect: Dialect
    assume: Assumptions
    told: Told

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the tensors."""
        return {name: tuple(value.shape) for name, value in self.tensors.items()}

    def tensor(self, name: str, *shape: int | None) -> Tensor:
        """Return a tensor in single or double precision after checking its shape; None stands for any size.

        Raises:
            CannotOpen: it is absent, or of another shape or kind.
        """
        return real_tensor(self.tensors, name, *shape)

    def find(self, pattern: str) -> Iterator[re.Match]:
        """Yield the matches of a pattern with whole names of tensors, wherever these are wrapped."""
        return (found for name in self.tensors if (found := re.fullmatch(rf"(?:.*\.)?{pattern}", name)))

    def choose_index(self, count: int) -> int:
        """Return which of `count` networks is asked for: the first unless told.

        Raises:
            CannotOpen: there is no such network.
        """
        index = self.told.index
        if index is None:
            self.assume.note(f"index = 0 (the first of {count} networks: 0..{count - 1})")
            index = 0
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise errors.CannotOpen(f"it holds {count} networks, got index {index}; open one with index=0..{count - 1}.")
        return index

    def omegas(self, sines: int) -> list[float] | None:
        """Return the frequency of each of the sine layers where modules of the file, or a configuration, tell it."""
        told = [(name, value) for name, value in self.scalars.items() if name.rpartition(".")[2] in (*_FIRST, *_HIDDEN, *_ANY)]
        numbered = [(re.search(r"(?:^|\.)(\d+)\.", name), float(value)) for name, value in told if _is_number(value)]
        by_layer = sorted((int(found[1]), value) for found, value in numbered if found)
        if len(by_layer) == sines:
            self.assume.note(f"the frequencies are those of the file's modules: {', '.join(f'{v:g}' for _, v in by_layer)}")
            return [value for _, value in by_layer]
        for origin, values in (("the file", dict(told)), (self.sidecar_name, self.sidecar)):
            known = {name.rpartition(".")[2]: float(value) for name, value in values.items() if _is_number(value)}
            shared = next((known[name] for name in _ANY if name in known), None)
            first = next((known[name] for name in _FIRST if name in known), shared)
            hidden = next((known[name] for name in _HIDDEN if name in known), shared)
            if first is not None and hidden is not None:
                self.assume.note(f"omega_0 = {first:g}, hidden_omega = {hidden:g} (told by {origin})")
                return [first] + [hidden] * (sines - 1)
        return None

    def activations(self, readout: str) -> tuple[str | None, str | None]:
        """Return what stands between the layers, and after the layer `readout`, by the modules of a pickled file.

        None where the file names no modules of PyTorch there, or between the layers several kinds of them.
        """
        kinds = {
            name.removesuffix(".__class__"): str(value).removeprefix(_MODULES).lower()
            for name, value in self.scalars.items() if name.endswith(".__class__") and str(value).startswith(_MODULES)
        }  # fmt: skip
        holder, _, last = readout.rpartition(".")
        inside = holder if last == "linear" else readout
        following = f"{holder}.{int(last) + 1}".removeprefix(".") if last.isdigit() else None
        ends = [name for name in kinds if name.startswith(f"{inside}.") or name == following]
        between = {kind for name, kind in kinds.items() if name not in ends}
        return between.pop() if len(between) == 1 else None, kinds[ends[0]] if len(ends) == 1 else None


_MODULES = "torch.nn.modules.activation."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < abs(value) < 1e6


@dataclass
class Parts:
    """What a reader found: linear layers in the order of evaluation, and what comes before and after them.

    `dim` coordinates enter, through the `encoding` (options of `build`) with its tensors `features` where there is one. Without a
    readout the last layer ends in a sine. `activation`, `final`, `omegas` and `label` (the class) are what the file itself tells.
    `is_modulated`: the weights are no longer those that were trained.
    """

    layers: list[Layer]
    has_readout: bool = True
    dim: int | None = None
    encoding: dict = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    activation: str | None = None
    final: str | None = None
    omegas: list[float] | None = None
    label: int | None = None
    is_modulated: bool = False

    @property
    def coordinates(self) -> int:
        """How many coordinates enter."""
        return self.layers[0][0].shape[1] if self.dim is None else self.dim

    def swap_coordinates(self) -> None:
        """Reverse the order in which the coordinates enter."""
        for name in ("frequencies", "centres"):
            if name in self.features:
                self.features[name] = self.features[name].flip(1)
        raw = self.coordinates if not self.encoding or self.encoding.get("raw") else 0
        weight, bias = self.layers[0]
        self.layers[0] = (torch.cat([weight[:, :raw].flip(1), weight[:, raw:]], 1), bias)


def check_chain(layers: Sequence[Layer]) -> None:
    """Raise CannotOpen unless every layer takes what the one before gives."""
    if len(layers) < 2:
        raise errors.CannotOpen(f"it has {len(layers)} linear layers, expected at least two.")
    for (before, _), (weight, _) in pairwise(layers):
        if weight.shape[1] != before.shape[0]:
            raise errors.CannotOpen(
                f"its layers of shapes {tuple(before.shape)} and {tuple(weight.shape)} do not follow one another."
            )
