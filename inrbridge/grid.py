"""Floor 6: the core's own format: samples on a regular grid, interpolated.

Cubic interpolation is the cubic convolution of Keys (1981) with a = -1/2, also called Catmull-Rom: it passes through every
sample, has a continuous gradient, and is exact for quadratics away from the border. Beyond the outermost samples the grid is
continued by its border values, so that an image never runs away there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge.batched import asks_gradient, slices, table_rows
from inrbridge.compiled import corners as _compiled
from inrbridge.compiled.calling import is_eager
from inrbridge.domains import Box, Domain
from inrbridge.errors import ConfigError, ShapeMismatch, unknown_name
from inrbridge.field import Field, channel_names
from inrbridge.formats import Format, Probe
from inrbridge.native import read_native
from inrbridge.transforms import rescale

MAX_DIM = 4  # a cubic stencil in d dimensions has 4^d neighbours
CHUNK = 2**22  # point-neighbour pairs that are held at once: 50 MB of indices and weights
_NARROW = 4  # channels up to which torch's interpolation in the plane is twice as quick as our corners and rows
_TORCH_SAMPLES = (torch.float32, torch.float64)
EVALUATED_AT_ONCE = 2**16  # points of a signal, when it is sampled


def _linear(t: Tensor) -> Tensor:
    return torch.stack([1 - t, t], dim=-1)


def _cubic(t: Tensor) -> Tensor:
    return torch.stack(
        [
            t * (t * (1 - t / 2) - 0.5),
            t * t * (1.5 * t - 2.5) + 1,
            t * (t * (2 - 1.5 * t) + 0.5),
            t * t * (t - 1) / 2,
        ],
        dim=-1,
    )


# name -> (samples along an axis, the first of them relative to the one at or below the point, their weights (..., samples) for
# a fraction t in [0, 1))
_INTERPOLATIONS: dict[str, tuple[int, int, Callable[[Tensor], Tensor]]] = {"linear": (2, 0, _linear), "cubic": (4, -1, _cubic)}


class GridField(nn.Module):
    """Samples on a regular grid over a Box, as a field.

    Args:
        samples: (*shape, c), array axis a along coordinate a. They become the parameter "samples", frozen: call
            `requires_grad_()` to train them.
        domain: the Box that the grid fills, of dimension 1 to 4.
        interpolation: "cubic" or "linear"; both pass through the samples.
        align_corners: False: sample i of N is the centre of cell i, at low + (i + 1/2) / N of the side; True: the first and
            last samples lie on the border.
        channel_names: c names.

    >>> grid = GridField(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), Box.unit(1), interpolation="linear")
    >>> float(grid(torch.tensor([0.5])))
    1.5
    """

    format = "grid"
    tables = ("samples",)

    def __init__(
        self,
        samples: Tensor,
        domain: Domain,
        *,
        interpolation: str = "cubic",
        align_corners: bool = False,
        channel_names: Sequence[str] | None = None,
    ):
        super().__init__()
        if interpolation not in _INTERPOLATIONS:
            raise unknown_name("interpolation", interpolation, _INTERPOLATIONS, ConfigError)
        if not isinstance(domain, Box) or not 1 <= domain.dim <= MAX_DIM:
            raise ShapeMismatch(f"Got a grid on {domain}, expected a Box of 1 to {MAX_DIM} dimensions.")
        if samples.ndim != domain.dim + 1 or samples.numel() == 0 or not samples.is_floating_point():
            raise ShapeMismatch(
                f"Got {samples.dtype} samples of shape {tuple(samples.shape)} on {domain}, expected floating-point numbers of "
                f"shape (*shape, channels) with {domain.dim} grid axes; add a channel axis with samples[..., None] if it lacks."
            )
        if channel_names is not None and len(channel_names) != samples.shape[-1]:
            raise ShapeMismatch(f"Got {len(channel_names)} channel names for {samples.shape[-1]} channels; pass one for each.")
        self.samples = nn.Parameter(samples.detach().contiguous(), requires_grad=False)
        self.domain, self.channels = domain, samples.shape[-1]
        self.interpolation, self.align_corners = interpolation, bool(align_corners)
        self.channel_names = None if channel_names is None else tuple(channel_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples along each coordinate."""
        return tuple(self.samples.shape[:-1])

    @property
    def architecture(self) -> dict:
        """Keyword arguments of `GridFormat.build` that give a grid of this kind."""
        return {"shape": list(self.shape), "interpolation": self.interpolation, "align_corners": self.align_corners}

    def forward(self, coords: Tensor) -> Tensor:
        """Interpolate: coords (..., d) -> values (..., c) in the dtype of coords."""
        self.domain.check_shape(coords)
        values = self._interpolate(coords.reshape(-1, self.domain.dim), self.samples.unsqueeze(0))
        return values.reshape(*coords.shape[:-1], self.channels)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Interpolate b grids of this shape: samples (b, *shape, c), coords (n, d) or (b, n, d) -> (b, n, c).

        Shared points have one stencil for all grids.
        """
        return self._interpolate(coords, states["samples"])

    def grid_points(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return where the samples lie: (number of samples, d), the last axis fastest."""
        return grid_points(self.domain, self.shape, self.align_corners, dtype or self.samples.dtype)

    def _interpolate(self, points: Tensor, samples: Tensor) -> Tensor:
        """Apply the stencils of points (n, d) or (b, n, d) to samples (b, *shape, c) -> (b, n, c), some points at a time."""
        if self._suits_torch(points, samples):
            return self._sampled_by_torch(points, samples)
        taps = _INTERPOLATIONS[self.interpolation][0] ** self.domain.dim
        table, own = samples.flatten(1, -2), points.ndim == 3
        parts = []
        for some in slices(points.shape[-2], max(1, CHUNK // (taps * (len(table) if own else 1)))):
            index, weights = self._stencil(points[..., some, :].reshape(-1, points.shape[-1]))
            if own:
                index, weights = (values.unflatten(0, (len(table), -1)) for values in (index, weights))
            parts.append(table_rows(table, index.unsqueeze(0), weights.unsqueeze(0)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _suits_torch(self, points: Tensor, samples: Tensor) -> bool:
        """Say whether torch's own interpolation is the quickest: it is one kernel, but knows no second derivatives, and finds
        the corners of points that fields share anew for each."""
        fits = self.interpolation == "linear" and self.domain.dim <= 3 and points.dtype == samples.dtype in _TORCH_SAMPLES
        if not fits or not is_eager() or asks_gradient(points, (samples,)):
            return False
        if points.device.type != "cpu":
            return points.device.type == "cuda"
        apart, is_narrow = points.ndim == 3 or len(samples) == 1, self.domain.dim <= 2 and self.channels <= _NARROW
        return apart and (is_narrow or not _compiled.available(points, self.shape))

    def _sampled_by_torch(self, points: Tensor, samples: Tensor) -> Tensor:
        places = self._from_low_to_high(points)
        values = samples.permute(0, -1, *range(samples.ndim - 2, 0, -1))  # coordinates there begin with the last axis
        if self.domain.dim == 1:  # a picture one pixel high
            places, values = torch.cat([places, torch.zeros_like(places)], -1), values.unsqueeze(2)
        lines = places.expand(len(samples), -1, -1).reshape(len(samples), *[1] * (values.ndim - 3), *places.shape[-2:])
        found = functional.grid_sample(values, lines, padding_mode="border", align_corners=self.align_corners).flatten(2)
        blank = 0 * sum(places.clamp(-1, 1).unbind(-1))  # NaN at NaN, which torch takes for a border
        return found.add_(blank if blank.ndim == 1 else blank.unsqueeze(1)).mT

    def _from_low_to_high(self, points: Tensor) -> Tensor:
        """Coordinates from -1 to 1 over the box; by numbers, for a tensor of them would have to be sent to a GPU."""
        sides = list(zip(self.domain.low, self.domain.size, strict=True))
        if len(set(sides)) == 1:
            return (points - sides[0][0]) / sides[0][1] * 2 - 1
        return torch.stack([(x - low) / size * 2 - 1 for x, (low, size) in zip(points.unbind(-1), sides, strict=True)], -1)

    def _stencil(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples around points (m, d) and their weights: index (m, taps^d), weights (m, taps^d)."""
        taps, first, weigh = _INTERPOLATIONS[self.interpolation]
        if is_eager() and _compiled.available(points, self.shape) and not asks_gradient(points, ()):
            return _compiled.corners(points.detach(), self.shape, self.domain.low, self.domain.size, self.align_corners, taps)
        index = torch.zeros(len(points), 1, dtype=torch.long, device=points.device)
        weights = points.new_ones(len(points), 1)
        axes = zip(self.shape, self.domain.low, self.domain.size, points.unbind(-1), strict=True)
        for count, low, size, x in axes:
            unit = (x - low) / size
            place = unit * (count - 1) if self.align_corners else unit * count - 0.5
            place = place.clamp(-1, count)  # from there on all samples are the border's
            below = place.detach().floor()
            along = weigh(place - below)  # (m, taps)
            around = torch.arange(first, first + taps, device=points.device)
            near = (below.long()[:, None] + around).clamp(0, count - 1)  # border values go on outside
            index = (index[:, :, None] * count + near[:, None, :]).flatten(1)
            weights = (weights[:, :, None] * along[:, None, :]).flatten(1)
        return index, weights


def grid_points(domain: Box, shape: Sequence[int], align_corners: bool, dtype: torch.dtype) -> Tensor:
    """Return the sample points of a grid that fills a box: (product of shape, d), the last axis fastest."""
    axes = []
    for count, low, size in zip(shape, domain.low, domain.size, strict=True):
        i = torch.arange(count, dtype=torch.float64)
        unit = i / max(count - 1, 1) if align_corners else (i + 0.5) / count
        axes.append((low + size * unit).to(dtype))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, domain.dim)


class GridFormat(Format):
    """Regular grids of samples, in inrbridge's own container."""

    api, name = 1, "grid"
    suffixes = (".safetensors",)
    description = "samples on a regular grid, interpolated (linear or cubic)"

    def recognizes(self, probe: Probe) -> bool:
        return probe.native.get("format") == self.name

    def open(self, path: Path) -> GridField:
        return read_native(path, self)

    def build(
        self,
        domain: Domain,
        channels: int,
        *,
        generator: torch.Generator | None = None,
        shape: int | Sequence[int] = 32,
        interpolation: str = "cubic",
        align_corners: bool = False,
    ) -> GridField:
        """Return a trainable grid of small random samples; `shape` is one count for all axes, or one for each."""
        shape = _counts(shape, domain)
        samples = torch.empty(*shape, channels).uniform_(-0.1, 0.1, generator=generator)
        field = GridField(samples, domain, interpolation=interpolation, align_corners=align_corners)
        return field.requires_grad_()

    def sample(
        self,
        signal: Field,
        domain: Domain,
        channels: int,
        *,
        shape: int | Sequence[int] = 32,
        interpolation: str = "cubic",
        align_corners: bool = False,
    ) -> GridField:
        """Read the signal at the grid points: both interpolations pass through these values."""
        if signal.channels != channels:
            raise ShapeMismatch(f"Got a signal of {signal.channels} channels, expected {channels}; select channels first.")
        shape = _counts(shape, domain)
        signal = rescale(signal, domain)
        points = grid_points(domain, shape, align_corners, torch.get_default_dtype())
        with torch.no_grad():
            values = torch.cat([signal(part) for part in points.split(EVALUATED_AT_ONCE)])
        values, names = values.reshape(*shape, channels), channel_names(signal)
        return GridField(values, domain, interpolation=interpolation, align_corners=align_corners, channel_names=names)

    def fit_defaults(self):
        return {"steps": 300, "lr": 1e-1}


def _counts(shape: int | Sequence[int], domain: Domain) -> tuple[int, ...]:
    counts = (shape,) * domain.dim if isinstance(shape, int) else tuple(shape)
    if len(counts) != domain.dim or not all(isinstance(count, int) and count >= 1 for count in counts):
        raise ConfigError(f"Got a grid of shape {shape!r} on {domain}, expected {domain.dim} whole numbers of at least 1.")
    return counts
