"""Floor 4: an integral over a domain as the mean of a function on the unit cube."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.field import Field, query

CHUNK = 2**17  # points evaluated at a time


class Pullback:
    """The function u -> f(x(u)) dx/du of the unit cube, zero where x(u) misses the domain: its mean is the integral.

    The field is asked at coordinates of `dtype`; values are float64. One that is a module is asked where its weights are.
    """

    def __init__(self, field: Field, domain: Domain, dtype: torch.dtype = torch.float64):
        self.field, self.domain, self.envelope, self.dtype = field, domain, domain.envelope, dtype
        eps = torch.finfo(dtype).eps
        self.rounding = max(32 * torch.finfo(torch.float64).eps, 4 * eps)  # of values of size one
        self.finest = 2.0**12 * eps  # width of a box whose points run out of digits
        self.dim, self.channels = self.envelope.unit_dim, field.channels
        first = next(field.parameters(), None) if isinstance(field, nn.Module) else None
        self.device = torch.device("cpu") if first is None else first.device
        self.evaluations = 0

    def __call__(self, unit: Tensor) -> Tensor:
        """Values (n, c) at points (n, dim) of the cube."""
        parts = [self._values(part) for part in unit.split(CHUNK)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def has_gradient(self) -> bool:
        """Whether the field's values hang on something that asks for gradients."""
        if not torch.is_grad_enabled():
            return False
        return self(torch.full((1, self.dim), 0.5, dtype=torch.float64)).requires_grad

    def _values(self, unit: Tensor) -> Tensor:
        self.evaluations += len(unit)
        points = self.envelope.from_unit(unit.to(self.device)).to(self.dtype)
        if self.envelope is self.domain:
            return self._weighed(unit, points)
        rows = self.domain.contains(points).nonzero()[:, 0]
        values = torch.zeros(len(points), self.channels, dtype=torch.float64, device=self.device)
        if not len(rows):
            return values
        return values.index_put((rows,), self._weighed(unit[rows.to(unit.device)], points[rows]))

    def _weighed(self, unit: Tensor, points: Tensor) -> Tensor:
        """Values at points of the domain times the volume that the map from the cube, and the density, give them there."""
        values = self.envelope.ground.measure * self._ask(points).to(torch.float64)
        for factor in (self.envelope.unit_jacobian(unit), self.domain.weigh(points)):
            values = values if factor is None else values * factor.to(values)[:, None]
        return values

    def _ask(self, points: Tensor) -> Tensor:
        try:
            return query(self.field, points)
        except RuntimeError as error:  # torch's own; those of this library say it better already
            if "dtype" not in str(error) or self.dtype != torch.float64:
                raise
            raise ConfigError(
                f"The field {type(self.field).__name__} does not take coordinates of float64 ({error}), expected one that "
                "computes in the dtype of its coordinates; pass dtype=torch.float32, or field.double()."
            ) from error
