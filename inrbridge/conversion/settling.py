"""Floor 7: find the levels of a converted net that have to live on their own grids, by trying its program on a few points."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import torch
from torch import Tensor

from inrbridge.errors import ConfigError, SupportTooNarrow
from inrbridge.models.converted import Converted, NeedsGrid, Places
from inrbridge.models.converted.located import Located
from inrbridge.nn import Sampled
from inrbridge.sampling import lattice

POINTS = 64
FIELDS = 2


def settled_grids(net: Converted, like: Tensor, is_map: bool) -> list[list[int]]:
    """Return the shapes of these levels.

    Args:
        net: without any so far; its weights are of no account, and its placement is changed.
        is_map: the output is to be a map (b, classes, *shape), else numbers (b, classes).

    Raises:
        ConfigError: the program has no meaning on points even so.
    """
    net = net.eval().to(like)
    points = lattice(net.domain, POINTS).to(like)
    sampled = Sampled(points, like.new_zeros(FIELDS, POINTS, net.in_channels))
    given = net.placement
    found: list[tuple[int, ...]] = []
    while True:
        # each level gets all of the points: what has a meaning does not depend on their number, while a variance of one does
        net.placement = replace(given, own_grids=frozenset(found), oversampling=math.inf)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore", SupportTooNarrow)  # of course: the points are few
                output = net.run_at(sampled, Places(net.placement, points))
            if isinstance(output, Located) and not output.is_map:
                if is_map:
                    raise ConfigError(
                        f"Cannot convert: the output {tuple(output.shape)} has its pixels elsewhere than a map "
                        "(b, classes, *shape); permute its axes at the end of forward()."
                    )
                raise NeedsGrid(output.level, "the output has numbers for each pixel")
            return [list(shape) for shape in found]
        except NeedsGrid as need:
            if need.level.shape in found:
                raise ConfigError(f"Cannot convert{f' ({need.line})' if need.line else ''}: {need.why}.") from None
            found.append(need.level.shape)
