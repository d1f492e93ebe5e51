"""Floor 2: bool arrays over the cells of a box, as the indicator of a region."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from inrbridge.domains.base import Box, Domain
from inrbridge.errors import ConfigError, ShapeMismatch


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

    @property
    def bounds(self) -> Box:
        """The smallest box around the cells that are true; the whole one if none is."""
        cells = self._cells.reshape(self.shape).nonzero()
        if len(cells) == 0:
            return self.box
        steps = [size / count for size, count in zip(self.box.size, self.shape, strict=True)]
        first, last = cells.amin(0).tolist(), cells.amax(0).tolist()
        low = tuple(a + i * h for a, i, h in zip(self.box.low, first, steps, strict=True))
        high = tuple(a + (i + 1) * h for a, i, h in zip(self.box.low, last, steps, strict=True))
        return Box(low, high)

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
