"""Floor 6: operations on each value by itself, with torch's broadcasting."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from inrbridge.models.converted.located import Located, NeedsGrid
from inrbridge.models.converted.rules.table import Run, rule
from inrbridge.models.converted.rules.through_grid import locate
from inrbridge.models.converted.vocabulary import FUNCTIONS, POINTWISE, POINTWISE_METHODS, POINTWISE_MODULES


def together(run: Run, values: list | tuple) -> tuple[Located, list]:
    """Bring what is combined value by value onto the same points.

    Returns:
        A Located that says where the result lies, and the operands: tensors that broadcast as the discrete ones do.

    Raises:
        NeedsGrid: an operand has a value of its own for each token.
    """
    located = [v for v in values if isinstance(v, Located)]
    home = max(located, key=lambda v: v.ndim)
    ndim = max([home.ndim, *(v.ndim for v in values if isinstance(v, Tensor))])
    home_axis = home.axis + ndim - home.ndim  # of the points in the result
    operands = []
    for v in values:
        if isinstance(v, Located):
            if v.level is not home.level or v.tokens != home.tokens or v.axis - v.ndim != home.axis - home.ndim:
                raise NeedsGrid(home.level, f"maps of shapes {tuple(v.shape)} and {tuple(home.shape)} meet in it")
            operands.append(v.values)
        elif isinstance(v, Tensor) and v.ndim > 0:
            operands.append(_plain(run, v, home, ndim, home_axis))
        else:
            operands.append(v)
    tokens, level = home.tokens, home.level
    return Located(home.values, level, home_axis, tokens), operands


def _plain(run: Run, tensor: Tensor, home: Located, ndim: int, axis: int) -> Tensor:
    """A plain operand with its pixels, if it has any, at `axis`."""
    full = tensor.reshape((1,) * (ndim - tensor.ndim) + tuple(tensor.shape))
    pixels = tuple(full.shape[axis : axis + home.spread])
    if all(n == 1 for n in pixels):
        return full.flatten(axis, axis + home.spread - 1)
    if home.tokens and not home.level.on_grid:
        raise NeedsGrid(home.level, "it adds a value of its own to each token")
    shape = home.level.shape if not home.tokens else (home.level.size,)
    full = full.expand(*full.shape[:axis], *shape, *full.shape[axis + home.spread :])
    return full if home.tokens else locate(run, full, home.level, axis).values


def combined(run: Run, operation, args, kwargs=None) -> Located:
    """Apply an operation value by value; at least one of the arguments is Located."""
    kwargs = kwargs or {}
    names = list(kwargs)
    home, operands = together(run, [*args, *kwargs.values()])
    values = operation(*operands[: len(args)], **dict(zip(names, operands[len(args) :], strict=True)))
    if values.shape[home.axis] != len(home.level.points):
        raise NeedsGrid(home.level, "its values do not stay at their points")
    return home.with_values(values)


def _register(name: str, operation) -> None:
    @rule(name)
    def apply(run: Run, *args, **kwargs):
        return combined(run, operation, args, kwargs)


for _name in sorted(POINTWISE):
    _register(_name, FUNCTIONS[_name])
for _name in sorted(POINTWISE_METHODS):
    _register(f".{_name}", lambda tensor, *args, _name=_name, **kwargs: getattr(tensor, _name)(*args, **kwargs))


@rule(*sorted(POINTWISE_MODULES))
def _module(run: Run, module, input):
    return input.with_values(module(input.values))


@rule("PReLU")
def _prelu(run: Run, module, input):
    return prelu(run, input, module.weight)


@rule("functional.prelu")
def prelu(run: Run, input, weight):
    """A slope for all channels, or for each of dimension 1."""
    if input.axis < 2 and weight.numel() > 1:
        raise NeedsGrid(input.level, "it has a slope for each point")
    return input.with_values(functional.prelu(input.values, weight))


@rule("functional.dropout")
def _dropout(run: Run, input, p=0.5, training=True, inplace=False):
    return input.with_values(functional.dropout(input.values, p, training, inplace))


@rule("functional.alpha_dropout")
def _alpha_dropout(run: Run, input, p=0.5, training=False, inplace=False):
    return input.with_values(functional.alpha_dropout(input.values, p, training, inplace))


@rule(*(f"functional.dropout{n}d" for n in (1, 2, 3)))
def drop_channels(run: Run, input, p=0.5, training=True, inplace=False):
    """Drop whole channels of a map."""
    if not input.is_map:
        raise NeedsGrid(input.level, "it drops the channels of maps (b, c, *shape)")
    return input.with_values(functional.dropout1d(input.values, p, training, inplace))


@rule("Dropout1d", "Dropout2d", "Dropout3d")
def _dropout_module(run: Run, module, input):
    return drop_channels(run, input, module.p, module.training)


@rule("functional.glu")
def glu(run: Run, input, dim=-1):
    """One half of an axis gates the other."""
    axis = input.dim(dim)
    if axis is None:
        raise NeedsGrid(input.level, "it gates pixels by pixels")
    return input.with_values(functional.glu(input.values, axis))


@rule("GLU")
def _glu_module(run: Run, module, input):
    return glu(run, input, module.dim)


def _register_like(name: str) -> None:
    @rule(f"torch.{name}_like")
    def alike(run: Run, input, *args, **kwargs):
        return input.with_values(FUNCTIONS[f"torch.{name}_like"](input.values, *args, **kwargs))

    if name.startswith("rand"):
        return

    @rule(f".new_{name}")
    def new(run: Run, input, *args, **kwargs):
        """A tensor of the discrete network, of its sizes."""
        return getattr(input.values, f"new_{name}")(*args, **kwargs)


for _name in ("zeros", "ones", "full", "empty", "rand", "randn"):
    _register_like(_name)
