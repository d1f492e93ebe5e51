"""Floor 7: volume rendering through nerfacc (Mildenhall et al. 2020, equations 1 to 3; Max 1995).

A ray crosses intervals i of length delta_i with density sigma_i and colour c_i:
alpha_i = 1 - exp(-sigma_i delta_i), T_i = exp(-sum_{j<i} sigma_j delta_j), colour = sum_i T_i alpha_i c_i + T_end background.

On a CPU every ray has equally many samples, and the field is asked only where the occupancy grid sees matter; on a CUDA
device nerfacc's own marching skips empty cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from inrbridge.domains import Box
from inrbridge.errors import ConfigError, NotFinite, ShapeMismatch, unknown_name
from inrbridge.field import Field
from inrbridge.radiance.backend import nerfacc
from inrbridge.radiance.cameras import Camera, Rays
from inrbridge.radiance.medium import Medium, device_of

if TYPE_CHECKING:
    from inrbridge.radiance.occupancy import Occupancy

CHUNK = 2**17  # samples a call on a CPU
DEVICE_CHUNK = 2**21  # samples a call on a GPU, where few calls matter more than memory
BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


class Rendering(NamedTuple):
    """What rays see: colours (..., 3), opacities (...) in [0, 1], depths (...): mean distances of what they see."""

    colours: Tensor
    opacities: Tensor
    depths: Tensor


def render(
    field: Field,
    camera: Camera,
    *,
    samples: int = 128,
    background: str | Sequence[float] | Tensor = "white",
    occupancy: Occupancy | None = None,
) -> Rendering:
    """Render what a camera sees of a field, without gradients and on the field's device: colours (height, width, 3).

    Args:
        field: with channels red, green, blue, density; or an sdf, an occupancy or a density alone.
        samples: along each ray, from where it enters the field's box (or the near plane) to where it leaves.
        background: "white", "black", or red, green, blue in [0, 1].
        occupancy: where matter is, on the same device; the rest of space is then not evaluated.

    Raises:
        ConfigError: the field cannot be seen by a camera.
        MissingDependency: nerfacc is not installed.
        NotFinite: the field returned NaN or infinite values.
    """
    rays, colour = camera.rays().to(device_of(field)), background_colour(background)
    size = max(1, (CHUNK if rays.origins.device.type == "cpu" else DEVICE_CHUNK) // max(1, samples))
    parts = []
    with torch.no_grad():
        for start in range(0, len(rays), size):
            part = rays[start : start + size]
            parts.append(render_rays(field, part, samples=samples, background=colour, occupancy=occupancy))
    colours, opacities, depths = (torch.cat(values) for values in zip(*parts, strict=True))
    if not bool(colours.isfinite().all()):
        raise NotFinite(f"The field {type(field).__name__} returned NaN or infinite values; its weights are damaged.")
    shape = (camera.height, camera.width)
    return Rendering(colours.reshape(*shape, 3), opacities.reshape(shape), depths.reshape(shape))


def render_rays(
    field: Field | Medium,
    rays: Rays,
    *,
    samples: int = 128,
    background: Tensor | None = None,
    occupancy: Occupancy | None = None,
    generator: torch.Generator | None = None,
) -> Rendering:
    """Render rays, differentiably in the field's parameters.

    Args:
        background: (3,) or (n, 3); black when absent.
        occupancy: where matter is; samples elsewhere are empty.
        generator: draws the place of each sample within its interval; without one it is the middle.
    """
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise ConfigError(f"Got samples={samples!r}, expected a whole number of at least 1.")
    medium = field if isinstance(field, Medium) else Medium.of(field)
    near, far = intersect(rays, medium.box)
    rays = Rays(rays.origins, rays.directions, near, far)
    if background is not None:
        background = background.to(rays.origins)
    if occupancy is not None and rays.origins.is_cuda:
        return _march_packed(medium, rays, samples, background, occupancy, generator)
    edges = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, samples + 1).to(near)
    starts, ends = edges[:, :-1], edges[:, 1:]
    within = torch.full_like(starts, 0.5) if generator is None else _uniform(starts, generator)
    points = rays.points(torch.lerp(starts, ends, within))  # (n, s, 3)
    asked = (far > near)[:, None].expand_as(starts)
    if occupancy is not None:
        asked = asked & occupancy.contains(points)
    rows, columns = asked.nonzero(as_tuple=True)
    seen, dense = medium(points[rows, columns], rays.directions[rows])
    colours = seen.new_zeros(*starts.shape, 3).index_put((rows, columns), seen)
    densities = dense.new_zeros(starts.shape).index_put((rows, columns), dense)
    return composite(colours, densities, starts, ends, background)


def composite(colours: Tensor, densities: Tensor, starts: Tensor, ends: Tensor, background: Tensor | None = None) -> Rendering:
    """Compose samples along rays: colours (n, s, 3), densities (n, s), intervals [starts, ends] (n, s) -> n rays."""
    march = nerfacc()
    weights, _, _ = march.render_weight_from_density(starts, ends, densities)
    seen = march.accumulate_along_rays(weights, colours)
    opacities = march.accumulate_along_rays(weights)
    depths = march.accumulate_along_rays(weights, ((starts + ends) / 2)[..., None])
    return _against(background, seen, opacities, depths / opacities.clamp(min=torch.finfo(weights.dtype).eps))


def _march_packed(medium: Medium, rays: Rays, samples: int, background, occupancy: Occupancy, generator) -> Rendering:
    """March through occupied cells with steps of equal length on a CUDA device."""
    step = medium.diagonal / samples
    near = rays.near if generator is None else rays.near + step * _uniform(rays.near, generator)
    rows, starts, ends = occupancy.estimator.sampling(
        rays.origins, rays.directions, t_min=near, t_max=rays.far, render_step_size=step
    )

    def evaluate(starts: Tensor, ends: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        middle = (starts + ends)[:, None] / 2
        return medium(rays.origins[rows] + middle * rays.directions[rows], rays.directions[rows])

    seen, opacities, depths, _ = nerfacc().rendering(starts, ends, ray_indices=rows, n_rays=len(rays), rgb_sigma_fn=evaluate)
    return _against(background, seen, opacities, depths)


def _against(background: Tensor | None, colours: Tensor, opacities: Tensor, depths: Tensor) -> Rendering:
    if background is not None:
        colours = colours + (1 - opacities) * background
    return Rendering(colours, opacities[..., 0], depths[..., 0])


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def intersect(rays: Rays, box: Box) -> tuple[Tensor, Tensor]:
    """Return where rays enter and leave a box, within their near and far: distances (n,), (n,); 0, 0 where they miss it."""
    low, high = (torch.as_tensor(bound, dtype=rays.origins.dtype, device=rays.origins.device) for bound in box.bounds)
    tiny = torch.finfo(rays.origins.dtype).tiny ** 0.5  # a ray along a face meets it at infinity, not at 0 * infinity
    slope = torch.where(rays.directions.abs() < tiny, torch.full_like(rays.directions, tiny), rays.directions)
    first, second = (low - rays.origins) / slope, (high - rays.origins) / slope
    enter = torch.minimum(first, second).amax(-1).maximum(rays.near)
    leave = torch.maximum(first, second).amin(-1).minimum(rays.far)
    hit = leave > enter
    return torch.where(hit, enter, torch.zeros_like(enter)), torch.where(hit, leave, torch.zeros_like(leave))


def background_colour(background: str | Sequence[float] | Tensor) -> Tensor:
    """Return red, green, blue (3,) of "white", "black" or three numbers in [0, 1]."""
    if isinstance(background, str):
        if background not in BACKGROUNDS:
            raise unknown_name("background", background, BACKGROUNDS)
        return torch.tensor(BACKGROUNDS[background])
    colour = torch.as_tensor(background)
    if colour.shape != (3,) or not bool(((colour >= 0) & (colour <= 1)).all()):
        raise ShapeMismatch(f"Got the background {background!r:.80}, expected red, green and blue in [0, 1].")
    return colour if colour.is_floating_point() else colour.float()
