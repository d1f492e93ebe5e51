"""Floor 7: closed-form corrections of one layer, so that at points it gives what the discrete network has there.

Sums go over all fields and points, under the quadrature weights. One correction is of a gain and an offset for each output
channel, which match its first two moments; the other of all weights of the layer (ridge regression, centred at those it has).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrbridge.errors import ConfigError
from inrbridge.models.converted.located import Located, from_grid
from inrbridge.models.converted.program import Step
from inrbridge.models.converted.rules import Run, apply_on_points
from inrbridge.models.converted.rules.through_grid import locate
from inrbridge.models.converted.vocabulary import build_module, module_options

LIMIT = 4.0  # a gain beyond this, up or down, is noise of a channel that hardly moves
COLUMNS = 2**25  # inputs of a regression that are held at a time: 128 MB in float32

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
REGRESSED = (*_CONVOLUTIONS, nn.Linear)  # layers whose weights can be corrected
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)


@dataclass(frozen=True, eq=False)
class Calls:
    """One layer at work, on one part of the fields after the other.

    Args:
        step, runs, inputs: with what it is called at points: (args, kwargs) for each part.
        found: what it gives there. wanted: what the discrete network has on its pixels.
    """

    step: Step
    runs: list[Run]
    inputs: list[tuple[list, dict]]
    found: list[Located | Tensor]
    wanted: list[Tensor]

    def pairs(self, dim: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """For each part what the layer gives (b, n, c), what the network has at the same points, and the weights (n,).

        Args:
            dim: of the channels, in the discrete tensor.
        """
        for run, found, wanted in zip(self.runs, self.found, self.wanted, strict=True):
            yield _rows(found, dim), _rows(_target(run, found, wanted), dim), _weights(found, dim)


def adjustable(layer: nn.Module) -> int | None:
    """Return the dimension of the output channels, each of which has a gain and an offset in the weights; None: no such layer."""
    if isinstance(layer, nn.Linear):
        return -1
    known = isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED, *_NORMS)) and layer.weight is not None and layer.bias is not None
    return 1 if known else None


def match_moments(layer: nn.Module, calls: Calls, dim: int) -> list[Located | Tensor]:
    """Give each output channel the gain and offset with which its mean and variance are those of the discrete network.

    Returns:
        What the layer then gives.
    """
    here, there = _Moments(), _Moments()
    for found, wanted, weights in calls.pairs(dim):
        here.add(found, weights)
        there.add(wanted, weights)
    gain = (there.variance / here.variance.clamp(min=1e-300)).sqrt().clamp(1 / LIMIT, LIMIT)
    floor = 1e-10 * (here.mean.square() + there.mean.square() + here.variance.mean())
    gain = torch.where((here.variance > floor) & (there.variance > floor), gain, torch.ones_like(gain))
    offset = there.mean - gain * here.mean
    gain, offset = gain.to(layer.weight), offset.to(layer.weight)
    _scale_outputs(layer, gain)
    layer.bias.mul_(gain).add_(offset)
    return [_scaled(found, gain, offset, dim) for found in calls.found]


def regress(layer: nn.Module, calls: Calls, dim: int, ridge: float) -> list[Located | Tensor]:
    """Correct the weights W and bias b of a convolution or linear layer to those that minimize, for each group of channels,

        sum over fields and points of  w |x (W + D) + b + e - y|^2  +  ridge m |D|^2,

    with inputs x (the field at the nodes of the kernel, for all channels), targets y, and m the sum of w x^2, its mean over the
    inputs. Hoerl & Kennard 1970.

    Returns:
        What the layer then gives.
    """
    groups = getattr(layer, "groups", 1)
    sums = _Sums(groups)
    for place, (found, wanted, weights) in enumerate(calls.pairs(dim)):
        step = max(1, COLUMNS // max(1, found.shape[1] * groups * layer.weight[0].numel()))
        for start in range(0, len(found), step):
            part = slice(start, start + step)
            sums.add(_inputs(layer, calls, place, part, dim), (wanted - found)[part], weights)
    change = sums.solve(ridge, calls.step).to(layer.weight)  # (groups, inputs + 1, outputs)
    layer.weight.add_(change[:, :-1].mT.reshape(layer.weight.shape))
    layer.bias.add_(change[:, -1].flatten())
    return [apply_on_points(run, calls.step, layer, *given) for run, given in zip(calls.runs, calls.inputs, strict=True)]


class _Moments:
    """Mean and variance of channels, over fields and points; sums in float64."""

    def __init__(self):
        self.count, self.sum, self.squares = 0.0, 0.0, 0.0

    def add(self, rows: Tensor, weights: Tensor | None) -> None:
        """Count rows (b, n, c) that weigh (n,), of mean 1; None: the same."""
        rows = rows.double()
        weighted = rows if weights is None else rows * weights[:, None]
        self.count += rows.shape[0] * rows.shape[1]
        self.sum = self.sum + weighted.sum((0, 1))
        self.squares = self.squares + (weighted * rows).sum((0, 1))

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count

    @property
    def variance(self) -> Tensor:
        return (self.squares / self.count - self.mean.square()).clamp(min=0)


class _Sums:
    """The normal equations of a regression for each group of channels, summed up in float64."""

    def __init__(self, groups: int):
        self.groups, self.rows = groups, 0
        self.gram, self.right = 0.0, 0.0

    def add(self, inputs: Tensor, residual: Tensor, weights: Tensor | None) -> None:
        """Count inputs (b, n, groups * q) and what is missing (b, n, groups * o), both group by group."""
        x, r = (_grouped(v, self.groups) for v in (inputs, residual))  # (groups, rows, ..)
        x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)
        left = x if weights is None else x * weights.repeat(len(inputs))[:, None]
        self.rows += x.shape[1]
        self.gram = self.gram + (left.mT @ x).double()
        self.right = self.right + (left.mT @ r).double()

    def solve(self, ridge: float, step: Step) -> Tensor:
        """Return the change of the weights (groups, q + 1, o), the bias last."""
        unknowns = self.gram.shape[1]
        if ridge == 0 and self.rows < unknowns:
            raise ConfigError(
                f'Got {self.rows} values to correct the {unknowns} weights of each output of "{step.target}", expected more; '
                "pass more fields, or ridge above 0."
            )
        penalty = torch.eye(unknowns, dtype=torch.float64, device=self.gram.device)
        penalty[-1, -1] = 0.0
        diagonal = self.gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(1)
        return torch.linalg.solve(self.gram + (ridge * diagonal).clamp(min=1e-12)[:, None, None] * penalty, self.right)


def _grouped(values: Tensor, groups: int) -> Tensor:
    return values.flatten(0, 1).unflatten(1, (groups, -1)).transpose(0, 1)


def _inputs(layer: nn.Module, calls: Calls, place: int, part: slice, dim: int) -> Tensor:
    """What each weight of an output multiplies, (b, n, groups * q): what the layer gives under kernels with a single 1."""
    options = module_options(layer) | {"bias": False}
    groups, q = options.get("groups", 1), layer.weight[0].numel()
    options["out_features" if isinstance(layer, nn.Linear) else "out_channels"] = groups * q
    probe = build_module(type(layer).__name__, options).to(layer.weight)
    probe.weight.copy_(torch.eye(q).repeat(groups, 1).reshape(probe.weight.shape))
    args, kwargs = _sliced(calls.inputs[place], part)
    return _rows(apply_on_points(calls.runs[place], calls.step, probe, args, kwargs), dim)


def _sliced(value, part: slice):
    """Take some of the fields, which are the first axis of all that flows."""
    if isinstance(value, Located):
        return value.with_values(value.values[part])
    if isinstance(value, Tensor):
        return value[part]
    if isinstance(value, list | tuple):
        return type(value)(_sliced(item, part) for item in value)
    return {key: _sliced(item, part) for key, item in value.items()} if isinstance(value, dict) else value


def _target(run: Run, found: Located | Tensor, wanted: Tensor) -> Located | Tensor:
    """What the discrete network has at the points of its copy's output."""
    if not isinstance(found, Located):
        return wanted
    if found.tokens:
        wanted = from_grid(wanted.unflatten(found.axis, found.level.shape), found.level, found.axis).values
        wanted = wanted.unflatten(found.axis, found.level.shape)
    return locate(run, wanted, found.level, found.axis)


def _rows(x: Located | Tensor, dim: int) -> Tensor:
    """Return values (b, n, c); of a tensor without points all axes but the first and the channels count as points."""
    if isinstance(x, Located):
        values = x.values.movedim((x.axis, x.dim(dim)), (-2, -1))
        return values.reshape(values.shape[0], -1, values.shape[-1])
    values = x.movedim(dim, -1)
    return values.reshape(values.shape[0], -1, values.shape[-1])


def _weights(x: Located | Tensor, dim: int) -> Tensor | None:
    """Quadrature weights, of mean 1, of the rows of a map."""
    if not isinstance(x, Located):
        return None
    weights = x.level.points.weights.to(x.values)
    return (weights / weights.mean()).repeat(_rows(x, dim).shape[1] // len(weights))


def _scale_outputs(layer: nn.Module, gain: Tensor) -> None:
    weight = layer.weight
    if isinstance(layer, _TRANSPOSED):  # (in, out / groups, *size)
        grouped = weight.unflatten(0, (layer.groups, -1))
        grouped.mul_(gain.reshape(layer.groups, 1, -1, *[1] * (weight.ndim - 2)))
    else:
        weight.mul_(gain.reshape(-1, *[1] * (weight.ndim - 1)))


def _scaled(x: Located | Tensor, gain: Tensor, offset: Tensor, dim: int) -> Located | Tensor:
    values, axis = (x.values, x.dim(dim)) if isinstance(x, Located) else (x, dim % x.ndim)
    shape = [1] * values.ndim
    shape[axis] = -1
    values = values * gain.reshape(shape) + offset.reshape(shape)
    return x.with_values(values) if isinstance(x, Located) else values
