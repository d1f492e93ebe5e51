"""How a code base puts coordinates into its network and takes values out, where that differs from inrbridge's own fields."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge import encodings, errors
from inrbridge_ngp.networks import growing_exp

_CHOICES = {
    "contraction": ("none", "sphere", "cube"),
    "outside": ("wrap", "dark", "origin", "blank", "clamp"),
    "density": ("exp", "relu"),
    "colour": ("sigmoid", "exp", "none"),
    "directions": ("unit", "shifted"),
}
_NEAR, _LOG_COLOURS = 1.0, 10.0


@dataclass(frozen=True)
class Convention:
    """What lies between the coordinates of a file's world and its network, and between the network and the values.

    Attributes:
        low, high: corners of the box that becomes the unit cube, after `rotation`; None: those of the domain.
        rotation: rows of the matrix that turns positions and directions of the domain into those of the box.
        contraction: unbounded space is squeezed into the cube, the box of corners into its middle half: "sphere" by the
            Euclidean norm (Barron et al. 2022, eq. 10), "cube" by the largest coordinate.
        outside: points beyond the cube: "wrap" as the grid does; "dark": also of density 0; "origin": dark, and taken to the
            first corner; "blank": features of 0; "clamp": dark, and taken to the border. Between the last two, dark begins on the
            border itself.
        density: of the network's output o: "exp" is density_scale exp(o + density_shift), "relu" density_scale max(0, o).
        colour: "sigmoid", "exp" (of high dynamic range) or "none" (the network's outputs as they are).
        directions: "shifted" feeds (d + 1) / 2 to spherical harmonics of plain signs, as nerfstudio's torch code does.
        tone: three small networks turn the logarithms of radiance into colours.
    """

    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    rotation: tuple[tuple[float, ...], ...] | None = None
    contraction: str = "none"
    outside: str = "wrap"
    density: str = "exp"
    density_shift: float = 0.0
    density_scale: float = 1.0
    colour: str = "sigmoid"
    directions: str = "unit"
    tone: bool = False

    def __post_init__(self):
        for name in ("low", "high"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(float(item) for item in value))
        if self.rotation is not None:
            object.__setattr__(self, "rotation", tuple(tuple(float(item) for item in row) for row in self.rotation))
            if any(len(row) != len(self.rotation) for row in self.rotation):
                raise errors.ConfigError(f"Got the rotation {self.rotation}, expected a square matrix.")
        for name in ("density_shift", "density_scale"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise errors.unknown_name(name, getattr(self, name), known)
        if self.low is not None or self.high is not None:
            fits = self.low is not None and self.high is not None and len(self.low) == len(self.high)
            if not fits or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
                raise errors.ConfigError(
                    f"Got the corners {self.low} and {self.high} of a grid, expected equally many numbers with low < high."
                )

    def enter(self, points: Tensor, bounds: tuple[tuple[float, ...], tuple[float, ...]]) -> tuple[Tensor, Tensor | None]:
        """Map points (..., d) into the unit cube; also return which of them are seen (...), None where all are."""
        points = self._turned(points)
        low, high = bounds if self.low is None else (self.low, self.high)
        near, far = points.new_tensor(low), points.new_tensor(high)
        if self.contraction == "none":
            u = (points - near) / (far - near)
        else:
            centred = all(a == -1 and b == 1 for a, b in zip(low, high, strict=True))
            u = self._contracted(points if centred else (points - near) / (far - near) * 2 - 1)
        if self.outside in ("wrap", "blank"):
            return u, None
        if self.outside == "clamp":
            return u.clamp(0, 1), ((u >= 0) & (u <= 1)).all(-1)
        seen = ((u > 0) & (u < 1)).all(-1)
        return (u * seen.unsqueeze(-1) if self.outside == "origin" else u), seen

    def _turned(self, vectors: Tensor) -> Tensor:
        return vectors if self.rotation is None else vectors @ vectors.new_tensor(self.rotation).mT

    def _contracted(self, y: Tensor) -> Tensor:
        if self.contraction == "sphere":
            square = (y * y).sum(-1, keepdim=True)
            length = torch.where(square > _NEAR, square, torch.ones_like(square)).sqrt()  # no root at 0: its slope is infinite
        else:
            length = y.abs().amax(-1, keepdim=True).clamp(min=_NEAR)
        return torch.where(length > _NEAR, (2 - 1 / length) * (y / length), y) / 4 + 0.5

    def blanks(self, u: Tensor) -> Tensor | None:
        """Say which points (...) of the cube's coordinates get no features; None where all get some."""
        return ((u < 0) | (u > 1)).any(-1) if self.outside == "blank" else None

    def harmonics(self, directions: Tensor, degree: int) -> Tensor:
        """Return the features of unit directions (..., 3) in world coordinates: (..., degree^2)."""
        directions = self._turned(directions)
        if self.directions == "shifted":
            return encodings.spherical_harmonics((directions + 1) / 2, degree, signs="plain")
        return encodings.spherical_harmonics(directions, degree)

    def density_of(self, raw: Tensor, seen: Tensor | None) -> Tensor:
        """Turn the network's output (...) into a density, 0 where points are not seen."""
        value = torch.relu(raw) if self.density == "relu" else growing_exp(raw + self.density_shift)
        value = self.density_scale * value
        return value if seen is None else torch.where(seen, value, torch.zeros_like(value))

    def colour_of(self, raw: Tensor) -> Tensor:
        """Turn the network's outputs into colours."""
        if self.colour == "sigmoid":
            return torch.sigmoid(raw)
        return torch.exp(raw.clamp(-_LOG_COLOURS, _LOG_COLOURS)) if self.colour == "exp" else raw
