"""Floor 5: orthonormal bases of L2 on each domain (Wang & Golland 2023, section 3.1 and appendix C).

Each basis maps coordinates (..., d) to the values (..., k) of k functions, by recurrences in torch, so that gradients flow
to the coordinates. They are orthonormal under the normalized measure dx / |domain|, as the integrals of the layers are;
`expand` and `project` lead from coefficients to values and back, `basis_for` knows which basis belongs to a domain.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from inrbridge.discretization import Discretization, derived
from inrbridge.domains import Ball, Box, Domain, Product, Sphere, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn.harmonics import SphericalHarmonics, ZernikeBasis, check_degree
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.weights import promoted
from inrbridge.sampling import sobol

Basis = Callable[[Tensor], Tensor]

SMALLEST_PART = 1e-5  # of a function that earlier ones do not give, for it to count as independent


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
            raise ConfigError(
                f"Got Legendre polynomials on {self.domain}, expected a Box; `basis_for` picks what is orthonormal on other "
                "domains, LegendreBasis.around(domain, degree) the box around it."
            )
        check_degree(self.degree)

    @classmethod
    def around(cls, domain: Domain, degree: int, total: bool = False) -> LegendreBasis:
        """Return the polynomials on the box around a domain: they span its functions, but are not orthonormal on it."""
        return cls(Box(*domain.bounds), degree, total)

    @property
    def degrees(self) -> tuple[tuple[int, ...], ...]:
        """Degrees along each axis of every function, the last axis fastest; of a total degree, the lowest first."""
        every = itertools.product(range(self.degree + 1), repeat=self.domain.dim)
        return tuple(sorted((d for d in every if sum(d) <= self.degree), key=sum)) if self.total else tuple(every)

    def __len__(self) -> int:
        return len(self.degrees)

    def __call__(self, coords: Tensor) -> Tensor:
        low, high = (torch.as_tensor(v, dtype=coords.dtype, device=coords.device) for v in self.domain.bounds)
        return _products(legendre(2 * (coords - low) / (high - low) - 1, self.degree), self.degrees)


@dataclass(frozen=True)
class FourierBasis:
    """Sines and cosines on a flat torus: products of 1, sqrt(2) cos(2 pi f u), sqrt(2) sin(2 pi f u) along each axis.

    Args:
        domain: a Torus, u in [0, 1) the place along an axis.
        degree: highest frequency f in whole cycles, of each axis or in total.
        total: keep only the products whose frequencies sum to at most `degree`.

    >>> [len(FourierBasis(Torus((1.0, 2.0)), degree, total=True)) for degree in (1, 2)]
    [5, 13]
    """

    domain: Torus
    degree: int
    total: bool = False

    def __post_init__(self):
        if not isinstance(self.domain, Torus):
            raise ConfigError(f"Got a Fourier basis on {self.domain}, expected a Torus; `basis_for` picks what fits.")
        check_degree(self.degree)

    @property
    def places(self) -> tuple[tuple[int, ...], ...]:
        """Of every function and axis the place in 1, cos 1, sin 1, cos 2, sin 2, ..., the last axis fastest."""
        every = itertools.product(range(2 * self.degree + 1), repeat=self.domain.dim)
        return tuple(p for p in every if not self.total or sum((i + 1) // 2 for i in p) <= self.degree)

    def __len__(self) -> int:
        return len(self.places)

    def __call__(self, coords: Tensor) -> Tensor:
        cycles = coords / torch.as_tensor(self.domain.periods, dtype=coords.dtype, device=coords.device)
        frequencies = torch.arange(1, self.degree + 1, dtype=coords.dtype, device=coords.device)
        angles = 2 * math.pi * cycles[..., None] * frequencies
        waves = math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(-2)
        return _products(torch.cat([torch.ones_like(cycles)[..., None], waves], dim=-1), self.places)


@dataclass(frozen=True)
class ProductBasis:
    """All products of a function on `a.domain` and one on `b.domain`, those of b fastest; orthonormal where both bases are."""

    a: Basis
    b: Basis

    @property
    def domain(self) -> Product:
        return Product(self.a.domain, self.b.domain)

    def __len__(self) -> int:
        return len(self.a) * len(self.b)

    def __call__(self, coords: Tensor) -> Tensor:
        first, second = self.a(coords[..., : self.a.domain.dim]), self.b(coords[..., self.a.domain.dim :])
        return (first[..., :, None] * second[..., None, :]).flatten(-2)


@dataclass(frozen=True)
class OrthonormalizedBasis:
    """Any functions, made orthonormal on any domain and under any measure by Gram and Schmidt's process in their order.

    The inner products are integrals over `points` points of low discrepancy on the domain, so that the basis is orthonormal up
    to their error, of 1e-3 to 1e-2 at degree 3. Functions that depend on earlier ones there (x^2 + y^2 + z^2 on a sphere) are
    left out.

    Args:
        basis: the functions, of lowest degree first.
        domain: where they become orthonormal.
        points: number of points of the integrals.
    """

    basis: Basis
    domain: Domain
    points: int = 2**14

    @cached_property
    def mixing(self) -> Tensor:
        """The matrix (functions, k) that leads from the given functions to the orthonormal ones; float64 on the CPU."""
        source = sobol(self.domain, self.points, dtype=torch.float64)
        values = self.basis(source.points) * (source.weights / source.weights.sum()).sqrt()[:, None]
        sizes = torch.linalg.qr(values, mode="r")[1].diagonal().abs()
        kept = (sizes > SMALLEST_PART * values.norm(dim=0)).nonzero()[:, 0]
        upper = torch.linalg.qr(values[:, kept], mode="r")[1]
        upper = upper * torch.where(upper.diagonal() < 0, -1.0, 1.0)[:, None]
        mixing = torch.zeros(values.shape[1], len(kept), dtype=torch.float64)
        mixing[kept] = torch.linalg.inv(upper)
        return mixing

    def __len__(self) -> int:
        return self.mixing.shape[1]

    def __call__(self, coords: Tensor) -> Tensor:
        return self.basis(coords) @ self.mixing.to(coords)


def basis_for(domain: Domain, degree: int) -> Basis:
    """Return all functions up to a total degree of the basis that is orthonormal on a domain.

    Legendre products on a box, Zernike polynomials on a ball of up to 3 dimensions, spherical harmonics on a sphere, a Fourier
    basis on a torus, products on a product. Where none is known, the functions of the domain around it, made orthonormal by
    quadrature: those of the envelope on a `Region` and under a `Weighted` measure, Legendre products on other domains.

    >>> len(basis_for(Sphere(), 2)), len(basis_for(Box.unit(2), 2))
    (9, 6)
    """
    if isinstance(domain, Product):
        return ProductBasis(basis_for(domain.a, degree), basis_for(domain.b, degree))
    around = domain.envelope.ground
    if around is not domain:
        return OrthonormalizedBasis(basis_for(around, degree), domain)
    if isinstance(domain, Sphere):
        return SphericalHarmonics(domain, degree)
    if isinstance(domain, Torus):
        return FourierBasis(domain, degree, total=True)
    if isinstance(domain, Ball) and domain.dim <= 3:
        return ZernikeBasis(domain, degree)
    if isinstance(domain, Box):
        return LegendreBasis(domain, degree, total=True)
    return OrthonormalizedBasis(LegendreBasis.around(domain, degree, total=True), domain)


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
    values = basis_values(basis, discretization, coefficients)
    if coefficients.ndim != 3 or coefficients.shape[2] != values.shape[1]:
        raise ShapeMismatch(
            f"Got coefficients of shape {tuple(coefficients.shape)}, expected (fields, channels, {values.shape[1]}): one "
            "number for each function of the basis."
        )
    return Sampled(discretization, torch.einsum("nk,bck->bnc", values, coefficients))


def project(sampled: Sampled, basis: Basis) -> Tensor:
    """Return the inner products <f, B_k> under the normalized measure (b, c, k): the coefficients, where B is orthonormal."""
    values, weights = promoted(sampled)
    weighted = weights[:, None] * basis_values(basis, sampled.discretization, values)  # (n, k)
    return (values.mT @ weighted).to(sampled.values.dtype)


def basis_values(basis: Basis, discretization: Discretization, like: Tensor) -> Tensor:
    """Return the functions at the points (n, k), in the dtype and on the device of `like`; computed once for each point set."""
    points = discretization.points
    if hasattr(basis, "domain"):
        check_domain(discretization, basis.domain)
    if points.requires_grad or not dataclasses.is_dataclass(basis):  # what has no value to compare, or gradients, is not kept
        return basis(points.to(like))
    return _kept_values(discretization, basis, like.dtype, like.device)


@derived
def _kept_values(discretization: Discretization, basis: Basis, dtype: torch.dtype, device: torch.device) -> Tensor:
    return basis(discretization.points.to(device, torch.float64)).to(dtype)


def check_domain(discretization: Discretization, domain: Domain) -> None:
    """Raise unless the points have the coordinates that functions on a domain take."""
    if discretization.domain.dim != domain.dim:
        raise ShapeMismatch(f"Got points on {discretization.domain} for functions on {domain}; give both one domain.")


def _products(axes: Tensor, picked: tuple[tuple[int, ...], ...]) -> Tensor:
    """Multiply one function of each axis: (..., d, functions) -> (..., k)."""
    index = torch.as_tensor(picked, device=axes.device).T  # (d, k)
    return math.prod(axes[..., axis, index[axis]] for axis in range(axes.shape[-2]))
