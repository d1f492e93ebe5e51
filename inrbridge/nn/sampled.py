"""Floor 5: the immutable pair that flows through a net: a discretization and the values on it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.errors import ShapeMismatch


@dataclass(frozen=True, eq=False)
class Sampled:
    """Values (b, n, c) of b fields at the n points of a discretization. A layer maps one to a new one."""

    discretization: Discretization
    values: Tensor  # (b, n, c)

    def __post_init__(self):
        if self.values.ndim != 3 or self.values.shape[1] != len(self.discretization):
            raise ShapeMismatch(
                f"Got values of shape {tuple(self.values.shape)}, expected (fields, {len(self.discretization)}, channels): "
                "one row for each point of the discretization."
            )

    @property
    def channels(self) -> int:
        return self.values.shape[2]

    @property
    def weights(self) -> Tensor:
        """Quadrature weights divided by the measure: they sum to one (n,)."""
        weights = self.discretization.weights.to(self.values)
        return weights / weights.sum()

    def with_values(self, values: Tensor) -> Sampled:
        """Return new values on the same discretization."""
        return Sampled(self.discretization, values)
