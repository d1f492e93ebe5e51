"""Floor 6: means, sums and extrema: over pixels they are integrals, or are taken on the grid."""

from __future__ import annotations

import torch
from torch import Tensor

from inrbridge.models.converted.located import Located, NeedsGrid
from inrbridge.models.converted.rules.table import Run, rule
from inrbridge.models.converted.rules.through_grid import rasterize, through_grid
from inrbridge.models.converted.vocabulary import FUNCTIONS


def split_dims(x: Located, dim) -> tuple[list[int], bool]:
    """Return the axes of `values` that dimensions of the discrete tensor are, and whether the points are among them.

    Raises:
        NeedsGrid: some axes of the pixels are, and some are not.
    """
    dims = list(range(x.ndim)) if dim is None or dim == () else [dim] if isinstance(dim, int) else list(dim)
    axes = [x.dim(d) for d in dims]
    over = axes.count(None)
    if over not in (0, x.spread):
        raise NeedsGrid(x.level, "it looks along one axis of the pixels alone")
    return [a for a in axes if a is not None], over > 0


def integral(x: Located) -> Tensor:
    """The mean over the points, under their quadrature weights: (.., 1, ..)."""
    values = x.values.movedim(x.axis, -2) if x.axis < x.values.ndim - 1 else x.values[..., None]
    weights = x.level.points.weights.to(values)
    mean = ((weights / weights.sum()) @ values).unsqueeze(-2)
    return mean.movedim(-2, x.axis) if x.axis < x.values.ndim - 1 else mean[..., 0]


def _kept(x: Located, reduced: Tensor, axes: list[int], over: bool, keepdim: bool):
    """A result whose reduced axes are still there, as torch would return it."""
    gone = sorted([*axes, *([x.axis] if over else [])], reverse=True)
    if over:
        if keepdim:
            return reduced.reshape(*reduced.shape[: x.axis], *(1,) * x.spread, *reduced.shape[x.axis + 1 :])
        for axis in gone:
            reduced = reduced.squeeze(axis)
        return reduced
    if keepdim:
        return x.with_values(reduced)
    for axis in gone:
        reduced = reduced.squeeze(axis)
    return Located(reduced, x.level, x.axis - sum(a < x.axis for a in axes), x.tokens)


@rule("torch.mean", ".mean")
def mean(run: Run, input, dim=None, keepdim=False, *, dtype=None):
    """Mean: over pixels the normalized integral."""
    axes, over = split_dims(input, dim)
    values = integral(input) if over else input.values
    if axes:
        values = values.mean(axes, keepdim=True)
    return _kept(input, values, axes, over, keepdim)


@rule("torch.sum", ".sum")
def total(run: Run, input, dim=None, keepdim=False, *, dtype=None):
    """Sum: over pixels the normalized integral times their number."""
    axes, over = split_dims(input, dim)
    values = integral(input) * input.level.size if over else input.values
    if axes:
        values = values.sum(axes, keepdim=True)
    return _kept(input, values, axes, over, keepdim)


@rule("torch.var", ".var", "torch.std", ".std")
def _spread(run: Run, *args, **kwargs):
    raise NeedsGrid(args[0].level, "a variance without a normalization is taken on the pixels")


def _register(name: str) -> None:
    @rule(f"torch.{name}", f".{name}")
    def apply(run: Run, input, dim=None, keepdim=False, **kwargs):
        """Over pixels what torch gives on the grid, the same statistic at any density of points; else of each point."""
        axes, over = split_dims(input, dim)
        if over or (name in ("max", "min", "argmax", "prod", "norm") and len(axes) != 1):
            image = rasterize(run, input)
            return FUNCTIONS[f"torch.{name}"](
                image, *([] if dim is None else [dim]), **({"keepdim": True} if keepdim else {}), **kwargs
            )
        result = FUNCTIONS[f"torch.{name}"](input.values, axes if name in ("amax", "amin") else axes[0], keepdim=True, **kwargs)
        if isinstance(result, Tensor):
            return _kept(input, result, axes, False, keepdim)
        return tuple(_kept(input, part, axes, False, keepdim) for part in result)


for _name in ("amax", "amin", "max", "min", "argmax"):
    _register(_name)


def _register_softmax(kind: str) -> None:
    @rule(f"torch.{kind}", f".{kind}", f"functional.{kind}")
    def apply(run: Run, input, dim=None, *args, **kwargs):
        axis = None if dim is None else input.dim(dim)
        if axis is None:
            raise NeedsGrid(input.level, "its softmax over pixels may be summed in any way")
        return input.with_values(FUNCTIONS[f"torch.{kind}"](input.values, axis))


for _name in ("softmax", "log_softmax"):
    _register_softmax(_name)


@rule("Softmax", "LogSoftmax", "Softmax2d", "GLU")
def _module(run: Run, module, input):
    axis = input.dim(getattr(module, "dim", 1))
    if axis is None:
        raise NeedsGrid(input.level, "it runs over pixels")
    name = type(module).__name__
    if name == "GLU":
        return input.with_values(torch.nn.functional.glu(input.values, axis))
    return input.with_values((torch.log_softmax if name == "LogSoftmax" else torch.softmax)(input.values, axis))


@rule(*(f"functional.adaptive_avg_pool{n}d" for n in (1, 2, 3)))
def adaptive_avg_pool(run: Run, input, output_size):
    """To one value the integral; to several the means of pixels that torch takes."""
    sizes = output_size if isinstance(output_size, list | tuple) else (output_size,)
    if all(n == 1 for n in sizes) and input.is_map:
        return _kept(input, integral(input), [], True, True)
    function = FUNCTIONS[f"functional.adaptive_avg_pool{len(input.level.shape)}d"]
    return through_grid(run, input, lambda image: function(image, output_size))


@rule("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d")
def _adaptive_module(run: Run, module, input):
    return adaptive_avg_pool(run, input, module.output_size)
