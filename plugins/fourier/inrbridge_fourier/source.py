"""What a reader of a foreign file works with: its tensors, what was told, what is assumed; and the content it hands back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inrbridge import Assumptions
from inrbridge.foreign import real_tensor

Layer = tuple[Tensor, Tensor]  # weight (out, in), bias (out,)


@dataclass(frozen=True)
class Told:
    """The options of `FourierFormat.open`; None where nothing was said."""

    activation: str | None = None
    beta: float | None = None
    final: str | None = None
    order: str | None = None
    raw: str | None = None
    octaves: Sequence[float] | None = None
    encoding: str | None = None
    sigma: float | None = None
    dim: int | None = None
    reuse: bool | None = None
    level: int | None = None
    low: float | Sequence[float] | None = None
    high: float | Sequence[float] | None = None
    convention: str = "file"


@dataclass(frozen=True)
class Source:
    """A foreign file: its tensors, what the caller said, and the account of what is assumed."""

    tensors: Mapping[str, Tensor]
    assume: Assumptions
    told: Told

    def tensor(self, name: str, *shape: int | None) -> Tensor:
        """Return a tensor in single or double precision; its shape is checked where one is given (see `real_tensor`)."""
        return real_tensor(self.tensors, name, *shape)

    def layer(self, weight: str, bias: str | None, *, flip: bool = False) -> Layer:
        """Return weight (out, in) and bias of a layer; `flip` where the file has (in, out). No bias counts as zeros."""
        matrix = self.tensor(weight)
        matrix = matrix.mT if flip else matrix
        return matrix, self.tensor(bias) if bias else matrix.new_zeros(len(matrix))


@dataclass
class Content:
    """What a file says of an MLP on Fourier features, or, with `filters`, of a multiplicative filter network.

    `layers` read [x if `raw`, cos, sin] of `angle` times `frequencies` (m, d), the last of `layers` is the readout. The `dim`
    coordinates enter once more at the layers `skips`. `half` is half the side of the domain around 0, where the file tells it.
    """

    layers: list[Layer]
    frequencies: Tensor | None = None
    angle: float = 1.0
    raw: bool = False
    skips: tuple[int, ...] = ()
    filters: list[Layer] = field(default_factory=list)
    half: float | None = None

    @property
    def dim(self) -> int:
        """How many coordinates enter."""
        return (self.filters[0][0] if self.filters else self.frequencies).shape[1]

    @property
    def channels(self) -> int:
        """How many values leave."""
        return self.layers[-1][0].shape[0]

    def swap_coordinates(self) -> None:
        """Reverse the order in which the coordinates enter."""
        self.filters = [(weight.flip(1), bias) for weight, bias in self.filters]
        if self.frequencies is None:
            return
        self.frequencies = self.frequencies.flip(1)
        for i, (weight, bias) in enumerate(self.layers):
            if i == 0 and self.raw:
                weight = torch.cat([weight[:, : self.dim].flip(1), weight[:, self.dim :]], 1)
            elif i in self.skips:
                weight = torch.cat([weight[:, : -self.dim], weight[:, -self.dim :].flip(1)], 1)
            self.layers[i] = (weight, bias)

    def map_values(self, scale: Sequence[float], offset: Sequence[float]) -> None:
        """Make each value v_i into scale_i v_i + offset_i."""
        weight, bias = self.layers[-1]
        factor = weight.new_tensor(scale)
        self.layers[-1] = (weight * factor[:, None], bias * factor + weight.new_tensor(offset))
