"""Floor 6: means, sums and extrema: over pixels they are integrals, or are taken on the grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from inrbridge.models.converted.located import Located, NeedsGrid
from inrbridge.models.converted.rules.pointwise import combined
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
    if keepdim:
        return reduced.reshape(*reduced.shape[: x.axis], *(1,) * x.spread, *reduced.shape[x.axis + 1 :]) if over else (
            x.with_values(reduced))  # fmt: skip
    for axis in gone:
        reduced = reduced.squeeze(axis)
    return reduced if over else Located(reduced, x.level, x.axis - sum(a < x.axis for a in axes), x.tokens)


def _number(x: Located, dim) -> int:
    """How many values of the discrete tensor are reduced to one."""
    axes, over = split_dims(x, dim)
    return math.prod(x.values.shape[a] for a in axes) * (x.level.size if over else 1)


@rule("torch.mean", ".mean")
def mean(run: Run, input, dim=None, keepdim=False, *, dtype=None):
    """Mean: over pixels the normalized integral."""
    axes, over = split_dims(input, dim)
    input = input.with_values(input.values.to(dtype or input.values.dtype))
    values = integral(input) if over else input.values
    if axes:
        values = values.mean(axes, keepdim=True)
    return _kept(input, values, axes, over, keepdim)


@rule("torch.sum", ".sum")
def total(run: Run, input, dim=None, keepdim=False, *, dtype=None):
    """Sum: over pixels the normalized integral times their number."""
    return _times(mean(run, input, dim, keepdim, dtype=dtype), _number(input, dim))


def _times(x: Located | Tensor, factor: float) -> Located | Tensor:
    return x.with_values(x.values * factor) if isinstance(x, Located) else x * factor


def _power(x: Located | Tensor, exponent: float) -> Located | Tensor:
    return x.with_values(x.values**exponent) if isinstance(x, Located) else x**exponent


@rule("torch.var", ".var")
def variance(run: Run, input, dim=None, unbiased=True, keepdim=False, *, correction=None):
    """Variance: over pixels the integral of squared deviations, with torch's correction for the number of pixels."""
    if isinstance(dim, bool):  # torch.var(input, unbiased)
        dim, unbiased = None, dim
    number = _number(input, dim)
    centre = mean(run, input, dim, True)
    if isinstance(centre, Located):
        deviations = input.values - centre.values
    else:
        after = centre.ndim - input.axis - input.spread
        deviations = input.values - centre.reshape(*centre.shape[: input.axis], 1, *centre.shape[centre.ndim - after :])
    spread = mean(run, input.with_values(deviations**2), dim, keepdim)
    return _times(spread, number / max(0, number - (int(unbiased) if correction is None else correction)))


@rule("torch.std", ".std")
def deviation(run: Run, input, *args, **kwargs):
    """Standard deviation."""
    return _power(variance(run, input, *args, **kwargs), 0.5)


@rule("torch.var_mean", "torch.std_mean")
def _moments(run: Run, *args, **kwargs):
    raise NeedsGrid(args[0].level, "write x.var(..) and x.mean(..)")


@rule("torch.norm", ".norm")
def norm(run: Run, input, p="fro", dim=None, keepdim=False, *, dtype=None):
    """Norm of values: over pixels the root of an integral of powers, times the number of pixels."""
    p = 2.0 if p in ("fro", None) else p
    if not isinstance(p, int | float) or not 0 < p < math.inf:
        raise NeedsGrid(input.level, f"its norm is of the kind {p}")
    return _power(total(run, input.with_values(input.values.abs() ** p), dim, keepdim, dtype=dtype), 1 / p)


@rule("linalg.vector_norm")
def vector_norm(run: Run, x, ord=2, dim=None, keepdim=False, *, dtype=None):
    """Norm of values, as torch.linalg has it."""
    return norm(run, x, ord, dim, keepdim, dtype=dtype)


@rule("functional.normalize")
def normalize(run: Run, input, p=2.0, dim=1, eps=1e-12):
    """Divide by a norm of what lies at one point."""
    axes, over = split_dims(input, dim)
    if over or len(axes) != 1:
        raise NeedsGrid(input.level, "it divides by a norm over pixels")
    return input.with_values(functional.normalize(input.values, p, axes[0], eps))


def _register_extremum(name: str) -> None:
    function = FUNCTIONS[f"torch.{name}"]

    @rule(f"torch.{name}", f".{name}")
    def apply(run: Run, input, dim=None, keepdim=False, *, other=None):
        """Over pixels what torch gives on the grid, the same statistic at any density of points; else of each point."""
        if other is not None or isinstance(dim, Located | Tensor):  # torch.max(input, other)
            return combined(run, function, (input, dim if other is None else other))
        axes, over = split_dims(input, dim)
        if over:
            return function(rasterize(run, input), *([] if dim is None else [dim, keepdim]))
        found = function(input.values, axes if name in ("amax", "amin") else axes[0], keepdim=True)
        if isinstance(found, Tensor):
            return _kept(input, found, axes, False, keepdim)
        return tuple(_kept(input, part, axes, False, keepdim) for part in found)


for _name in ("amax", "amin", "max", "min", "argmax"):
    _register_extremum(_name)


def _register_softmax(kind: str) -> None:
    @rule(f"torch.{kind}", f".{kind}", f"functional.{kind}")
    def apply(run: Run, input, dim=None, _stacklevel=3, dtype=None):
        axis = None if dim is None else input.dim(dim)
        if axis is None:
            raise NeedsGrid(input.level, "its softmax over pixels may be summed in any way")
        return input.with_values(FUNCTIONS[f"torch.{kind}"](input.values, axis, dtype=dtype))


for _name in ("softmax", "log_softmax"):
    _register_softmax(_name)


@rule("Softmax", "LogSoftmax", "Softmax2d")
def _softmax_module(run: Run, module, input):
    axis = input.dim(getattr(module, "dim", 1))
    if axis is None:
        raise NeedsGrid(input.level, "its softmax over pixels may be summed in any way")
    return input.with_values((torch.log_softmax if type(module).__name__ == "LogSoftmax" else torch.softmax)(input.values, axis))


@rule(*(f"functional.adaptive_avg_pool{n}d" for n in (1, 2, 3)))
def adaptive_avg_pool(run: Run, input, output_size):
    """To one value the integral; to several the means of pixels that torch takes."""
    sizes = output_size if isinstance(output_size, list | tuple) else (output_size,)
    if all(n == 1 for n in sizes) and input.is_map:
        return _kept(input, integral(input), [], True, True)
    function = FUNCTIONS[f"functional.adaptive_avg_pool{len(input.level.shape)}d"]
    return through_grid(run, input, lambda image: function(image, output_size), keeps_size=True)


@rule("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d")
def _adaptive_module(run: Run, module, input):
    return adaptive_avg_pool(run, input, module.output_size)
