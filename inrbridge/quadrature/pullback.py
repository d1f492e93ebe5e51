"""Floor 4: an integral over a domain as the mean of a function on the unit cube."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.field import Field, query

CHUNK = 2**17  # points evaluated at a time


class Pullback:
    """The function u -> |envelope| f(x(u)) of the unit cube, zero where x(u) misses the domain: its mean is the integral.

    Coordinates and values are float64. A field that is a module is evaluated where its weights are.
    """

    def __init__(self, field: Field, domain: Domain):
        self.field, self.domain, self.envelope = field, domain, domain.envelope
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
        points = self.envelope.from_unit(unit.to(self.device))
        if self.envelope is self.domain:
            return self.envelope.measure * query(self.field, points).to(torch.float64)
        inside = self.domain.contains(points)
        values = points.new_zeros(len(points), self.channels)
        if not bool(inside.any()):
            return values
        found = query(self.field, points[inside]).to(torch.float64)
        return values.index_put((inside.nonzero()[:, 0],), self.envelope.measure * found)
