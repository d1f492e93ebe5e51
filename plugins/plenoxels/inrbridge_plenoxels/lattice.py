"""Regular lattices over the unit cube: which rows of a table surround a point, and with which weights.

Lattice point i of N lies at (i + 1/2) / N, the middle of cell i; beyond the outermost points values go on as they are there
(Fridovich-Keil et al. 2022, "Plenoxels", and svox2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge import errors
from inrbridge_plenoxels import corners as _compiled

MAX_DIM = 4  # 2^d corners around a point
MOST_CELLS = 2**31


@dataclass(frozen=True)
class Lattice:
    """Lattice points along each axis; with `kept`, only so many of them have a row in the table, and a buffer "links" says which.

    links (*resolution) int32 holds a row, or a negative number where there is nothing: values there are 0.
    """

    resolution: tuple[int, ...]
    kept: int | None = None

    def __post_init__(self):
        if not 1 <= len(self.resolution) <= MAX_DIM or not all(isinstance(n, int) and n >= 1 for n in self.resolution):
            raise errors.ConfigError(
                f"Got the resolution {self.resolution}, expected 1 to {MAX_DIM} whole numbers, each at least 1."
            )
        if math.prod(self.resolution) >= MOST_CELLS:
            raise errors.ConfigError(f"Got the resolution {self.resolution}, expected fewer than 2^31 cells in all.")
        if self.kept is not None and not 1 <= self.kept <= math.prod(self.resolution):
            raise errors.ConfigError(
                f"Got rows = {self.kept} for a lattice of {self.resolution}, expected 1 to one for each cell."
            )

    @classmethod
    def of(cls, resolution: int | Sequence[int], dim: int, kept: int | None = None) -> Lattice:
        """Build from one resolution for all axes, or one for each."""
        counts = (resolution,) * dim if isinstance(resolution, int) else tuple(resolution)
        if len(counts) != dim:
            raise errors.ConfigError(f"Got a resolution of {len(counts)} numbers, expected {dim}, one for each coordinate.")
        return cls(counts, kept)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.resolution)

    @property
    def shape(self) -> tuple[int, ...]:
        """Axes of the table before its columns."""
        return self.resolution if self.kept is None else (self.kept,)

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return math.prod(self.resolution) if self.kept is None else self.kept

    @property
    def nearest(self) -> int:
        """Rows that make a value."""
        return 2**self.dim

    def buffers(self) -> dict[str, Tensor]:
        """Return fresh buffers: the first cells keep their rows."""
        if self.kept is None:
            return {}
        links = torch.arange(math.prod(self.resolution), dtype=torch.int32)
        return {"links": torch.where(links < self.kept, links, -1).reshape(self.resolution)}

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Raise CannotOpen where a link leads out of the table."""
        if self.kept is not None and (most := int(state["links"].max())) >= self.kept:
            raise errors.CannotOpen(f"its links lead to row {most} of {self.kept}; the file is damaged.")

    def to_options(self) -> dict:
        """Return the options of `build` that give this lattice (JSON)."""
        return {"resolution": list(self.resolution)} | ({} if self.kept is None else {"rows": self.kept})

    def find(self, u: Tensor, states: Mapping[str, Tensor], b: int) -> tuple[Tensor, Tensor]:
        """Find the rows around u, (n, d) shared or (b, n, d), in the table of each of b fields.

        Returns:
            Rows int64 or int32 and weights (b, n, 2^d), or (n, 2^d) where they are those of all fields.
        """
        links = None if self.kept is None else states["links"].flatten(1)
        if _compiled.available(u, self.resolution, links):
            return _compiled.corners(u, self.resolution, links)
        cells, weights = self._corners(u)
        if links is None:
            return cells, weights
        if cells.ndim == 2:
            found = links[:, cells]
        else:
            found = links.gather(1, cells.flatten(1)).reshape(cells.shape)
        return found.clamp(min=0).long(), weights * (found >= 0)

    def _corners(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return cells and weights (..., 2^d) around u (..., d): linear in g = u N - 1/2, which is kept in [0, N - 1]."""
        index = torch.zeros(*u.shape[:-1], 1, dtype=torch.long, device=u.device)
        weights = torch.ones_like(u[..., :1])
        for count, along in zip(self.resolution, u.unbind(-1), strict=True):
            g = (along * count - 0.5).clamp(0, count - 1)
            low = g.detach().floor().clamp(max=max(count - 2, 0))
            upper = g - low
            ends = torch.stack([low, low + 1], -1).long().clamp(0, count - 1)  # NaN becomes some cell
            index = (index.unsqueeze(-1) * count + ends.unsqueeze(-2)).flatten(-2)
            weights = (weights.unsqueeze(-1) * torch.stack([1 - upper, upper], -1).unsqueeze(-2)).flatten(-2)
        return index, weights
