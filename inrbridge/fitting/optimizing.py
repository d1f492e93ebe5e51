"""Floor 8: what fields are fitted to, how many side by side, and how well they fit.

A step (see `descending.py`) looks at n points, one of many shifted copies of
a lattice: a set that is the same in every step leaves a network free to oscillate between its points (8x8 digits and a SIREN
of omega 30: 16 dB with one set of 256 points, 47 dB with 16 sets of 256).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrbridge import sampling
from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.errors import NotFinite
from inrbridge.fitting.measures import Measure
from inrbridge.signals import Signal
from inrbridge.stacking import Loose, stack

MOST_POINTS = 4096  # a step; more do not speed up the descent of Adam
CALLABLE_POINTS = 1024  # a step, for a signal without samples
LEAST_BLOCKS = 16
CACHE_NUMBERS = 2**19  # values of one layer that stay in a CPU's cache; 2^21 were measured 1.8 times slower
CALL_NUMBERS = 2**17  # below that the calls cost more than the work
SLICES = 16  # of a batch, each for one core
DEVICE_NUMBERS = 2**28  # the same bound on a GPU, where memory is what limits,
DEVICE_COPIES = 32  # of which a step takes so many values for each
LATTICE_DIMENSIONS = 6
BEST_PSNR = 200.0  # dB; an exact copy would be infinite, which JSON cannot hold


@dataclass(frozen=True)
class PointPlan:
    """`n` points a step, from a pool of `blocks` sets of n."""

    n: int
    blocks: int

    @classmethod
    def of(cls, signal: Signal, points: int | None, oversample: float) -> PointPlan:
        """Plan `points` a step, or `oversample` times as many along each axis as the signal has samples.

        Counts are rounded up to powers of two: those of a lattice are evenly spread, and signals of similar length share a plan.
        """
        if signal.shape is None:
            n = points or CALLABLE_POINTS
            return cls(n, 4 * LEAST_BLOCKS)
        wanted = math.prod(signal.shape) * oversample ** len(signal.shape)
        n = points or min(MOST_POINTS, _power_of_two(wanted))
        return cls(n, _power_of_two(max(LEAST_BLOCKS, wanted / n)))

    def pool(self, domain: Domain, generator: torch.Generator) -> Tensor:
        """Draw the points of all blocks: (blocks, n, d)."""
        points = _spread(domain, self.n * self.blocks, generator).points
        return points.reshape(self.blocks, self.n, domain.dim)

    def order(self, steps: int, generator: torch.Generator) -> list[int]:
        """Return the block of each step: every block once before any comes again."""
        rounds = [torch.randperm(self.blocks, generator=generator) for _ in range(math.ceil(steps / self.blocks))]
        return torch.cat(rounds)[:steps].tolist() if rounds else []


def _power_of_two(count: float) -> int:
    return 2 ** max(0, math.ceil(math.log2(count)))


def _spread(domain: Domain, n: int, generator: torch.Generator | None) -> Discretization:
    sampler = sampling.lattice if domain.envelope.unit_dim <= LATTICE_DIMENSIONS else sampling.sobol
    return sampler(domain, n, generator, dtype=torch.float32)


def sample_targets(signals: Sequence[Signal], pool: Tensor) -> Tensor:
    """Evaluate the signals at the pool (blocks, n, d): values (blocks, b, n, c) on its device."""
    blocks, n, d = pool.shape
    fields = stack([signal.field for signal in signals])
    place = torch.device("cpu") if any(isinstance(group, Loose) for group in fields.groups) else pool.device  # a user's callable
    with torch.no_grad():
        values = fields.to(place)(pool.to(place).reshape(-1, d)).to(pool.device)  # (b, blocks n, c)
    return values.reshape(len(signals), blocks, n, -1).transpose(0, 1).contiguous()


def fields_at_once(states: Mapping[str, Tensor], plan: PointPlan, count: int, device: torch.device) -> int:
    """Return how many of `count` fields to fit side by side.

    On a CPU as many as keep a layer's values in cache, and few enough to busy many cores: but never so few that the calls cost
    more than the work. The number of cores does not enter, so that results do not depend on it.
    """
    lengths = [size for value in states.values() for size in value.shape[1:] if size <= MOST_POINTS]
    numbers = plan.n * max([8, *lengths])
    if device.type != "cpu":
        free = torch.cuda.mem_get_info(device)[0] // (4 * DEVICE_COPIES) if device.type == "cuda" else DEVICE_NUMBERS
        return max(1, min(count, min(DEVICE_NUMBERS, free) // numbers))
    fair, least = math.ceil(count / SLICES), math.ceil(CALL_NUMBERS / numbers)
    return max(1, min(CACHE_NUMBERS // numbers, max(fair, least)))


def psnr(evaluate: Callable[[list[int], Tensor], Tensor], signals: Sequence[Signal], measure: Measure) -> list[float]:
    """Return 10 log10(peak^2 / MSE) in dB for each field, at its signal's own samples.

    A signal without samples is measured at a lattice that was not fitted, its peak the span of its values there. Of radiance
    the error is that of opacities and of colours where matter is, its peak 1 (see `measures.py`).

    Args:
        evaluate: (rows, points (n, d)) -> values (len(rows), n, c) of the fields in these rows.
        measure: of those fields.
    """
    found = [0.0] * len(signals)
    for shape in dict.fromkeys(signal.shape for signal in signals):
        rows = [i for i, signal in enumerate(signals) if signal.shape == shape]
        domain = signals[rows[0]].field.domain
        points = _spread(domain, MOST_POINTS, None).points if shape is None else sampling.grid(domain, shape).points
        with torch.no_grad():
            truth = stack([signals[i].field for i in rows])(points)
            errors = measure.errors(evaluate(rows, points).double(), truth.double()).mean((1, 2))
        for i, error, true in zip(rows, errors.tolist(), truth, strict=True):
            peak = measure.peak or signals[i].peak or float(true.max() - true.min()) or 1.0
            if not math.isfinite(error):
                raise NotFinite(
                    f'Fitting "{signals[i].name}" diverged: its values are NaN or infinite; expected a smaller step: lower lr.'
                )
            found[i] = min(BEST_PSNR, -10 * math.log10(error / peak**2)) if error > 0 else BEST_PSNR
    return found
