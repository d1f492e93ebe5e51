"""Floor 7: the fields that a converted net is adapted on, and their values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.field import Field
from inrbridge.models.converted.arguments import own_tensor
from inrbridge.models.net import INRNet
from inrbridge.stacking import FieldStack, stack

TOGETHER = 64  # fields that are evaluated, or pass through a layer, at a time


@runtime_checkable
class Stacks(Protocol):
    """What gives some of its fields as a stack, as a dataset does."""

    def __len__(self) -> int: ...

    def stack(self, indices: Iterable[int]) -> FieldStack:
        """Return the fields at these places."""
        ...


Fields = Sequence[Field] | FieldStack | Stacks


@torch.no_grad()
def values_at(net: INRNet, fields: Fields, points: Discretization, chosen: Sequence[int] | None = None) -> Tensor:
    """Evaluate fields, or those of them at the places `chosen`: values (b, n, c) in the dtype and on the device of the net.

    Raises:
        ShapeMismatch: the fields are not on the domain of the net, or have other channels.
    """
    chosen = range(len(fields)) if chosen is None else chosen
    parts = []
    for start in range(0, len(chosen), TOGETHER):
        some = list(chosen[start : start + TOGETHER])
        part = fields.stack(some) if isinstance(fields, Stacks) else stack([fields[i] for i in some])
        if part.domain != net.domain:
            raise ShapeMismatch(
                f"Got fields on {part.domain}, expected fields on {net.domain}; align them first, e.g. "
                "inrbridge.data.align(field, net.domain, channels)."
            )
        parts.append(net.sample(part, points).values)
    if not parts:
        raise ConfigError("Got no fields, expected a few hundred of those that the net is for.")
    return torch.cat(parts)


def checked_points(net: INRNet, points: Discretization) -> Discretization:
    """Return points on the domain of a net, in its dtype and on its device.

    Raises:
        ShapeMismatch: they are on another domain. ConfigError: they are the pixels, where nothing is to be adapted.
    """
    if points.domain != net.domain:
        raise ShapeMismatch(
            f"Got points on {points.domain}, expected points on {net.domain}; draw them there, e.g. lattice(net.domain, 1024)."
        )
    if net.placement.is_pixel_grid(points):
        raise ConfigError(
            "Got the pixel grid of the network to adapt to, where it is exact already; expected other points, e.g. "
            "lattice(net.domain, 1024)."
        )
    return points.to(own_tensor(net))
