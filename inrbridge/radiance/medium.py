"""Floor 7: a field as a medium that light passes: positions and directions -> colours and densities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.domains import Box, Domain, Product, Sphere
from inrbridge.errors import ConfigError
from inrbridge.field import Field, channel_names

COLOURS = (("red", "green", "blue"), ("r", "g", "b"))
MATTER = ("density", "sigma", "sdf", "occupancy")
SKIN = 1 / 200  # half the thickness of the shell of a surface that is drawn as a medium, relative to the box's diagonal
OPAQUE = 8.0  # optical depth of half that shell


@dataclass(frozen=True)
class Medium:
    """What a field says of the space in `positions`, a domain in R^3, for rays in any direction.

    A density is taken as it is, negative values as 0. A signed distance (negative inside) or an occupancy (above 1/2
    inside) becomes an opaque body with a thin soft shell. Without colours of its own a body is grey, lit from the camera.
    """

    field: Field
    positions: Domain
    has_directions: bool
    colour: tuple[int, ...]  # places of red, green and blue among the channels; empty: shaded grey
    matter: int  # place of density, distance or occupancy
    kind: str

    @classmethod
    def of(cls, field: Field) -> Medium:
        """Read the channels of a field on a domain in R^3, or on its product with the unit sphere of directions.

        Raises:
            ConfigError: the field has no channel that says where matter is, or lives elsewhere.
        """
        domain = field.domain
        has_directions = isinstance(domain, Product) and domain.b == Sphere()
        positions = domain.a if has_directions else domain
        names = [name.lower() for name in channel_names(field)]
        if names == ["0", "1", "2", "3"]:
            names = ["red", "green", "blue", "density"]
        kind = next((name for name in MATTER if name in names), None)
        if positions.dim != 3 or positions.intrinsic_dim != 3 or kind is None:
            raise ConfigError(
                f"Got a field on {domain} with the channels {', '.join(channel_names(field))[:200]}; a camera needs one in space "
                f"(3-D, or Product(3-D, Sphere())) with one of the channels {', '.join(MATTER)}; draw slices instead."
            )
        trio = next((trio for trio in COLOURS if all(name in names for name in trio)), ())
        colour = tuple(names.index(name) for name in trio)
        return cls(field, positions, has_directions, colour, names.index(kind), kind)

    @property
    def box(self) -> Box:
        """The box around all positions."""
        return Box(*self.positions.bounds)

    @property
    def diagonal(self) -> float:
        """Length of the box's diagonal."""
        return math.hypot(*self.box.size)

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return colours (n, 3) and densities (n,) at points (n, 3) for rays in unit directions (n, 3)."""
        if not self.colour:
            return self._shaded(points, directions)
        values = self._values(points, directions)
        return values[:, self.colour], self._density(values, points)

    def density(self, points: Tensor) -> Tensor:
        """Return densities (n,) at points (n, 3), per unit of length."""
        upward = points.new_tensor([0.0, 0.0, 1.0]).expand_as(points)
        return self._density(self._values(points, upward), points)

    def _values(self, points: Tensor, directions: Tensor) -> Tensor:
        low, high = (torch.as_tensor(bound, dtype=points.dtype, device=points.device) for bound in self.positions.bounds)
        points = torch.minimum(torch.maximum(points, low), high)  # rounding may have put them just outside
        return self.field(torch.cat([points, directions], -1) if self.has_directions else points)

    def _density(self, values: Tensor, points: Tensor) -> Tensor:
        value = values[:, self.matter]
        if self.kind in ("sdf", "occupancy"):
            skin = SKIN * self.diagonal
            depth = 0.5 - value / (2 * skin) if self.kind == "sdf" else 0.5 + 5.0 * (value - 0.5)
            value = depth.clamp(0, 1) * (OPAQUE / skin)
        if not isinstance(self.positions, Box):
            value = torch.where(self.positions.contains(points), value, torch.zeros_like(value))
        return value.clamp(min=0)

    def _shaded(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Shade by the angle between the ray and the gradient of distance, occupancy or density."""
        differentiate = torch.is_grad_enabled()
        with torch.enable_grad():
            places = points.detach().requires_grad_(True)
            values = self._values(places, directions)
            slope = None
            if values.requires_grad:
                (slope,) = torch.autograd.grad(values[:, self.matter].sum(), places, allow_unused=True, retain_graph=True)
            density = self._density(values, points)
        facing = torch.ones_like(density)
        if slope is not None:
            facing = torch.nn.functional.normalize(slope, dim=-1).mul(directions).sum(-1).abs()
        grey = (0.15 + 0.75 * facing.detach())[:, None].expand(-1, 3)
        return grey, density if differentiate else density.detach()


def device_of(field: object) -> torch.device:
    """Return where a field's parameters lie; the CPU where it has none."""
    held = [*field.parameters(), *field.buffers()] if isinstance(field, torch.nn.Module) else []
    return held[0].device if held else torch.device("cpu")
