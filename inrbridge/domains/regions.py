"""Floor 2: parts of domains, cut out by a mask, a polygon or an indicator function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.domains.base import Box, Derived, Domain
from inrbridge.domains.masks import CellMask
from inrbridge.domains.polygons import Polygon
from inrbridge.domains.probing import PROBES, probe
from inrbridge.errors import ConfigError, ShapeMismatch

TIGHT = 1 / 64  # share of its box below which points of a mask or polygon are drawn in the smallest box around it


@dataclass(frozen=True)
class Region(Derived):
    """The part of `domain` where `indicator` is true.

    Args:
        indicator: a function coords (..., d) -> bool (...), a `Polygon`, or a bool array over the equal cells of a Box, axis a
            along coordinate a. A function cannot be written to a file.
        measure: of the region; exact from a mask or polygon, else estimated once on 65536 Sobol' points of the envelope.

    Raises:
        ConfigError: the region is empty, or not a part of the domain.

    >>> Region(Box.unit(2), lambda x: x[..., 0] < 0.5).measure
    0.5
    """

    domain: Domain
    indicator: Callable[[Tensor], Tensor] | CellMask | Polygon
    measure: float | None = None

    def __post_init__(self):
        if not isinstance(self.domain, Domain):
            raise ConfigError(f"Got {self.domain!r} as the domain of a Region, expected a Domain such as Box.centered(2).")
        if self.domain.ground is not self.domain:
            raise ConfigError(
                f"Got {self.domain} as the domain of a Region, expected one without a density; weigh the region instead: "
                "Weighted(Region(...), density)."
            )
        if not callable(self.indicator):
            object.__setattr__(self, "indicator", CellMask.of(self.domain, self.indicator))
        if self.measure is None:
            exact = isinstance(self.indicator, CellMask | Polygon)
            object.__setattr__(self, "measure", self.indicator.measure if exact else self._estimate())
        self._check()

    @classmethod
    def polygon(cls, *rings: Sequence[Sequence[float]], domain: Box | None = None) -> Region:
        """Return the polygon with these rings of vertices, even-odd: a ring inside another is a hole. Measure and file are exact.

        Args:
            rings: each a sequence of (x, y), closed by itself, in any direction.
            domain: a Box of two dimensions around it; the smallest one when absent.

        >>> Region.polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [(1, 1), (2, 1), (2, 2), (1, 2)]).measure
        15.0
        """
        shape = Polygon(rings)
        return cls(shape.bounds if domain is None else domain, shape)

    def _check(self) -> None:
        if isinstance(self.indicator, Polygon):
            self.indicator.check_inside(self.domain)
        if not 0 < self.measure <= self.domain.measure * (1 + 1e-6):
            if self.measure == 0:
                raise ConfigError(
                    f"Got an empty Region of {self.domain}, where the mask or indicator is true nowhere ({PROBES} points asked), "
                    "expected a measure above 0; correct it, or put a small region into a smaller domain around it."
                )
            raise ConfigError(
                f"Got a Region of measure {self.measure}, expected above 0 and at most {self.domain.measure:.6g}, the measure "
                f"of {self.domain}; correct the mask or the indicator, or pass the right `measure`."
            )

    def _estimate(self) -> float:
        points, shares = probe(self)
        return self.envelope.measure * float((self.contains(points) * shares).sum())

    @property
    def envelope(self):
        around = self.domain.envelope
        # the measure is not known yet while it is estimated
        if isinstance(self.indicator, CellMask | Polygon) and self.measure is not None and self.measure < TIGHT * around.measure:
            return self.indicator.bounds
        return around

    def contains(self, coords):
        inside = torch.as_tensor(self.indicator(coords), device=coords.device)
        if inside.shape != coords.shape[:-1] or inside.dtype != torch.bool:
            raise ShapeMismatch(
                f"The indicator of a Region returned {inside.dtype} of shape {tuple(inside.shape)} for coords "
                f"{tuple(coords.shape)}, expected torch.bool of shape {tuple(coords.shape[:-1])}."
            )
        return self.domain.contains(coords) & inside

    def from_unit(self, unit):
        raise ConfigError(
            f"Got {self}, expected a domain that the unit cube maps onto; draw points with a sampler, "
            "which keeps those points of the envelope that lie in the region."
        )

    def to_config(self):
        config = {"type": "region", "domain": self.domain.to_config()}
        if isinstance(self.indicator, CellMask):
            return config | {"mask": self.indicator.to_config()}
        if isinstance(self.indicator, Polygon):
            return config | {"polygon": self.indicator.to_config()}
        raise ConfigError(
            "Got a Region with an indicator function, which cannot be written to a file; expected a mask or a polygon: pass a "
            "bool array over the cells of a Box, Region(box, mask), or Region.polygon(vertices)."
        )
