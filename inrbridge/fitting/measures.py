"""Floor 8: in what terms the error of a fit is counted.

A plain difference of values serves colours, distances and most signals. A density does not: 40 and 50 per unit are both opaque,
0 and 1 are worlds apart, and their squares drown colours of [0, 1]; and where there is no matter, colour means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.data.alignment import default_path
from inrbridge.data.channels import RGB, canonical_channels
from inrbridge.field import Field, channel_names

LEAST_MATTER = 1e-3  # mean opacity of a signal; one that is emptier has no colours to speak of


@dataclass(frozen=True)
class Measure:
    """How values (b, n, c) are compared with targets of that shape.

    density: place of the density among the channels; None: all channels are compared as they are.
    colours: places of those channels that mean something only where matter is.
    path: length that light goes, in domain units, when density is felt.
    """

    density: int | None = None
    colours: tuple[int, ...] = ()
    path: float = 1.0

    @classmethod
    def of(cls, field: Field) -> Measure:
        """Read the names of a field's channels; the path is 1/16 of the domain's side, as for occupancy in `align`."""
        names = canonical_channels(channel_names(field))
        if "density" not in names:
            return cls()
        colours = tuple(place for place, name in enumerate(names) if name in RGB)
        return cls(names.index("density"), colours, default_path(field.domain))

    def losses(self, values: Tensor, targets: Tensor) -> Tensor:
        """Return squared errors (b, n, c) to descend on.

        Densities are compared as log(1 + density path), which is nearly the opacity where there is little and keeps a slope
        where there is much; colours are weighted by the target's opacity, relative to its mean over the n points.
        """
        if self.density is None:
            return (values - targets).square()
        return self._weighted(values, targets, lambda depth: torch.log1p(depth.clamp(min=0)) + depth.clamp(max=0))

    def errors(self, values: Tensor, targets: Tensor) -> Tensor:
        """Return squared errors (b, n, c) to report: densities as opacities 1 - exp(-density path), colours weighted as above."""
        if self.density is None:
            return (values - targets).square()
        return self._weighted(values, targets, _opacity)

    @property
    def peak(self) -> float | None:
        """The span of what `errors` compares, where it is known: opacities and colours lie in [0, 1]."""
        return None if self.density is None else 1.0

    def _weighted(self, values: Tensor, targets: Tensor, felt) -> Tensor:
        depth, true_depth = (self.path * v[..., self.density] for v in (values, targets))
        matter = _opacity(true_depth)
        matter = matter / matter.mean(-1, keepdim=True).clamp(min=LEAST_MATTER)
        found = []
        for place in range(values.shape[-1]):
            if place == self.density:
                found.append((felt(depth) - felt(true_depth)).square())
                continue
            square = (values[..., place] - targets[..., place]).square()
            found.append(matter * square if place in self.colours else square)
        return torch.stack(found, dim=-1)


def _opacity(depth: Tensor) -> Tensor:
    return -torch.expm1(-depth.clamp(min=0))
