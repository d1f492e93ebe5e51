"""Floor 2: non-uniform measures: a domain with a density (Wang & Golland 2023, appendix A, "non-uniform measures")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.domains.base import Derived, Domain
from inrbridge.domains.probing import probe
from inrbridge.errors import ConfigError, NotFinite, ShapeMismatch


@dataclass(frozen=True)
class Weighted(Derived):
    """The points of `domain` under the measure density(x) dx: every sampler's weights, and so every integral, follow it.

    Points stay spread as on the domain, and their weights take the density; `importance(weighted, n, density=density)` spreads
    the points by it instead and leaves the weights equal. Layers that average divide by the measure of what they average over,
    so that the scale of the density matters to none of them.

    Args:
        density: a function coords (..., d) -> (...) or (..., 1), at least 0; a field of one channel is one.
        measure: the integral of the density; estimated once on 65536 points of low discrepancy if absent.

    Raises:
        ConfigError: the density is 0 everywhere. NotFinite: it is negative or not finite somewhere.

    >>> from inrbridge.domains import Box
    >>> round(Weighted(Box.unit(1), lambda x: 2 * x[..., 0]).measure, 4)
    1.0
    """

    domain: Domain
    density: Callable[[Tensor], Tensor]
    measure: float | None = None

    def __post_init__(self):
        if not isinstance(self.domain, Domain) or not callable(self.density):
            raise ConfigError(
                f"Got {self.domain!r} and the density {self.density!r}, expected a Domain and a function of coords (..., d); "
                "e.g. Weighted(Box.unit(2), lambda x: 1 + x[..., 0])."
            )
        if self.measure is None:
            object.__setattr__(self, "measure", self._estimate())
        if not 0 < self.measure < float("inf"):
            raise ConfigError(
                f"Got a density of integral {self.measure} on {self.domain}, expected a finite number above 0; the density is 0 "
                "wherever it was asked: correct it, or put it on a smaller domain around its peak."
            )

    def _estimate(self) -> float:
        points, shares = probe(self.domain)
        points = points.to(torch.get_default_dtype())  # that of most networks, which a density may be
        inside = self.domain.contains(points)
        shares = shares[inside]
        if not len(shares):
            raise ConfigError(f"Found no point of {self.domain} to ask the density at; pass its integral as `measure`.")
        return self.domain.measure * float((shares * self._values(points[inside])).sum() / shares.sum())

    @property
    def envelope(self):
        inner = self.domain.envelope
        return self if inner is self.domain else inner

    @property
    def ground(self):
        return self.domain.ground

    def contains(self, coords):
        return self.domain.contains(coords)

    def from_unit(self, unit):
        return self.domain.from_unit(unit)

    def to_unit(self, coords):
        return self.domain.to_unit(coords)

    def unit_jacobian(self, unit):
        return self.domain.unit_jacobian(unit)

    def weigh(self, coords):
        inner = self.domain.weigh(coords)
        values = self._values(coords)
        return values if inner is None else values * inner

    @torch.no_grad()
    def _values(self, coords: Tensor) -> Tensor:
        values = torch.as_tensor(self.density(coords))
        if values.shape == (*coords.shape[:-1], 1):
            values = values[..., 0]
        if values.shape != coords.shape[:-1]:
            raise ShapeMismatch(
                f"The density of a Weighted domain returned shape {tuple(values.shape)} for coords {tuple(coords.shape)}, "
                f"expected {tuple(coords.shape[:-1])} or one channel more; choose one channel."
            )
        if not bool((values.isfinite() & (values >= 0)).all()):
            raise NotFinite(
                "The density returned negative, NaN or infinite values, expected finite ones of at least 0; clamp it."
            )
        return values

    def to_config(self):
        raise ConfigError(
            "Got a Weighted domain, whose density is a function and cannot be written to a file; expected a domain of numbers: "
            "write the domain without it, and weigh it again after reading."
        )
