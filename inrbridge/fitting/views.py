"""Floor 8: fit a radiance field to posed images by rendering it (Mildenhall et al. 2020; grids of Müller et al. 2022)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from inrbridge.domains import Box, Domain, Product, Sphere
from inrbridge.errors import ConfigError, NotFinite, PluginError
from inrbridge.field import Field, channel_names
from inrbridge.io import build_field
from inrbridge.plugins import get_format
from inrbridge.progress import Progress
from inrbridge.radiance import Medium, Occupancy, Rays, Views, render, render_rays
from inrbridge.radiance.marching import background_colour

CHANNELS = ("red", "green", "blue", "density")
REACH = 3 / 8  # half the side of the default box over the cameras' mean distance: 1.5 for the Blender scenes, seen from 4
CELLS = 48  # of the occupancy grid, along each side
LOOK = 32  # steps between two looks at the occupancy
EMPTY = 1.0  # optical depth that counts as empty while fitting; fog so thin costs time and shows little
FADE = 0.8  # of what the grid remembers, at each look
TICK = 10  # steps between two signs of life


def fit_views(
    format: str,
    images: Tensor,
    poses: Tensor,
    focal: float,
    *,
    domain: Domain | None = None,
    steps: int | None = None,
    lr: float | None = None,
    rays: int = 1024,
    samples: int = 64,
    background: str | Sequence[float] | None = None,
    held_out: int | Sequence[int] = 8,
    near: float = 0.0,
    far: float = math.inf,
    generator: torch.Generator | None = None,
    progress: bool | Callable[[int, int | None, Mapping], object] | None = None,
    device: str | torch.device | None = None,
    **options: object,
) -> Field:
    """Fit a radiance field to images whose cameras are known.

    Args:
        format: a format that builds radiance fields: channels red, green, blue in [0, 1] and density.
        images: (n, h, w, 3), or 4 with straight alpha, uint8 or in [0, 1].
        poses: (n, 4, 4) camera to world, OpenGL axes; focal: in pixels.
        domain: of the field; default `Product(scene_box(poses), Sphere())`.
        steps, lr: of Adam with a cosine schedule; default: what the format advises.
        rays: drawn from all pixels at each step; samples: along each ray.
        background: "random" (a new colour for each ray and step, which forbids to paint empty space; needs alpha), "white",
            "black" or three numbers; default "random" with alpha, else "white".
        held_out: every so many-th image, or these images, are not learnt from; `field.psnr` is measured on them. 0: none.
        near, far: planes between which the cameras see.
        generator: draws the first weights, rays and samples; without one the seed is 0.
        progress: True tells on standard error; a callable gets (done, total, figures).
        **options: of the format's `build`.

    Returns:
        The field, on the CPU, with `.psnr` in dB, the mean over the held-out images (None without any).

    Raises:
        ConfigError, ShapeMismatch, UnknownFormat: a setting that does not exist or does not fit.
        MissingDependency: nerfacc is not installed.
        NotFinite: the optimisation diverged.
    """
    views = Views(images, poses, focal)
    has_alpha = views.images.shape[-1] == 4
    background = background if background is not None else ("random" if has_alpha else "white")
    if background == "random" and not has_alpha:
        raise ConfigError('Got background="random" for images without alpha, expected the colour behind them, e.g. "white".')
    device = torch.device(device or "cpu")
    tested = _held_out(len(views), held_out)
    learnt = [i for i in range(len(views)) if i not in tested]
    advised = get_format(format).fit_defaults()
    steps, lr = int(advised["steps"] if steps is None else steps), float(advised["lr"] if lr is None else lr)
    if steps < 0 or not (lr > 0 and math.isfinite(lr)) or rays < 1 or samples < 1 or not learnt:
        raise ConfigError(
            f"Got steps={steps}, lr={lr}, rays={rays}, samples={samples} and {len(learnt)} images to learn from, "
            "expected at least one of each and a finite rate above 0."
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    domain = Product(scene_box(views.poses), Sphere()) if domain is None else domain
    field = _fresh(format, domain, generator, options).to(device)
    planes = {"near": near, "far": far}
    seen = _Photographs(views[learnt], planes, background, device)
    with Progress(steps, "fit", progress) as bar:
        occupancy = _optimize(field, seen, steps, lr, rays, samples, generator, bar)
        field.psnr = None
        if tested:
            behind = "white" if background == "random" else background
            field.psnr = view_psnr(field, views[tested], background=behind, samples=2 * samples, occupancy=occupancy, **planes)
        bar.advance(0, **({} if field.psnr is None else {"psnr": field.psnr}))
    return field.to("cpu")


def scene_box(poses: Tensor) -> Box:
    """Return a cube around the point nearest to all optical axes of poses (n, 4, 4), its half side 3/8 of their mean distance."""
    poses = torch.as_tensor(poses).double()
    places, axes = poses[:, :3, 3], poses[:, :3, 2]
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]  # projects along each axis
    normal, right = across.sum(0), (across @ places[:, :, None]).sum(0)
    middle = torch.linalg.lstsq(normal, right, driver="gelsd").solution[:, 0]
    half = REACH * float((places - middle).norm(dim=-1).mean())
    if not half > 0:
        raise ConfigError("Got cameras that all stand where they look, expected cameras around a scene; pass a domain.")
    digits = 3 - math.floor(math.log10(half))
    half, middle = round(half, digits), [round(float(m), digits) for m in middle]
    return Box([m - half for m in middle], [m + half for m in middle])


def view_psnr(field: Field, views: Views, *, background="white", samples: int = 128, occupancy: Occupancy | None = None,
              **planes: float) -> float:  # fmt: skip
    """Return the mean over images of 10 log10(1 / MSE) in dB between the field's renderings and the views."""
    colour, total = background_colour(background), 0.0
    for i in range(len(views)):
        truth = _against(views.images[i], colour)
        camera = views.camera(i, **planes)
        found = render(field, camera, samples=samples, background=colour, occupancy=occupancy).colours.cpu()
        total += -10 * math.log10(max(1e-10, float((found - truth).double().square().mean())))
    return total / len(views)


class _Photographs:
    """The images that are learnt from, pixel by pixel."""

    def __init__(self, views: Views, planes: dict, background, device: torch.device):
        self.views, self.planes, self.device = views.to(device), planes, device
        self.pixels = self.views.images.reshape(-1, views.images.shape[-1])
        self.colour = None if background == "random" else background_colour(background).to(device)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Rays, Tensor, Tensor]:
        """Return rays, their true colours (count, 3), and the background (count, 3) behind them."""
        rows = torch.randint(len(self.pixels), (count,), generator=generator, device=generator.device).to(self.device)
        if self.colour is None:
            behind = torch.rand(count, 3, generator=generator, device=generator.device).to(self.device)
        else:
            behind = self.colour.expand(count, 3)
        return self.views.rays(rows, **self.planes), _against(self.pixels[rows], behind), behind


def _against(pixels: Tensor, background: Tensor) -> Tensor:
    if pixels.shape[-1] == 3:
        return pixels
    return pixels[..., :3] * pixels[..., 3:] + background * (1 - pixels[..., 3:])


def _optimize(field, seen: _Photographs, steps, lr, rays, samples, generator, bar: Progress) -> Occupancy | None:
    """Fit the field in place; return where it found matter."""
    medium = Medium.of(field)
    parameters = [value for value in field.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.99), eps=1e-12)
    occupancy = Occupancy(medium.box, CELLS, empty=EMPTY, device=seen.device)
    warm = max(LOOK, steps // 10)  # until then space is dark everywhere, and every cell is looked at
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.5 * lr * (1 + math.cos(math.pi * step / steps))
        if (step >= warm and step % LOOK == 0) or step == warm:
            occupancy.update(medium.density, generator, decay=FADE)
        drawn, truth, behind = seen.draw(rays, generator)
        known = occupancy if step >= warm else None
        found = render_rays(medium, drawn, samples=samples, background=behind, occupancy=known, generator=generator)
        loss = nn.functional.mse_loss(found.colours, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % TICK == 0 or step + 1 == steps:
            error = float(loss.detach())
            if not math.isfinite(error):
                raise NotFinite("Fitting views diverged: the loss is NaN or infinite; expected a smaller step: lower lr.")
            bar.advance(TICK if (step + 1) % TICK == 0 else steps % TICK, train_psnr=-10 * math.log10(max(error, 1e-10)))
    return Occupancy.of(field, CELLS) if steps else None


def _fresh(format: str, domain: Domain, generator: torch.Generator, options: Mapping[str, object]) -> nn.Module:
    field = build_field(format, domain, len(CHANNELS), generator=generator, **options)
    if not isinstance(field, nn.Module) or not any(p.requires_grad for p in field.parameters()):
        raise PluginError(
            f'Format "{format}" built a {type(field).__name__}, expected an nn.Module to train; choose one such as ngp or nerf.'
        )
    if channel_names(field) == tuple(str(i) for i in range(len(CHANNELS))):
        with contextlib.suppress(AttributeError):
            field.channel_names = CHANNELS
    return field


def _held_out(count: int, wanted: int | Sequence[int]) -> list[int]:
    """Return the images to measure on."""
    if isinstance(wanted, int):
        if wanted < 0:
            raise ConfigError(f"Got held_out={wanted}, expected 0 for none, or every so many-th image, or a list of images.")
        return list(range(0, count, wanted)) if wanted else []
    found = sorted({int(i) for i in wanted})
    if found and not (found[0] >= 0 and found[-1] < count):
        raise ConfigError(f"Got held_out images {found[:5]}, expected numbers from 0 to {count - 1}.")
    return found
