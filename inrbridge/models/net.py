"""Floor 6: what every INR-Net shares: it takes fields or samples, and says how to build it again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, EmptyDiscretization, ShapeMismatch
from inrbridge.field import Field
from inrbridge.nn import Resample, Sampled
from inrbridge.sampling import get_sampler, lattice
from inrbridge.stacking import FieldStack, stack

_RESAMPLE = ("none", "lattice", "grid", "sobol", "halton")


class INRNet(nn.Module):
    """A network on fields. Subclasses state `name`, fill `options` and write `compute(sampled)`.

    A net takes a `Sampled`, or fields and the discretization to evaluate them on: one field, a list, or a `FieldStack`.
    Without a discretization it uses its own, a lattice of `points` points, the same at every call.

    Args:
        domain: where the fields live.
        in_channels: channels of the fields.
        classes: width of the output.
        points: size of the net's own discretization.
    """

    name: str
    kind = "classification"  # what it is for: "classification" (numbers for a field, regression too), "dense" or "generation"
    fewest = 1  # points that samples must have

    def __init__(self, domain: Domain, in_channels: int, classes: int, points: int, options: dict[str, object]):
        super().__init__()
        self.domain, self.in_channels, self.classes, self.points, self.options = domain, in_channels, classes, points, options
        self._own: Discretization | None = None

    def compute(self, sampled: Sampled) -> Tensor:
        """Map the samples of b fields to the output (b, classes)."""
        raise TypeError(f"{type(self).__name__} does not define compute(sampled); write it in the subclass.")

    def forward(
        self, fields: Sampled | Field | Sequence[Field] | FieldStack, discretization: Discretization | None = None
    ) -> Tensor:
        """Return the output (b, classes) for b fields (one field: b = 1)."""
        return self.compute(self.sample(fields, discretization))

    def sample(
        self, fields: Sampled | Field | Sequence[Field] | FieldStack, discretization: Discretization | None = None
    ) -> Sampled:
        """Evaluate the fields on the discretization, in the dtype and on the device of the net.

        Raises:
            ShapeMismatch: domain or channels are not those of the net. EmptyDiscretization: too few points.
        """
        if isinstance(fields, Sampled):
            return self._checked(fields)
        if not isinstance(fields, FieldStack):
            fields = stack(fields)
        if fields.domain.dim != self.domain.dim:
            raise ShapeMismatch(
                f"Got fields on {fields.domain}, expected fields on {self.domain}; align them first, "
                "e.g. FieldDataset(store, domain=net.domain)."
            )
        like = next(self.parameters())
        discretization = (discretization if discretization is not None else self.own_discretization()).to(like)
        return self._checked(Sampled(discretization, fields(discretization.points).to(like)))

    def own_discretization(self) -> Discretization:
        """The lattice this net uses when none is given."""
        if self._own is None:
            self._own = lattice(self.domain, self.points)
        return self._own

    def resampling(self, resample: str, order: int = 2, neighbors: int | None = None) -> nn.Module:
        """Return the layer that comes first, and choose the net's own discretization to suit.

        Args:
            resample: "none": every layer lives on the points that are given, and this one changes nothing. "lattice", "grid",
                "sobol" or "halton": the net's own discretization is of this sampler, and samples are first read onto it
                (`nn.Resample`), so that number and kind of the given points matter little to any layer; on a grid all that
                follows is a discrete net and costs as much.
            order, neighbors: of the local fit that reads them.
        """
        if resample not in _RESAMPLE:
            raise ConfigError(f'Got resample "{resample}", expected one of: {", ".join(_RESAMPLE)}.')
        if resample == "none":
            return nn.Identity()
        with torch.device("cpu"):  # points are values, even of a net that is built without weights
            self._own = get_sampler(resample)(self.domain, self.points)
        return Resample(self._own, order, neighbors)

    def require_points(self, fewest: int) -> None:
        """State how many points the strides and cells of the layers need: of the given points, or of the net's own."""
        if self._own is None:
            self.fewest = fewest
        elif len(self._own) < fewest:
            raise ConfigError(
                f"Got {len(self._own)} points of its own for this {self.name}, expected at least {fewest}, of which its strides "
                "or cells leave one; raise `points` or `resolution`."
            )

    def config(self) -> dict:
        """Return what `build_model` needs to build this net again, as JSON values."""
        return {
            "name": self.name,
            "domain": self.domain.to_config(),
            "in_channels": self.in_channels,
            "classes": self.classes,
            "options": {key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()},
        }

    def _checked(self, sampled: Sampled) -> Sampled:
        if sampled.channels != self.in_channels:
            raise ShapeMismatch(
                f"Got fields of {sampled.channels} channels, expected {self.in_channels} by this {self.name}; "
                "select or map the channels first (inrbridge.transforms)."
            )
        if len(sampled.discretization) < self.fewest:
            raise EmptyDiscretization(
                f"Got {len(sampled.discretization)} points for this {self.name}, expected at least {self.fewest}, of which its "
                "strides or cells leave one; sample the fields at more points, or build it with smaller strides or fewer cells."
            )
        return sampled


def node_spacing(domain: Domain, resolution: int | Sequence[int], times: int = 1) -> tuple[float, ...]:
    """Distance of the kernel nodes along each tangent direction: `times` cells of a grid of `resolution` cells over the lengths
    of the domain, which on a curved one are the sides of a square of equal area."""
    lengths = domain.lengths
    cells = (resolution,) * len(lengths) if isinstance(resolution, int) else tuple(resolution)
    if len(cells) != len(lengths):
        raise ShapeMismatch(f"Got a resolution for {len(cells)} axes, expected {len(lengths)} on {domain}.")
    return tuple(times * length / c for length, c in zip(lengths, cells, strict=True))


def linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A fully connected layer whose weights come from the generator, distributed as torch draws them."""
    layer = nn.Linear(inputs, outputs)
    bound = inputs**-0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer
