"""Floor 2: domains made of domains: products, and regions cut out by a mask or an indicator."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from inrbridge.domains.base import Box, Domain
from inrbridge.errors import ConfigError, ShapeMismatch

MEASURE_POINTS = 2**16  # for the measure of a region that does not say; relative error about 1e-3


@dataclass(frozen=True)
class Product(Domain):
    """All pairs of a point of `a` and a point of `b`, coordinates concatenated; measures multiply.

    The positions and directions of a radiance field: `Product(Box.centered(3), Sphere())`.
    """

    a: Domain
    b: Domain

    def __post_init__(self):
        for part in (self.a, self.b):
            if not isinstance(part, Domain):
                raise ConfigError(f"Got {part!r} as a factor of a Product, expected a Domain such as Box.centered(2).")

    @property
    def dim(self) -> int:
        return self.a.dim + self.b.dim

    @property
    def intrinsic_dim(self) -> int:
        return self.a.intrinsic_dim + self.b.intrinsic_dim

    @property
    def unit_dim(self) -> int:
        return self.a.unit_dim + self.b.unit_dim

    @property
    def measure(self) -> float:
        return self.a.measure * self.b.measure

    @property
    def bounds(self):
        (low_a, high_a), (low_b, high_b) = self.a.bounds, self.b.bounds
        return low_a + low_b, high_a + high_b

    @property
    def envelope(self):
        a, b = self.a.envelope, self.b.envelope
        return self if a is self.a and b is self.b else Product(a, b)

    def contains(self, coords):
        return self.a.contains(coords[..., : self.a.dim]) & self.b.contains(coords[..., self.a.dim :])

    def from_unit(self, unit):
        first, second = unit[..., : self.a.unit_dim], unit[..., self.a.unit_dim :]
        return torch.cat([self.a.from_unit(first), self.b.from_unit(second)], dim=-1)

    def to_unit(self, coords):
        return torch.cat([self.a.to_unit(coords[..., : self.a.dim]), self.b.to_unit(coords[..., self.a.dim :])], dim=-1)

    def to_config(self):
        return {"type": "product", "a": self.a.to_config(), "b": self.b.to_config()}


@dataclass(frozen=True)
class Region(Domain):
    """The part of `domain` where `indicator` is true.

    Args:
        indicator: a function coords (..., d) -> bool (...), or a bool array over the equal cells of a Box, axis a along
            coordinate a. Only a mask can be written to a file.
        measure: of the region; exact from a mask, else estimated once on 65536 Sobol' points of the envelope.

    >>> Region(Box.unit(2), lambda x: x[..., 0] < 0.5).measure
    0.5
    """

    domain: Domain
    indicator: Callable[[Tensor], Tensor] | CellMask
    measure: float | None = None

    def __post_init__(self):
        if not isinstance(self.domain, Domain):
            raise ConfigError(f"Got {self.domain!r} as the domain of a Region, expected a Domain such as Box.centered(2).")
        if not callable(self.indicator):
            object.__setattr__(self, "indicator", CellMask.of(self.domain, self.indicator))
        if self.measure is None:
            exact = isinstance(self.indicator, CellMask)
            object.__setattr__(self, "measure", self.indicator.measure if exact else self._estimate())
        if not 0 < self.measure <= self.domain.measure * (1 + 1e-6):
            raise ConfigError(
                f"Got a Region of measure {self.measure}, expected above 0 and at most {self.domain.measure:.6g}, the measure "
                f"of {self.domain}; correct the mask or the indicator, or pass the right `measure`."
            )

    def _estimate(self) -> float:
        envelope = self.envelope
        engine = torch.quasirandom.SobolEngine(envelope.unit_dim)
        # Half of the finest spacing off the origin, so that no point lies on a border.
        unit = engine.draw(MEASURE_POINTS, dtype=torch.float64) + 0.5 / MEASURE_POINTS
        return envelope.measure * float(self.contains(envelope.from_unit(unit)).double().mean())

    @property
    def dim(self) -> int:
        return self.domain.dim

    @property
    def intrinsic_dim(self) -> int:
        return self.domain.intrinsic_dim

    @property
    def unit_dim(self) -> int:
        return self.domain.unit_dim

    @property
    def bounds(self):
        return self.domain.bounds

    @property
    def envelope(self):
        return self.domain.envelope

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
        if not isinstance(self.indicator, CellMask):
            raise ConfigError(
                "Got a Region with an indicator function, which cannot be written to a file; expected a mask: pass a bool "
                "array over the cells of a Box, Region(box, mask)."
            )
        return {"type": "region", "domain": self.domain.to_config(), "mask": self.indicator.to_config()}


@dataclass(frozen=True)
class CellMask:
    """A bool array over the equal cells of a box, as an indicator: hashable, and comparable by value."""

    box: Box
    shape: tuple[int, ...]
    bits: bytes = field(repr=False)  # row-major, eight cells a byte, the first cell in the high bit

    @classmethod
    def of(cls, box: Domain, mask: object) -> CellMask:
        """Build from a bool array or tensor with one axis for each coordinate of the box."""
        if isinstance(mask, Tensor):
            mask = mask.detach().cpu().numpy()
        if not isinstance(box, Box):
            raise ConfigError(
                f"Got a mask on {box}, expected a mask over the cells of a Box; pass an indicator function instead."
            )
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.ndim != box.dim or mask.size == 0:
            got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else repr(mask)
            raise ShapeMismatch(
                f"Got {got} as the mask of a Region, expected a bool array with {box.dim} axes, one for each coordinate "
                f"of {box}; threshold the array first, e.g. mask > 0."
            )
        return cls(box, tuple(mask.shape), np.packbits(mask).tobytes())

    def __post_init__(self):
        count = math.prod(self.shape)
        cells = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=count).astype(bool)
        object.__setattr__(self, "_cells", torch.from_numpy(cells))

    @property
    def measure(self) -> float:
        """Measure of the cells that are true."""
        return self.box.measure * int(self._cells.sum()) / self._cells.numel()

    def __call__(self, coords: Tensor) -> Tensor:
        low, size, shape = (
            torch.as_tensor(v, dtype=coords.dtype, device=coords.device) for v in (self.box.low, self.box.size, self.shape)
        )
        cell = ((coords - low) / size * shape).long()
        flat = torch.zeros(coords.shape[:-1], dtype=torch.long, device=coords.device)
        for axis, count in enumerate(self.shape):  # row-major
            flat = flat * count + cell[..., axis].clamp(0, count - 1)
        return self._cells.to(coords.device)[flat]

    def to_config(self) -> dict:
        """Return {"shape": [...], "bits": base64 of the packed cells}."""
        return {"shape": list(self.shape), "bits": base64.b64encode(self.bits).decode("ascii")}

    @classmethod
    def from_config(cls, box: Box, config: dict) -> CellMask:
        """Read `to_config` back; the sizes must agree before memory is taken."""
        shape = tuple(config["shape"])
        try:
            bits = base64.b64decode(config["bits"], validate=True)
        except binascii.Error as error:
            raise ConfigError(
                f"Got a mask whose bits are no base64 text ({error}), expected those of Region.to_config()."
            ) from error
        if not all(isinstance(size, int) and size > 0 for size in shape) or len(bits) != -(-math.prod(shape) // 8):
            raise ConfigError(
                f"Got {len(bits)} bytes for a mask of shape {shape}, expected one bit for each cell; the file is damaged."
            )
        if not isinstance(box, Box) or len(shape) != box.dim:
            raise ConfigError(
                f"Got a mask of shape {shape} on {box}, expected a Box with one axis of the mask for each coordinate."
            )
        return cls(box, shape, bits)
