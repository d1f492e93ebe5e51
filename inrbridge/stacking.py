"""Floor 4: many fields evaluated as one.

A stack sorts its fields into groups of one class, architecture, domain and channels. A group is a template field and its
state dicts stacked on axis 0, and is evaluated in one batched call; whatever cannot be stacked is asked field by field.
Transforms around stackable fields are taken off and applied once for the group; one that asks the field at several points for
each of its own is applied to a few points at a time. The result equals the plain loop
`torch.stack([field(coords) for field in fields])` up to rounding.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from inrbridge.domains import Domain
from inrbridge.errors import CannotAlign, NotFinite, ShapeMismatch
from inrbridge.field import Field, Stackable, Tabular, channel_names
from inrbridge.tables import side_by_side
from inrbridge.transforms import Transform

DEFAULT_MEMORY = 512 * 2**20  # bytes of working memory that one evaluation may take
CACHE = 2 * 2**20  # bytes that a CPU core works on quickly; a batched layer larger than that waits for memory
# Multiplications per field above which a CPU is quicker with one field after the other: its own matrix product then
# outweighs the 35 microseconds of a call, and beats the batched product, whose values leave the cache.
LOOP_WORK = 2**22
WIDEST = 4096  # a longer parameter is a table, not a layer


@dataclass(frozen=True, eq=False)
class Group:
    """Fields that are evaluated together: row i of every state belongs to field `positions[i]` of the stack."""

    template: Field  # with its transforms
    states: Mapping[str, Tensor]  # name -> (rows, ...)
    positions: tuple[int, ...]

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms around the module, outermost first."""
        return _unwrap(self.template)[0]

    @property
    def module(self) -> nn.Module:
        """The template without its transforms."""
        return _unwrap(self.template)[1]

    def field(self, row: int) -> Field:
        """Build the field of a row."""
        module = copy.deepcopy(self.module)
        state = {name: value[row].detach().clone() for name, value in self.states.items()}
        module.load_state_dict(state, assign=True)
        return _wrap(self.transforms, module)


@dataclass(frozen=True, eq=False)
class Loose:
    """Fields that are asked one after the other."""

    fields: tuple[Field, ...]
    positions: tuple[int, ...]

    def field(self, row: int) -> Field:
        """Return the field of a row."""
        return self.fields[row]


class FieldStack:
    """b fields on one domain with the same channels, evaluated together: coords (n, d) or (b, n, d) -> (b, n, c).

    Made by `stack(fields)`, `FieldStack.from_states` or a dataset. The fields are frozen: no gradient reaches their parameters
    unless `trainable`; gradients with respect to the coordinates flow whenever the coordinates ask for them. A stack is a
    snapshot of the parameters: after an optimizer step on the fields, stack them again, or optimise `groups[i].states`.
    """

    def __init__(self, groups: Sequence[Group | Loose], *, trainable: bool = False, memory: int = DEFAULT_MEMORY):
        self.groups, self.trainable, self.memory = tuple(groups), trainable, memory
        order = [position for group in self.groups for position in group.positions]
        if not order or sorted(order) != list(range(len(order))):
            raise ShapeMismatch(f"Got groups at the positions {order[:8]}.., expected each of 0..b-1 once, b at least 1.")
        first = self.groups[0].field(0) if isinstance(self.groups[0], Loose) else self.groups[0].template
        self.domain: Domain = first.domain
        self.channels: int = first.channels
        self.channel_names: tuple[str, ...] = channel_names(first)
        for group in self.groups:
            for field in group.fields if isinstance(group, Loose) else (group.template,):
                if field.domain != self.domain or field.channels != self.channels:
                    raise CannotAlign(
                        f"Got fields on {self.domain} with {self.channels} channels and on {field.domain} with "
                        f"{field.channels}, expected one domain and one channel count in a stack; "
                        "map them with inrbridge.data.align(field, domain, channels) first."
                    )
        self._length = len(order)
        # Row i of the groups' results, one after the other, is field order[i].
        self._inverse = None if order == list(range(len(order))) else torch.tensor(order).argsort()

    @classmethod
    def from_states(
        cls, template: Field, states: Mapping[str, Tensor], *, trainable: bool = False, memory: int = DEFAULT_MEMORY
    ) -> FieldStack:
        """Build a stack straight from stacked states: no module for each field.

        Args:
            template: a field of the architecture, transforms allowed; its own parameters are not read.
            states: its state dict with a leading axis of b rows.
        """
        return cls([group_of(template, states)], trainable=trainable, memory=memory)

    @classmethod
    def concat(cls, stacks: Sequence[FieldStack]) -> FieldStack:
        """Return one stack of the fields of several, in order; groups of equal architecture are merged."""
        groups: dict[Hashable, Group | Loose] = {}
        offset = 0
        for part in stacks:
            for group in part.groups:
                moved = replace(group, positions=tuple(p + offset for p in group.positions))
                key = Loose if isinstance(group, Loose) else _signature(group.template, group.states)
                groups[key] = moved if key not in groups else _merge(groups[key], moved)
            offset += len(part)
        trainable = any(part.trainable for part in stacks)
        return cls(list(groups.values()), trainable=trainable, memory=min((p.memory for p in stacks), default=DEFAULT_MEMORY))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Field:
        wanted = range(len(self))[index]
        for group in self.groups:
            if wanted in group.positions:
                return group.field(group.positions.index(wanted))
        raise IndexError(index)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"FieldStack({len(self)} fields in {len(self.groups)} groups, {self.domain}, channels={self.channel_names})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> FieldStack:
        """Return the stack on another device or in another dtype."""
        groups = [_move(group, device, dtype) for group in self.groups]
        return FieldStack(groups, trainable=self.trainable, memory=self.memory)

    def __call__(self, coords: Tensor, check: bool = True) -> Tensor:
        """Evaluate every field: coords (n, d) shared by all, or (b, n, d) -> values (b, n, c) in the dtype of coords.

        Args:
            check: look whether the coordinates lie on the domain and the values are finite.

        Raises:
            ShapeMismatch, NotFinite, OutsideDomain: the coordinates or the values do not fit.
        """
        self.domain.check_shape(coords)
        if coords.ndim not in (2, 3) or (coords.ndim == 3 and coords.shape[0] != len(self)):
            raise ShapeMismatch(
                f"Got coordinates of shape {tuple(coords.shape)} for {len(self)} fields, expected (n, {self.domain.dim}) "
                f"shared by all, or ({len(self)}, n, {self.domain.dim}) with points of its own for each."
            )
        if check:
            self.domain.check(coords)
        needs_grad = torch.is_grad_enabled() and (self.trainable or coords.requires_grad)
        with torch.set_grad_enabled(needs_grad):
            values = self._evaluate(coords)
        if check and not bool(values.isfinite().all()):
            bad = (~values.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
            raise NotFinite(f"Got NaN or infinite values from the fields at {bad[:8]} of the stack; their weights are damaged.")
        return values

    def _evaluate(self, coords: Tensor) -> Tensor:
        parts = []
        for group in self.groups:
            alone = len(self.groups) == 1 and self._inverse is None
            values = self._ask(group, coords if coords.ndim == 2 or alone else coords[list(group.positions)])
            expected = (len(group.positions), coords.shape[-2], self.channels)
            if tuple(values.shape) != expected:
                raise ShapeMismatch(f"A group of the stack returned shape {tuple(values.shape)}, expected {expected}.")
            parts.append(values.to(coords.dtype))
        values = parts[0] if len(parts) == 1 else torch.cat(parts)
        self._inverse = self._inverse if self._inverse is None else self._inverse.to(values.device)  # once: to copy stops a GPU
        return values if self._inverse is None else values[self._inverse]

    def _ask(self, group: Group | Loose, coords: Tensor) -> Tensor:
        if isinstance(group, Loose):
            asked = [coords] * len(group.fields) if coords.ndim == 2 else coords
            return torch.stack([self._ask_one(f, points) for f, points in zip(group.fields, asked, strict=True)])
        states = group.states if self.trainable else {name: value.detach() for name, value in group.states.items()}
        transforms, module = _unwrap(group.template)

        def ask(points: Tensor) -> Tensor:
            evaluate = partial(evaluate_states, module, states, memory=self.memory)
            for transform in reversed(transforms):
                evaluate = partial(transform.apply, evaluate)
            return evaluate(points)

        expansion = math.prod(transform.expansion for transform in transforms)
        differentiated = sum(transform.derivatives for transform in transforms)
        if expansion == 1 and not differentiated:
            return ask(coords)
        # The points that stand for one, and their values, are held together before they are reduced; a derivative holds
        # the values of every layer, each further one those of the last backward pass too.
        numbers = module.channels + module.domain.dim
        if differentiated:
            numbers += 4**differentiated * len(states) * _width(states)
        chunk = max(1, self.memory // (4 * expansion * len(group.positions) * numbers * coords.element_size()))
        return torch.cat([ask(part) for part in coords.split(chunk, dim=-2)], dim=-2)

    def _ask_one(self, field: Field, coords: Tensor) -> Tensor:
        transforms, inner = _unwrap(field)
        if self.trainable or not isinstance(inner, nn.Module):
            return field(coords)
        frozen = {name: value.detach() for name, value in inner.named_parameters()}
        return _wrap(transforms, _Frozen(inner, frozen))(coords)


def stack(fields: Field | Iterable[Field], *, trainable: bool = False, memory: int = DEFAULT_MEMORY) -> FieldStack:
    """Stack fields on one domain with equal channels, or one field alone.

    Args:
        trainable: let gradients flow into the fields' parameters.
        memory: bytes of working memory for one evaluation; larger ones are cut into chunks of points.

    >>> from inrbridge.domains import Box
    >>> from inrbridge.field import FunctionField
    >>> both = stack([FunctionField(torch.sin, Box.unit(1), 1), FunctionField(torch.cos, Box.unit(1), 1)])
    >>> both(torch.zeros(5, 1)).shape
    torch.Size([2, 5, 1])
    """
    fields = [fields] if isinstance(fields, Field) else list(fields)
    if not fields:
        raise ShapeMismatch("Got no fields to stack, expected at least one.")
    strange = [type(field).__name__ for field in fields if not isinstance(field, Field)]
    if strange:
        raise ShapeMismatch(f"Got a {strange[0]} to stack, expected fields: callables with `domain` and `channels`.")
    members: dict[Hashable, list[int]] = {}
    states = []
    for position, field in enumerate(fields):
        module = _unwrap(field)[1]
        states.append(_state(module) if isinstance(module, nn.Module) and isinstance(module, Stackable) else {})
        key = Loose if not states[-1] else _signature(field, states[-1], rows=False)
        members.setdefault(key, []).append(position)
    groups = []
    for key, positions in members.items():
        chosen = [fields[p] for p in positions]
        if key is Loose:
            groups.append(Loose(tuple(chosen), tuple(positions)))
            continue
        first = states[positions[0]]
        with torch.set_grad_enabled(trainable and torch.is_grad_enabled()):
            read = () if trainable else _tables(_unwrap(fields[positions[0]])[1])  # gradients come back to each field's own
            stacked = {
                name: (side_by_side if name in read else torch.stack)([states[p][name] for p in positions]) for name in first
            }
        groups.append(Group(chosen[0], stacked, tuple(positions)))
    return FieldStack(groups, trainable=trainable, memory=memory)


def group_of(template: Field, states: Mapping[str, Tensor], positions: Iterable[int] | None = None) -> Group:
    """Build a group after checking that the states fit the template."""
    module = _unwrap(template)[1]
    expected = {name: tuple(value.shape) for name, value in _state(module).items()} if isinstance(module, nn.Module) else None
    found = {name: tuple(value.shape[1:]) for name, value in states.items()}
    rows = {value.shape[0] for value in states.values()}
    if expected is None or found != expected or len(rows) != 1:
        raise ShapeMismatch(
            f"Got states {found} with {sorted(rows)} rows, expected an nn.Module template whose state dict, {expected}, "
            "is stacked on axis 0 with one row for each field."
        )
    positions = tuple(range(rows.pop()) if positions is None else positions)
    return Group(template, dict(states), positions)


def evaluate_states(module: nn.Module, states: Mapping[str, Tensor], coords: Tensor, *, memory: int = DEFAULT_MEMORY) -> Tensor:
    """Evaluate b fields of one architecture: states (b, ...), coords (n, d) or (b, n, d) -> (b, n, c).

    Points are independent of each other, so chunks of points bound the memory and keep a layer's values in cache.
    """
    b = next(iter(states.values())).shape[0]
    n = coords.shape[-2]
    width, parameters = _width(states), sum(value[0].numel() for value in states.values())
    scalar, by_field = coords.element_size(), False
    if hasattr(type(module), "evaluate_stack"):  # `StackEvaluable`, of which to ask takes longer than a small layer
        chunk = memory // (4 * b * width * scalar)  # about four values of a layer are alive at once
    else:
        by_field = coords.device.type == "cpu" and n * parameters > LOOP_WORK
        budget = min(memory // 4, CACHE) if coords.device.type == "cpu" and not by_field else memory // 4
        chunk = budget // ((1 if by_field else b) * width * scalar)
    chunk = max(int(chunk), 16)
    if chunk >= n:
        return _evaluate_chunk(module, states, coords, by_field)
    count = -(-n // chunk)
    size = -(-n // count)  # even chunks: a short last one would waste a call
    return torch.cat([_evaluate_chunk(module, states, part, by_field) for part in coords.split(size, dim=-2)], dim=1)


def _evaluate_chunk(module: nn.Module, states: Mapping[str, Tensor], coords: Tensor, by_field: bool) -> Tensor:
    if hasattr(type(module), "evaluate_stack"):
        return module.evaluate_stack(states, coords)

    def ask(state, points):
        # Tied weights come as separate equal rows.
        return functional_call(module, state, (points,), tie_weights=False)

    if not by_field:
        try:
            return vmap(ask, in_dims=(0, None if coords.ndim == 2 else 0))(dict(states), coords)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # a module that branches on values cannot be batched; if it is damaged, it fails again below
            pass
    rows = zip(*(value.unbind(0) for value in states.values()), strict=True)
    points = [coords] * len(next(iter(states.values()))) if coords.ndim == 2 else coords
    return torch.stack([ask(dict(zip(states, row, strict=True)), own) for row, own in zip(rows, points, strict=True)])


def _width(states: Mapping[str, Tensor]) -> int:
    """Estimate how many numbers a layer holds for one point: the longest axis that is not a table."""
    lengths = [size for value in states.values() for size in value.shape[1:] if size <= WIDEST and value.ndim <= 3]
    return max([8, *lengths])


def _tables(module: nn.Module) -> tuple[str, ...]:
    return module.tables if isinstance(module, Tabular) else ()


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state with its autograd history (a state dict would drop it)."""
    return module.state_dict(keep_vars=True)


class _Frozen:
    """A module whose parameters take part as constants."""

    def __init__(self, module: nn.Module, constants: Mapping[str, Tensor]):
        self.module, self.constants = module, constants
        self.domain, self.channels, self.channel_names = module.domain, module.channels, channel_names(module)

    def __call__(self, coords: Tensor) -> Tensor:
        return functional_call(self.module, self.constants, (coords,))


def _unwrap(field: Field) -> tuple[tuple[Transform, ...], Field]:
    transforms = []
    while isinstance(field, Transform):
        transforms.append(field)
        field = field.inner
    return tuple(transforms), field


def _wrap(transforms: Sequence[Transform], field: Field) -> Field:
    for transform in reversed(transforms):
        field = transform.around(field)
    return field


def _signature(field: Field, states: Mapping[str, Tensor], rows: bool = True) -> Hashable:
    """What must be equal for two fields to be evaluated as one; `rows`: the states have a leading axis."""
    transforms, module = _unwrap(field)
    skip = 1 if rows else 0
    return (
        tuple((type(t), t.signature) for t in transforms),
        type(module),
        json.dumps(dict(module.architecture), sort_keys=True, default=str) if isinstance(module, Stackable) else id(module),
        module.domain,
        module.channels,
        tuple((name, tuple(value.shape[skip:]), value.dtype, value.device) for name, value in states.items()),
    )


def _merge(a: Group | Loose, b: Group | Loose) -> Group | Loose:
    positions = a.positions + b.positions
    if isinstance(a, Loose):
        return Loose(a.fields + b.fields, positions)
    return Group(a.template, {name: _joined(value, b.states[name]) for name, value in a.states.items()}, positions)


def _joined(a: Tensor, b: Tensor) -> Tensor:
    """Put the rows of b behind those of a; tables that stand side by side remain so."""
    beside = a.ndim > 2 and a.stride(0) == a.shape[-1] < a.stride(1)
    return torch.cat([a.movedim(0, -2), b.movedim(0, -2)], -2).movedim(-2, 0) if beside else torch.cat([a, b])


def _move(group: Group | Loose, device: torch.device | str | None, dtype: torch.dtype | None) -> Group | Loose:
    def move(field):  # also what is not in its state; a callable that is no module follows its input
        transforms, inner = _unwrap(field)
        inner = copy.deepcopy(inner).to(device=device, dtype=dtype) if isinstance(inner, nn.Module) else inner
        return _wrap(transforms, inner)

    if isinstance(group, Loose):
        return replace(group, fields=tuple(move(field) for field in group.fields))
    states = {
        name: value.to(device=device, dtype=dtype if value.is_floating_point() else None) for name, value in group.states.items()
    }
    return Group(move(group.template), states, group.positions)
