"""Floor 7: find the levels of a converted net that have to live on their own grids, by trying its program on a few points."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from inrbridge.errors import ConfigError, SupportTooNarrow
from inrbridge.models.converted import Converted, NeedsGrid, Places, Shape
from inrbridge.models.converted.located import Located
from inrbridge.nn import Sampled
from inrbridge.sampling import lattice

POINTS = 64
FIELDS = 2


@dataclass(frozen=True)
class Settled:
    """The levels of a program.

    Args:
        shapes: in the order in which the steps reach them.
        bound: those that have to live on their own grids: why, and the line of the discrete network that makes it so.
    """

    shapes: list[Shape]
    bound: dict[Shape, tuple[str, str]] = field(default_factory=dict)


@torch.no_grad()
def settle(net: Converted, like: Tensor) -> Settled:
    """Try a program on a few points, until every step has a meaning.

    Args:
        net: what it says of its own levels, and its weights, are of no account. like: of its dtype and device.

    Raises:
        ConfigError: a step has no meaning on points even so.
    """
    was_training = net.training
    points = lattice(net.domain, POINTS).to(like)
    sampled = Sampled(points, like.new_zeros(FIELDS, POINTS, net.in_channels))
    bound: dict[Shape, tuple[str, str]] = {}
    net.eval()
    try:
        while True:
            # all of the points everywhere: what has a meaning does not depend on their number, while a variance of one does
            placement = replace(net.placement, own_grids=frozenset(bound), oversampling=math.inf, levels="points")
            places = Places(placement, points)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", SupportTooNarrow)  # of course: the points are few
                    output = net.run_at(sampled, places)
                if isinstance(output, Located) and not output.is_map:
                    _require_classifier(net, output)
                    raise NeedsGrid(output.level, "the output has numbers for each pixel")
                return Settled(list(places.levels), bound)
            except NeedsGrid as need:
                if need.level.shape in bound:
                    raise ConfigError(f"Cannot convert{f' ({need.line})' if need.line else ''}: {need.why}.") from None
                bound[need.level.shape] = (need.why, need.line)
    finally:
        net.train(was_training)


def _require_classifier(net: Converted, output: Located) -> None:
    if net.kind == "dense":
        raise ConfigError(
            f"Cannot convert: the output {tuple(output.shape)} has its pixels elsewhere than a map (b, classes, *shape); permute "
            "its axes at the end of forward()."
        )
