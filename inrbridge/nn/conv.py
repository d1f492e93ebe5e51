"""Floor 5: convolutions on any points. One operator, y_i = sum_k (sum_j P[i,k,j] f_j) W_k + bias; the classes differ in P.

`Conv` evaluates the field at the nodes of a discrete kernel and owns the very weights of a torch convolution.
`BasisConv` and `MLPConv` are the paper's integrals (Wang & Golland 2023, eq. 6-7 and section 4.3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization, Grid, derived
from inrbridge.domains import Ball, Box
from inrbridge.errors import ConfigError
from inrbridge.nn.channels import check_channels
from inrbridge.nn.sampled import Sampled
from inrbridge.ops.local import grid_convolution
from inrbridge.sampling import halton
from inrbridge.stencils import (
    BORDERS,
    Bins,
    BSpline,
    Gaussian,
    Pairwise,
    Polynomial,
    Quadrature,
    Radial,
    Reconstruct,
    build_stencil,
    kernel_nodes,
)
from inrbridge.stencils.borders import shrink
from inrbridge.stencils.nodes import reach


def _per_axis(value: float | Sequence[float], dim: int) -> tuple:
    return tuple(value) if isinstance(value, Sequence) else (value,) * dim


def _dimension(dim: int | None, *values) -> int:
    lengths = {len(v) for v in values if isinstance(v, Sequence)}
    if len(lengths) > 1 or (dim is not None and lengths - {dim}):
        raise ConfigError(f"Got tuples of lengths {sorted(lengths)} for dim={dim}, expected one value for each axis.")
    return dim if dim is not None else (lengths.pop() if lengths else 2)


class LocalLayer(nn.Module):
    """What all local layers share: channels, stride, border, bias. Maps values (b, n, in) to (b, n / stride^d, out)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, border: str, bias: bool, groups: int = 1):
        super().__init__()
        if border not in BORDERS:
            raise ConfigError(f'Got border "{border}", expected one of: {", ".join(BORDERS)}.')
        if in_channels % groups or out_channels % groups:
            raise ConfigError(f"Got {in_channels} -> {out_channels} channels in {groups} groups; both must divide by the groups.")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.stride, self.border = stride, border
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def _check(self, sampled: Sampled) -> None:
        check_channels(sampled, self.in_channels, f"{type(self).__name__}({self.in_channels}, {self.out_channels})")

    def _draw(self, generator: torch.Generator | None) -> None:
        """Draw `weight` (out, in / groups, ..) and `bias` as torch draws those of a convolution."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    def _through_stencil(self, sampled: Sampled) -> Sampled:
        """Apply the stencil of `rule` and the kernel that `weight` holds."""
        stencil = build_stencil(self.rule, sampled.discretization, border=self.border, stride=self.stride)
        kernel = self.weight.flatten(2).permute(2, 1, 0)
        return Sampled(stencil.target, stencil.apply(sampled.values, kernel, self.groups, self.bias))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}, border={self.border!r}"


class Conv(LocalLayer):
    """Convolution with a kernel of nodes: the field is reconstructed at x + node_k and mixed by W_k.

    `weight` and `bias` are those of `torch.nn.Conv1d/2d/3d`, (out, in / groups, *kernel_size), and may be copied.
    On a grid whose step divides the node spacing the layer is torch's own convolution; anywhere else the values at
    the nodes come from moving least squares, exact for polynomials up to `order`. On a curved domain the nodes lie in the
    tangent plane of each point, along its frame (east and north on a sphere), and are carried onto the domain.

    Args:
        kernel_size: nodes along each axis.
        spacing: distance of neighbouring nodes in domain units; the pixel spacing of the grid a kernel was meant for.
        stride: the output lives on `discretization.thin(stride)`.
        border: "zeros", "fading", "reflect", "replicate", "circular", "valid" or "renormalize" (see `stencils.borders`).
        order, neighbors: of the reconstruction.
        dim: dimension of the domain (2 on a sphere); needed only when kernel_size and spacing are plain numbers (default 2).
        generator: source of the initial weights, drawn as torch draws them.

    Raises:
        ShapeMismatch: channels or domain do not fit. ConfigError: arguments that contradict each other.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int] = 3, *,
                 spacing: float | Sequence[float], stride: int = 1, dilation: int = 1, groups: int = 1, border: str = "zeros",
                 bias: bool = True, order: int = 2, neighbors: int | None = None, dim: int | None = None,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__(in_channels, out_channels, stride=stride, border=border, bias=bias, groups=groups)
        dim = _dimension(dim, kernel_size, spacing)
        self.kernel_size = tuple(int(k) for k in _per_axis(kernel_size, dim))
        self.spacing = tuple(float(h) for h in _per_axis(spacing, dim))
        self.dilation = dilation
        nodes = kernel_nodes(self.kernel_size, self.spacing, dilation)
        self.rule = Reconstruct(nodes, tuple(h * dilation for h in self.spacing), order, neighbors)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self._draw(generator)

    def forward(self, sampled: Sampled) -> Sampled:
        self._check(sampled)
        steps = self._steps_on_grid(sampled)
        if steps is not None:
            return self._on_grid(sampled, steps)
        return self._through_stencil(sampled)

    def _steps_on_grid(self, sampled: Sampled) -> tuple[int, ...] | None:
        """Grid cells between kernel nodes along each axis, if the nodes of every point are grid points or lie outside."""
        grid, domain = sampled.discretization.structure, sampled.discretization.domain
        if not isinstance(grid, Grid) or not isinstance(domain, Box) or domain.dim > 3 or self.border == "renormalize":
            return None
        ratios = [h / step for h, step in zip(self.rule.spacing, grid.step, strict=True)]
        steps = tuple(round(r) for r in ratios)
        if any(m < 1 or abs(r - m) > 1e-5 for r, m in zip(ratios, steps, strict=True)):
            return None
        for axis, (start, step, size) in enumerate(zip(grid.start, grid.step, grid.shape, strict=True)):
            low, high = domain.low[axis], domain.high[axis]
            slack = 1e-6 * step
            if start - step > low - slack or start + size * step < high + slack:
                return None  # a part of the domain beyond the last grid point: its values must be extrapolated
            if self.border == "circular" and abs(size * step - (high - low)) > slack:
                return None
            if self.border in ("fading", "reflect", "replicate") and (steps[axis] != 1 or abs(start - low - step / 2) > slack
                                             or abs(start + (size - 0.5) * step - high) > slack):  # fmt: skip
                return None
        return steps

    def _on_grid(self, sampled: Sampled, steps: tuple[int, ...]) -> Sampled:
        source = sampled.discretization
        before = [(k - 1) // 2 * m for k, m in zip(self.kernel_size, steps, strict=True)]
        after = [(k - 1 - (k - 1) // 2) * m for k, m in zip(self.kernel_size, steps, strict=True)]
        target = shrink(source, *reach(self.rule.nodes)) if self.border == "valid" else source
        pads = tuple((0, 0) if self.border == "valid" else pair for pair in zip(before, after, strict=True))
        mode = {"zeros": "constant", "fading": "constant", "valid": "constant"}.get(self.border, self.border)
        values = grid_convolution(sampled.values, self.weight, self.bias, source.structure.shape, stride=self.stride,
                                  dilation=steps, groups=self.groups, pads=pads, mode=mode)  # fmt: skip
        return Sampled(target.thin(self.stride), values)


class BasisConv(LocalLayer):
    """Convolution with a kernel K(x' - x) = sum_k W_k B_k(x' - x) under the integral (eq. 6-7).

    Args:
        basis: "spline" (tensor B-splines that interpolate a net of nodes; `weight` then equals a discrete kernel's),
            "polynomial" (Legendre products up to total degree `order`), "gaussian", or "radial": functions of the distance
            alone on (kernel_size + 1) // 2 rings, a kernel that commutes with rotations.
        kernel_size, spacing: the net of nodes; the support is kernel_size * spacing wide.
        order: order of the spline (paper: 2 for 3 nodes an axis, 3 beyond) or degree of the polynomial.
        normalize: integrate constants exactly (moment correction).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int] = 3, *,
                 spacing: float | Sequence[float], basis: str = "spline", order: int | None = None, stride: int = 1,
                 groups: int = 1, border: str = "zeros", bias: bool = True, normalize: bool = False, dim: int | None = None,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__(in_channels, out_channels, stride=stride, border=border, bias=bias, groups=groups)
        dim = _dimension(dim, kernel_size, spacing)
        size = tuple(int(k) for k in _per_axis(kernel_size, dim))
        spacing = tuple(float(h) for h in _per_axis(spacing, dim))
        if basis == "spline":
            functions = BSpline(size, spacing, (2 if max(size) <= 3 else 3) if order is None else order)
        elif basis == "polynomial":
            functions = Polynomial(tuple(k * h / 2 for k, h in zip(size, spacing, strict=True)), 2 if order is None else order)
        elif basis == "gaussian":
            functions = Gaussian(size, spacing)
        elif basis == "radial":
            if len(set(size)) > 1 or len(set(spacing)) > 1:
                raise ConfigError(f"Got a radial kernel of size {size} and spacing {spacing}, expected one number of each.")
            functions = Radial(dim, size[0] * spacing[0] / 2, (size[0] + 1) // 2, 2 if order is None else order)
        else:
            raise ConfigError(f'Got basis "{basis}", expected "spline", "polynomial", "gaussian" or "radial".')
        self.rule = Quadrature(functions, spacing, normalize)
        shape = size if basis == "spline" else (functions.count,)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *shape))
        self._draw(generator)

    def forward(self, sampled: Sampled) -> Sampled:
        self._check(sampled)
        return self._through_stencil(sampled)


class MLPConv(LocalLayer):
    """Convolution whose kernel is a small network, K(x' - x) = MLP(x' - x), on Voronoi bins of the support (section 4.3).

    The network is evaluated once for each of `bins` seeds, whatever the number of points; or, without bins, once for each
    offset of two points, for the kernel itself. `bins` may be changed at any time.

    Args:
        half_width: half the support's width along each axis, in domain units (radius, for a ball).
        bins: seeds, spread evenly over the support; None: every pair of points has the kernel of its own offset.
        hidden: widths of the kernel network.
        ball: support is the ellipsoid inside the box.
    """

    def __init__(self, in_channels: int, out_channels: int, *, half_width: float | Sequence[float], bins: int | None = 64,
                 hidden: Sequence[int] = (16, 16), ball: bool = False, stride: int = 1, border: str = "zeros", bias: bool = True,
                 dim: int | None = None, generator: torch.Generator | None = None):  # fmt: skip
        super().__init__(in_channels, out_channels, stride=stride, border=border, bias=bias)
        dim = _dimension(dim, half_width)
        self.half_width, self.ball = tuple(float(r) for r in _per_axis(half_width, dim)), ball
        widths = [dim, *hidden]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.GELU()]
        self.kernel_net = nn.Sequential(*layers, nn.Linear(widths[-1], in_channels * out_channels))
        for layer in self.kernel_net[::2]:
            bound = math.sqrt(6 / layer.in_features)  # keeps the variance through the hidden layers
            last = layer is self.kernel_net[-1]
            nn.init.uniform_(
                layer.weight, *(s * bound / (math.sqrt(in_channels) if last else 1) for s in (-1, 1)), generator=generator
            )
            nn.init.uniform_(layer.bias, *(s / math.sqrt(in_channels) if last else s for s in (-1.0, 1.0)), generator=generator)
        self.bins = bins

    @property
    def bins(self) -> int | None:
        """Number of Voronoi cells of the support; None: no cells."""
        return len(self.rule.seeds) if isinstance(self.rule, Bins) else None

    @bins.setter
    def bins(self, count: int | None) -> None:
        if count is None:
            self.rule = Pairwise(self.half_width, self.ball)
            return
        dim = len(self.half_width)
        # not a lattice: where the points are one too, every bin would be off its seed in the same direction
        unit = Ball((0.0,) * dim, 1.0) if self.ball else Box.centered(dim)
        with torch.device("cpu"):  # seeds are values, even of a layer that is built without weights
            points = halton(unit, count, torch.Generator().manual_seed(0), dtype=torch.float64).points
            seeds = points * torch.tensor(self.half_width, dtype=torch.float64)
        self.rule = Bins(tuple(tuple(seed) for seed in seeds.tolist()), self.half_width, self.ball)

    def kernel(self, offsets: Tensor) -> Tensor:
        """Evaluate the kernel at offsets (..., d) in domain units -> (..., in, out)."""
        return self._kernel_at(offsets / offsets.new_tensor(self.half_width))

    def mixture(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Write the kernel at offsets (u, d) as features (u, h) times matrices (h, in, out): its last layer is linear."""
        return self._mixture_at(offsets / offsets.new_tensor(self.half_width))

    def forward(self, sampled: Sampled) -> Sampled:
        self._check(sampled)
        stencil = build_stencil(self.rule, sampled.discretization, border=self.border, stride=self.stride)
        values = sampled.values
        scaled = _kernel_places(sampled.discretization, self.rule, self.border, self.stride, values.dtype, values.device)
        learned = self._mixture_at(scaled) if self.bins is None else (self._kernel_at(scaled),)
        return Sampled(stencil.target, stencil.apply(values, *learned, bias=self.bias))

    def _kernel_at(self, scaled: Tensor) -> Tensor:
        return self.kernel_net(scaled).unflatten(-1, (self.in_channels, self.out_channels))

    def _mixture_at(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        features = self.kernel_net[:-1](scaled)
        last = self.kernel_net[-1]
        matrices = torch.cat([last.weight.t(), last.bias[None]]).unflatten(1, (self.in_channels, self.out_channels))
        return torch.cat([features, torch.ones_like(features[:, :1])], 1), matrices


@derived
def _kernel_places(source: Discretization, rule: Bins | Pairwise, border: str, stride: int, dtype: torch.dtype,
                   device: torch.device) -> Tensor:  # fmt: skip
    """Where a kernel network is evaluated, in half widths of the support; kept where it is used, so that no call moves it."""
    if isinstance(rule, Bins):
        offsets = torch.tensor(rule.seeds, dtype=torch.float64)
    else:
        offsets = build_stencil(rule, source, border=border, stride=stride).offsets
    return (offsets / offsets.new_tensor(rule.half_width)).to(device, dtype)
