"""Floor 7: where in space matter is: an occupancy grid (nerfacc's), to skip empty cells and to draw points where they count.

Müller et al. 2022 (instant-ngp), section 5.1; the grid is kept by `nerfacc.OccGridEstimator`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Domain, Product
from inrbridge.errors import ConfigError
from inrbridge.field import Field
from inrbridge.radiance.backend import nerfacc
from inrbridge.radiance.medium import Medium, device_of
from inrbridge.sampling.arguments import check_call, check_count
from inrbridge.sampling.sequences import SobolSequence, draw_seed, radical_inverse

CHUNK = 2**17  # points a call
EMPTY = 0.05  # optical depth: a box filled with less, along its diagonal, counts as empty
PASSES = 4  # random points tried in each cell
RIM = 2  # points in a body are so much denser than those in its rim
EVER = 2**62  # steps for which the estimator looks at every cell


class Occupancy:
    """Which of resolution^3 equal cells of a box hold matter.

    A cell is occupied where the largest density met there, times the box's diagonal, exceeds `empty` (or the mean over all
    cells, if that is less); with `margin`, so are the cells around it.
    """

    def __init__(self, box: Box, resolution: int = 64, *, empty: float = EMPTY, margin: bool = True,
                 device: torch.device | str | None = None):  # fmt: skip
        if box.dim != 3:
            raise ConfigError(f"Got {box} for an occupancy grid, expected a Box in 3-D; elsewhere use sampling.importance.")
        if not isinstance(resolution, int) or not 2 <= resolution <= 512:
            raise ConfigError(f"Got resolution={resolution!r} for an occupancy grid, expected 2 to 512 cells along a side.")
        self.box, self.resolution, self.empty, self.margin = box, resolution, empty, margin
        self.estimator = nerfacc().OccGridEstimator([*box.low, *box.high], resolution=resolution).to(device or "cpu")

    @classmethod
    def of(cls, fields: Field | Sequence[Field], resolution: int = 64, *, generator: torch.Generator | None = None,
           passes: int = PASSES, **options) -> Occupancy:  # fmt: skip
        """Look at a field, or at several on one box: a cell that any of them fills is occupied.

        Args:
            generator: draws `passes` points in each cell; without one the seed is 0.
            **options: `empty` and `margin` of the grid.
        """
        media = [Medium.of(field) for field in (fields if isinstance(fields, Sequence) else [fields])]
        if not media or any(medium.box != media[0].box for medium in media):
            raise ConfigError(f"Got {len(media)} fields for one occupancy grid, expected fields on one box; rescale them first.")
        grid = cls(media[0].box, resolution, device=device_of(media[0].field), **options)
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        for _ in range(passes):
            grid.update(lambda points: functools.reduce(torch.maximum, (medium.density(points) for medium in media)), generator)
        return grid

    @property
    def mask(self) -> Tensor:
        """Bool (resolution, resolution, resolution): coordinate a runs along axis a."""
        return self.estimator.binaries[0]

    def update(self, density: Callable[[Tensor], Tensor], generator: torch.Generator, *, decay: float = 1.0) -> None:
        """Look at one random point of each cell; what was met before fades by `decay`.

        Args:
            density: points (n, 3) -> densities (n,).
        """
        diagonal = math.hypot(*self.box.size)

        def depth(points: Tensor) -> Tensor:
            parts = [density(part).float() for part in points.split(CHUNK)]
            return torch.cat(parts).nan_to_num(0.0)[:, None] * diagonal

        device = self.estimator.binaries.device
        with torch.no_grad(), _seeded(draw_seed(generator), device):
            self.estimator.train().update_every_n_steps(0, depth, occ_thre=self.empty, ema_decay=decay, warmup_steps=EVER, n=1)
        if self.margin:
            self.estimator.binaries = _widened(self.estimator.binaries)

    def contains(self, points: Tensor) -> Tensor:
        """Say for points (..., 3) which lie in occupied cells: bool (...)."""
        low, size = (torch.as_tensor(v, dtype=points.dtype, device=points.device) for v in (self.box.low, self.box.size))
        cell = ((points - low) / size * self.resolution).long().clamp(0, self.resolution - 1)
        flat = (cell[..., 0] * self.resolution + cell[..., 1]) * self.resolution + cell[..., 2]
        return self.mask.reshape(-1)[flat]

    def bounds(self, stray: float = 0.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return corners of the box around what is seen, but for a share `stray` of it on each side of each axis.

        A cell counts by its opacity, so that thin fog around a body does not widen the box.
        """
        n = self.resolution
        opacity = -torch.expm1(-self.estimator.occs.reshape(n, n, n).double() / n)
        if not float(opacity.sum()) > 0:
            return self.box.bounds
        corners = []
        for a, (start, size) in enumerate(zip(self.box.low, self.box.size, strict=True)):
            below = opacity.sum([axis for axis in range(3) if axis != a]).cumsum(0)
            first = int((below <= stray * below[-1]).sum())
            last = int((below < (1 - stray) * below[-1]).sum())
            corners.append((start + size * first / n, start + size * (last + 1) / n))
        return tuple(low for low, _ in corners), tuple(high for _, high in corners)


def _widened(mask: Tensor) -> Tensor:
    """Add their neighbours, also across edges and corners, to the true cells of a mask (.., n, n, n)."""
    return torch.nn.functional.max_pool3d(mask[None].float(), 3, stride=1, padding=1)[0] > 0


@contextmanager
def _seeded(seed: int, device: torch.device):
    """Seed the global generators, which nerfacc draws from, and put them back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class OccupancySampler:
    """A sampler whose points lie mostly where matter is.

    There are three strata: the occupied cells; their rim, the empty cells around them, where matter may have been missed; and
    the rest, which gets `share` of the points. A point's weight is the measure of its stratum over the stratum's count of
    points. Under a random generator the points are scrambled Sobol' points within each stratum, so that the integral of any
    function is estimated without bias, whatever the grid has missed.

    Args:
        fields: a field in space, or several on one box, as `Occupancy.of` takes them; or an `Occupancy`.
        resolution: cells along each side.
        share: of points in the rest, above 0 and below 1.
    """

    def __init__(self, fields: Field | Sequence[Field] | Occupancy, resolution: int = 64, *, share: float = 0.1,
                 generator: torch.Generator | None = None):  # fmt: skip
        if not 0 < share < 1:
            raise ConfigError(f"Got share={share!r}, expected a number between 0 and 1: the share of points in empty cells.")
        self.occupancy = (
            fields if isinstance(fields, Occupancy) else Occupancy.of(fields, resolution, margin=False, generator=generator)
        )
        self.share = share
        mask = self.occupancy.mask.cpu()
        wide = _widened(mask[None])[0]
        self._strata = [_along_curve(found.nonzero()) for found in (~wide, wide & ~mask, mask)]

    def __call__(
        self, domain: Domain, n: int, generator: torch.Generator | None = None, *, dtype=None, device=None
    ) -> Discretization:
        """Discretize the grid's box, or its product with another domain (directions), by n points; see `sampling`."""
        dtype = check_call(domain, generator, dtype)
        box = domain.a if isinstance(domain, Product) else domain
        if box != self.occupancy.box:
            raise ConfigError(
                f"Got the domain {domain}, expected {self.occupancy.box}, where the occupancy grid lies, or its product with "
                "another domain; make a sampler for each domain."
            )
        seeds = [draw_seed(generator) for _ in self._strata]
        return self._discretize(domain, check_count(n), seeds, dtype, device)

    def _discretize(self, domain: Domain, n: int, seeds: list, dtype, device) -> Discretization:
        chosen = self._choose_strata(n)
        points = torch.empty(n, domain.dim, dtype=torch.float64)
        weights = torch.empty(n, dtype=torch.float64)
        measure_of_cell = domain.measure / self.occupancy.resolution**3
        for number, (cells, seed) in enumerate(zip(self._strata, seeds, strict=True)):
            rows = chosen == number
            count = int(rows.sum())
            if count:
                points[rows] = self._points(domain, cells, count, seed)
                weights[rows] = measure_of_cell * len(cells) / count
        weights *= domain.measure / weights.sum()  # changes them only where n is so small that a stratum has no point
        return Discretization(
            points.to(device=device, dtype=dtype),
            weights.to(device=device, dtype=dtype),
            domain,
            sampler="occupancy",
            extend_to=functools.partial(self._extend, domain, seeds, dtype, device),
        )

    def _choose_strata(self, n: int) -> Tensor:
        """Return the stratum of each of n points (n,), so that any prefix holds about the right shares of them."""
        rest, rim, body = (len(cells) for cells in self._strata)
        shares = [self.share * (rest > 0), rim, RIM * body]  # points lie 1 / RIM times as dense in the rim
        if rim + body:
            shares[1:] = [(1 - shares[0]) * share / (rim + RIM * body) for share in shares[1:]]
        ends = torch.tensor(shares, dtype=torch.float64).cumsum(0)
        return torch.bucketize(radical_inverse(torch.arange(n), 2) * ends[-1], ends[:-1], right=True)

    def _extend(self, domain, seeds, dtype, device, m: int) -> Discretization:
        return self._discretize(domain, check_count(m), seeds, dtype, device)

    def _points(self, domain: Domain, cells: Tensor, count: int, seed: int | None) -> Tensor:
        """Spread points (count, d) evenly over cells: coordinate 0 of a sequence chooses the cell, 1 to 3 the place in it."""
        box = self.occupancy.box
        others = domain.b.unit_dim if isinstance(domain, Product) else 0
        unit = SobolSequence(4 + others, seed)(0, count)
        cell = cells[(unit[:, 0] * len(cells)).long().clamp(max=len(cells) - 1)]
        points = box.from_unit((cell + unit[:, 1:4]) / self.occupancy.resolution)
        return torch.cat([points, domain.b.from_unit(unit[:, 4:])], -1) if others else points


def _along_curve(cells: Tensor) -> Tensor:
    """Order cells (m, 3) along the Z-order curve (Morton 1966), on which neighbours lie close in space."""
    code = torch.zeros(len(cells), dtype=torch.long)
    for bit in range(9):  # 512 cells along a side
        for a in range(3):
            code |= ((cells[:, a] >> bit) & 1) << (3 * bit + a)
    return cells[code.argsort()]
