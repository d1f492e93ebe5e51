"""Floor 4: integrals of fields over their domains (Wang & Golland 2023, sections 3.1, 3.2 and appendix A)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import overload

import torch
from torch import Tensor

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, NotConverged
from inrbridge.field import Field, query
from inrbridge.quadrature.adaptive import integrate_adaptively, integrate_on
from inrbridge.quadrature.pullback import Pullback
from inrbridge.quadrature.randomized import integrate_randomly, mean_on
from inrbridge.quadrature.result import Integral, Target
from inrbridge.sampling import get_sampler

__all__ = ["Integral", "integrate"]

CHUNK = 2**16  # points evaluated at a time
MAX_ADAPTIVE_DIM = 6  # the boxes have 2^d corners, and halving all axes once makes 2^d boxes of one


@overload
def integrate(field: Field, domain: Domain | None = ..., *, n: int | None = ...,
              sampler: str | Callable[..., Discretization] | None = ..., generator: torch.Generator | None = ...,
              discretization: Discretization | None = ...) -> Tensor: ...  # fmt: skip
@overload
def integrate(field: Field, domain: Domain | None = ..., *, tol: float, rtol: float = ..., method: str | None = ...,
              max_evaluations: int = ..., generator: torch.Generator | None = ...,
              dtype: torch.dtype = ...) -> Integral: ...  # fmt: skip
def integrate(field, domain=None, *, n=None, sampler=None, generator=None, discretization=None, tol=None, rtol=0.0, method=None,
              max_evaluations=2**20, dtype=torch.float64):  # fmt: skip
    """Return the integral of f over the domain, channel by channel: sum_j w_j f(x_j), shape (channels,).

    For a smooth field the error falls about like 1/n on low-discrepancy points and like n^(-1/2) on `uniform` ones.
    Divide by `domain.measure` for the mean. With `tol`, points are added where the field needs them until a bound of the error is
    met, and the answer is an `Integral` of value, bound, evaluations and converged.

    Args:
        domain: a part of the field's domain, such as a `Region` of it; the whole when absent.
        n, sampler, generator: how to draw the points; 4096 of a lattice when absent.
        discretization: points and weights to use instead; it brings its own domain.
        tol, rtol: the error allowed in every channel: the larger of tol and rtol |value|.
        method: "adaptive" cuts the domain into boxes, with Gauss and Kronrod's rule in one dimension, Genz and Malik's in up
            to 6; its bound compares rules of several degrees in each box, and is reliable for fields that are smooth or
            piecewise smooth at the scale of some hundred points, jumps included, which cost many evaluations. "randomized"
            takes the mean over 16 scrambled Sobol' sets; its bound is a confidence interval of 99.9 %. When absent:
            adaptive in up to 6 dimensions, randomized in more.
        max_evaluations: points at which the field may be evaluated under `tol`. Where they do not suffice, the `Integral` says
            `converged=False` with the bound reached, and `NotConverged` warns.
        dtype: of the coordinates under `tol`, for a field that takes no float64; sums are float64 always.

    Raises:
        OutsideDomain, NotFinite, ShapeMismatch: the points do not lie on the field's domain, or its answer is damaged.

    >>> from inrbridge.domains import Box; from inrbridge.field import FunctionField
    >>> integrate(FunctionField(lambda x: x**2, Box.centered(1), 1), n=1024, sampler="grid")
    tensor([0.6667])
    >>> integrate(FunctionField(lambda x: x**2, Box.centered(1), 1), tol=1e-9).value
    tensor([0.6667], dtype=torch.float64)
    """
    if tol is not None:
        if not (n is None and sampler is None and discretization is None):
            raise ConfigError(
                "Got tol together with n, sampler or discretization, expected one or the other: tol decides itself where the "
                "field is evaluated; limit it by max_evaluations."
            )
        integrand = Pullback(field, field.domain if domain is None else domain, dtype)
        return _to_tolerance(integrand, _target(tol, rtol), _method(method, integrand.dim), max_evaluations, generator)
    if rtol or method is not None:
        raise ConfigError("Got rtol or method without tol, expected an absolute tolerance too; pass e.g. tol=1e-6.")
    if discretization is None:
        make = get_sampler(sampler or "lattice") if isinstance(sampler, str | None) else sampler
        discretization = make(field.domain if domain is None else domain, 4096 if n is None else n, generator)
    elif domain is not None and domain != discretization.domain:
        raise ConfigError(
            f"Got the domain {domain} and a discretization of {discretization.domain}, expected one; pass only one of them."
        )
    total = None
    chunks = zip(discretization.points.split(CHUNK), discretization.weights.split(CHUNK), strict=True)
    for points, weights in chunks:
        values = query(field, points)  # (m, c)
        part = weights.to(torch.float64) @ values.to(torch.float64)  # a long sum in float32 would lose digits
        total = part if total is None else total + part
    return total.to(values.dtype)


def _to_tolerance(integrand: Pullback, target: Target, method: str, most: int, generator: torch.Generator | None) -> Integral:
    if method == "randomized":
        found, points = integrate_randomly(integrand, target, most, generator)
        again = partial(mean_on, points, integrand)
    else:
        found, boxes = integrate_adaptively(integrand, target, most)
        again = partial(integrate_on, boxes, integrand)
    if integrand.has_gradient():  # the points are found without a graph: one pass over the last of them builds it
        found = found.with_value(again(), integrand.evaluations)
    if not found.converged:
        warnings.warn(
            f"The integral did not meet its tolerance ({found.reason}): the bound of its error is "
            f'{float(found.bound.max()):.3g}; raise max_evaluations or tol, or try method="randomized".',
            NotConverged,
            stacklevel=3,
        )
    return found


def _target(tol: float, rtol: float) -> Target:
    if not (isinstance(tol, int | float) and isinstance(rtol, int | float) and tol >= 0 and rtol >= 0 and tol + rtol > 0):
        raise ConfigError(f"Got tol={tol!r} and rtol={rtol!r}, expected numbers of at least 0, one of them above, e.g. tol=1e-6.")
    return Target(float(tol), float(rtol))


def _method(name: str | None, dim: int) -> str:
    if name is None:
        return "adaptive" if dim <= MAX_ADAPTIVE_DIM else "randomized"
    if name not in ("adaptive", "randomized"):
        raise ConfigError(f'Got method={name!r}, expected "adaptive" or "randomized".')
    if name == "adaptive" and dim > MAX_ADAPTIVE_DIM:
        raise ConfigError(
            f'Got method="adaptive" in {dim} dimensions, expected at most {MAX_ADAPTIVE_DIM}: the boxes would be too many; '
            'use method="randomized".'
        )
    return name
