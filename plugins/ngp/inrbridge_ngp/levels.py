"""The geometry of a multiresolution grid (Müller et al. 2022, "Instant Neural Graphics Primitives"): which rows of the
table surround a point on each level, and with which weights.

    scale_l = 2^(l log2 growth) base - 1,   resolution_l = ceil(scale_l) + 1,   position = scale_l u + 1/2
    row = sum_d q_d resolution^d where the level fits its rows, else xor_d(q_d prime_d), in unsigned 32-bit numbers, mod rows

That is tiny-cuda-nn's; other code bases differ by what `LAYOUTS` says. `cells` finds the same, compiled for the CPU.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from inrbridge import errors
from inrbridge.batched import is_eager
from inrbridge.options import changed_options
from inrbridge_ngp import cells as _compiled
from inrbridge_ngp.cells import MOST_DIMENSIONS

HASHES = {
    "coherent-prime": (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737),
    "prime": (1958374283, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737),
    "reversed-prime": (2165219737, 1434869437, 2097192037, 3674653429, 805459861, 2654435761, 1958374283),
}
GRIDS = ("hash", "dense", "tiled")
INTERPOLATIONS = ("linear", "smoothstep", "nearest")
# torch-ngp: a dense level is one row wider than tiny-cuda-nn's; its first versions did not round rows up to eights, and
# its option align_corners takes the half step away. nerfstudio (torch) and HashNeRF-pytorch hash every level.
LAYOUTS = ("tcnn", "torch-ngp", "torch-ngp-early", "torch-ngp-aligned", "nerfstudio", "hashnerf")
MOST_LEVELS, MOST_LOG2 = 128, 30
_MASK = 2**32 - 1
# above these resolutions tiny-cuda-nn takes the size of a level for an overflow of 32 bits, by dimension
_WIDEST = (0, 2**32 - 1, 0xFFFF, 0x659, 0xFF, 0x54, 0x28, 0x17)


@dataclass(frozen=True)
class GridSpec:
    """What decides a grid of `levels` levels with `features` numbers a row, on the unit cube of `dim` dimensions.

    A level of kind "hash" has at most 2^log2_table rows, one of kind "tiled" at most base^dim.
    """

    dim: int
    levels: int
    features: int
    log2_table: int
    base: int
    growth: float
    grid: str = "hash"
    hash: str = "coherent-prime"
    interpolation: str = "linear"
    layout: str = "tcnn"

    def __post_init__(self):
        for name in ("dim", "levels", "features", "log2_table", "base"):
            object.__setattr__(self, name, int(getattr(self, name)))
        object.__setattr__(self, "growth", float(self.growth))
        limits = {"dim": MOST_DIMENSIONS, "levels": MOST_LEVELS, "features": 64, "log2_table": MOST_LOG2, "base": 2**20}
        for name, most in limits.items():
            if not 1 <= getattr(self, name) <= most:
                raise errors.ConfigError(f"Got {name} = {getattr(self, name)} of a grid, expected 1 to {most}.")
        if not (math.isfinite(self.growth) and 0 < self.growth <= 2**20):
            raise errors.ConfigError(f"Got growth = {self.growth} from level to level of a grid, expected a number above 0.")
        for name, known in (("grid", GRIDS), ("hash", HASHES), ("interpolation", INTERPOLATIONS), ("layout", LAYOUTS)):
            if getattr(self, name) not in known:
                raise errors.unknown_name(name, getattr(self, name), known)

    def to_options(self) -> dict:
        """Return the keyword arguments of `NgpFormat.build` that give this grid, defaults left out."""
        return {name: value for name, value in changed_options(self).items() if name != "dim"}

    @cached_property
    def scales(self) -> np.ndarray:
        """Steps of a level's lattice along the unit interval, float32."""
        if self.layout in ("nerfstudio", "hashnerf"):
            return self._whole_scales()
        # float32 as the kernels have it, each function in float64 and rounded once: their own differ by an ulp among GPUs
        growth = np.float32(self.growth) if self.layout == "tcnn" else self.growth  # torch-ngp hands over the logarithm
        exponent = np.arange(self.levels, dtype=np.float32) * np.float32(np.log2(np.float64(growth)))
        with np.errstate(over="ignore"):
            power = np.exp2(exponent.astype(np.float64)).astype(np.float32)
            scales = power * np.float32(self.base) - np.float32(1)
        return self._checked(scales)

    def _whole_scales(self) -> np.ndarray:
        # by torch in float32 as there, for the finest level is often a whole number but for rounding
        if self.layout == "nerfstudio":
            power = self.growth ** torch.from_numpy(np.arange(self.levels))
        else:
            growth = torch.from_numpy(np.array(self.growth, dtype=np.float32))
            power = torch.stack([growth**level for level in range(self.levels)])
        return self._checked(torch.floor(self.base * power).numpy())

    def _checked(self, scales: np.ndarray) -> np.ndarray:
        if not np.isfinite(scales).all() or scales.max() >= 2**31:
            raise errors.ConfigError(
                f"Got base = {self.base} and growth = {self.growth} over {self.levels} levels of a grid, expected fewer than "
                "2^31 steps on the finest."
            )
        return scales

    @cached_property
    def resolutions(self) -> list[int]:
        """Lattice points of a level along an axis."""
        if self.layout in ("nerfstudio", "hashnerf"):
            return [int(scale) for scale in self.scales]
        return [math.ceil(float(scale)) + 1 for scale in self.scales]

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each level."""
        most = 2**self.log2_table
        if self.layout in ("nerfstudio", "hashnerf"):
            return [most] * self.levels
        if self.layout == "tcnn":
            whole = [_eights(min(resolution**self.dim, 2**31 - 1)) for resolution in self.resolutions]
            if self.grid == "dense":
                return whole
            most = most if self.grid == "hash" else self.base**self.dim
            return [min(rows, most) for rows in whole]
        wider = 0 if self.layout == "torch-ngp-aligned" else 1
        steps = [math.ceil(self.base * self.growth**level) + wider for level in range(self.levels)]
        sizes = [min(most, step**self.dim) for step in steps]
        return sizes if self.layout == "torch-ngp-early" else [_eights(rows) for rows in sizes]

    @cached_property
    def offsets(self) -> list[int]:
        """First row of each level, and at the end the number of all rows."""
        offsets = [0]
        for size in self.sizes:
            offsets.append(offsets[-1] + size)
        return offsets

    @property
    def rows(self) -> int:
        """Rows of all levels together."""
        return self.offsets[-1]

    @property
    def outputs(self) -> int:
        """Numbers that the grid gives for a point."""
        return self.levels * self.features

    @cached_property
    def _strides(self) -> list[list[int] | None]:
        """Steps in rows along each axis for each level; None where the level is hashed."""
        if self.layout in ("nerfstudio", "hashnerf"):
            return [None] * self.levels
        wider = 1 if self.layout in ("torch-ngp", "torch-ngp-early") else 0
        found: list[list[int] | None] = []
        for resolution, size in zip(self.resolutions, self.sizes, strict=True):
            strides, stride = [], 1
            overflow = self.layout == "tcnn" and resolution > _WIDEST[self.dim]
            for _ in range(self.dim):
                # torch-ngp leaves out the axes beyond the table
                beyond = overflow or (self.layout != "tcnn" and stride > size)
                strides.append(0 if beyond else stride & _MASK)
                stride = stride if beyond else stride * (resolution + wider)
            hashed = self.grid == "hash" and (overflow or stride > size)
            found.append(None if hashed else strides)
        return found

    @cached_property
    def _runs(self) -> list[tuple[int, int]]:
        """Neighbouring levels of one kind, as ranges."""
        kinds = [strides is None for strides in self._strides]
        cuts = [0, *(i for i in range(1, self.levels) if kinds[i] != kinds[i - 1]), self.levels]
        return list(pairwise(cuts))

    def cells(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Find the corners around points.

        Args:
            u: (m, dim) points, the unit cube being what the grid spans; others wrap around.

        Returns:
            Rows of the table (levels, m, corners) int64 or int32, and weights (levels, m, corners) in the dtype of u,
            differentiable in u. There are 2^dim corners, or one where the interpolation is "nearest".
        """
        if not _compiled.available(u, self.dim):
            position = self._positions(u)
            return self._rows(self._ends(position)), self._weights(position)
        rows, weights = self._finder(u)
        asked = torch.is_grad_enabled() and u.requires_grad and self.interpolation != "nearest"
        return rows, self._weights(self._positions(u)) if asked else weights

    @cached_property
    def _finder(self) -> _compiled.Finder:
        levels = np.zeros(self.levels, _compiled.LEVEL)
        levels["scale"], levels["size"], levels["first"] = self.scales, self.sizes, self.offsets[:-1]
        levels["is_hashed"] = [strides is None for strides in self._strides]
        for level, strides in zip(levels, self._strides, strict=True):
            level["factors"][: self.dim] = HASHES[self.hash][: self.dim] if strides is None else strides
        return _compiled.Finder(
            levels, self.dim, self._shift, wide=self.layout == "tcnn", ceils=self.layout == "nerfstudio",
            smooth=self.interpolation == "smoothstep", nearest=self.interpolation == "nearest",
        )  # fmt: skip

    @property
    def _shift(self) -> float:
        return 0.5 if self.layout in ("tcnn", "torch-ngp", "torch-ngp-early") else 0.0

    def _positions(self, u: Tensor) -> Tensor:
        """Places of points u (m, dim) in the lattice of each level: (levels, dim, m)."""
        scales = torch.from_numpy(self.scales).to(u.device, torch.float64)[:, None, None]
        across = u.mT  # points last: every step from here on runs along them
        if self.layout == "tcnn":
            return (across.double() * scales + self._shift).to(u.dtype)  # rounded once, as the fused kernels do
        return across * scales.to(u.dtype) + self._shift

    def _ends(self, position: Tensor) -> list[Tensor]:
        """The ends, one or two, of the cells along each axis (levels, dim, m), int64."""
        low = position.detach().floor().to(torch.int64)
        if self.interpolation == "nearest":
            return [low]
        return [low, position.detach().ceil().to(torch.int64) if self.layout == "nerfstudio" else low + 1]

    def _weights(self, position: Tensor) -> Tensor:
        """(levels, dim, m) -> (levels, m, corners)."""
        if self.interpolation == "nearest":
            return torch.ones(len(position), position.shape[2], 1, dtype=position.dtype, device=position.device)
        weight = position - position.detach().floor()
        if self.interpolation == "smoothstep":
            weight = weight * weight * (3 - 2 * weight)
        pair = (1 - weight, weight)
        weights = [side[:, 0] for side in pair]
        for d in range(1, self.dim):
            weights = [found * side[:, d] for found in weights for side in pair]
        return torch.stack(weights, -1)

    def _rows(self, ends: list[Tensor]) -> Tensor:
        """Number the rows of corners: one or two ends (levels, dim, m) along each axis -> (levels, m, corners)."""
        parts, small = [], self.rows < 2**31
        for start, stop in self._runs:
            hashed = self._strides[start] is None
            factors = [HASHES[self.hash][: self.dim]] * (stop - start) if hashed else self._strides[start:stop]
            factors = torch.tensor(factors, device=ends[0].device).unsqueeze(-1)
            sides = [(end[start:stop] * factors).to(torch.int32) for end in ends]  # keeps the lowest 32 bits
            corners = [side[:, 0] for side in sides]
            for d in range(1, self.dim):
                corners = [found ^ side[:, d] if hashed else found + side[:, d] for found in corners for side in sides]
            rows = torch.stack(corners, -1)
            sizes, firsts = (
                torch.tensor(numbers[start:stop], device=rows.device, dtype=torch.int32 if small else torch.int64)[:, None, None]
                for numbers in (self.sizes, self.offsets)
            )
            if hashed and all(size & (size - 1) == 0 for size in self.sizes[start:stop]):
                rows = rows & (sizes - 1)
            else:
                rows = _remainder(rows, sizes)
            parts.append(rows.to(sizes.dtype) + firsts)
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _remainder(rows: Tensor, sizes: Tensor) -> Tensor:
    """Return rows (levels, m, corners), whose 32 bits are unsigned, modulo sizes (levels, 1, 1)."""
    if rows.device.type == "cpu" and is_eager() and rows.numel() and int(sizes.max()) < 2**30:
        # points in the cube are less than one turn beyond: no division is needed
        least, most = torch.aminmax(rows.flatten(1), dim=1)
        if bool((least >= 0).all()) and bool((most < 2 * sizes.flatten()).all()):
            return torch.where(rows >= sizes, rows - sizes, rows)
    return (rows.long() & _MASK) % sizes


def growth_between(base: float, finest: float, levels: int) -> float:
    """Return the factor from level to level that leads from `base` lattice points to `finest`."""
    return 1.0 if levels < 2 else math.exp((math.log(finest) - math.log(base)) / (levels - 1))


def _eights(rows: int) -> int:
    return -(-rows // 8) * 8
