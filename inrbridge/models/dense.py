"""Floor 6: nets from fields to fields (Wang & Golland 2023, Algorithm 2): what a dense net shares beyond `INRNet`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.field import Field
from inrbridge.models.net import INRNet, linear
from inrbridge.models.output import OutputFields
from inrbridge.nn import Sampled
from inrbridge.nn.reading import read
from inrbridge.stacking import FieldStack, stack


class DenseNet(INRNet):
    """A net whose output is a field. Subclasses state `name`, fill `options` and write `features(sampled)`.

    The trunk `features` runs once, on a discretization; its features are then read at any coordinates (a local polynomial
    fit, which at the points of the trunk is the features themselves) and mapped by a pointwise head. With `skip` the head
    also sees the input field at those very coordinates, so that edges stay as sharp as the input's.

    Args:
        domain, in_channels, points, options: as of INRNet.
        classes: channels of the output field.
        width: channels of the features.
        head: width of the hidden layer of the head; 0: the head is linear.
        skip: show the head the input field.
    """

    kind = "dense"

    def __init__(self, domain: Domain, in_channels: int, classes: int, points: int, options: dict[str, object], *, width: int,
                 head: int = 0, skip: bool = False, generator: torch.Generator | None = None):  # fmt: skip
        super().__init__(domain, in_channels, classes, points, options)
        if width < 1 or head < 0:
            raise ConfigError(f"Got features of width {width} and a head of width {head}, expected at least 1, and 0 or more.")
        self.width, self.skip = width, skip
        inputs = width + (in_channels if skip else 0)
        layers = [linear(inputs, head, generator), nn.ReLU()] if head else []
        self.head = nn.Sequential(*layers, linear(head or inputs, classes, generator))

    def features(self, sampled: Sampled) -> Sampled:
        """Map the samples of b fields to features (b, m, width), on the same or on other points of the domain."""
        raise TypeError(f"{type(self).__name__} does not define features(sampled); write it in the subclass.")

    def compute(self, sampled: Sampled) -> Sampled:
        """Return the output (b, n, classes) at the points of the samples."""
        return sampled.with_values(self.read(self.features(sampled), sampled.discretization.points, sampled.values))

    def read(self, features: Sampled, coords: Tensor, seen: Tensor | None = None) -> Tensor:
        """Evaluate the output: coords (m, d) shared by all fields, or (b, m, d) -> (b, m, classes).

        Args:
            seen: values (b, m, in_channels) of the input fields at coords; needed with `skip`.
        """
        values = read(features, coords)
        if self.skip:
            if seen is None:
                raise ShapeMismatch(f"Got no values of the input for this {self.name}, expected them: its head has a skip.")
            values = torch.cat([values, seen.to(values)], dim=-1)
        return self.head(values)

    def forward(
        self,
        fields: Sampled | Field | Sequence[Field] | FieldStack,
        discretization: Discretization | None = None,
        *,
        at: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Sampled | OutputFields | Tensor:
        """Apply the net.

        Args:
            fields: samples, or fields; discretization: where the trunk sees them (None: the net's own points).
            at: coordinates (m, d) or (b, m, d) at which the output is wanted at once, as in training.
            seen: with `at` and samples, the values of the input there (`skip` only).

        Returns:
            With `at` the values (b, m, classes); for samples the output at their points; for fields the output fields, which
            are evaluated where asked (`OutputFields`; the output of one field is `net(field)[0]`).
        """
        if at is None and not isinstance(fields, Sampled):
            stacked = fields if isinstance(fields, FieldStack) else stack(fields)
            return OutputFields(self, stacked, discretization)
        if at is None:
            return self.compute(self._checked(fields))
        if self.skip and seen is None and not isinstance(fields, Sampled):
            fields = fields if isinstance(fields, FieldStack) else stack(fields)
            seen = fields(at)
        return self.read(self.features(self.sample(fields, discretization)), at, seen)
