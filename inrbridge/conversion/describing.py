"""Floor 7: what became of a discrete network: its levels, why some live on their own grids, and whether it equals itself."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from inrbridge.errors import SupportTooNarrow
from inrbridge.models.converted import Converted, Located, NeedsGrid, Places
from inrbridge.nn import Sampled
from inrbridge.sampling import lattice

TRIED = 64  # points that the levels are shown on


@dataclass(frozen=True)
class LevelFacts:
    """One index space of a converted net.

    Args:
        shape: of the discrete maps.
        why: it lives on its own grid, whatever points are given; "": it lives on the given points, or on some of them.
        line: of the discrete network, where that step is.
    """

    shape: tuple[int, ...]
    why: str = ""
    line: str = ""


@torch.no_grad()
def levels_of(net: Converted) -> list[LevelFacts]:
    """Return the levels of a converted net, in the order in which its steps reach them.

    The program runs on lattice points, at first without grids, so that every step that needs one tells why.
    """
    like, was_training = next(iter([*net.parameters(), *net.buffers()]), torch.zeros(())), net.training
    points = lattice(net.domain, TRIED).to(like)
    sampled = Sampled(points, like.new_zeros(1, len(points), net.in_channels))
    reasons: dict[tuple[int, ...], tuple[str, str]] = {}
    net.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SupportTooNarrow)
            while True:
                # all of the points everywhere: what has a meaning does not depend on their number
                places = Places(replace(net.placement, own_grids=frozenset(reasons), oversampling=math.inf), points)
                try:
                    output = net.run_at(sampled, places)
                    if isinstance(output, Located) and not output.is_map:
                        raise NeedsGrid(output.level, "the output has numbers for each pixel")
                    break
                except NeedsGrid as need:
                    if need.level.shape in reasons:
                        raise
                    reasons[need.level.shape] = (need.why, need.line)
    finally:
        net.train(was_training)
    for level in places.levels.values():
        if level.on_grid:
            reasons.setdefault(level.shape, ("inner levels are asked to", ""))
    return [LevelFacts(shape, *reasons.get(shape, ("", ""))) for shape in places.levels]


@torch.no_grad()
def difference_on_grid(net: nn.Module, module: nn.Module, image: Tensor) -> float:
    """Return the greatest difference between a converted net and its discrete network on images (b, c, *resolution), relative
    to the greatest output; both in evaluation mode."""
    was_training = net.training, module.training
    expected = module.eval()(image)
    found = net.eval()(Sampled(net.pixels().to(image), image.flatten(2).transpose(1, 2)))
    net.train(was_training[0]), module.train(was_training[1])
    if isinstance(found, Sampled):
        found, expected = found.values, expected.flatten(2).transpose(1, 2)
    return float((found.reshape(expected.shape) - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
