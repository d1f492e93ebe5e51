"""Floor 6: the universal approximator of Wang & Golland 2023, appendix B.1, as running code: lemma 3 and theorem 1.

Nothing is learned: rectangles under the graph of a function become a network of ReLUs and products (algorithm B.1), and any
Lipschitz map between fields becomes samples, one such network for each output sample, and a partition of unity. The
rectangles grow like (1 / eps)^n in n samples: this is a proof that runs, not an architecture.

Where the paper's text does not hold, the code differs: in (42) the ramp has the width delta (b - a), not delta, which leaves the
rectangle and misses the bound (44); delta is that of (64)-(65), with which the one of algorithm B.1 agrees in one dimension only,
and is kept below 1/2 where a small ||J|| leaves those formulas without a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, NotFinite, ShapeMismatch
from inrbridge.field import Field, FunctionField

Function = Callable[[Tensor], Tensor]
LARGEST_DELTA = 0.49
MOST_RECTANGLES = 2**18
CHUNK = 2**17  # numbers held at a time: what a processor's cache takes


@dataclass(frozen=True)
class Cover:
    """Rectangles [low_i, high_i] x [0, height_i] that cover the set under the graph of a non-negative function."""

    low: Tensor  # (r, n)
    high: Tensor  # (r, n)
    height: Tensor  # (r,)
    norm: float  # the integral of the function
    excess: float  # sum_i measure(R_i) - norm, the left side of (34)


class RectangleNet(nn.Module):
    """K(f) = sum_i y_i T_i(f), T_i = prod_k [ReLU(w_ik - ReLU(f_k - b_ik + w_ik)) - ReLU(w_ik - ReLU(f_k - a_ik))] / w_ik.

    T_i ramps from 0 on the sides of rectangle i to 1 at a distance w_ik = delta_i (b_ik - a_ik) inside, and is 0 outside:
    (42) with the ramp width that (41) and (44) need. Maps (..., n) to (...).

    Args:
        low, high: sides a and b of the rectangles (r, n).
        height: y (r,), negative under the part of J below zero.
        delta: (r,) or a number, in (0, 1/2).
    """

    def __init__(self, low: Tensor, high: Tensor, height: Tensor, delta: Tensor | float):
        super().__init__()
        delta = torch.as_tensor(delta, dtype=low.dtype).expand(len(low))
        if low.ndim != 2 or low.shape != high.shape or height.shape != low.shape[:1] or not bool((low < high).all()):
            raise ShapeMismatch(
                f"Got sides of shapes {tuple(low.shape)} and {tuple(high.shape)} and heights {tuple(height.shape)}, expected "
                "(r, n) with low < high, and (r,)."
            )
        if len(low) and not bool(((delta > 0) & (delta < 0.5)).all()):
            raise ConfigError(f"Got delta from {float(delta.min())} to {float(delta.max())}, expected it between 0 and 1/2.")
        for name, value in (("low", low), ("high", high), ("height", height), ("delta", delta.clone())):
            self.register_buffer(name, value)

    @property
    def inputs(self) -> int:
        """n, the numbers that the net takes."""
        return self.low.shape[1]

    def forward(self, f: Tensor) -> Tensor:
        if f.shape[-1:] != (self.inputs,):
            raise ShapeMismatch(f"Got inputs of shape {tuple(f.shape)}, expected (..., {self.inputs}).")
        width = self.delta[:, None] * (self.high - self.low)
        sides = torch.stack([self.low, self.high, width], 2).to(f).unbind(1)  # n times (r, 3)
        distinct = [side.unique(dim=0, return_inverse=True) for side in sides]  # rectangles of a grid share their sides
        chunks = f.reshape(-1, self.inputs).split(max(1, CHUNK // max(1, len(width))))
        return torch.cat([self._sum(chunk, distinct) for chunk in chunks]).reshape(f.shape[:-1])

    def _sum(self, f: Tensor, distinct: list[tuple[Tensor, Tensor]]) -> Tensor:
        product = None
        for x, (sides, which) in zip(f.T[..., None], distinct, strict=True):  # along each axis
            a, b, w = sides.T
            factor = (torch.relu(w - torch.relu(x - (b - w))) - torch.relu(w - torch.relu(x - a))) / w
            product = factor[:, which] if product is None else product * factor[:, which]  # (m, r)
        return product @ self.height.to(f)

    def extra_repr(self):
        return f"{len(self.low)} rectangles in {self.inputs} dimensions"


def cover(function: Function, low: Sequence[float], high: Sequence[float], tolerance: float, *, lipschitz: float = 0.0) -> Cover:
    """Cover the set under the graph of a function (..., n) -> (...) >= 0 by one rectangle over each cell of a grid.

    The grid of a box is refined until the rectangles exceed the integral by less than `tolerance`, which is (34). The height
    of a cell is the largest of 3^n values on it, plus what `lipschitz`, the function's constant, allows between them: 0 is
    for functions that are monotone on small cells; with the true constant the cover is one for certain.

    Raises:
        ConfigError: so fine a grid has more than MOST_RECTANGLES cells.
    """
    low_t, high_t = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    n, cells = len(low_t), 2
    while True:
        step = (high_t - low_t) / cells
        axes = [a + h / 2 * torch.arange(2 * cells + 1, dtype=torch.float64) for a, h in zip(low_t, step, strict=True)]
        nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        values = function(nodes.flatten(0, -2)).reshape(nodes.shape[:-1]).double()
        if not bool(values.isfinite().all()):
            raise NotFinite("Got NaN or infinite values of the function to approximate, expected finite ones on the whole box.")
        tallest, mean = values, values
        for axis in range(n):
            tallest = tallest.unfold(axis, 3, 2).amax(-1)
            windows = mean.unfold(axis, 3, 2)
            mean = (windows[..., 0] + 4 * windows[..., 1] + windows[..., 2]) / 6  # Simpson
        tallest = tallest + lipschitz * float((step / 4).norm())
        volume = float(step.prod())
        norm, total = float(mean.sum()) * volume, float(tallest.sum()) * volume
        if total - norm < tolerance:
            break
        cells *= 2
        if cells**n > MOST_RECTANGLES:
            raise ConfigError(
                f"Got a tolerance of {tolerance:.3g}, for which {cells}^{n} rectangles are not enough, expected one for at most "
                f"{MOST_RECTANGLES}; allow a larger error, a smaller box, or fewer samples."
            )
    corner = torch.stack(torch.meshgrid(*[torch.arange(cells)] * n, indexing="ij"), -1).flatten(0, -2)
    height = tallest.flatten()
    kept = height > 0
    a = low_t + step * corner[kept]
    return Cover(a, a + step, height[kept], norm, total - norm)


def rectangle_net(function: Function, low: Sequence[float], high: Sequence[float], eps: float, *,
                  lipschitz: float = 0.0) -> RectangleNet:  # fmt: skip
    """Return a net K with int |J - K| < eps / 2 over the box, J being the function (..., n) -> (...) (lemma 3).

    Beyond the box K is 0: choose it so large that J is too, but for eps / 8 (31).

    Args:
        low, high: the box E.
        eps: twice the error that is allowed.
        lipschitz: constant of J, see `cover`.

    >>> net = rectangle_net(lambda f: f[..., 0] ** 2, [0.0], [1.0], eps=0.2)
    >>> abs(float(net(torch.tensor([0.3]))) - 0.09) < 0.02
    True
    """
    if not eps > 0 or len(low) != len(high) or not all(a < b for a, b in zip(low, high, strict=True)):
        raise ConfigError(f"Got eps={eps} on the box from {low} to {high}, expected eps > 0 and low < high.")
    above = cover(lambda f: function(f).clamp(min=0), low, high, eps / 16, lipschitz=lipschitz)
    below = cover(lambda f: (-function(f)).clamp(min=0), low, high, eps / 16, lipschitz=lipschitz)
    sides = [torch.cat([above.low, below.low]), torch.cat([above.high, below.high])]
    deltas = [torch.full_like(part.height, ramp(part.norm, eps, len(low))) for part in (above, below)]
    return RectangleNet(*sides, torch.cat([above.height, -below.height]), torch.cat(deltas))


def ramp(norm: float, eps: float, n: int) -> float:
    """The delta of (64) and (65): the share of a rectangle's side that its ramp may take, ||J+|| or ||J-|| being `norm`."""
    share = min(1.0, eps / 8 / (norm + eps / 16))
    return min(LARGEST_DELTA, (1 - (1 - share) ** (1 / n)) / 2)


class UniversalApproximator(nn.Module):
    """T = pi^-1 K pi: a field's samples, a net K_j for each output, and a partition of unity (theorem 1 and its corollaries).

    Made by `universal_approximator`. Takes a field of c channels, or vectors (c, n), and returns a field of c channels, or
    vectors (c, k): a map of single-channel fields, applied to each channel by itself.
    """

    def __init__(self, nets: Sequence[RectangleNet], points: Discretization | None, outputs: Discretization | None):
        super().__init__()
        self.nets, self.points, self.outputs = nn.ModuleList(nets), points, outputs

    def forward(self, given: Field | Tensor) -> Field | Tensor:
        numbers = given if self.points is None else samples_of(given, self.points)
        answers = torch.stack([net(numbers) for net in self.nets], -1)  # (c, k)
        return answers if self.outputs is None else interpolate(answers, self.outputs)


def universal_approximator(operator: Callable, eps: float, *, points: Discretization | None, bound: float | None = None,
                           low: Sequence[float] = (), high: Sequence[float] = (), outputs: Discretization | None = None,
                           lipschitz: float = 0.0) -> UniversalApproximator:  # fmt: skip
    """Build the network of theorem 1 for a map R of single-channel fields.

    Args:
        operator: R, acting on each channel of its argument by itself: field -> field (theorem 1), field -> tensor (c, k)
            (corollary 1), or tensor (c, n) -> field (corollary 2).
        eps: the mean error that is allowed, split as the proof splits it.
        points: the sample points X of pi; None: the input is a vector (corollary 2). How many are needed follows from the
            variation of the fields (15); their number is the dimension of the rectangles.
        bound: samples lie in [-bound, bound]; or `low` and `high`, one number for each sample.
        outputs: sample points of the result (theorem 1: those of `points`); None: it is a vector (corollary 1).
        lipschitz: of each output sample in the input samples, see `cover`.

    Raises:
        ConfigError: the rectangles would be too many.
    """
    if bound is not None:
        if points is None:
            raise ConfigError("Got a bound without sample points, expected low and high for a map of vectors.")
        low, high = (-bound,) * len(points), (bound,) * len(points)
    if points is not None and len(low) != len(points):
        raise ConfigError(f"Got {len(low)} lower bounds for {len(points)} sample points, expected one each, or `bound`.")

    def samples(f: Tensor) -> Tensor:  # (m, n) -> (m, k): R~ of (29)
        result = operator(f if points is None else interpolate(f, points))
        return result if outputs is None else samples_of(result, outputs)

    middle = (torch.tensor(low, dtype=torch.float64) + torch.tensor(high, dtype=torch.float64)) / 2
    k = samples(middle[None]).shape[1]
    tolerance = eps / 2 / k if outputs is None else eps / 2  # (67) bounds a mean over outputs, (74) a sum
    volume = math.prod(b - a for a, b in zip(low, high, strict=True))  # nu is normalized: dx / |E|
    nets = [
        rectangle_net(lambda f, j=j: samples(f)[:, j], low, high, 2 * tolerance * volume, lipschitz=lipschitz) for j in range(k)
    ]
    return UniversalApproximator(nets, points, outputs)


def samples_of(field: Field, points: Discretization) -> Tensor:
    """pi: the values of a field's channels at the sample points (c, n)."""
    return field(points.points).T


def interpolate(samples: Tensor, points: Discretization) -> FunctionField:
    """pi^-1: the field sum_j f_j psi_j for samples f (c, n), psi a partition of unity with psi_j(x_k) = delta_jk."""
    return FunctionField(lambda x: partition_of_unity(points, x) @ samples.T.to(x), points.domain, len(samples))


def partition_of_unity(points: Discretization, coords: Tensor) -> Tensor:
    """Evaluate psi (..., n): hats in one dimension, else weights of inverse distance r^(-2 d) (Shepard 1968); they sum to 1."""
    x = points.points.to(coords)
    if points.domain.dim == 1 and len(x) > 1:
        order = x[:, 0].argsort()
        node = x[order, 0]
        place = coords[..., 0].clamp(node[0], node[-1])
        right = torch.searchsorted(node, place.contiguous()).clamp(1, len(node) - 1)
        share = (place - node[right - 1]) / (node[right] - node[right - 1])
        hats = torch.zeros(*place.shape, len(node), dtype=coords.dtype, device=coords.device)
        hats = hats.scatter(-1, right[..., None] - 1, (1 - share)[..., None]).scatter(-1, right[..., None], share[..., None])
        return hats[..., order.argsort()]
    squared = (coords[..., None, :] - x).square().sum(-1)
    nearest = squared.amin(-1, keepdim=True).clamp(min=torch.finfo(coords.dtype).tiny)
    weight = (nearest / squared.clamp(min=torch.finfo(coords.dtype).tiny)) ** points.domain.dim
    return weight / weight.sum(-1, keepdim=True)
