"""Floor 3: points on a domain with quadrature weights, the argument of every integral.

Weights sum to the domain's measure. A discretization is immutable and nested: its prefix is a coarser
one, and one that knows its sampler can be extended, the old points staying where they are
(Wang & Golland 2023, section 4.1, "Multi-scale architectures").
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, EmptyDiscretization, ShapeMismatch

P, T = ParamSpec("P"), TypeVar("T")
_count = itertools.count()


def constant(function: T) -> T:
    """Decorate a function that torch.compile calls while it records, its result being a constant of the graph.

    The same as `torch.compiler.assume_constant_result`, which would import the compiler: seconds, for all who never compile.
    """
    function._dynamo_marked_constant = True
    return function


def derived(make: Callable[Concatenate[Discretization, P], T]) -> Callable[Concatenate[Discretization, P], T]:
    """Decorate a function of a discretization and of hashable arguments: what it returns is kept with the points.

    Two calls with equal arguments share one object. torch.compile does not look inside: to a compiled graph the result is a
    fact of the very discretization, and asking for another one compiles again.
    """

    # first the name, a constant, then what has the name: an attribute, which a compiler can find again and guard
    @constant
    def name_of(source, *args, **options) -> str:
        key = (make.__module__, make.__qualname__, *args, *options.items())
        if key not in source.cache:
            name = f"derived_{next(_count)}"
            setattr(source.kept, name, make(source, *args, **options))
            source.cache[key] = name
        return source.cache[key]

    @functools.wraps(make)
    def find(source, *args, **options):
        return getattr(source.kept, name_of(source, *args, **options))

    return find


@dataclass(frozen=True)
class Grid:
    """Structure of row-major grid points: coordinate `a` of point (i_0, ..) is start[a] + step[a] * i_a."""

    shape: tuple[int, ...]
    start: tuple[float, ...]
    step: tuple[float, ...]


@dataclass(frozen=True)
class Lattice:
    """Structure of a rank-1 lattice of n = 2^m points in radical-inverse order on a box.

    Point i is low + size * frac(radical_inverse(i) * generator + shift); natural index bit_reverse(i).
    """

    generator: tuple[int, ...]
    shift: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Discretization:
    """Points (n, d) with weights (n,) that sum to the measure of `domain`.

    `structure` is what the geometry of the points allows fast paths to know; `sampler` names the maker;
    `extend_to` draws the first m points of the same sequence, where the sampler can; `finer` is the
    discretization this one was thinned from.
    """

    points: Tensor  # (n, d)
    weights: Tensor  # (n,)
    domain: Domain
    sampler: str = "points"
    structure: Grid | Lattice | None = None
    extend_to: Callable[[int], Discretization] | None = field(default=None, repr=False)
    finer: Discretization | None = field(default=None, repr=False)
    cache: dict = field(default_factory=dict, repr=False)  # derived geometry (stencils); never part of the value
    kept: SimpleNamespace = field(init=False, repr=False)  # that of functions decorated by `derived`, by name

    def __post_init__(self):
        object.__setattr__(self, "kept", SimpleNamespace())
        n = self.points.shape[0] if self.points.ndim else 0
        if self.points.ndim != 2 or self.points.shape[1] != self.domain.dim:
            raise ShapeMismatch(
                f"Got points of shape {tuple(self.points.shape)}, expected (n, {self.domain.dim}) on {self.domain}; "
                "pass one row per point."
            )
        if not self.points.is_floating_point() or not self.weights.is_floating_point():
            raise ShapeMismatch(
                f"Got points of {self.points.dtype} and weights of {self.weights.dtype}, expected floating point; "
                "cast them first, e.g. points.float()."
            )
        if self.weights.shape != (n,):
            raise ShapeMismatch(f"Got weights of shape {tuple(self.weights.shape)}, expected ({n},): one weight per point.")
        if n == 0:
            raise EmptyDiscretization(f"Got 0 points on {self.domain}, expected at least 1; ask the sampler for more points.")

    def __len__(self) -> int:
        return self.points.shape[0]

    def __getstate__(self):
        return {**self.__dict__, "cache": {}, "kept": SimpleNamespace()}  # a worker process derives its own geometry

    @property
    def spacing(self) -> float:
        """Mean distance between neighbours: (measure / n)^(1 / intrinsic dimension), in domain units."""
        return (self.domain.ground.measure / len(self)) ** (1.0 / self.domain.intrinsic_dim)

    def to(self, *args, **kwargs) -> Discretization:
        """Return the same discretization on another device or in another dtype; itself where nothing changes."""
        if len(args) == 1 and isinstance(args[0], Tensor) and ("to", args[0].device, args[0].dtype) in self.cache:
            return self.cache["to", args[0].device, args[0].dtype]
        points, weights = self.points.to(*args, **kwargs), self.weights.to(*args, **kwargs)
        if points is self.points and weights is self.weights:
            return self
        finer = None if self.finer is None else self.finer.to(*args, **kwargs)
        moved = replace(self, points=points, weights=weights, finer=finer, cache={})
        return self.cache.setdefault(("to", points.device, points.dtype), moved)

    def prefix(self, n: int) -> Discretization:
        """Return the first n points, weights rescaled to the measure: the coarser discretization.

        The result is remembered, so that all who ask for one prefix share one object and its cache.
        """
        if not 0 < n <= len(self):
            raise EmptyDiscretization(f"Got a prefix of {n} points, expected between 1 and {len(self)}.")
        if n == len(self):
            return self
        if ("prefix", n) not in self.cache:
            is_lattice = isinstance(self.structure, Lattice) and n & (n - 1) == 0
            self.cache["prefix", n] = replace(
                self,
                points=self.points[:n],
                weights=self._rescaled(self.weights[:n]),
                structure=self.structure if is_lattice else None,
                finer=self,
                cache={},
            )
        return self.cache["prefix", n]

    def thin(self, stride: int) -> Discretization:
        """Keep one point in stride^d: every stride-th of each axis of a grid, else the prefix.

        The result is remembered, so that two layers that thin one discretization share one set of points.
        """
        _check_stride(stride)
        return self if stride == 1 else self._thin(stride)

    @derived
    def _thin(self, stride: int) -> Discretization:
        grid = self.structure
        if not isinstance(grid, Grid):
            return self.prefix(max(1, round(len(self) / stride**self.domain.intrinsic_dim)))
        index = self._grid_subset(stride)
        return replace(
            self,
            points=self.points[index],
            weights=self._rescaled(self.weights[index]),
            structure=Grid(
                tuple(math.ceil(size / stride) for size in grid.shape), grid.start, tuple(step * stride for step in grid.step)
            ),
            extend_to=None,
            finer=self,
            cache={},
        )

    def _grid_subset(self, stride: int) -> Tensor:
        kept = torch.arange(len(self), device=self.points.device).reshape(self.structure.shape)
        return kept[(slice(None, None, stride),) * kept.ndim].reshape(-1)

    def _rescaled(self, weights: Tensor) -> Tensor:
        return weights * (self.domain.measure / weights.sum())

    def refine(self, stride: int) -> Discretization:
        """Undo `thin`: return the discretization this came from, else extend the sequence by stride^d.

        The points of this discretization are among those of the result, at the same coordinates.
        """
        _check_stride(stride)
        if stride == 1:
            return self
        finer = self.finer
        while finer is not None:
            coarse = finer.thin(stride)
            if coarse is self or torch.equal(coarse.points, self.points):
                return finer
            finer = finer.finer
        wanted = len(self) * stride**self.domain.intrinsic_dim
        if self.extend_to is None:
            raise ShapeMismatch(
                f"Got a {self.sampler} discretization of {len(self)} points that cannot be extended to {wanted}; "
                "expected one made by a nested sampler (lattice, sobol, halton, uniform) or one that was thinned before."
            )
        if ("refine", stride) not in self.cache:
            finer = self.extend_to(wanted).to(self.points)
            finer.cache["prefix", len(self)] = self
            self.cache["refine", stride] = finer
        return self.cache["refine", stride]


def _check_stride(stride: int) -> None:
    if not isinstance(stride, int) or stride < 1:
        raise ConfigError(f"Got the stride {stride!r}, expected a whole number of at least 1.")
