"""Floor 4: what a field is beyond its domain: coordinates that left are brought back to where it has a value.

`clamp`: the nearest point of the domain. `reflect`: the mirror image at the edge, as often as it takes. `circular`: the
opposite side, the box closing on itself. A torus always closes on itself; a ball and a sphere know the nearest point alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inrbridge.domains import Ball, Box, Domain, Product, Sphere, Torus, Weighted
from inrbridge.errors import ConfigError, unknown_name

RETURNS = ("clamp", "reflect", "circular")


def check_border(border: str, domain: Domain) -> None:
    """Raise unless coordinates that leave the domain can be brought back in this way."""
    if border not in RETURNS:
        raise unknown_name("border mode", border, RETURNS, ConfigError)
    for part in _parts(domain):
        if not isinstance(part, Box | Torus) and not (isinstance(part, Ball | Sphere) and border == "clamp"):
            raise ConfigError(
                f'Got border "{border}" for points that leave {part}, expected a Box or Torus, or "clamp" on a Ball or Sphere; '
                "restrict or rescale the field to one."
            )


def returned(coords: Tensor, domain: Domain, border: str = "clamp") -> Tensor:
    """Bring coords (..., d) back onto the domain; those inside stay where they are. Differentiable in the coordinates.

    >>> returned(torch.tensor([[1.25], [-0.5]]), Box.unit(1), "reflect").flatten().tolist()
    [0.75, 0.5]
    """
    if isinstance(domain, Weighted):
        return returned(coords, domain.domain, border)
    if isinstance(domain, Product):
        first, second = coords[..., : domain.a.dim], coords[..., domain.a.dim :]
        return torch.cat([returned(first, domain.a, border), returned(second, domain.b, border)], dim=-1)
    if isinstance(domain, Ball | Sphere):
        return _nearest_round(coords, domain)
    low, high = (coords.new_tensor(v) for v in domain.bounds)
    if border == "clamp" and not isinstance(domain, Torus):
        return torch.minimum(torch.maximum(coords, low), high)
    outside = (coords < low) | (coords > high)
    size = high - low
    if border == "reflect" and not isinstance(domain, Torus):
        folded = torch.remainder(coords - low, 2 * size)
        folded = low + torch.minimum(folded, 2 * size - folded)
    else:
        folded = low + torch.remainder(coords - low, size)
    return torch.where(outside, folded, coords)


def _nearest_round(coords: Tensor, domain: Ball | Sphere) -> Tensor:
    center = coords.new_tensor(domain.center)
    offset = coords - center
    length = offset.norm(dim=-1, keepdim=True)
    moved = length > domain.radius if isinstance(domain, Ball) else length != domain.radius
    return torch.where(moved, center + offset * (domain.radius / length.clamp(min=torch.finfo(coords.dtype).tiny)), coords)


def _parts(domain: Domain) -> list[Domain]:
    if isinstance(domain, Weighted):
        return _parts(domain.domain)
    return [*_parts(domain.a), *_parts(domain.b)] if isinstance(domain, Product) else [domain]
