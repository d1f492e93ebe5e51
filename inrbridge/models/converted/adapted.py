"""Floor 6: copies of a converted network whose weights were adapted to points of one kind; the network stays as it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.models.converted.program import Program

MOST = 2**0.5  # times the points that weights were adapted to, up to which they serve
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


def nearest_kind(kinds: Sequence[PointKind], wanted: PointKind) -> int | None:
    """Return the place of the kind that suits points best: of the same sampler, and nearest in the number of points, by ratio.

    None where no kind is of that sampler, since weights make up for the errors of one sampler; and where even the nearest has
    far fewer points: with more points errors are smaller, and the network's own weights measure better.
    """
    enough = [place for place, kind in enumerate(kinds) if kind.sampler == wanted.sampler and wanted.points <= MOST * kind.points]
    return min(enough, key=lambda place: abs(math.log(kinds[place].points / wanted.points)), default=None)


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
