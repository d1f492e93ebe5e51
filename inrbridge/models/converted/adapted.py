"""Floor 6: copies of a converted network whose weights were adapted to points of one kind; the network stays as it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.models.converted.program import Program

MOST = 2**0.5  # times the points that weights were adapted to, up to which they serve where errors are small
_WITH_BIAS = ("Conv", "Linear")  # beginnings of the names of modules that can be given one


@dataclass(frozen=True)
class PointKind:
    """What weights are adapted to: a sampler and a number of points; which shift or scramble is of no account."""

    sampler: str
    points: int

    @classmethod
    def of(cls, discretization: Discretization) -> PointKind:
        """Return the kind of a discretization."""
        return cls(discretization.sampler, len(discretization))

    def to_config(self) -> dict:
        """Return JSON values."""
        return asdict(self)


def nearest_kind(kinds: Sequence[PointKind], wanted: PointKind, errs_little: bool) -> int | None:
    """Return the place of the kind that suits points best, None where the network's own weights do.

    First come kinds of the same sampler, then the nearest in the number of points, by ratio.

    Args:
        errs_little: the network only reads its input from points. What weights then make up for is small, falls quickly with
            more points, and is not that of another sampler: kinds of others, or with far fewer points, measured worse than no
            kind. Else all maps live on points, and any kind of scattered points measured better than none.
    """

    def unlikeness(place: int) -> tuple:
        kind = kinds[place]
        # of two others, the one that is no lattice: those are more regular than any other scattered points
        return kind.sampler != wanted.sampler, abs(math.log(kind.points / wanted.points)), kind.sampler == "lattice"

    suited = range(len(kinds))
    if errs_little:
        suited = [i for i in suited if kinds[i].sampler == wanted.sampler and wanted.points <= MOST * kinds[i].points]
    elif wanted.sampler == "grid":
        suited = [i for i in suited if kinds[i].sampler == "grid"]
    return min(suited, key=unlikeness, default=None)


def build_copy(program: Program) -> nn.Module:
    """Return the network of a program with a bias in every convolution and linear layer, so that each has an offset to adapt."""
    modules = {
        path: {**spec, "options": {**spec["options"], "bias": True}}
        if spec["name"].startswith(_WITH_BIAS) and "bias" in spec["options"]
        else spec
        for path, spec in program.modules.items()
    }
    return replace(program, modules=modules).build()


def copy_weights(network: nn.Module, copy: nn.Module) -> None:
    """Give a copy the weights of the network; biases that the network lacks are zero."""
    known = network.state_dict()
    copy.load_state_dict({name: known.get(name, torch.zeros_like(value)) for name, value in copy.state_dict().items()})
