"""Floor 7: calibration: a converted net is adapted to points of one kind in one pass over unlabelled fields, without gradients.

The discrete network on the pixel grid teaches a copy of itself at the points. Both walk through the program side by side, all
fields at once, step by step; at each layer with weights the copy's output is corrected before the next layer sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrbridge.conversion.correcting import REGRESSED, Calls, adjustable, match_moments, regress
from inrbridge.conversion.examples import TOGETHER, Fields, checked_points, values_at
from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError
from inrbridge.models.converted import Converted
from inrbridge.models.converted.adapted import PointKind, copy_weights
from inrbridge.models.converted.levels import Places
from inrbridge.models.converted.located import feature_map
from inrbridge.models.converted.rules import Run, apply_on_points
from inrbridge.models.converted.rules.through_grid import read_input
from inrbridge.nn import Sampled
from inrbridge.progress import Progress
from inrbridge.sampling import lattice, sobol

SETS = 4  # shifts or scrambles of points that share the fields, unless points are given
FEWEST = 16  # fields that statistics over fields are worth anything for


@dataclass(frozen=True, eq=False)
class Carried:
    """One result of the program for all fields: for each part of them what the copy has at points and the network on pixels."""

    parts: tuple[tuple[object, object], ...]


@torch.no_grad()
def calibrate(net: Converted, fields: Fields, discretization: Discretization | Sequence[Discretization] | None = None, *,
              ridge: float | None = None, show=None) -> None:  # fmt: skip
    """Adapt a converted net to kinds of points, in place. On the pixel grid it stays exactly what it was.

    At each convolution, linear layer and normalization with weights, each output channel gets the gain and the offset with which
    its mean and variance over all fields are those of the discrete network (for batch normalization this is the same as other
    running statistics). With `ridge` the weights of convolutions and linear layers are corrected before, by ridge regression.

    Memory: the widest maps of the network that live at one time, twice (points and pixels), for all fields: for 256 fields of
    32 x 32 pixels and 16 channels 16 MB for each map. Layers that the program calls more than once are left alone.

    Args:
        net: of `convert`.
        fields: a few hundred (256 are enough) of those the net is for; no labels are needed.
        discretization: the kind of points: sampler and number. Several of one kind share the fields among them, several kinds
            each get a copy of the weights. None: four lattices and four Sobol sets, of as many points as the network has pixels.
        ridge: None: gains and offsets only. A number: weight of what pulls the corrected weights to the network's own, as a share
            of the mean square of their inputs; large is cautious.
        show: whether and how progress is shown, as of `inrbridge.progress.Progress`.

    Raises:
        ConfigError: fewer than 16 fields; with `ridge`, fewer values than a layer has weights.
        ShapeMismatch: fields or points are not of the net's domain or channels.
    """
    if ridge is not None and not ridge >= 0:
        raise ConfigError(f"Got ridge={ridge!r}, expected a number from 0 on, or None for gains and offsets only.")
    if len(fields) < FEWEST:
        raise ConfigError(
            f"Got {len(fields)} fields to calibrate on, expected at least {FEWEST}, better 256: they stand for all fields."
        )
    kinds: dict[PointKind, list[Discretization]] = {}
    for points in _discretizations(net, discretization):
        kinds.setdefault(PointKind.of(points), []).append(checked_points(net, points))
    images = values_at(net, fields, net.pixels()).transpose(1, 2).contiguous().unflatten(2, net.resolution)
    steps = sum(step.kind in ("module", "function", "method") for step in net.program.steps)
    with Progress(steps * len(kinds), "calibrate", show) as bar:
        for kind, discretizations in kinds.items():
            samples, pictures = [], []
            for points, chosen in zip(discretizations, _dealt(len(fields), len(discretizations)), strict=True):
                values = values_at(net, fields, points, chosen)
                samples += [Sampled(points.to(values), part) for part in values.split(TOGETHER)]
                pictures += images[chosen].split(TOGETHER)
            copy = net.adapt(kind)
            copy_weights(net.network, copy)
            _Calibration(net, copy, ridge, bar).run(samples, pictures)


def _discretizations(net: Converted, given) -> list[Discretization]:
    if given is None:
        count = len(net.pixels())
        chance = torch.Generator().manual_seed(0)
        return [sampler(net.domain, count, chance) for sampler in (lattice, sobol) for _ in range(SETS)]
    return [given] if isinstance(given, Discretization) else list(given)


def _dealt(count: int, hands: int) -> list[list[int]]:
    return [list(range(first, count, hands)) for first in range(hands)]


class _Calibration:
    """The walk of a copy and its teacher through the program."""

    def __init__(self, net: Converted, copy: nn.Module, ridge: float | None, bar: Progress):
        self.net, self.copy, self.ridge, self.bar = net, copy, ridge, bar
        called = [step.target for step in net.program.steps if step.kind == "module"]
        self.once = {name for name in called if called.count(name) == 1}

    def run(self, samples: list[Sampled], images: list[Tensor]) -> None:
        """Correct the copy: samples at points and images of the same fields, in the same parts."""
        was_training = self.net.training
        self.net.eval()
        try:
            self.runs, parts = [], []
            for sampled, image in zip(samples, images, strict=True):
                points = sampled.discretization
                places = Places.on(points, self.net.placement)
                run, root = Run(places, self.net.reading), places.root()
                self.runs.append(run)
                seen = feature_map(read_input(run.reading, sampled, root), root)
                parts.append((seen, image))
            self.net.program.run(self.copy, Carried(tuple(parts)), self.apply)
        finally:
            self.net.train(was_training)

    def apply(self, step, operation, args, kwargs) -> Carried:
        """Carry out a step for both, part by part, and correct it where it has weights."""
        frozen = self.net.program.operation(step, self.net.network)
        before = [_picked((args, kwargs), place, 0) for place in range(len(self.runs))]
        found = [apply_on_points(run, step, operation, *given) for run, given in zip(self.runs, before, strict=True)]
        wanted = [frozen(*a, **k) for a, k in (_picked((args, kwargs), place, 1) for place in range(len(self.runs)))]
        dim = adjustable(operation) if step.kind == "module" and step.target in self.once else None
        if dim is not None:
            if self.ridge is not None and isinstance(operation, REGRESSED):
                found = regress(operation, Calls(step, self.runs, before, found, wanted), dim, self.ridge)
            found = match_moments(operation, Calls(step, self.runs, before, found, wanted), dim)
        self.bar.advance()
        return Carried(tuple(zip(found, wanted, strict=True)))


def _picked(value, place: int, side: int):
    """Replace what is carried by one part of it, as the copy (0) or the network (1) has it."""
    if isinstance(value, Carried):
        return value.parts[place][side]
    if isinstance(value, list | tuple):
        return type(value)(_picked(part, place, side) for part in value)
    if isinstance(value, slice):
        return slice(*(_picked(part, place, side) for part in (value.start, value.stop, value.step)))
    if isinstance(value, dict):
        return {key: _picked(part, place, side) for key, part in value.items()}
    return value
