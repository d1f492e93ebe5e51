"""Floor 6: the table of rules for points, and how the rule of a step is found."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from inrbridge.models.converted.levels import Lengths, Level, Places
from inrbridge.models.converted.located import Located, NeedsGrid, Withheld
from inrbridge.models.converted.program import Step
from inrbridge.stencils import Pixels, Reconstruct
from inrbridge.stencils.nodes import Offsets
from inrbridge.stencils.reconstruct import monomial_powers

_RULES: dict[str, Callable] = {}
_READS_PADDING: set[str] = set()


@dataclass(frozen=True)
class Reading:
    """How a field is read at places between its points.

    Args:
        kernel: "reconstruct": discrete kernels act on the field at their nodes, which moving least squares give; "spline": they
            become B-spline surfaces under the integral (Wang & Golland 2023, section 4.1), to compare with.
        reader: the model of what lies between them. "pixels": an image of the level's pixels (`stencils.Pixels`), which inverts
            its interpolation; "polynomials": moving least squares.
        order: of the polynomials. neighbors: points for one evaluation; None: as measured best.
    """

    kernel: str = "reconstruct"
    order: int = 2
    neighbors: int | None = None
    reader: str = "polynomials"

    def rule(self, nodes: Offsets, spacing: Lengths, level: Level, is_input: bool = False) -> Reconstruct:
        """Return the rule that reads a map of a level at nodes around a point; `is_input`: the field itself.

        Maps of trained kernels are rough: fewer neighbours than for smooth fields, and less noise, measured best.
        """
        dim = len(spacing)
        if self.reader == "pixels":
            neighbors = self.neighbors or (None if is_input else {1: 8}.get(dim, 16))
            pixels = Pixels(level.shape, level.start, level.step, *(() if is_input else (5e-5,)))
            return Reconstruct(nodes, spacing, neighbors=neighbors, cells=level.edge_cells, pixels=pixels)
        terms = len(monomial_powers(self.order, dim))
        return Reconstruct(nodes, spacing, self.order, self.neighbors or 3 * terms // 2, level.edge_cells)


@dataclass(frozen=True)
class Run:
    """What a rule knows beside its arguments."""

    places: Places
    reading: Reading


def rule(*names: str, reads_padding: bool = False) -> Callable:
    """Register `function(run, *args, **kwargs)` for operations: "functional.relu", "torch.cat", "Conv2d", ".permute".

    For a module the first argument is the module itself. The arguments are those of torch's operation; at least one is Located.
    With `reads_padding` the function sees the padding that waits on a Located, else that is carried out before.
    """

    def register(function: Callable) -> Callable:
        for name in names:
            _RULES[name] = function
            if reads_padding:
                _READS_PADDING.add(name)
        return function

    return register


def apply_on_points(run: Run, step: Step, operation: Callable, args: list, kwargs: dict):
    """Carry out a step whose inputs may live on points; one that has none of those is torch's own.

    Raises:
        NeedsGrid: there is no rule, and a level of the inputs does not live on its grid.
    """
    for missing in _all(Withheld, [args, kwargs]) if operation is not operator.getitem else ():
        raise NeedsGrid(missing.level, missing.why, step.line)
    located = list(_all(Located, [args, kwargs]))
    if not located or (operation is operator.getitem and not isinstance(args[0], Located)):  # of a tuple
        return operation(*args, **kwargs)
    name = {"module": type(operation).__name__, "method": f".{step.target}"}.get(step.kind, step.target)
    function = _RULES.get(name)
    try:
        if function is None:
            raise NeedsGrid(located[0].level, f"{name.removeprefix('.')} has no meaning on points that are no pixels")
        if name not in _READS_PADDING:
            args, kwargs = _map((args, kwargs), lambda x: _RULES["padded"](run, x) if x.padding else x)
        called = (run, operation, *args) if isinstance(operation, nn.Module) else (run, *args)
        if not _takes(function, called, kwargs):
            raise NeedsGrid(located[0].level, f"{name.removeprefix('.')} has no meaning on points with these arguments")
        return _map(function(*called, **kwargs), _plain_if_one)
    except NeedsGrid as need:
        for x in located:
            if not x.level.on_grid:
                raise NeedsGrid(x.level, need.why, step.line) from None
        args, kwargs = _map((args, kwargs), lambda x: x.on_grid())
        return operation(*args, **kwargs)


def _takes(function: Callable, args: tuple, kwargs: dict) -> bool:
    try:
        _signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


@functools.cache
def _signature(function: Callable) -> inspect.Signature:
    return inspect.signature(function)


def _plain_if_one(x: Located) -> Located | Tensor:
    """A map of one pixel has no places to tell apart: it goes on as the discrete tensor."""
    return x.on_grid() if x.level.size == 1 and x.padding is None else x


def _all(kind: type, value) -> Iterator:
    """Those of a kind among arguments, in lists, tuples and dictionaries too."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _all(kind, part)


def _map(value, change: Callable[[Located], object]):
    if isinstance(value, Located):
        return change(value)
    if isinstance(value, list):
        return [_map(part, change) for part in value]
    if isinstance(value, tuple):
        return tuple(_map(part, change) for part in value)
    if isinstance(value, dict):
        return {key: _map(part, change) for key, part in value.items()}
    return value
