"""Floor 4: data augmentation as transforms of fields (Wang & Golland 2023, appendix C, "Data augmentation").

A field is turned, moved, zoomed into or recoloured by asking it elsewhere and mapping its answer: nothing is interpolated.
Coordinates that leave the domain are brought back by `border` (`transforms.returning`: "clamp", "reflect", "circular").
`draw_views` and `draw_colours` draw random ones for many fields at once, from an explicit generator; `random_view` and
`random_colours` apply one of them to one field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrbridge.domains import Box, Domain, Torus
from inrbridge.errors import ConfigError, OutsideDomain, ShapeMismatch
from inrbridge.field import Field, channel_names
from inrbridge.transforms.base import Transform, channel_ranges
from inrbridge.transforms.channels import MapChannels, MixChannels
from inrbridge.transforms.coordinates import AffineField
from inrbridge.transforms.warping import WarpField

LUMA = (0.299, 0.587, 0.114)  # grey of a colour, ITU-R BT.601


def flipped(field: Field, axes: Sequence[int]) -> Transform:
    """Mirror a field along some axes, in the middle of its domain."""
    dim = field.domain.dim
    if not all(0 <= axis < dim for axis in axes):
        raise ConfigError(f"Got the axes {tuple(axes)} to mirror on {field.domain}, expected numbers from 0 to {dim - 1}.")
    return _about_centre(field, torch.diag(torch.tensor([-1.0 if a in axes else 1.0 for a in range(dim)])), None)


def shifted(field: Field, offset: Sequence[float], border: str = "clamp") -> Transform:
    """Move what a field shows by `offset` (d numbers, in domain units): g(x) = f(x - offset)."""
    return WarpField(field, [-v for v in offset], border)


def scaled(field: Field, factor: float | Sequence[float], border: str = "clamp") -> Transform:
    """Enlarge what a field shows about the centre, by one factor or one for each axis: g(x) = f(c + (x - c) / factor)."""
    dim = field.domain.dim
    factors = [float(factor)] * dim if isinstance(factor, int | float) else [float(v) for v in factor]
    if len(factors) != dim or not all(math.isfinite(v) and v > 0 for v in factors):
        raise ConfigError(f"Got the factor {factor} to scale a field on {field.domain} by, expected {dim} numbers above 0.")
    _needs_edges(field.domain, "scale")
    return _about_centre(field, torch.diag(1 / torch.tensor(factors, dtype=torch.float64)), border)


def rotated(field: Field, angle: float, plane: tuple[int, int] = (0, 1), border: str = "clamp") -> Transform:
    """Turn what a field shows about the centre, by `angle` radians from axis plane[0] towards axis plane[1]."""
    dim, (a, b) = field.domain.dim, plane
    if a == b or not {a, b} <= set(range(dim)):
        raise ConfigError(
            f"Got the plane {plane} to rotate in on {field.domain}, expected two different axes from 0 to {dim - 1}."
        )
    _needs_edges(field.domain, "rotate")
    back = torch.eye(dim, dtype=torch.float64)  # f is asked where x came from
    back[a, a] = back[b, b] = math.cos(angle)
    back[a, b], back[b, a] = math.sin(angle), -math.sin(angle)
    return _about_centre(field, back, border)


def cropped(field: Field, low: Sequence[float], high: Sequence[float]) -> AffineField:
    """Zoom into a part of a field: the box from `low` to `high` is stretched onto the whole domain."""
    _needs_edges(field.domain, "crop")
    part, whole = Box(low, high), field.domain
    inside = part.dim == whole.dim and all(
        a >= b for a, b in zip((*part.low, *whole.high), (*whole.low, *part.high), strict=True)
    )
    if not inside:
        raise OutsideDomain(f"Got {part} to zoom into of a field on {whole}, expected a box inside it.")
    share = [p / w for p, w in zip(part.size, whole.size, strict=True)]
    offset = [p - s * w for p, s, w in zip(part.low, share, whole.low, strict=True)]
    return AffineField(field, whole, torch.diag(torch.tensor(share, dtype=torch.float64)).tolist(), offset, "clamp")


def brightened(field: Field, amount: float) -> MapChannels:
    """Add `amount` to every channel."""
    return MapChannels(field, [1.0] * field.channels, [amount] * field.channels)


def contrasted(field: Field, factor: float) -> MapChannels:
    """Stretch every channel about the middle of its range (0, where it is not known): m + factor (f - m)."""
    return MapChannels(field, [factor] * field.channels, [(1 - factor) * m for m in _middles(field)])


def saturated(field: Field, factor: float) -> MixChannels:
    """Move a field of three colours away from its grey: grey + factor (f - grey), grey the luma of ITU-R BT.601."""
    if field.channels != 3:
        raise ShapeMismatch(f"Got the saturation of a field of {field.channels} channels, expected 3: red, green, blue.")
    matrix = [[factor * (i == j) + (1 - factor) * LUMA[j] for j in range(3)] for i in range(3)]
    return MixChannels(field, matrix, channel_names(field))


def without_channels(field: Field, channels: Sequence[int]) -> MapChannels:
    """Set some channels to 0."""
    if not all(0 <= channel < field.channels for channel in channels):
        raise ConfigError(f"Got the channels {tuple(channels)} to drop, expected numbers from 0 to {field.channels - 1}.")
    return MapChannels(field, [0.0 if i in channels else 1.0 for i in range(field.channels)], [0.0] * field.channels)


def draw_views(domain: Domain, count: int, generator: torch.Generator, *, rotate: float = 0.0, scale: float = 0.0,
               crop: float = 1.0, shift: float = 0.0, flip: Sequence[int] = ()) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Draw random views of `count` fields: f is asked at c + A (x - c) + t, c the centre of the domain.

    Args:
        rotate: largest angle of a rotation in a random plane, in radians.
        scale: largest relative change of scale along each axis, below 1.
        crop: smallest share of each side that a random part of the domain keeps, which is then the whole view; 1: all.
        shift: largest shift along each axis, as a share of the domain's side.
        flip: axes that are mirrored in half of the cases.

    Returns:
        A (count, d, d) and t (count, d), in float64.
    """
    d = domain.dim
    low, high = (torch.tensor(v, dtype=torch.float64) for v in domain.bounds)
    size = high - low

    def uniform(*shape: int) -> Tensor:  # in [-1, 1)
        return torch.rand(*shape, generator=generator, device=generator.device, dtype=torch.float64).cpu() * 2 - 1

    factor = 1 + scale * uniform(count, d)
    for axis in flip:
        factor[:, axis] *= torch.where(uniform(count) < 0, -1.0, 1.0)
    offset = shift * size * uniform(count, d)
    if crop < 1:
        share = crop + (1 - crop) * (uniform(count, d) + 1) / 2
        offset = offset + (1 - share) * size / 2 * uniform(count, d)
        factor = factor * share
    matrix = torch.diag_embed(factor)
    if rotate:
        matrix = matrix @ _rotations(count, d, rotate, generator, uniform(count))
    return matrix, offset


def draw_colours(channels: int, count: int, generator: torch.Generator, *, brightness: float = 0.0, contrast: float = 0.0,
                 saturation: float = 0.0, drop: float = 0.0,
                 middles: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Draw random changes of the values of `count` fields: C f + o.

    Args:
        brightness: largest number that is added to all channels alike.
        contrast: largest relative change of the distance to the middle of a channel's range, below 1.
        saturation: largest relative change of the distance to grey, below 1; fields of three channels.
        drop: chance of each channel to be set to 0.
        middles: middle of each channel's range; 0 where not given.

    Returns:
        C (count, channels, channels) and o (count, channels), in float64.
    """
    middle = torch.zeros(channels, dtype=torch.float64) if middles is None else torch.tensor(middles, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device, dtype=torch.float64).cpu()

    matrix = torch.eye(channels, dtype=torch.float64).expand(count, -1, -1)
    if saturation:
        if channels != 3:
            raise ShapeMismatch(f"Got the saturation of fields of {channels} channels, expected 3: red, green, blue.")
        factor = (1 + saturation * (2 * uniform(count, 1, 1) - 1)).expand(-1, 3, 3)
        matrix = factor * matrix + (1 - factor) * torch.tensor(LUMA, dtype=torch.float64)
    factor = 1 + contrast * (2 * uniform(count, 1) - 1)
    matrix, offset = factor[:, :, None] * matrix, (1 - factor) * middle
    offset = offset + brightness * (2 * uniform(count, 1) - 1)
    if drop:
        kept = (uniform(count, channels) >= drop).to(matrix)
        matrix, offset = matrix * kept[:, :, None], offset * kept
    return matrix, offset


def random_view(field: Field, generator: torch.Generator, *, border: str = "clamp", **amounts) -> AffineField:
    """See a field from a random view; `amounts` are those of `draw_views`."""
    check_view(field.domain, **amounts)
    matrix, offset = draw_views(field.domain, 1, generator, **amounts)
    return _about_centre(field, matrix[0], border, offset[0])


def random_colours(field: Field, generator: torch.Generator, **amounts) -> MapChannels:
    """Recolour a field at random; `amounts` are those of `draw_colours`."""
    matrix, offset = draw_colours(field.channels, 1, generator, middles=_middles(field), **amounts)
    mixed = MixChannels(field, matrix[0].tolist(), channel_names(field))
    return MapChannels(mixed, [1.0] * field.channels, offset[0].tolist())


def check_view(domain: Domain, *, rotate: float = 0.0, scale: float = 0.0, crop: float = 1.0, shift: float = 0.0,
               flip: Sequence[int] = ()) -> None:  # fmt: skip
    """Raise where a domain has no such views."""
    if not isinstance(domain, Box | Torus):
        raise ConfigError(f"Got random views of fields on {domain}, expected a Box or a Torus; restrict or rescale the fields.")
    for axis in flip:
        if not 0 <= axis < domain.dim:
            raise ConfigError(f"Got the axis {axis} to mirror on {domain}, expected 0 to {domain.dim - 1}.")
    for name, used in (("rotate", rotate != 0), ("scale", scale != 0), ("crop", crop != 1)):
        if used:
            _needs_edges(domain, name)
    if rotate and domain.dim < 2:
        raise ConfigError(f"Got a rotation on {domain}, expected at least two dimensions.")


def _rotations(count: int, d: int, largest: float, generator: torch.Generator, turn: Tensor) -> Tensor:
    """Rotations (count, d, d) by the angles largest * turn, each in a random plane."""
    frame = torch.randn(count, d, 2, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    u, v = torch.linalg.qr(frame).Q.unbind(-1)
    cosine, sine = ((largest * turn).cos()[:, None, None], (largest * turn).sin()[:, None, None])
    uu, vv, uv = (torch.einsum("ba,bc->bac", *pair) for pair in ((u, u), (v, v), (u, v)))
    return torch.eye(d, dtype=torch.float64) + (cosine - 1) * (uu + vv) + sine * (uv - uv.mT)


def _about_centre(field: Field, matrix: Tensor, border: str | None, offset: Tensor | float = 0.0) -> AffineField:
    """g(x) = f(c + A (x - c) + t) on the field's own domain."""
    matrix = matrix.double()
    low, high = (torch.tensor(v, dtype=torch.float64) for v in field.domain.bounds)
    centre = (low + high) / 2
    return AffineField(field, field.domain, matrix.tolist(), (centre - matrix @ centre + offset).tolist(), border)


def _middles(field: Field) -> list[float]:
    return [0.0 if known is None else (known[0] + known[1]) / 2 for known in channel_ranges(field)]


def _needs_edges(domain: Domain, verb: str) -> None:
    if not isinstance(domain, Box):
        raise ConfigError(f"Got {domain} to {verb} a field on, expected a Box; on a torus the result would have seams.")
