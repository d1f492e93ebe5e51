"""Floor 2: charts, smooth maps of the unit cube into space, of which manifolds are made (Wang & Golland 2023, eq. 13-14)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from inrbridge.errors import ConfigError, ShapeMismatch

ENDS = ("open", "edge", "wrap")
MESH_POINTS = {1: 512, 2: 48, 3: 16}  # along each axis of a chart, where nearest points are looked for
STEPS = 20  # of Gauss-Newton
WIDTH = 0.3  # of a bump's fall: the quadrature of the ready-made atlases is most precise there


class Chart(ABC):
    """A smooth map phi: [0, 1]^d -> R^D, one to one inside.

    `ends` says for each axis what lies at its two ends: "open": the manifold goes on, in another chart that overlaps with this
    one; "edge": it stops there; "wrap": both ends are the same points.
    """

    ends: tuple[str, ...]

    @abstractmethod
    def __call__(self, unit: Tensor) -> Tensor:
        """Map (n, d) to points (n, D), each row by itself."""

    @property
    def dim(self) -> int:
        """d, the dimension of the manifold."""
        return len(self.ends)

    @cached_property
    def mesh(self) -> Mesh:
        """Evenly spread points of the chart, made once."""
        return Mesh.of(self)

    def jacobian(self, unit: Tensor) -> Tensor:
        """Return the derivatives of the coordinates (n, D, d) at (n, d), by autograd."""
        with torch.enable_grad():
            unit = unit.detach().requires_grad_()
            coords = self(unit)
            rows = []
            for a in range(coords.shape[-1]):
                given = coords[:, a].requires_grad
                row = torch.autograd.grad(coords[:, a].sum(), unit, retain_graph=True, allow_unused=True)[0] if given else None
                rows.append(torch.zeros_like(unit) if row is None else row)
        return torch.stack(rows, dim=1)

    def stretch(self, unit: Tensor) -> Tensor:
        """Return the volume that phi makes of a unit of volume, sqrt(det(J^T J)): (n,)."""
        jacobian = self.jacobian(unit)
        return torch.linalg.det(jacobian.mT @ jacobian).clamp(min=0).sqrt()

    def inverse(self, coords: Tensor) -> Tensor:
        """Return where the chart comes nearest to coords (n, D): (n, d) in [0, 1], found by Gauss-Newton from a mesh.

        A subclass that knows better overrides it; where coords do not lie on the chart any answer will do, NaN included.
        """
        return nearest_on(self, coords)


@dataclass(frozen=True)
class FunctionChart(Chart):
    """A chart that is a function, and its inverse if that is known.

    Args:
        map: (n, d) -> (n, D), made of torch operations, so that it can be differentiated.
        ends: for each axis "open", "edge" or "wrap" (see `Chart`).
        known_inverse: (n, D) -> (n, d), anything outside of [0, 1] where the chart does not reach.
    """

    map: Callable[[Tensor], Tensor]
    ends: tuple[str, ...] = ("open", "open")
    known_inverse: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self):
        object.__setattr__(self, "ends", tuple(self.ends))
        for end in self.ends:
            if end not in ENDS:
                raise ConfigError(f"Got ends {self.ends} of a chart, expected for each axis one of: {', '.join(ENDS)}.")
        if not callable(self.map) or not self.ends:
            raise ConfigError(f"Got {self.map!r} as a chart, expected a function (n, d) -> (n, D) and the kind of its ends.")

    def __call__(self, unit):
        coords = self.map(unit)
        if not isinstance(coords, Tensor) or coords.ndim != 2 or len(coords) != len(unit):
            got = tuple(coords.shape) if isinstance(coords, Tensor) else type(coords).__name__
            raise ShapeMismatch(
                f"A chart returned {got} for {tuple(unit.shape)}, expected a tensor ({len(unit)}, D): one point for each row."
            )
        return coords

    def inverse(self, coords):
        return nearest_on(self, coords) if self.known_inverse is None else self.known_inverse(coords)


@dataclass(frozen=True)
class Mesh:
    """Evenly spread points of one chart: where in the cube (m, d), and where in space (m, D)."""

    unit: Tensor
    coords: Tensor

    @classmethod
    def of(cls, chart: Chart) -> Mesh:
        count = MESH_POINTS.get(chart.dim, 8)
        axes = [torch.arange(count, dtype=torch.float64) / (count if end == "wrap" else count - 1) for end in chart.ends]
        unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, chart.dim)
        return cls(unit, chart(unit).detach())

    @cached_property
    def tree(self):
        from scipy.spatial import cKDTree

        return cKDTree(self.coords.numpy())

    def nearest(self, coords: Tensor) -> Tensor:
        """Return the mesh point nearest to each of coords (n, D), as places in the cube (n, d)."""
        return self.unit[torch.from_numpy(self.tree.query(coords.numpy())[1])]


def nearest_on(chart: Chart, coords: Tensor) -> Tensor:
    """Minimize |phi(u) - x| over the cube by Gauss-Newton, from the nearest mesh point: (n, D) -> (n, d)."""
    unit = chart.mesh.nearest(coords)
    wraps = torch.tensor([end == "wrap" for end in chart.ends])
    moving = torch.arange(len(unit))
    for _ in range(STEPS):
        here, jacobian = unit[moving], chart.jacobian(unit[moving])
        miss = coords[moving] - chart(here).detach()
        step = solve(jacobian.mT @ jacobian, jacobian.mT @ miss[..., None])[..., 0].clamp(-0.25, 0.25)
        there = torch.where(wraps, (here + step) % 1.0, (here + step).clamp(0, 1))
        unit[moving] = there
        moving = moving[((there - here).abs() > 1e-12).any(-1)]  # those held at an end of the chart rest, too
        if not len(moving):
            break
    return unit


def solve(matrices: Tensor, right: Tensor) -> Tensor:
    """Solve small positive systems (n, d, d), leaning to 0 where they are singular."""
    size = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-300)
    return torch.linalg.solve(matrices / size + 1e-12 * torch.eye(matrices.shape[-1], dtype=matrices.dtype), right / size)


def log_bump(unit: Tensor, ends: tuple[str, ...]) -> Tensor:
    """Return the logarithm of a bump, smooth on the cube and 0 with all derivatives at its open ends: (n, d) -> (n,).

    The product of exp(-WIDTH / (t (1 - t))) over the open axes; minus infinity outside.
    """
    total = torch.zeros_like(unit[:, 0])
    for axis, end in enumerate(ends):
        t = unit[:, axis]
        if end == "open":
            total = total - WIDTH / (t * (1 - t)).clamp(min=0)  # minus infinity at and beyond the ends
    inside = ((unit >= 0) & (unit <= 1)).all(-1)
    return torch.where(inside, total, -math.inf)
