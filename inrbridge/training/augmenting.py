"""Floor 8: fields seen from random views and in random colours, other ones for each field of a minibatch.

Reading a field elsewhere is transforming it (`transforms.augmentation`); its file stays as it is. Coordinates that leave the
domain are brought back by `augment.border`. Dense labels belong to the coordinates that `augmented` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrbridge.data.channels import RANGES, RGB
from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.training.config import AugmentConfig
from inrbridge.transforms.augmentation import check_view, draw_colours, draw_views
from inrbridge.transforms.returning import check_border, returned


def check_augment(augment: AugmentConfig, domain: Domain, channels: Sequence[str] = ()) -> None:
    """Refuse what a domain or the channels do not allow."""
    if not all(0 <= axis < domain.dim for axis in augment.flip):
        raise ConfigError(f'Got the axes {augment.flip} in "augment.flip", expected numbers from 0 to {domain.dim - 1}.')
    if augment.moves:
        try:
            check_border(augment.border, domain)
            check_view(domain, **_view(augment))
        except ConfigError as error:
            raise ConfigError(f"The section [augment] does not fit the fields. {error}") from error
    if augment.saturation and channels and tuple(channels) != RGB:
        raise ConfigError(
            f'Got "augment.saturation" for fields of the channels {", ".join(channels)}, expected {", ".join(RGB)}; set it to 0.'
        )


@dataclass(frozen=True, eq=False)
class Views:
    """How b fields are seen: x -> f(c + A (x - c) + t), c the centre of the domain."""

    matrix: Tensor  # (b, d, d)
    offset: Tensor  # (b, d)
    domain: Domain
    border: str

    @classmethod
    def draw(cls, domain: Domain, augment: AugmentConfig, count: int, chance: torch.Generator) -> Views:
        """Draw the views of `count` fields."""
        return cls(*draw_views(domain, count, chance, **_view(augment)), domain, augment.border)

    def of(self, rows: Sequence[int]) -> Views:
        """Return the views of some of the fields."""
        return replace(self, matrix=self.matrix[list(rows)], offset=self.offset[list(rows)])

    def to(self, device: torch.device | str) -> Views:
        """Return the same views on another device."""
        return replace(self, matrix=self.matrix.to(device), offset=self.offset.to(device))

    def onto(self, points: Tensor) -> Tensor:
        """Return where points x (n, d) or (b, n, d) lie in each field: (b, n, d), also beyond the domain."""
        centre = self._centre(points)
        return centre + (points - centre) @ self.matrix.to(points).mT + self.offset.to(points)[:, None]

    def there(self, points: Tensor) -> Tensor:
        """The same, brought back into the domain."""
        return returned(self.onto(points), self.domain, self.border)

    def back(self, coords: Tensor) -> Tensor:
        """Return the points x (b, n, d) that lie at these coordinates of each field; some may be beyond the domain."""
        centre, inverse = self._centre(coords), torch.linalg.inv(self.matrix).to(coords)
        return centre + (coords - centre - self.offset.to(coords)[:, None]) @ inverse.mT

    def _centre(self, points: Tensor) -> Tensor:
        low, high = (points.new_tensor(v) for v in self.domain.bounds)
        return (low + high) / 2


def augmented(discretization: Discretization, augment: AugmentConfig, count: int, chance: torch.Generator) -> Tensor:
    """Return coordinates (b, n, d) of `count` fields: turned, mirrored, scaled, cropped, shifted about the centre, shaken."""
    points, domain = discretization.points, discretization.domain
    coords = Views.draw(domain, augment, count, chance).onto(points)
    if augment.noise:
        shake = torch.randn(coords.shape, generator=chance, dtype=torch.float64).to(points)
        coords = coords + augment.noise * discretization.spacing * shake
    return returned(coords, domain, augment.border)


def recoloured(values: Tensor, augment: AugmentConfig, channels: Sequence[str], count: int, rows: Sequence[int],
               chance: torch.Generator) -> Tensor:  # fmt: skip
    """Change the values (b, n, c) of those `rows` of `count` fields that are here: more or less bright, and so on.

    Contrast stretches about the middle of what a channel's name says of its range, about 0 where it says nothing.
    """
    if not augment.recolours:
        return values
    middles = [sum(RANGES.get(name, (0.0, 0.0))) / 2 for name in channels]
    amounts = {"brightness": augment.brightness, "contrast": augment.contrast, "saturation": augment.saturation}
    matrix, offset = draw_colours(len(channels), count, chance, drop=augment.drop, middles=middles, **amounts)
    matrix, offset = (t[list(rows)].to(values) for t in (matrix, offset))
    return values @ matrix.mT + offset[:, None]


def _view(augment: AugmentConfig) -> dict:
    return {"rotate": augment.rotate, "scale": augment.scale, "crop": augment.crop, "shift": augment.shift, "flip": augment.flip}
