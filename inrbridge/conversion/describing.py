"""Floor 7: what became of a discrete network: its levels, why some live on their own grids, and whether it equals itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrbridge.conversion.settling import Settled, settle
from inrbridge.models.converted import Converted, Shape
from inrbridge.models.converted.arguments import own_tensor


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


def levels_of(net: Converted) -> list[LevelFacts]:
    """Return the levels of a converted net, in the order in which its steps reach them."""
    settled = settle(net, own_tensor(net))
    return [LevelFacts(shape, *_reason(net, settled, shape)) for shape in settled.shapes]


def _reason(net: Converted, settled: Settled, shape: Shape) -> tuple[str, str]:
    asked = net.placement.has_own_grid(shape)
    return settled.bound.get(shape, (f'levels = "{net.placement.levels}"', "") if asked else ("", ""))


@torch.no_grad()
def difference_on_grid(net: nn.Module, module: nn.Module, image: Tensor) -> float:
    """Return the greatest difference between a converted net and its discrete network on images (b, c, *resolution), relative
    to the greatest output; both in evaluation mode."""
    was_training = net.training, module.training
    expected = module.eval()(image)
    found = net.eval()(image)
    net.train(was_training[0]), module.train(was_training[1])
    return float((found.reshape(expected.shape) - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
