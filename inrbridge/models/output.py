"""Floor 6: the output of a dense net: fields that are evaluated where asked, the trunk of the net running once.

An output field has no parameters of its own: it is its net and its input (Wang & Golland 2023, section 4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.errors import ShapeMismatch
from inrbridge.nn import Sampled
from inrbridge.stacking import FieldStack

if TYPE_CHECKING:
    from inrbridge.models.dense import DenseNet


class OutputFields:
    """The outputs of a dense net for b fields: coords (m, d) or (b, m, d) -> (b, m, classes), again and again.

    Gradients flow to the weights of the net, not to the coordinates.

    Args:
        net: its trunk runs at the first evaluation, and is not run again.
        inputs: the input fields.
        discretization: where the trunk sees them; None: the net's own points.
    """

    def __init__(self, net: DenseNet, inputs: FieldStack, discretization: Discretization | None = None):
        self.net, self.inputs, self.discretization = net, inputs, discretization
        self.domain, self.channels = net.domain, net.classes
        self._features: Sampled | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> OutputField:
        return OutputField(self, range(len(self))[index])

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    @property
    def features(self) -> Sampled:
        """What the trunk gives, computed once."""
        if self._features is None:
            self._features = self.net.features(self.net.sample(self.inputs, self.discretization))
        return self._features

    def __call__(self, coords: Tensor) -> Tensor:
        return self._read(self.features, coords, self.inputs)

    def one(self, index: int, coords: Tensor) -> Tensor:
        """Evaluate the output of one field: coords (m, d) -> (m, classes)."""
        features = self.features
        alone = features.with_values(features.values[index : index + 1])
        return self._read(alone, coords, self.inputs[index])[0]

    def _read(self, features: Sampled, coords: Tensor, inputs) -> Tensor:
        self.domain.check_shape(coords)
        seen = None
        if self.net.skip:
            with torch.no_grad():  # the trunk's part has no gradient by the coordinates: one of the skip alone would be false
                seen = inputs(coords)
            seen = seen if seen.ndim == 3 else seen[None]
        return self.net.read(features, coords, seen).to(coords.dtype)


class OutputField:
    """One output of a dense net as a field: coords (..., d) -> (..., classes)."""

    def __init__(self, outputs: OutputFields, index: int):
        self.outputs, self.index = outputs, index
        self.domain, self.channels = outputs.domain, outputs.channels
        self.channel_names: tuple[str, ...] | None = None

    def __call__(self, coords: Tensor) -> Tensor:
        if coords.shape[-1:] != (self.domain.dim,):
            raise ShapeMismatch(
                f"Got coordinates of shape {tuple(coords.shape)}, expected (..., {self.domain.dim}) on {self.domain}."
            )
        values = self.outputs.one(self.index, coords.reshape(-1, self.domain.dim))
        return values.reshape(*coords.shape[:-1], self.channels)

    def __repr__(self) -> str:
        return f"OutputField({self.outputs.net.name}, {self.domain}, channels={self.channels})"
