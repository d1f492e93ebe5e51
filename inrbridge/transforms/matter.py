"""Floor 4: fields that say where matter is, in the same words: occupancy made of density or signed distance.

Density sigma is the share of light lost per unit of length (Max 1995): a path of length l through it lets exp(-sigma l) pass.
A signed distance is negative inside, in units of length. Occupancy is 1 inside and 0 outside.
"""

from __future__ import annotations

import math

import torch

from inrbridge.errors import CannotAlign, ConfigError, unknown_name
from inrbridge.field import Field, channel_names
from inrbridge.transforms.base import Transform, channel_ranges

KINDS = ("density", "sdf")


class WithOccupancy(Transform):
    """A field with one channel more, the occupancy made of its density or signed distance; beside the others, which stay.

    density: occupancy = 1 - exp(-max(density, 0) length)
    sdf: occupancy = 1/2 - sdf / ramp, cut to [0, 1]; a step at the surface where ramp is 0

    Args:
        channel: place of the channel that it is made of.
        kind: "density" or "sdf", what that channel holds.
        name: of the new channel, "occupancy" or "alpha".
        length: of the path over which a density is felt, in domain units.
        ramp: thickness of the shell in which a signed distance goes from 1 to 0, in domain units.
    """

    def __init__(self, inner: Field, channel: int, kind: str, name: str = "occupancy", *, length: float = 1.0, ramp: float = 0.0):
        if kind not in KINDS:
            raise unknown_name("kind of matter", kind, KINDS, ConfigError)
        if not 0 <= channel < inner.channels:
            raise CannotAlign(f"Got the channel {channel} to make {name} of, expected 0 to {inner.channels - 1}.")
        if not (math.isfinite(length) and length > 0 and math.isfinite(ramp) and ramp >= 0):
            raise ConfigError(f"Got length={length} and ramp={ramp}, expected a length above 0 and a ramp of 0 or more.")
        super().__init__(inner, inner.domain, (*channel_names(inner), name), (*channel_ranges(inner), (0.0, 1.0)))
        self.channel, self.kind, self.name, self.length, self.ramp = channel, kind, name, float(length), float(ramp)

    @property
    def signature(self):
        return "occupancy", self.channel, self.kind, self.name, self.length, self.ramp

    def around(self, inner):
        return WithOccupancy(inner, self.channel, self.kind, self.name, length=self.length, ramp=self.ramp)

    def map_values(self, values):
        return torch.cat([values, self._occupancy(values[..., self.channel : self.channel + 1])], dim=-1)

    def _occupancy(self, value: torch.Tensor) -> torch.Tensor:
        if self.kind == "density":
            return -torch.expm1(-self.length * value.clamp(min=0))
        if self.ramp > 0:
            return (0.5 - value / self.ramp).clamp(0, 1)
        return (value < 0).to(value.dtype) + 0 * value  # the slope is 0, yet there is one
