"""Functions of the viewing direction, whose coefficients are the colours of a field: values (n, k) or (b, n, k)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge import batched, encodings, errors
from inrbridge_plenoxels.lattice import Lattice

KINDS = ("harmonics", "texture", "network", "gaussians", "anisotropic")


@dataclass(frozen=True)
class Basis:
    """k functions of unit directions.

    harmonics: the real spherical harmonics of the first sqrt(k) degrees.
    texture: "texture" (side, side, side, k) over the cube [-1, 1]^3, interpolated linearly; the outermost points on its border.
    network: sigmoid(network(d | sin 2^j d | cos 2^j d)), j < `octaves`, with three hidden ReLU layers of `width`.
    gaussians: exp(sharpness (axis . d - 1)) / k, "lobes" (k, 4) = sharpness | axis.
    anisotropic: (z . d) exp(-a (x . d)^2 - b (y . d)^2) / k, "lobes" (k, 11) = a | b | x | y | z.
    """

    kind: str = "harmonics"
    components: int = 4
    side: int = 0
    octaves: int = 0
    width: int = 0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise errors.unknown_name("basis", self.kind, KINDS)
        if not isinstance(self.components, int) or not 1 <= self.components <= 256:
            raise errors.ConfigError(f"Got components = {self.components}, expected 1 to 256 functions of the direction.")
        if self.kind == "harmonics" and (math.isqrt(self.components) ** 2 != self.components or self.components > 64):
            raise errors.ConfigError(f"Got {self.components} spherical harmonics, expected a square number of at most 64.")
        if self.kind == "texture" and not 2 <= self.side <= 512:
            raise errors.ConfigError(f"Got a texture of side {self.side}, expected 2 to 512.")
        if self.kind == "network" and not (0 <= self.octaves <= 32 and 1 <= self.width <= 4096):
            raise errors.ConfigError(
                f"Got a network of width {self.width} on {self.octaves} octaves, expected 1 to 4096 and 0 to 32."
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the parameters by name."""
        k = self.components
        if self.kind == "texture":
            return {"texture": (self.side, self.side, self.side, k)}
        if self.kind in ("gaussians", "anisotropic"):
            return {"lobes": (k, 4 if self.kind == "gaussians" else 11)}
        if self.kind == "network":
            widths = [3 + 6 * self.octaves, *[self.width] * 3, k]
            shapes = {f"network_{i}_weight": (widths[i + 1], widths[i]) for i in range(4)}
            return shapes | {f"network_{i}_bias": (widths[i + 1],) for i in range(4)}
        return {}

    def to_options(self) -> dict:
        """Return the options of `build` that give this basis (JSON)."""
        if self.kind == "harmonics":
            return {"harmonics": math.isqrt(self.components)}
        facts = {"basis": self.kind, "components": self.components}
        if self.kind == "texture":
            facts["side"] = self.side
        if self.kind == "network":
            facts |= {"octaves": self.octaves, "width": self.width}
        return facts

    def __call__(self, directions: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        """Evaluate for b fields: directions (n, 3) or (b, n, 3) -> (n, k) or (b, n, k)."""
        return getattr(self, f"_{self.kind}")(directions, states)

    def _harmonics(self, directions: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        return encodings.spherical_harmonics(directions, math.isqrt(self.components))

    def _texture(self, directions: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        side = self.side
        # the outermost points lie on the border, those of a lattice half a cell inside
        inside = ((directions + 1) / 2 * (side - 1) + 0.5) / side
        textures = states["texture"].flatten(1, 3)
        rows, weights = Lattice((side,) * 3).find(inside, {}, len(textures))
        return batched.table_rows(textures, rows.unsqueeze(0), weights.unsqueeze(0))

    def _network(self, directions: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        octaves = 2.0 ** torch.arange(self.octaves)
        x = encodings.frequency_encoding(directions, octaves, "sfc", raw="first")
        for i in range(4):
            weight, bias = (states[f"network_{i}_{part}"].to(x.dtype) for part in ("weight", "bias"))
            x = torch.relu(x) if i else x.expand(len(weight), *x.shape[-2:])
            x = batched.linear(x, weight, bias)
        return torch.sigmoid(x)

    def _gaussians(self, directions: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        sharpness, axes = states["lobes"].to(directions.dtype).split([1, 3], -1)  # (b, k, 1), (b, k, 3)
        return torch.exp(sharpness.mT * (directions @ axes.mT - 1)) / self.components

    def _anisotropic(self, directions: Tensor, states: Mapping[str, Tensor]) -> Tensor:
        a, b, x, y, z = states["lobes"].to(directions.dtype).split([1, 1, 3, 3, 3], -1)
        exponent = a.mT * (directions @ x.mT) ** 2 + b.mT * (directions @ y.mT) ** 2
        return directions @ z.mT * torch.exp(-exponent) / self.components
