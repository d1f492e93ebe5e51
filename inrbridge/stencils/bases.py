"""Floor 4: functions on the support of a kernel, for the kernel K(x' - x) = sum_k W_k B_k(x' - x).

Wang & Golland 2023, eq. (6) (polynomials) and section 4.1 (B-splines that interpolate a discrete kernel).
Each basis is a frozen value: `count` functions on the box `support` (low, high), in domain units.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inrbridge.compiled.entries import Piecewise


def cardinal_bspline(x: np.ndarray, order: int) -> np.ndarray:
    """Evaluate the centred cardinal B-spline of an order (degree) 0 to 3; support (order + 1) / 2 on either side."""
    x = np.abs(x)
    if order == 0:
        return ((x < 0.5) + 0.5 * (x == 0.5)).astype(float)
    if order == 1:
        return np.clip(1 - x, 0, None)
    if order == 2:
        return np.where(x < 0.5, 0.75 - x**2, 0.5 * np.clip(1.5 - x, 0, None) ** 2)
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.clip(2 - x, 0, None) ** 3 / 6)


def _piecewise(functions: Callable[[np.ndarray], np.ndarray], start: float, width: float, pieces: int, degree: int) -> Piecewise:
    """Read the coefficients of functions (p,) -> (p, f), polynomials on pieces, from values inside each piece."""
    part = (np.arange(degree + 1) + 0.5) / (degree + 1)
    values = functions((start + width * (np.arange(pieces)[:, None] + part)).ravel()).reshape(pieces, degree + 1, -1)
    return Piecewise(start, width, np.einsum("ct,ptf->pfc", np.linalg.inv(np.vander(part)), values))


@dataclass(frozen=True)
class BSpline:
    """Tensor B-splines on a net of kernel nodes, combined so that B_k is 1 at node k and 0 at the others.

    The kernel then takes the value W_k at node k: the transfer of discrete weights. Order 2 for 3 nodes an axis,
    3 for larger ones, is the paper's choice (appendix C). Each node owns a cell; the support is their union.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    order: int = 2

    @property
    def count(self) -> int:
        return math.prod(self.size)

    @property
    def support(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        first = [-((n - 1) // 2) for n in self.size]
        low = tuple((f - 0.5) * h for f, h in zip(first, self.spacing, strict=True))
        return low, tuple(a + n * h for a, n, h in zip(low, self.size, self.spacing, strict=True))

    @property
    def scale(self) -> float:
        """Measure of one cell: dividing by it makes the integral of a spline comparable to one tap of a discrete kernel."""
        return math.prod(self.spacing)

    def evaluate(self, offsets: np.ndarray) -> np.ndarray:
        """Return B (p, count) at offsets (p, d)."""
        out = np.ones((len(offsets), 1))
        for axis in range(len(self.size)):
            values = self._along(axis, offsets[:, axis])
            out = (out[:, :, None] * values[:, None, :]).reshape(len(offsets), -1)
        return out

    def _along(self, axis: int, x: np.ndarray) -> np.ndarray:
        n = self.size[axis]
        nodes = np.arange(n) - (n - 1) // 2
        interpolate = np.linalg.inv(cardinal_bspline(nodes[:, None] - nodes[None], self.order))
        return cardinal_bspline(x[:, None] / self.spacing[axis] - nodes[None], self.order) @ interpolate

    def pieces(self) -> tuple[list[Piecewise], np.ndarray] | None:
        """B as products of piecewise polynomials: those of each axis, and which of them (count, d) each B_k multiplies."""
        if self.order == 0:  # a step has half its height at the edge, which no piece holds
            return None
        low, _ = self.support
        axes = [_piecewise(functools.partial(self._along, a), low[a], h / 2, 2 * n, self.order)  # knots lie half a node apart
                for a, (n, h) in enumerate(zip(self.size, self.spacing, strict=True))]  # fmt: skip
        return axes, np.stack(np.unravel_index(np.arange(self.count), self.size), 1)


@dataclass(frozen=True)
class Polynomial:
    """Products of Legendre polynomials up to a total degree on a box, orthonormal under its uniform probability measure."""

    half_width: tuple[float, ...]
    degree: int = 2

    @property
    def powers(self) -> list[tuple[int, ...]]:
        every = itertools.product(range(self.degree + 1), repeat=len(self.half_width))
        return sorted((p for p in every if sum(p) <= self.degree), key=lambda p: (sum(p), p))

    @property
    def count(self) -> int:
        return len(self.powers)

    @property
    def support(self):
        return tuple(-r for r in self.half_width), self.half_width

    @property
    def scale(self) -> float:
        return math.prod(2 * r for r in self.half_width)

    def evaluate(self, offsets: np.ndarray) -> np.ndarray:
        """Return B (p, count) at offsets (p, d)."""
        legendre = self._along(offsets / np.asarray(self.half_width))  # (p, d, degree + 1)
        axes = np.arange(offsets.shape[1])
        return np.stack([legendre[:, axes, list(p)].prod(1) for p in self.powers], 1)

    def _along(self, scaled: np.ndarray) -> np.ndarray:
        return np.polynomial.legendre.legvander(scaled, self.degree) * np.sqrt(2 * np.arange(self.degree + 1) + 1)

    def pieces(self) -> tuple[list[Piecewise], np.ndarray]:
        """B as products of polynomials: those of each axis, and which of them (count, d) each B_k multiplies."""
        axes = [_piecewise(lambda x, r=r: self._along(x / r), -r, 2 * r, 1, self.degree) for r in self.half_width]
        return axes, np.array(self.powers)


@dataclass(frozen=True)
class Gaussian:
    """Gaussian bumps exp(-|x - c|^2 / (2 width^2)) on a net of centres, on a box that holds two widths around each."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    width: float = 0.5  # in units of the spacing

    @property
    def centres(self) -> np.ndarray:
        axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(self.size, self.spacing, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(self.size))

    @property
    def count(self) -> int:
        return math.prod(self.size)

    @property
    def support(self):
        high = tuple(((n - 1) / 2 + 2 * self.width) * h for n, h in zip(self.size, self.spacing, strict=True))
        return tuple(-v for v in high), high

    @property
    def scale(self) -> float:
        return math.prod(math.sqrt(2 * math.pi) * self.width * h for h in self.spacing)

    def evaluate(self, offsets: np.ndarray) -> np.ndarray:
        """Return B (p, count) at offsets (p, d)."""
        scaled = (offsets[:, None] - self.centres[None]) / (np.asarray(self.spacing) * self.width)
        return np.exp(-0.5 * (scaled**2).sum(-1))

    def pieces(self) -> None:
        """Gaussians are no polynomials."""
        return None


@dataclass(frozen=True)
class Radial:
    """Functions of the distance alone: `count` B-splines on rings, smooth at the centre and 0 at `radius`, each of integral 1.

    B_k is a mean over ring k, so the kernel is the same in every direction: a convolution that commutes with all rotations,
    whatever the tangent frame of a curved domain.
    """

    dim: int
    radius: float
    count: int = 2
    order: int = 2

    @property
    def support(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (-self.radius,) * self.dim, (self.radius,) * self.dim

    @property
    def measure(self) -> float:
        """Volume of the ball."""
        return math.pi ** (self.dim / 2) / math.gamma(self.dim / 2 + 1) * self.radius**self.dim

    @property
    def scale(self) -> float:
        return 1.0

    def evaluate(self, offsets: np.ndarray) -> np.ndarray:
        """Return B (p, count) at offsets (p, d)."""
        return self._rings(np.linalg.norm(offsets, axis=1)) / self._masses()

    def pieces(self) -> tuple[list[Piecewise], np.ndarray] | None:
        """B as piecewise polynomials of the distance, and which of them (count, 1) each B_k is."""
        if self.order == 0:
            return None
        masses, pieces = self._masses(), self._pieces
        rings = _piecewise(lambda x: self._rings(x) / masses, 0.0, self.radius / pieces, pieces, self.order)
        return [rings], np.arange(self.count)[:, None]

    @property
    def _pieces(self) -> int:
        """Half steps up to the radius: knots lie at their ends."""
        return 2 * self.count + self.order - 1

    def _rings(self, distance: np.ndarray) -> np.ndarray:
        step = self.radius / (self.count - 1 + (self.order + 1) / 2)
        at, ring = distance[:, None] / step, np.arange(self.count)
        # even in the distance, so that nothing bends at the centre
        return cardinal_bspline(at - ring, self.order) + np.where(ring > 0, cardinal_bspline(at + ring, self.order), 0.0)

    def _masses(self) -> np.ndarray:
        """Integral of each ring over R^d: exact, since the pieces are polynomials of the distance."""
        pieces = self._pieces
        nodes, weights = np.polynomial.legendre.leggauss(8)
        edge = self.radius / pieces
        distance = ((np.arange(pieces)[:, None] + (nodes + 1) / 2) * edge).ravel()
        shell = self.dim * self.measure / self.radius**self.dim * distance ** (self.dim - 1)
        return (np.tile(weights * edge / 2, pieces) * shell) @ self._rings(distance)


Basis = BSpline | Polynomial | Gaussian | Radial
