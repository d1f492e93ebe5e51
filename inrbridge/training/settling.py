"""Floor 8: predictions with an estimate of their error: points are doubled until the outputs no longer move.

A net on n points differs from the net in the limit of many (Wang & Golland 2023, equation 8) by what its integrals err. How far
the outputs move between independent sets of points, and from n / 2 to n points, estimates that; it is no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.field import Field
from inrbridge.nn.sampled import Sampled
from inrbridge.sampling.fixed import fixed_points
from inrbridge.stacking import FieldStack, stack

TOGETHER = 2**18  # points times fields that pass through the net at a time
GROWTH = 16  # times the first number of points, up to which it is doubled unless told


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a net says of b fields, and how far it moved."""

    outputs: Tensor  # (b, k), the mean over the sets of points
    points: Tensor  # (b,), points in each set at the last look
    moved: Tensor  # (b,), largest change of an output between two sets, or from half of the points to all, at the last look
    settled: Tensor  # (b,), bool: moved is at most the tolerance

    def facts(self) -> list[dict]:
        """Return {points, moved, settled} of each field as plain values."""
        rows = zip(self.points.tolist(), self.moved.tolist(), self.settled.tolist(), strict=True)
        return [{"points": n, "moved": moved, "settled": settled} for n, moved, settled in rows]


@torch.no_grad()
def settled(net: nn.Module | Callable[[Sampled], Tensor], fields: Field | Sequence[Field] | FieldStack, *, tol: float,
            sampler: str = "lattice", n: int = 1024, max_n: int | None = None, seed: int = 0, sets: int = 2,
            device: torch.device | str = "cpu") -> Outcome:  # fmt: skip
    """Apply a net on more and more points until its outputs move less than `tol`, each field by itself.

    Each look compares `sets` independently randomized sets of n points with each other, and each with its half. Fields that
    are settled are not evaluated again; points of nested samplers are kept, and only new ones are evaluated.

    Args:
        net: maps a `Sampled` to outputs (b, k); a module is used in evaluation mode.
        fields: on the domain of the net.
        tol: in units of the outputs (of a classifier: logits).
        sampler, n, seed: of the first look; the sampler must be a random one. max_n: 16 n when absent.

    >>> from inrbridge.domains import Box; from inrbridge.field import FunctionField
    >>> square = FunctionField(lambda x: x**2, Box.centered(1), 1)
    >>> found = settled(lambda s: torch.einsum("n,bnc->bc", s.weights, s.values), square, tol=1e-4)
    >>> bool(found.settled), round(float(found.outputs), 3)
    (True, 0.333)
    """
    fields = [fields] if isinstance(fields, Field) and not isinstance(fields, FieldStack) else list(fields)
    max_n = _checked(tol, sets, n, max_n, fields)
    domain = fields[0].domain
    looks = [_Look(fixed_points(domain, sampler, n, seed + r, device)) for r in range(sets)]
    if any(torch.equal(looks[0].points.points, look.points.points) for look in looks[1:]):
        raise ConfigError(
            f'Got the sampler "{sampler}", whose points are the same for every seed, expected a random one, such as "lattice" or '
            '"sobol": what cannot move tells no error.'
        )
    was_training = net.training if isinstance(net, nn.Module) else None
    if was_training:
        net.eval()
    try:
        return _settle(net, fields, looks, tol, max_n)
    finally:
        if was_training:
            net.train()


class _Look:
    """One set of points, the values of the fields that are still open on it, and the outputs on half of it."""

    def __init__(self, points: Discretization):
        self.points = points
        self.values: Tensor | None = None  # (b, n, c)
        self.before: Tensor | None = None  # (b, k)

    def outputs(self, net: Callable, fields: Sequence[Field]) -> Tensor:
        """Evaluate the fields where they are not known, and the net on all the points."""
        known = 0 if self.values is None else self.values.shape[1]
        fresh = stack(fields).to(self.points.points.device)(self.points.points[known:])
        self.values = fresh if self.values is None else torch.cat([self.values, fresh], dim=1)
        return _applied(net, self.points, self.values)

    def on_half(self, net: Callable) -> Tensor:
        half = self.points.prefix(max(1, len(self.points) // 2))
        return _applied(net, half, self.values[:, : len(half)])

    def keep(self, rows: Tensor, outputs: Tensor) -> None:
        """Go on with some of the fields."""
        self.values, self.before = self.values[rows], outputs[rows]

    def grow(self) -> None:
        """Double the points; values are kept where the points are."""
        old, n = self.points, len(self.points)
        if old.extend_to is None:
            raise ConfigError(
                f'Got the sampler "{old.sampler}", whose points cannot be extended, expected lattice, sobol, halton or uniform.'
            )
        self.points = old.extend_to(2 * n).to(old.points)
        if not torch.equal(self.points.points[:n], old.points):
            self.values = None


def _settle(net: Callable, fields: list[Field], looks: list[_Look], tol: float, max_n: int) -> Outcome:
    open_ = torch.arange(len(fields))
    points, moved, outputs = torch.zeros(len(fields), dtype=torch.long), torch.zeros(len(fields)), None
    while True:
        n = len(looks[0].points)
        found = [look.outputs(net, [fields[i] for i in open_.tolist()]) for look in looks]
        for look in looks:
            look.before = look.on_half(net) if look.before is None else look.before
        now = torch.stack(found)  # (sets, open, k)
        spread = now.amax(0) - now.amin(0)
        change = torch.stack([(y - look.before).abs() for y, look in zip(found, looks, strict=True)]).amax(0)
        far = torch.maximum(spread, change).flatten(1).amax(1).cpu()
        outputs = now.new_zeros(len(fields), *now.shape[2:]) if outputs is None else outputs
        outputs[open_.to(now.device)] = now.mean(0)
        points[open_], moved[open_] = n, far.to(moved)
        going = (~(far <= tol)).nonzero()[:, 0]
        if not len(going) or 2 * n > max_n:
            return Outcome(outputs, points, moved, moved <= tol)
        for look, y in zip(looks, found, strict=True):
            look.keep(going.to(y.device), y)
            look.grow()
        open_ = open_[going]


def _applied(net: Callable, points: Discretization, values: Tensor) -> Tensor:
    """The net on some fields at a time, so that memory does not grow with the points."""
    step = max(1, TOGETHER // len(points))
    parts = [net(Sampled(points, some)) for some in values.split(step)]
    if not all(isinstance(part, Tensor) and part.ndim >= 2 for part in parts):
        raise ShapeMismatch(
            f"Got a net whose output is a {type(parts[0]).__name__}, expected a tensor (b, k), k numbers for each field; read an "
            "output field at points of your choice first."
        )
    return torch.cat(parts)


def _checked(tol: float, sets: int, n: int, max_n: int | None, fields: list[Field]) -> int:
    if not isinstance(tol, int | float) or not tol > 0:
        raise ConfigError(f"Got tol={tol!r}, expected a number above 0, in units of the net's outputs.")
    if sets < 2:
        raise ConfigError(f"Got sets={sets}, expected at least 2: one set of points tells nothing of its error.")
    if not fields:
        raise ConfigError("Got no fields, expected at least one.")
    most = GROWTH * n if max_n is None else max_n
    if most < n:
        raise ConfigError(f"Got max_n={most}, expected at least the {n} points of the first look.")
    return most
