"""Floor 4: a field seen through a displacement of its coordinates, and through noise on them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.field import Field
from inrbridge.transforms.base import Transform
from inrbridge.transforms.returning import check_border, returned


class WarpField(Transform):
    """The field g(x) = f(x + u(x)), exact: f is asked where the displacement points to. u = 0 is f itself, constant u moves it.

    Gradients flow to the coordinates and to whatever u is made of; into the parameters of f as its own calls let them.

    Args:
        inner: the field f.
        displacement: u, a function coords (..., d) -> (..., d) in domain units such as another field or a network; or d numbers.
        border: where coordinates go that leave the domain: "clamp", "reflect" or "circular" (`transforms.returning`).
    """

    def __init__(self, inner: Field, displacement: Callable[[Tensor], Tensor] | Sequence[float], border: str = "clamp"):
        check_border(border, inner.domain)
        super().__init__(inner, inner.domain)
        if not callable(displacement):
            displacement = tuple(float(v) for v in displacement)
            if len(displacement) != inner.domain.dim:
                raise ShapeMismatch(
                    f"Got a displacement of {len(displacement)} numbers on {inner.domain}, expected {inner.domain.dim}."
                )
        self.displacement, self.border = displacement, border

    @property
    def signature(self) -> Hashable:
        given = self.displacement
        return "warp", given if isinstance(given, tuple) else (id(given), type(given)), self.border

    def around(self, inner):
        return WarpField(inner, self.displacement, self.border)

    def map_coords(self, coords):
        if isinstance(self.displacement, tuple):
            return returned(coords + coords.new_tensor(self.displacement), self.domain, self.border)
        moved = self.displacement(coords)
        if moved.shape != coords.shape:
            raise ShapeMismatch(
                f"Got a displacement of shape {tuple(moved.shape)} at coords {tuple(coords.shape)}, expected "
                f"{tuple(coords.shape)}: one number for each coordinate of a point."
            )
        return returned(coords + moved, self.domain, self.border)


class NoisyField(Transform):
    """A field read at shaken coordinates: g(x) = f(x + e), e normal noise (appendix C, "Data augmentation").

    Every call draws new noise, from the generator alone: a field of this kind is not the same function twice.

    Args:
        std: standard deviation of the noise along each axis, in domain units.
        generator: what it is drawn from.
        border: where coordinates go that leave the domain.
    """

    def __init__(self, inner: Field, std: float, generator: torch.Generator, border: str = "clamp"):
        check_border(border, inner.domain)
        if not std >= 0:
            raise ConfigError(f"Got noise of standard deviation {std} on coordinates, expected 0 or more.")
        super().__init__(inner, inner.domain)
        self.std, self.generator, self.border = float(std), generator, border

    @property
    def signature(self):
        return "noise", self.std, id(self.generator), self.border

    def around(self, inner):
        return NoisyField(inner, self.std, self.generator, self.border)

    def map_coords(self, coords):
        noise = torch.randn(coords.shape, generator=self.generator, device=self.generator.device, dtype=torch.float64)
        return returned(coords + self.std * noise.to(coords), self.domain, self.border)
