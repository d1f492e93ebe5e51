"""Floor 5: parametric functions in L2 of a domain (Wang & Golland 2023, section 3.1 and appendix C).

Each basis maps coordinates (..., d) to the values (..., k) of k functions, by recurrences in torch, so that gradients flow
to the coordinates. Legendre products and Zernike polynomials are orthonormal under the normalized measure dx / |domain|, as
the integrals of the layers are; `expand` and `project` lead from coefficients to values and back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn.sampled import Sampled

Basis = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LegendreBasis:
    """Products of Legendre polynomials along each axis of a box, rescaled to be orthonormal.

    Args:
        domain: a Box.
        degree: highest power, of each axis or in total.
        total: keep only the products whose degrees sum to at most `degree`.

    >>> len(LegendreBasis(Box.unit(2), 3)), len(LegendreBasis(Box.unit(2), 3, total=True))
    (16, 10)
    """

    domain: Box
    degree: int
    total: bool = False

    def __post_init__(self):
        if not isinstance(self.domain, Box):
            raise ConfigError(f"Got Legendre polynomials on {self.domain}, expected a Box; use ZernikeBasis on a disc.")
        _check_degree(self.degree)

    @property
    def degrees(self) -> tuple[tuple[int, ...], ...]:
        """Degrees along each axis of every function, the last axis fastest."""
        every = itertools.product(range(self.degree + 1), repeat=self.domain.dim)
        return tuple(d for d in every if not self.total or sum(d) <= self.degree)

    def __len__(self) -> int:
        return len(self.degrees)

    def __call__(self, coords: Tensor) -> Tensor:
        low, high = (torch.as_tensor(v, dtype=coords.dtype, device=coords.device) for v in self.domain.bounds)
        axes = legendre(2 * (coords - low) / (high - low) - 1, self.degree)  # (..., d, degree + 1)
        picked = torch.as_tensor(self.degrees, device=coords.device).T  # (d, k)
        return math.prod(axes[..., axis, picked[axis]] for axis in range(self.domain.dim))


@dataclass(frozen=True)
class ZernikeBasis:
    """Zernike polynomials on a disc, all of degree n <= `degree`, Z_00 = 1 included, orthonormal.

    With rho, theta the polar coordinates on the unit disc: sqrt(n + 1) R_n^0(rho) for m = 0, and
    sqrt(2 (n + 1)) R_n^m(rho) times cos(m theta) or sin(m theta), in the order n, m, cosine before sine.

    >>> len(ZernikeBasis(Ball((0.0, 0.0), 1.0), 4))
    15
    """

    domain: Ball
    degree: int

    def __post_init__(self):
        if not isinstance(self.domain, Ball) or self.domain.dim != 2:
            raise ConfigError(f"Got Zernike polynomials on {self.domain}, expected a Ball of 2 dimensions, a disc.")
        _check_degree(self.degree)

    def __len__(self) -> int:
        return (self.degree + 1) * (self.degree + 2) // 2

    def __call__(self, coords: Tensor) -> Tensor:
        center = torch.as_tensor(self.domain.center, dtype=coords.dtype, device=coords.device)
        x, y = ((coords - center) / self.domain.radius).unbind(-1)
        argument = 2 * (x * x + y * y) - 1
        # rho^m cos(m theta) and rho^m sin(m theta) are polynomials in x and y: no angle, no kink at the centre
        cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]
        for _ in range(self.degree):
            c, s = cosines[-1], sines[-1]
            cosines.append(x * c - y * s)
            sines.append(x * s + y * c)
        radial = [_jacobi(argument, m, (self.degree - m) // 2) for m in range(self.degree + 1)]
        functions = []
        for n in range(self.degree + 1):
            for m in range(n % 2, n + 1, 2):
                r = radial[m][(n - m) // 2]
                if m == 0:
                    functions.append(math.sqrt(n + 1) * r)
                else:
                    functions += [math.sqrt(2 * (n + 1)) * r * cosines[m], math.sqrt(2 * (n + 1)) * r * sines[m]]
        return torch.stack(functions, dim=-1)


def legendre(x: Tensor, degree: int) -> Tensor:
    """Return the polynomials of degree 0 to `degree`, orthonormal on [-1, 1] under dx / 2: (...) -> (..., degree + 1).

    (j + 1) P_(j+1) = (2 j + 1) x P_j - j P_(j-1), scaled by sqrt(2 j + 1).
    """
    terms = [torch.ones_like(x), x]
    for j in range(1, degree):
        terms.append(((2 * j + 1) * x * terms[j] - j * terms[j - 1]) / (j + 1))
    return torch.stack([math.sqrt(2 * j + 1) * terms[j] for j in range(degree + 1)], dim=-1)


def expand(coefficients: Tensor, basis: Basis, discretization: Discretization) -> Sampled:
    """Return the values of sum_k a_k B_k: coefficients (b, c, k), a layer R^k -> L2 (section 3.1)."""
    values = basis(discretization.points.to(coefficients))  # (n, k)
    if coefficients.ndim != 3 or coefficients.shape[2] != values.shape[1]:
        raise ShapeMismatch(
            f"Got coefficients of shape {tuple(coefficients.shape)}, expected (fields, channels, {values.shape[1]}): one "
            "number for each function of the basis."
        )
    return Sampled(discretization, torch.einsum("nk,bck->bnc", values, coefficients))


def project(sampled: Sampled, basis: Basis) -> Tensor:
    """Return the inner products <f, B_k> under the normalized measure (b, c, k): the coefficients, where B is orthonormal."""
    values = basis(sampled.discretization.points.to(sampled.values))
    return torch.einsum("n,nk,bnc->bck", sampled.weights, values, sampled.values)


def _jacobi(x: Tensor, m: int, degree: int) -> list[Tensor]:
    """Jacobi polynomials P_0 .. P_degree with alpha = 0, beta = m: R_n^m(rho) = rho^m P_((n-m)/2)(2 rho^2 - 1)."""
    terms = [torch.ones_like(x), 1 + (m + 2) * (x - 1) / 2]
    for j in range(2, degree + 1):
        a = 2 * j * (j + m) * (2 * j + m - 2)
        b = (2 * j + m - 1) * ((2 * j + m) * (2 * j + m - 2) * x - m * m)
        c = 2 * (j - 1) * (j + m - 1) * (2 * j + m)
        terms.append((b * terms[j - 1] - c * terms[j - 2]) / a)
    return terms[: degree + 1]


def _check_degree(degree: int) -> None:
    if degree < 0:
        raise ConfigError(f"Got a degree of {degree}, expected 0 or more.")
