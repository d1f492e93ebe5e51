"""Floor 6: a discrete network as an INR-Net (Wang & Golland 2023, property 4 and appendix C)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Domain
from inrbridge.errors import ConfigError, ShapeMismatch, SupportTooNarrow
from inrbridge.models.converted.adapted import PointKind, build_copy, copy_weights, nearest_kind
from inrbridge.models.converted.arguments import own_tensor
from inrbridge.models.converted.levels import Level, Placement, Places, checked_resolution, grid_points
from inrbridge.models.converted.located import Located, feature_map
from inrbridge.models.converted.program import Program, run_on_grid
from inrbridge.models.converted.rules import Reading, Run, apply_on_points
from inrbridge.models.converted.rules.through_grid import read_input
from inrbridge.models.dense import DenseNet
from inrbridge.models.net import INRNet
from inrbridge.nn import Sampled
from inrbridge.sampling import grid, lattice
from inrbridge.stencils.pixels import MAX_DIM

LEVELS = ("points", "inner-grids", "grids")


class Converted:
    """What converted nets share: a network, its program, and its two meanings; mixed into INRNet."""

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, program: dict, resolution: int | Sequence[int],
                 kernel: str = "reconstruct", order: int = 2, neighbors: int | None = None, oversampling: float = 4.0,
                 levels: str = "grids", reader: str | None = None, own_grids: Sequence[Sequence[int]] = (),
                 adapted: Sequence[dict] = (), generator: torch.Generator | None = None):  # fmt: skip
        options = {"program": program, "resolution": resolution, "kernel": kernel, "order": order, "neighbors": neighbors,
                   "oversampling": oversampling, "levels": levels, "reader": reader,
                   "own_grids": [list(shape) for shape in own_grids], "adapted": [dict(kind) for kind in adapted]}  # fmt: skip
        shape = checked_resolution(domain, resolution)
        width = {"width": classes} if self.kind == "dense" else {}
        super().__init__(domain, in_channels, classes, math.prod(shape), options, **width)
        if self.kind == "dense":
            self.head = nn.Identity()  # the network's own last layers made the values
        has_model = isinstance(domain, Box) and domain.dim <= MAX_DIM
        if reader not in (None, "pixels", "polynomials") or (reader == "pixels" and not has_model):
            raise ConfigError(
                f'Got reader "{reader}" for a converted net on {domain}, expected "polynomials", or "pixels" on a Box of up to '
                f"{MAX_DIM} dimensions."
            )
        reader = reader or ("pixels" if has_model else "polynomials")
        if kernel not in ("reconstruct", "spline"):
            raise ConfigError(f'Got kernel "{kernel}" for a converted net, expected "reconstruct" or "spline".')
        if levels not in LEVELS:
            raise ConfigError(f'Got levels "{levels}" for a converted net, expected one of: {", ".join(LEVELS)}.')
        if kernel == "spline" and levels == "grids":
            raise ConfigError('Got kernel "spline" with levels "grids", where kernels stay discrete; use levels "points".')
        if not oversampling >= 1:
            raise ConfigError(f"Got oversampling {oversampling} for a converted net, expected a number from 1 on.")
        self.resolution = shape
        self.reading = Reading(kernel, order, neighbors, reader)
        self.placement = Placement(self.domain, self.resolution, frozenset(map(tuple, own_grids)), levels, float(oversampling))
        self.program = Program.from_config(program)
        self.network = self.program.build()
        self.adapted = nn.ModuleList(build_copy(self.program) for _ in adapted)
        with torch.device("cpu"):  # in float64, so that fields are seen where they are in any dtype
            self._own = grid(self.domain, shape, dtype=torch.float64)

    @property
    def adapted_to(self) -> list[PointKind]:
        """The kinds of points that the networks in `adapted` are for, one for each."""
        return [PointKind(**kind) for kind in self.options["adapted"]]

    def network_for(self, points: Discretization) -> nn.Module:
        """Return the network whose weights suit points: on the pixel grid always the discrete network itself."""
        place = nearest_kind(self.adapted_to, PointKind.of(points), self.placement.levels == "grids")
        return self.network if place is None or self.placement.is_pixel_grid(points) else self.adapted[place]

    def adapt(self, kind: PointKind) -> nn.Module:
        """Return the copy of the network for points of a kind, with the network's own weights if it is new."""
        if kind not in self.adapted_to:
            copy = build_copy(self.program).to(own_tensor(self.network)).train(self.network.training)
            copy_weights(self.network, copy)
            self.adapted.append(copy)
            self.options["adapted"] = [*self.options["adapted"], kind.to_config()]
        return self.adapted[self.adapted_to.index(kind)]

    def pixels(self) -> Discretization:
        """Return the pixel grid of the discrete network, in float32 on the CPU."""
        return self._own.to(torch.float32)

    def run(self, sampled: Sampled) -> Located | Tensor:
        """Run the program: on the pixel grid the discrete network, elsewhere its meaning on points."""
        points = sampled.discretization
        if self.placement.is_pixel_grid(points):
            image = sampled.values.transpose(1, 2).contiguous().unflatten(2, self.resolution)
            return run_on_grid(self.program, self.network, image)
        if points.domain != self.domain:
            raise ShapeMismatch(f"Got samples on {points.domain}, expected {self.domain}; align the fields first.")
        places = Places.on(points, self.placement)
        if places.all_grids:  # nothing lives on points but the input
            image = (
                read_input(self.reading, sampled, places.root()).values.transpose(1, 2).contiguous().unflatten(2, self.resolution)
            )
            return run_on_grid(self.program, self.network_for(points), image)
        return self.run_at(sampled, places)

    def run_at(self, sampled: Sampled, places: Places) -> Located | Tensor:
        """Run the meaning on points, with the levels of `places`."""
        run = Run(places, self.reading)
        root = places.root()
        seen = feature_map(read_input(self.reading, sampled, root), root)

        def apply(step, operation, args, kwargs):
            return apply_on_points(run, step, operation, args, kwargs)

        network = self.network_for(sampled.discretization)
        return self.program.run(network, seen, apply)

    def as_fields(self, fields):
        """Turn a pixel array (b, c, *shape) into samples on the grid of its shape; leave fields and samples as they are."""
        if not isinstance(fields, Tensor | np.ndarray):
            return fields
        d = self.domain.dim
        if not isinstance(fields, Tensor) or not fields.is_floating_point():
            kind = "a numpy array" if isinstance(fields, np.ndarray) else "a tensor"
            raise ShapeMismatch(
                f"Got {kind} of {fields.dtype}, expected pixels as a tensor of floating-point numbers (b, {self.in_channels}, "
                "*shape), in the units of the fields; of a picture: torch.from_numpy(picture).permute(2, 0, 1)[None] / 255."
            )
        if fields.ndim != d + 2 or fields.shape[1] != self.in_channels:
            raise ShapeMismatch(
                f"Got an array of shape {tuple(fields.shape)}, expected (fields, {self.in_channels}, *shape) with {d} axes of "
                "pixels, as the discrete network takes it."
            )
        fields = fields.to(own_tensor(self.network))
        shape = tuple(fields.shape[2:])
        points = self._grid(shape).to(fields)
        return Sampled(points, fields.flatten(2).transpose(1, 2))

    def _grid(self, shape: tuple[int, ...]) -> Discretization:
        """The domain cut into cells of a shape, the same object at each call."""
        if shape == self.resolution:
            return self._own
        key = ("grid", shape)
        if key not in self._own.cache:
            self._own.cache[key] = grid(self.domain, shape, dtype=torch.float64)
        return self._own.cache[key]


_DOC = """
    On the pixel grid that the network was made for it computes what the network does, by the same operations of torch; on any
    other points its kernels act on the field at their nodes. Without a discretization it sees fields on the pixel grid. It
    also takes pixel arrays, tensors (b, in_channels, *shape) in the units of the fields: of the shape `resolution` as the
    network does, of another one as samples on the grid of that shape over the whole domain.

    Args:
        program: of `inrbridge.convert`. resolution: pixels along each axis.
        kernel: "reconstruct": discrete kernels act on the field at their nodes; "spline": the paper's B-spline surfaces.
        order: of the polynomials. neighbors: points for one reading; None: as measured best.
        oversampling: points of coarser levels for each one that the grid would keep, up to the number given.
        levels: where feature maps live. "points": on the given points, coarser ones on a part of them; "inner-grids": all but
            those of the first level on grids of their own; "grids": these too, onto which fields are read, as by `nn.Resample`.
        reader: how fields and maps are read between their points. "pixels": by a model of an image between its pixels
            (`stencils.Pixels`; boxes of 1 and 2 dimensions, there the default); "polynomials": moving least squares.
        own_grids: shapes of the levels that live on their own grids in any case: a step is bound to their pixels.
        adapted: kinds of points {"sampler", "points"} for which there are copies of the network with weights of their own
            (`inrbridge.conversion.calibrate`, `finetune`). Points take the copy of their sampler that is nearest in
            number; where all maps live on grids only if that has not far fewer, else the network itself.
"""


class ConvertedNet(Converted, INRNet):
    __doc__ = "A discrete classifier as an INR-Net; `inrbridge.convert` makes it." + _DOC

    name = "converted"

    def forward(self, fields, discretization: Discretization | None = None) -> Tensor:
        return super().forward(self.as_fields(fields), discretization)

    def compute(self, sampled: Sampled) -> Tensor:
        output = self.run(sampled)
        if not isinstance(output, Tensor):
            raise ShapeMismatch(f"Got a map of shape {tuple(output.shape)} from a classifier, expected numbers (b, classes).")
        return output.reshape(len(output), -1)


class ConvertedDenseNet(Converted, DenseNet):
    __doc__ = (
        "A discrete network from pictures to pictures as an INR-Net from fields to fields."
        """

    Of fields it gives output fields, of samples the output at their points, of a pixel array the array (b, classes, *shape)
    that the network gives, which may be finer or coarser than the input.
""" + _DOC
    )

    name = "converted-dense"

    def forward(
        self, fields, discretization: Discretization | None = None, *, at: Tensor | None = None, seen: Tensor | None = None
    ):
        sampled = self.as_fields(fields)
        if at is None and isinstance(fields, Tensor):
            output = self.features(sampled)
            return output.values.transpose(1, 2).unflatten(2, output.discretization.structure.shape)
        return super().forward(sampled, discretization, at=at, seen=seen)

    def read(self, features: Sampled, coords: Tensor, seen: Tensor | None = None) -> Tensor:
        part = features.discretization.domain
        if part != self.domain:  # layers without padding left less of the domain: outside, as at the edge of what is left
            low, high = (coords.new_tensor(end) for end in part.bounds)
            coords = torch.minimum(torch.maximum(coords, low), high)
        return super().read(features, coords, seen)

    def features(self, sampled: Sampled) -> Sampled:
        output = self.run(sampled)
        if isinstance(output, Located):
            if not output.is_map:
                raise ShapeMismatch(f"Got an output of shape {tuple(output.shape)}, expected a map (b, classes, *shape).")
            return output.sampled()
        shape = tuple(output.shape[2:])
        points = self._output_grid(shape).to(output)
        return Sampled(points, output.flatten(2).transpose(1, 2))

    def _output_grid(self, shape: tuple[int, ...]) -> Discretization:
        if shape == self.resolution:
            return self._own
        key = ("output grid", shape)
        if key not in self._own.cache:
            level = self._levels().get(shape)
            if level is not None:
                found = grid_points(shape, level.start, level.step, level.points.domain, self._own)
            else:  # made by steps that know pixels alone: its cells share the domain
                found = self._grid(shape)
            self._own.cache[key] = found
        return self._own.cache[key]

    @torch.no_grad()
    def _levels(self) -> dict[tuple[int, ...], Level]:
        """Where the program puts its levels: the same on all points, so that a few tell."""
        points, training = lattice(self.domain, 64).to(own_tensor(self.network)), self.training
        places = Places(replace(self.placement, oversampling=math.inf), points)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SupportTooNarrow)  # of course: the points are few
            self.eval().run_at(Sampled(points, points.points.new_zeros(2, len(points), self.in_channels)), places)
        self.train(training)
        return places.levels
