"""Floor 6: operations whose results belong to pixels: the map is read onto its grid, the result from its grid onto points.

Upsampling of any mode, transposed convolutions and shuffles make finer maps, all of whose pixels are told by the coarse ones;
a coarse grid is cheap. On the pixels themselves both readings are the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from inrbridge.discretization import Discretization
from inrbridge.models.converted.levels import Level, grid_points
from inrbridge.models.converted.located import Located, NeedsGrid, from_grid
from inrbridge.models.converted.rules.table import Reading, Run, rule
from inrbridge.nn import Sampled
from inrbridge.stencils import build_stencil


def grid_of(level: Level) -> Discretization:
    """Return the pixels of a level as points, the same object at each call."""
    if level.on_grid:
        return level.points
    key = ("grid of", level.shape, level.start, level.step)
    cache = level.points.cache
    if key not in cache:
        cache[key] = grid_points(level.shape, level.start, level.step, level.points.domain, level.points)
    return cache[key]


def read(
    reading: Reading, values: Tensor, level: Level, source: Discretization, target: Discretization, is_input: bool = False
) -> Tensor:
    """Read values (b, n, c) of a level at other points (b, m, c); outside the source's domain they go on as at its edge."""
    if source is target:
        return values
    dim = source.domain.dim
    rule = reading.rule(((0.0,) * dim,), (source.spacing,) * dim, level, is_input)
    return build_stencil(rule, source, target, "replicate").interpolate(values)


def read_input(reading: Reading, sampled: Sampled, root: Level) -> Sampled:
    """Return the samples at the points of the first level."""
    return Sampled(root.points, read(reading, sampled.values, root, sampled.discretization, root.points, is_input=True))


def rasterize(run: Run, x: Located) -> Tensor:
    """Return the discrete tensor (.., *shape, ..) that a Located stands for."""
    if x.level.on_grid:
        return x.on_grid()
    values = _read_along(run, x, x.level.points, grid_of(x.level))
    return values if x.tokens else values.unflatten(x.axis, x.level.shape)


def locate(run: Run, image: Tensor, level: Level, axis: int = 2) -> Located:
    """Put a discrete tensor (.., *shape, ..) onto the points of its level."""
    x = from_grid(image, level, axis)
    return x if level.on_grid else x.with_values(_read_along(run, x, grid_of(level), level.points))


def _read_along(run: Run, x: Located, source: Discretization, target: Discretization) -> Tensor:
    """Read values that lie at the source along their axis of points (.., n, ..) at the target (.., m, ..)."""
    before, after = x.values.shape[: x.axis], x.values.shape[x.axis + 1 :]
    values = x.values.reshape(before.numel(), -1, after.numel())
    return read(run.reading, values, x.level, source, target).reshape(*before, -1, *after)


def through_grid(run: Run, x: Located, operation: Callable[[Tensor], Tensor], keeps_size: bool = False) -> Located | Tensor:
    """Apply an operation on maps (b, c, *shape) -> (b, c', *shape'); a result of one pixel is a plain tensor.

    Args:
        keeps_size: a result of the same shape is the same map.
    """
    if not isinstance(x, Located) or not x.is_map:
        raise NeedsGrid(x.level, "the operation acts on maps (b, c, *shape)")
    image = operation(rasterize(run, x))
    shape = tuple(image.shape[2:])
    if math.prod(shape) == 1:
        return image
    if keeps_size and shape == x.level.shape:
        return x
    level = x.level
    step = tuple(h * n / m for h, n, m in zip(level.step, level.shape, shape, strict=True))
    start = tuple(a - h / 2 + s / 2 for a, h, s in zip(level.start, level.step, step, strict=True))
    return locate(run, image, run.places.reach(shape, start, step, level.points.domain))


_FUNCTIONS = (
    *(f"conv_transpose{n}d" for n in (1, 2, 3)), *(f"adaptive_max_pool{n}d" for n in (1, 2, 3)), "lp_pool1d", "lp_pool2d",
    "interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle",
)  # fmt: skip
_MODULES = (
    *(f"ConvTranspose{n}d" for n in (1, 2, 3)), *(f"AdaptiveMaxPool{n}d" for n in (1, 2, 3)), *(f"LPPool{n}d" for n in (1, 2, 3)),
    "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d", "PixelShuffle", "PixelUnshuffle",
)  # fmt: skip


_RESIZING = ("interpolate", "upsample", "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d", *(
    f"{kind}{n}d" for kind in ("adaptive_max_pool", "AdaptiveMaxPool") for n in (1, 2, 3)))  # fmt: skip


def _register_function(name: str) -> None:
    operation = getattr(functional, name)

    @rule(f"functional.{name}")
    def apply(run: Run, input, *args, **kwargs):
        return through_grid(run, input, lambda image: operation(image, *args, **kwargs), name in _RESIZING)


for _name in _FUNCTIONS:
    _register_function(_name)


@rule(*_MODULES)
def _module(run: Run, module, input, *args, **kwargs):
    return through_grid(run, input, lambda image: module(image, *args, **kwargs), type(module).__name__ in _RESIZING)
