"""Floor 8: a field seen at changed coordinates: f(x) becomes f(A(x)), with a random A for each field of a minibatch.

Reading the field elsewhere is the same as transforming it; its file stays as it is. Coordinates that leave the box are
brought back to its nearest point.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Domain
from inrbridge.errors import ConfigError
from inrbridge.training.config import AugmentConfig


def check_augment(augment: AugmentConfig, domain: Domain) -> None:
    """Refuse what a domain does not allow."""
    if augment.is_active and not isinstance(domain, Box):
        raise ConfigError(
            f"Got [augment] on {domain}, expected a Box: on other domains these changes leave it; remove the section."
        )
    for axis in augment.flip:
        if not 0 <= axis < domain.dim:
            raise ConfigError(f'Got the axis {axis} in "augment.flip", expected 0 to {domain.dim - 1}.')


def augmented(discretization: Discretization, augment: AugmentConfig, count: int, chance: torch.Generator) -> Tensor:
    """Return coordinates (b, n, d) of `count` fields: mirrored, scaled about the centre, shifted, shaken, in this order."""
    points, box = discretization.points, discretization.domain
    n, d = points.shape
    low, high = points.new_tensor(box.low), points.new_tensor(box.high)
    centre, size = (low + high) / 2, high - low

    def uniform(*shape: int) -> Tensor:  # in [-1, 1)
        return (torch.rand(*shape, generator=chance, dtype=torch.float64) * 2 - 1).to(points)

    factor = 1 + augment.scale * uniform(count, 1, d)
    for axis in augment.flip:
        factor[:, :, axis] *= torch.where(uniform(count, 1) < 0, -1.0, 1.0)
    coords = centre + (points - centre) * factor + augment.shift * size * uniform(count, 1, d)
    if augment.noise:
        shake = torch.randn(count, n, d, generator=chance, dtype=torch.float64).to(points)
        coords = coords + augment.noise * discretization.spacing * shake
    return torch.minimum(torch.maximum(coords, low), high)
