"""Floor 5: the integral over the domain, and averages and maxima over windows (Wang & Golland 2023, appendix C).

On grids the windows are kernels and torch's own pooling serves them, borders included. `from_kernel` takes the arguments
of a torch layer and gives the layer that equals it on a grid of that spacing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization, derived
from inrbridge.errors import ConfigError
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.weights import has_equal_weights, promoted
from inrbridge.nn.windows import GridKernel, Lengths, Neighbours, Window, grid_kernel, neighbours, per_axis
from inrbridge.ops.windows import window_argmax, window_logmeanexp
from inrbridge.stencils import Cells, Stencil, build_stencil


class GlobalIntegral(nn.Module):
    """Integrate each channel over the domain: Sampled (b, n, c) -> tensor (b, c).

    Args:
        mean: divide by the measure: global average pooling.
    """

    def __init__(self, mean: bool = True):
        super().__init__()
        self.mean = mean

    def forward(self, sampled: Sampled) -> Tensor:
        values, weights = promoted(sampled)
        rows = values.transpose(0, 1)
        if rows.is_contiguous():  # points first: so will be the gradient, and the layers before copy nothing
            mean = (weights @ rows.flatten(1)).view(rows.shape[1:])
        else:
            mean = weights @ values
        mean = mean.to(sampled.values.dtype)
        return mean if self.mean else mean * sampled.discretization.domain.measure

    def extra_repr(self):
        return f"mean={self.mean}"


class AdaptiveAvgPool(nn.Module):
    """Average over regions of equal measure that cover the domain, those of `Tokenize` (appendix C, "adaptive average pooling").

    The output lives on the centres of the regions, of a box on a grid, in row-major order, so that flattening it after moving
    the channels first is flattening after `torch.nn.AdaptiveAvgPool1d/2d/3d`, which this equals on grids whose sides the
    cells divide. A cell without points gives 0.

    Args:
        shape: cells along each axis of the unit cube that maps onto the domain: of a box, its own axes.
    """

    def __init__(self, shape: int | tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, sampled: Sampled) -> Sampled:
        dim = sampled.discretization.domain.unit_dim
        shape = (self.shape,) * dim if isinstance(self.shape, int) else tuple(self.shape)
        stencil = build_stencil(Cells(shape), sampled.discretization)
        return Sampled(stencil.target, stencil.interpolate(sampled.values))

    def extra_repr(self):
        return f"{self.shape}"


class _WindowPool(nn.Module):
    """Reduce the values in a window around each output point.

    Args:
        window: width in domain units, one number or one an axis; on curved domains the diameter of a ball.
        stride: output points are the input points thinned by it.
        shift: of the window's centre against the output point.
        padding: None: windows are cut off at the edge. Else output points whose window sticks out further than this drop out.
        cell: size of the cell that a point of the discrete layer stands for; needed only with `padding`.
    """

    def __init__(
        self, window: Lengths, stride: int = 1, *, shift: Lengths = 0.0, padding: Lengths | None = None, cell: Lengths = 0.0
    ):
        super().__init__()
        widths = window if isinstance(window, tuple) else (window,)
        if any(not w > 0 for w in widths):
            raise ConfigError(f"Got a pooling window of width {window}, expected numbers above 0, in domain units.")
        self.window = Window(window, shift, stride, padding, cell)

    @classmethod
    def from_kernel(cls, kernel_size: int | tuple[int, ...], spacing: Lengths, stride: int | None = None,
                    padding: int | tuple[int, ...] | None = 0, **options):  # fmt: skip
        """Build the layer that a torch pooling layer is on a grid of this spacing.

        Args:
            kernel_size, stride, padding: as of torch; padding None keeps every output point (torch's ceil_mode).
            spacing: size of a cell of that grid, in domain units, one number or one an axis.
            options: further arguments of the class.
        """
        d = max(len(v) if isinstance(v, tuple) else 1 for v in (kernel_size, spacing, padding))
        sizes, cells = _spread(kernel_size, d), _spread(spacing, d)
        stride = kernel_size if stride is None else stride
        if isinstance(stride, tuple) and len(set(stride)) > 1:
            raise ConfigError(
                f"Got pooling strides {stride}, expected one number for all axes: points are thinned alike along each."
            )
        stride = stride[0] if isinstance(stride, tuple) else stride
        shift = tuple(0.0 if k % 2 else h / 2 for k, h in zip(sizes, cells, strict=True))
        widths = tuple(k * h for k, h in zip(sizes, cells, strict=True))
        margin = None
        if padding is not None:
            pads = _spread(padding, d)
            if any(not 0 <= p <= (k - 1) // 2 for p, k in zip(pads, sizes, strict=True)):
                raise ConfigError(
                    f"Got padding {padding} for a pooling kernel of size {kernel_size}, expected at most (size - 1) // 2: "
                    "a window belongs to a point inside the domain."
                )
            margin = _packed(tuple(p * h for p, h in zip(pads, cells, strict=True)))
        options = cls._discrete_options(kernel_size) | options
        return cls(_packed(widths), stride, shift=_packed(shift), padding=margin, cell=_packed(cells), **options)

    @classmethod
    def _discrete_options(cls, kernel_size: int | tuple[int, ...]) -> dict:
        """Arguments with which the layer equals torch's on a grid."""
        return {}

    def extra_repr(self):
        return ", ".join(f"{name}={value}" for name, value in vars(self.window).items())


class AvgPool(_WindowPool):
    """Average over a window: convolve with a box filter, then thin (appendix C, "Average pooling").

    y_i = (sum_j w_j f_j) / (sum_j w_j) over the points in window i.

    Args:
        window, stride, and shift, padding, cell in `place`: as above.
        count_include_pad: count what lies outside the domain as zeros, as torch does by default (and `from_kernel`).
    """

    def __init__(self, window: Lengths, stride: int = 1, *, count_include_pad: bool = False, **place):
        super().__init__(window, stride, **place)
        self.count_include_pad = count_include_pad

    @classmethod
    def _discrete_options(cls, kernel_size):
        return {"count_include_pad": True}

    def forward(self, sampled: Sampled) -> Sampled:
        source = sampled.discretization
        kernel = grid_kernel(source, self.window) if has_equal_weights(source) else None
        if kernel is None:
            stencil = _average(source, self.window, self.count_include_pad)
            return Sampled(stencil.target, stencil.interpolate(sampled.values))
        values = _pool_grid(sampled.values, kernel, self.window.stride, source, _AVERAGES, 0.0)
        cells = math.prod(kernel.size)
        scale = cells / kernel.count.double() * (kernel.share if self.count_include_pad else 1.0)  # (m,)
        return Sampled(kernel.target, values * scale.to(values)[:, None])


@derived
def _average(source: Discretization, window: Window, count_include_pad: bool) -> Stencil:
    near = neighbours(source, window)
    weight = _shares(near, source)
    if count_include_pad:
        weight = weight * near.share[:, None]
    rows, slots = near.present.nonzero(as_tuple=True)
    entries = (rows, near.index[rows, slots], weight[rows, slots])
    return Stencil.from_entries(near.target, len(source), 1, *(t.cpu() for t in entries))


class MaxPool(_WindowPool):
    """Maximum over a window, scaled so that it does not grow as points are added (appendix C, "Max pooling").

    The maximum of N independent values from U(-b, b) is (N - 1) / (N + 1) b on average; a positive maximum of N > 1 points
    is therefore multiplied by (N + 1) / (N - 1) and by `constant`. A negative one is returned as it is.

    Args:
        window, stride, and shift, padding, cell in `place`: as above.
        correction: False gives the plain maximum, which grows with the density of the points.
        constant: matches a discrete layer: (n - 1) / (n + 1) for a kernel of n cells, as 3/5 for 2x2.
        matches: kernel size of the discrete layer to match, instead of the constant: on a grid, windows that the edge cuts
            off and that hold fewer cells then return just the maximum, too. `from_kernel` sets it.
    """

    def __init__(self, window: Lengths, stride: int = 1, *, correction: bool = True, constant: float = 1.0,
                 matches: int | tuple[int, ...] | None = None, **place):  # fmt: skip
        super().__init__(window, stride, **place)
        self.correction, self.constant, self.matches = correction, constant, matches

    @classmethod
    def _discrete_options(cls, kernel_size):
        return {"matches": kernel_size}

    def forward(self, sampled: Sampled) -> Sampled:
        source = sampled.discretization
        kernel = grid_kernel(source, self.window)
        if kernel is not None:
            geometry = kernel
            values = _pool_grid(sampled.values, kernel, self.window.stride, source, _MAXIMA, -math.inf)
        else:
            geometry = neighbours(source, self.window).on(sampled.values.device)
            values = sampled.values.gather(1, window_argmax(sampled.values, geometry.index))
        if self.correction:
            factor = self._factor(geometry, source.domain.intrinsic_dim).to(values)[:, None]
            values = torch.where(values > 0, values * factor, values)
        return Sampled(geometry.target, values)

    def _factor(self, geometry: GridKernel | Neighbours, dim: int) -> Tensor:
        """Scale of a positive maximum (m,)."""
        n = geometry.count.double()
        factor = (n + 1) / (n - 1)
        matched = torch.full_like(n, self.constant)
        if self.matches is not None:
            n_cells = geometry.share.double() * math.prod(per_axis(self.matches, dim, "kernel size"))
            matched = (n_cells - 1) / (n_cells + 1)
            factor = torch.where(n_cells > 1 + 1e-9, factor, 1.0)  # a kernel of one cell is no maximum
            matched = torch.where(n_cells > 1 + 1e-9, matched, 1.0)
        return torch.where(n > 1, factor * matched, 1.0)


class LogMeanExpPool(_WindowPool):
    """A soft maximum that converges: log(mean of exp(sharpness f) over the window) / sharpness.

    An integral over the window, hence the same at any density of points; between the mean (sharpness -> 0) and the
    maximum (sharpness -> infinity). Other arguments as of AvgPool.
    """

    def __init__(self, window: Lengths, stride: int = 1, *, sharpness: float = 4.0, **place):
        super().__init__(window, stride, **place)
        if not sharpness > 0:
            raise ConfigError(f"Got sharpness {sharpness} for a soft maximum, expected a number above 0; try 4.")
        self.sharpness = float(sharpness)

    def forward(self, sampled: Sampled) -> Sampled:
        target, values = _soft(self.window, sampled.discretization, sampled.values, self.sharpness)
        return Sampled(target, values)


class NormPool(_WindowPool):
    """A maximum of sizes that converges: (mean of |f|^p over the window)^(1/p), the normalized p-norm.

    Between the mean size (p = 1) and the largest one (p -> infinity), the same at any density of points. Other arguments
    as of AvgPool.
    """

    def __init__(self, window: Lengths, stride: int = 1, *, p: float = 4.0, **place):
        super().__init__(window, stride, **place)
        if not p > 0:
            raise ConfigError(f"Got p = {p} for a p-norm, expected a number above 0; try 4.")
        self.p = float(p)

    def forward(self, sampled: Sampled) -> Sampled:
        # powers of small numbers underflow; the mean of exp(p log |f|) taken by its largest term does not
        sizes = sampled.values.abs().clamp(min=torch.finfo(sampled.values.dtype).tiny).log()
        target, logs = _soft(self.window, sampled.discretization, sizes, self.p)
        return Sampled(target, logs.exp())


_MAXIMA = (nn.functional.max_pool1d, nn.functional.max_pool2d, nn.functional.max_pool3d)
_AVERAGES = (nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d)


def _pool_grid(values: Tensor, kernel: GridKernel, stride: int, source: Discretization, pools, outside: float) -> Tensor:
    """Pool values (b, n, c) on a row-major grid by torch's own layer, `outside` standing beyond the edges: (b, m, c)."""
    shape, d = source.structure.shape, source.domain.dim
    image = values.unflatten(1, shape).movedim(-1, 1)  # (b, c, *shape), channels last in memory
    before = [pad[0] for pad in kernel.pads]
    native = kernel.mode == "constant" and all(
        0 <= p <= k // 2 and (n + 2 * p - k) // stride + 1 == m
        for p, k, n, m in zip(before, kernel.size, shape, kernel.target.structure.shape, strict=True)
    )
    if not native:
        before = 0
        flat = [amount for pad in reversed(kernel.pads) for amount in pad]
        if kernel.mode == "circular":
            image = nn.functional.pad(image, [max(0, amount) for amount in flat], mode="circular")
        else:
            image = nn.functional.pad(image, flat, value=outside)
    return pools[d - 1](image, kernel.size, stride, before).movedim(1, -1).flatten(1, d)


def _soft(window: Window, source: Discretization, values: Tensor, beta: float) -> tuple[Discretization, Tensor]:
    near = neighbours(source, window)
    weight = _shares(near, source)
    near = near.on(values.device)
    return near.target, window_logmeanexp(values, near.index, weight.to(values), beta)


def _shares(near: Neighbours, source: Discretization) -> Tensor:
    """Quadrature weights of the points in each window, normalized to sum to 1: float64 (m, t)."""
    weights = source.weights.double()
    weight = torch.where(near.present.to(weights.device), weights[near.index.to(weights.device)], 0.0)
    total = weight.sum(1, keepdim=True)
    # a window may hold nothing but points of weight 0
    return torch.where(total > 0, weight / total, near.present / near.present.sum(1, keepdim=True))


def _spread(value, d: int) -> tuple:
    return value if isinstance(value, tuple) else (value,) * d


def _packed(values: tuple[float, ...]) -> Lengths:
    return values[0] if len(values) == 1 else values
