"""Floor 6: what architectures are built of: convolutions that share a place and a rule, and normalizations by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError
from inrbridge.models.net import node_spacing
from inrbridge.nn import BasisConv, BatchNorm, Conv, InstanceNorm, LayerNorm, Linear

_NORMS = {"batch": BatchNorm, "instance": InstanceNorm, "layer": LayerNorm, "none": None}


@dataclass(frozen=True)
class Convolutions:
    """Makes the convolutions of one net: the kernel nodes lie one cell of a `resolution` grid apart.

    Args:
        kernel_size: nodes along each axis.
        kernel: "reconstruct" (nodes, moving least squares), or a basis under the integral: "spline", "polynomial", "gaussian".
        order, neighbors: of the reconstruction.
        border: what a kernel sees beyond the domain (`stencils.borders`).
    """

    domain: Domain
    resolution: int
    kernel_size: int = 3
    kernel: str = "reconstruct"
    order: int = 2
    neighbors: int | None = None
    border: str = "zeros"
    generator: torch.Generator | None = None

    def __call__(self, inputs: int, outputs: int, *, times: int = 1, stride: int = 1, size: int | None = None, groups: int = 1,
                 bias: bool = True) -> nn.Module:  # fmt: skip
        """Return a convolution whose nodes lie `times` cells apart: the product of the strides before it.

        One of a single node that keeps all points is a pointwise layer.
        """
        size = self.kernel_size if size is None else size
        if size == stride == groups == 1 and self.kernel == "reconstruct":
            return Linear(inputs, outputs, bias, generator=self.generator)
        place = {"spacing": node_spacing(self.domain, self.resolution, times), "stride": stride, "border": self.border,
                 "groups": groups, "bias": bias, "generator": self.generator}  # fmt: skip
        if self.kernel == "reconstruct":
            return Conv(inputs, outputs, size, order=self.order, neighbors=self.neighbors, **place)
        return BasisConv(inputs, outputs, size, basis=self.kernel, **place)

    def require_kept_domain(self, name: str) -> None:
        """Raise unless outputs live on the points of the inputs, which the blocks of architecture `name` join."""
        if self.border == "valid":
            raise ConfigError(
                f'Got border "valid" for a {name}, which joins features before and after a convolution, expected a border that '
                'keeps the domain; use "zeros", "reflect", "circular" or "renormalize".'
            )


def normalization(norm: str, channels: int) -> list[nn.Module]:
    """Return the normalization of a name, or nothing for "none", to be put among the layers of a Sequential."""
    if norm not in _NORMS:
        raise ConfigError(f'Got norm "{norm}", expected one of: {", ".join(_NORMS)}.')
    return [] if norm == "none" else [_NORMS[norm](channels)]


def require_counts(model: str, **counts: object) -> None:
    """Raise ConfigError unless each option is a whole number from 1 on; None is left to its default."""
    for name, value in counts.items():
        if value is not None and not _is_count(value):
            raise ConfigError(f"Got {name} = {value!r} for the model {model}, expected a whole number from 1 on.")


def require_lists(model: str, **lists: object) -> None:
    """Raise ConfigError unless each option is a list of whole numbers from 1 on, and not empty; None is left to its default."""
    for name, value in lists.items():
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if value is not None and not (is_list and value and all(_is_count(number) for number in value)):
            raise ConfigError(f"Got {name} = {value!r} for the model {model}, expected a list of whole numbers from 1 on.")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def one_each(values, widths, default: int, what: str) -> list[int]:
    """Return one whole number for each width: the list given, or `default` for each but the first, which takes 1.

    Raises:
        ConfigError: their numbers differ.
    """
    found = [1, *[default] * (len(widths) - 1)] if values is None else list(values)
    if len(found) != len(widths):
        raise ConfigError(f"Got {len(widths)} widths and {len(found)} {what}, expected as many; give one of the {what} a width.")
    return found
