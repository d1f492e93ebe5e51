"""Floor 5: polynomials on round domains: spherical harmonics and Zernike polynomials (Wang & Golland 2023, appendix C).

Both are made of solid harmonics, r^l Y_l, which are polynomials in the coordinates: no angle, hence nothing special at poles
or at the centre, where gradients stay finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.domains import Ball, Sphere
from inrbridge.errors import ConfigError


@dataclass(frozen=True)
class SphericalHarmonics:
    """Real spherical harmonics of degree l <= `degree` on a sphere, orthonormal under its uniform probability measure.

    In the order l, then |m|, cosine before sine: 1, sqrt(3) z, sqrt(3) x, sqrt(3) y, ...

    >>> len(SphericalHarmonics(Sphere(), 3))
    16
    """

    domain: Sphere
    degree: int

    def __post_init__(self):
        if not isinstance(self.domain, Sphere):
            raise ConfigError(f"Got spherical harmonics on {self.domain}, expected a Sphere; `basis_for` picks what fits.")
        check_degree(self.degree)

    def __len__(self) -> int:
        return (self.degree + 1) ** 2

    def __call__(self, coords: Tensor) -> Tensor:
        place = (coords - coords.new_tensor(self.domain.center)) / self.domain.radius
        return torch.cat(solid_harmonics(place, self.degree), dim=-1)


@dataclass(frozen=True)
class ZernikeBasis:
    """Zernike polynomials on a disc, and what corresponds to them on an interval and on a ball in space.

    All of degree n <= `degree`, Z_00 = 1 included, orthonormal under the uniform probability measure:
    sqrt((2 n + d) / d) P_k(2 rho^2 - 1) rho^l Y_l with n = l + 2 k, rho the distance from the centre in units of the radius,
    P_k the Jacobi polynomial of parameters 0 and l + d / 2 - 1, and Y_l the harmonics on the circle or sphere of directions.
    On a disc these are sqrt(n + 1) R_n^0(rho), and sqrt(2 (n + 1)) R_n^m(rho) times cos(m theta) or sin(m theta); on an
    interval the Legendre polynomials. In the order n, l, then as the harmonics, cosine before sine.

    >>> [len(ZernikeBasis(Ball((0.0,) * d, 1.0), 4)) for d in (1, 2, 3)]
    [5, 15, 35]
    """

    domain: Ball
    degree: int

    def __post_init__(self):
        if not isinstance(self.domain, Ball) or self.domain.dim > 3:
            raise ConfigError(f"Got Zernike polynomials on {self.domain}, expected a Ball of 1, 2 or 3 dimensions.")
        check_degree(self.degree)

    def __len__(self) -> int:
        return math.comb(self.degree + self.domain.dim, self.domain.dim)

    def __call__(self, coords: Tensor) -> Tensor:
        d = self.domain.dim
        place = (coords - coords.new_tensor(self.domain.center)) / self.domain.radius
        harmonics = solid_harmonics(place, self.degree if d > 1 else min(1, self.degree))
        argument = 2 * place.square().sum(-1, keepdim=True) - 1
        radial = [_jacobi(argument, ell + d / 2 - 1, (self.degree - ell) // 2) for ell in range(len(harmonics))]
        functions = []
        for n in range(self.degree + 1):
            for ell in range(n % 2, min(n, len(harmonics) - 1) + 1, 2):
                functions.append(math.sqrt((2 * n + d) / d) * radial[ell][(n - ell) // 2] * harmonics[ell])
        return torch.cat(functions, dim=-1)


def solid_harmonics(x: Tensor, degree: int) -> list[Tensor]:
    """Return r^l Y_l for l = 0 to `degree` (on a line at most 1): coordinates (..., d), d = 1, 2 or 3, to a list of (..., count).

    The Y_l are orthonormal under the uniform probability measure on directions. On the plane r^m cos(m t) and r^m sin(m t)
    are the real and imaginary part of (x + i y)^m. In space these are multiplied by polynomials in z and r^2,
    P_l^m = a_lm z P_(l-1)^m - b_lm r^2 P_(l-2)^m, the normalized recurrence in l, which is stable at any degree.
    """
    one = torch.ones_like(x[..., 0])
    if x.shape[-1] == 1:
        return [one[..., None], x][: degree + 1]
    cosines, sines = [one], [torch.zeros_like(one)]
    for _ in range(degree):
        c, s = cosines[-1], sines[-1]
        cosines.append(x[..., 0] * c - x[..., 1] * s)
        sines.append(x[..., 0] * s + x[..., 1] * c)
    root = math.sqrt(2)
    if x.shape[-1] == 2:
        return [one[..., None], *(root * torch.stack([cosines[m], sines[m]], -1) for m in range(1, degree + 1))]
    z, square = x[..., 2], x.square().sum(-1)
    rows: list[list[Tensor]] = [[] for _ in range(degree + 1)]
    first = 1.0  # P_m^m, a constant
    for m in range(degree + 1):
        first *= math.sqrt((2 * m + 1) / (2 * m)) if m else 1.0
        before, now = torch.zeros_like(one), first * one
        for ell in range(m, degree + 1):
            if ell > m:
                a = math.sqrt((4 * ell * ell - 1) / (ell * ell - m * m))
                b = a * math.sqrt(((ell - 1) ** 2 - m * m) / (4 * (ell - 1) ** 2 - 1)) if ell > 1 else 0.0
                before, now = now, a * z * now - b * square * before
            rows[ell] += [now] if m == 0 else [root * now * cosines[m], root * now * sines[m]]
    return [torch.stack(row, -1) for row in rows]


def _jacobi(x: Tensor, beta: float, degree: int) -> list[Tensor]:
    """Jacobi polynomials P_0 .. P_degree with alpha = 0."""
    terms = [torch.ones_like(x), 1 + (beta + 2) * (x - 1) / 2]
    for j in range(2, degree + 1):
        a = 2 * j * (j + beta) * (2 * j + beta - 2)
        b = (2 * j + beta - 1) * ((2 * j + beta) * (2 * j + beta - 2) * x - beta * beta)
        c = 2 * (j - 1) * (j + beta - 1) * (2 * j + beta)
        terms.append((b * terms[j - 1] - c * terms[j - 2]) / a)
    return terms[: degree + 1]


def check_degree(degree: int) -> None:
    """Raise unless a degree is 0 or more."""
    if degree < 0:
        raise ConfigError(f"Got a degree of {degree}, expected 0 or more.")
