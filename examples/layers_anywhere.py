"""One convolution on a grid, a lattice and Sobol' points, in one, two and three dimensions.

On a grid the layer *is* torch's own convolution. On other points it must compute the same function of x,
    y(x) = bias + sum_k W_k f(x + node_k),   nodes outside the domain contribute 0,
from the values of f at those points alone; the table shows how well it does, and better with more points.

Run: python layers_anywhere.py
"""

import itertools

import torch
from torch.nn import functional

from inrbridge import Box, FunctionField, sampling, stack
from inrbridge.nn import Conv, Sampled

TORCH = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
CELLS = {1: 24, 2: 24, 3: 8}  # along each axis of the grid that the kernel is meant for
POINTS = {1: (32, 128), 2: (512, 2048), 3: (512, 2048)}  # about as many as that grid has, and four times as many


def wave(x: torch.Tensor) -> torch.Tensor:
    """A smooth function of any number of coordinates: (..., d) -> (..., 1)."""
    return torch.sin(3 * x.sum(-1, keepdim=True)) + x[..., :1] ** 2


def ideal(layer: Conv, box: Box, points: torch.Tensor) -> torch.Tensor:
    """Compute y(x) from the formula of f: (n, d) -> (n, out)."""
    offsets = [(k - 1) / 2 * h for k, h in zip(layer.kernel_size, layer.spacing, strict=True)]
    total = layer.bias.expand(len(points), -1).clone()
    for index in itertools.product(*map(range, layer.kernel_size)):
        node = torch.tensor([i * h - o for i, h, o in zip(index, layer.spacing, offsets, strict=True)])
        places = points + node
        values = torch.where(box.contains(places).unsqueeze(-1), wave(places), 0)
        total += values @ layer.weight[(slice(None), slice(None), *index)].T
    return total


@torch.no_grad()
def compare(dim: int) -> None:
    """Print the errors of one layer on several discretizations, relative to the size of its output."""
    box, cells = Box.centered(dim), CELLS[dim]
    fields = stack([FunctionField(wave, box, 1)])
    layer = Conv(1, 4, 3, spacing=2 / cells, dim=dim, generator=torch.Generator().manual_seed(dim))
    print(f"\n{dim}-D, kernel of {3**dim} nodes, {2 / cells:.3f} apart")

    grid = sampling.grid(box, cells**dim)
    values = fields(grid.points)  # (1, n, 1)
    image = values.reshape(1, 1, *[cells] * dim)
    by_torch = TORCH[dim](image, layer.weight, layer.bias, padding=1).flatten(2).mT
    print(f"  {len(grid):5} grid points     differ from torch.nn.functional.conv{dim}d by "
          f"{float((layer(Sampled(grid, values)).values - by_torch).abs().max()):.1e}")  # fmt: skip

    for n in POINTS[dim]:
        for sampler in (sampling.lattice, sampling.sobol):
            points = sampler(box, n)
            output = layer(Sampled(points, fields(points.points))).values[0]
            truth = ideal(layer, box, points.points)
            inside = (points.points.abs() < 1 - 2 / cells).all(-1)  # all nodes lie in the domain
            error = (output - truth).square().mean(-1).sqrt() / truth.std()
            print(f"  {n:5} {sampler.__name__:8} points differ from y(x) by {float(error[inside].mean()):.1e} inside, "
                  f"{float(error[~inside].mean()):.1e} near the border")  # fmt: skip


for dim in (1, 2, 3):
    compare(dim)
