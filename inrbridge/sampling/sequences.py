"""Floor 4: extensible point sequences on the unit cube, in float64.

A sequence is a pure function of the index: `sequence(start, stop)` returns rows start..stop-1, whatever was drawn
before, so that the first n points are a prefix of the first 2n for every n. All are picklable values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inrbridge.domains import Domain, Manifold
from inrbridge.errors import ConfigError

# Generating vectors of rank-1 lattices that are extensible in base 2. Two and three dimensions: found by a search of all
# (2-D) or very many (3-D) vectors mod 2^20, level by level, for two goods at once. Local: at *every* prefix of N = 2^8 to
# 2^20 points the nearest neighbour on the unit torus is at least 0.8 N^(-1/d) away and the shortest dual vector at least
# 0.8 N^(1/d) long (the optimum is 1.07 in 2-D, 1.12 in 3-D): what a compact kernel needs. Global: N times the worst-case
# error sqrt(P_2) stays below 65 and 520: what an integral needs, whose error stagnates on lattices that are even alone.
# Four to six: the published vector exod2_base2_m20_CKN (Cools, Kuo & Nuyens 2006).
LATTICE_VECTORS = {
    1: (1,),
    2: (1, 867469),
    3: (1, 10265, 507259),
    4: (1, 182667, 469891, 498753),
    5: (1, 182667, 469891, 498753, 110745),
    6: (1, 182667, 469891, 498753, 110745, 446247),
}

# The shift of an unrandomized lattice: a third, since N / 3 is never near an integer for N = 2^m. The points of every
# prefix then sit a third of a cell away from the borders, instead of on them.
UNRANDOMIZED_SHIFT = round(2**24 / 3) / 2**24


class Sequence(Protocol):
    """Points of the unit cube by index: (start, stop) -> (stop - start, dim), float64 in [0, 1)."""

    dim: int

    def __call__(self, start: int, stop: int) -> Tensor: ...


def radical_inverse(index: Tensor, base: int = 2) -> Tensor:
    """Mirror the digits of integers at the radix point: sum_k a_k base^k -> sum_k a_k base^(-k-1), float64.

    >>> radical_inverse(torch.arange(4)).tolist()
    [0.0, 0.5, 0.25, 0.75]
    """
    value = torch.zeros(index.shape, dtype=torch.float64)
    scale = 1.0 / base
    while bool((index > 0).any()):
        value += scale * (index % base).double()  # a float times integers would be float32
        index, scale = index // base, scale / base
    return value


@dataclass(frozen=True)
class LatticeSequence:
    """Rank-1 lattice in radical-inverse order: x_i = frac(radical_inverse(i) z + shift).

    The first 2^m points are {i z / 2^m}: a lattice, and so is each of their prefixes of 2^k points.
    """

    vector: tuple[int, ...]  # z
    shift: tuple[float, ...]

    @classmethod
    def draw(cls, dim: int, generator: torch.Generator | None = None) -> LatticeSequence:
        """Return the lattice of `dim` dimensions; the shift is uniform, or fixed without a generator."""
        if dim not in LATTICE_VECTORS:
            raise ConfigError(
                f"Got a domain of {dim} dimensions, expected at most {max(LATTICE_VECTORS)}: no lattice vector is known "
                'beyond; use the sampler "sobol".'
            )
        if generator is None:
            return cls(LATTICE_VECTORS[dim], (UNRANDOMIZED_SHIFT,) * dim)
        # Multiples of 2^-24 (float32 on purpose): on boxes such as [-1, 1]^d coordinates are then exact in float32 too,
        # and x_i - x_j depends on nothing but i - j to the last bit.
        shift = torch.rand(dim, generator=generator, dtype=torch.float32, device=generator.device)
        return cls(LATTICE_VECTORS[dim], tuple(shift.tolist()))

    @property
    def dim(self) -> int:
        return len(self.vector)

    def __call__(self, start, stop):
        # Exact below 2^33 points: 33 bits of index times 20 bits of z fit the 53 bits of a float64.
        phase = radical_inverse(torch.arange(start, stop))[:, None] * torch.tensor(self.vector, dtype=torch.float64)
        return (phase % 1.0 + torch.tensor(self.shift, dtype=torch.float64)) % 1.0


@dataclass(frozen=True)
class SobolSequence:
    """Sobol' points, scrambled (random linear matrix and digital shift, Matousek 1998) where a seed is given.

    Points are the centres of the cells of a 2^-23 grid: every elementary interval keeps its share of points after the
    cast to float32, where 1 - 2^-30 would become 1. (The engine's own first point is rounded to float32.)
    """

    dim: int
    seed: int | None = None

    DIGITS = 23

    def __call__(self, start, stop):
        if self.dim > torch.quasirandom.SobolEngine.MAXDIM or stop > 2**30:
            raise ConfigError(
                f"Got {stop} Sobol points in {self.dim} dimensions, expected at most 2^30 points and 21201 dimensions."
            )
        engine = torch.quasirandom.SobolEngine(self.dim, scramble=self.seed is not None, seed=self.seed)
        first = engine.quasi.to(torch.float64) / 2.0**engine.MAXBIT
        if start > 0:
            engine.fast_forward(start)
        unit = engine.draw(stop - start, dtype=torch.float64)
        if start == 0:
            unit[0] = first
        return (torch.floor(unit * 2.0**self.DIGITS) + 0.5) / 2.0**self.DIGITS


@dataclass(frozen=True)
class HaltonSequence:
    """Halton points: coordinate a is the radical inverse in the a-th prime, digits permuted at random under a seed."""

    dim: int
    seed: int | None = None

    def __call__(self, start, stop):
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        index = torch.arange(start, stop)
        return torch.stack([self._coordinate(index, prime, generator) for prime in _primes(self.dim)], dim=1)

    def _coordinate(self, index: Tensor, base: int, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            return radical_inverse(index, base)
        value = torch.zeros(index.shape, dtype=torch.float64)
        scale = 1.0 / base
        # As many digits as a float64 holds, leading zeros included: a permutation may turn them into other digits.
        for _ in range(math.floor(52 / math.log2(base))):
            digits = torch.randperm(base, generator=generator).double()
            value += scale * digits[index % base]
            index, scale = index // base, scale / base
        return value


@dataclass(frozen=True)
class UniformSequence:
    """Independent uniform points (Monte Carlo), drawn in blocks of fixed size from one seed."""

    dim: int
    seed: int

    BLOCK = 4096

    def __call__(self, start, stop):
        generator = torch.Generator().manual_seed(self.seed)
        blocks = []
        for at in range(0, stop, self.BLOCK):  # blocks before `start` are drawn and dropped: they move the generator on
            block = torch.rand(self.BLOCK, self.dim, generator=generator, dtype=torch.float64)
            blocks.append(block[max(start - at, 0) : stop - at])
        return torch.cat(blocks)


@dataclass(frozen=True)
class InterleavedSequence:
    """One sequence dealt out to `parts` charts in turn: row i is row i // parts, with the choice of chart i % parts in front.

    A prefix is then of low discrepancy on every chart.
    """

    sequence: Sequence
    parts: int

    @property
    def dim(self) -> int:
        return self.sequence.dim + 1

    def __call__(self, start, stop):
        index = torch.arange(start, stop)
        turn, part = index // self.parts, index % self.parts
        first = start // self.parts
        rows = self.sequence(first, (stop - 1) // self.parts + 1)[turn - first]
        return torch.cat([(part[:, None] + 0.5) / self.parts, rows], dim=1)


def sequence_on(domain: Domain, make: Callable[[int], Sequence], more: int = 0) -> Sequence:
    """Return the sequence whose first columns `domain.envelope.from_unit` takes, followed by `more` columns.

    Args:
        make: the sequence of a number of dimensions.
    """
    envelope = domain.envelope
    if isinstance(envelope.ground, Manifold):
        return InterleavedSequence(make(envelope.intrinsic_dim + more), len(envelope.ground.charts))
    return make(envelope.unit_dim + more)


def draw_seed(generator: torch.Generator | None) -> int | None:
    """Draw the seed of a sequence from a generator; None stays None (no randomization)."""
    if generator is None:
        return None
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found
