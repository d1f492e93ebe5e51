"""Q9 [Wang & Golland 2023, section 4.1, appendix C]: what a spline kernel takes over from a discrete one and keeps on any grid.

One clause holds on the grid only: off it, the convolution of a constant is the integral of the kernel, which for a spline cut
off at the outermost cells is a few per cent less than the sum of the weights. `Conv`, the default, keeps the sum everywhere.
"""

import math

import numpy as np
import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.nn import BasisConv, Conv, Sampled
from inrbridge.sampling import get_sampler, grid, sobol
from inrbridge.stencils import BSpline, build_stencil, kernel_nodes
from inrbridge.stencils.bases import cardinal_bspline

DOUBLE = {"dtype": torch.float64}


def layer(k, generator, dim=2, spacing=0.1, kind=BasisConv):
    return kind(1, 1, k, spacing=spacing, bias=False, dim=dim, generator=generator).double()


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_the_kernel_at_the_nodes_is_the_discrete_kernel(k, dim, generator):
    conv = layer(k, generator, dim)
    nodes = np.array(kernel_nodes((k,) * dim, (0.1,) * dim))
    kernel = conv.rule.basis.evaluate(nodes) @ conv.weight.detach().flatten().numpy()
    np.testing.assert_allclose(kernel, conv.weight.detach().flatten().numpy(), atol=1e-6)


@pytest.mark.parametrize(("k", "order"), [(3, 2), (5, 3), (7, 3)])
def test_the_orders_are_those_of_the_paper(k, order, generator):
    assert layer(k, generator).rule.basis.order == order


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_cardinal_splines_are_a_partition_of_unity(order):
    x = np.linspace(-2, 2, 401)
    total = cardinal_bspline(x[:, None] - np.arange(-6, 7), order).sum(1)
    np.testing.assert_allclose(total, 1.0, atol=1e-12)
    assert abs(cardinal_bspline(1.1 * (x[:, None] - np.arange(-6, 7)), order).sum(1) - 1).max() > 0.01  # negative control


@pytest.mark.parametrize("k", [3, 5])
def test_a_constant_becomes_the_sum_of_the_weights(k, generator):
    """Spline: on its grid; `Conv`: on any points. Where the kernel lies inside."""
    total = lambda conv: float(conv.weight.detach().sum())  # noqa: E731
    for sampler in ("grid", "lattice", "sobol", "uniform"):
        source = get_sampler(sampler)(Box.centered(2), (20, 20) if sampler == "grid" else 400, **DOUBLE)
        inside = (source.points.abs() < 1 - k * 0.05 - 0.01).all(1)
        ones = Sampled(source, torch.ones(1, len(source), 1, **DOUBLE))
        for conv in (layer(k, generator, kind=Conv), *([layer(k, generator)] if sampler == "grid" else [])):
            out = conv(ones).values[0, inside, 0]
            torch.testing.assert_close(out, torch.full_like(out, total(conv)), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("k", [3, 5])
def test_off_the_grid_a_constant_becomes_the_integral_of_the_kernel(k, generator):
    """int K / h^2 of the kernel of ones, cell by cell with Gauss's rule: less than its nine or twenty-five weights."""
    conv = layer(k, generator)
    with torch.no_grad():
        conv.weight.fill_(1.0)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    pieces = (np.arange(-k, k)[:, None] / 2 + 0.25 + nodes / 4).reshape(-1, 1)  # half cells: the splines are smooth on each
    axis = BSpline((k,), (1.0,), conv.rule.basis.order)
    inside = abs(pieces[:, 0]) <= k / 2
    expected = float((np.tile(weights / 4, 2 * k) * axis.evaluate(pieces).sum(1))[inside].sum()) ** 2
    assert 0.9 < expected / k**2 < 0.99
    asked = Discretization(torch.zeros(1, 2, **DOUBLE), torch.full((1,), 4.0, **DOUBLE), Box.centered(2))
    source = sobol(Box.centered(2), 2**16, torch.Generator().manual_seed(0), **DOUBLE)
    kernel = conv.weight.detach().flatten(2).permute(2, 1, 0)
    out = build_stencil(conv.rule, source, asked).apply(torch.ones(1, len(source), 1, **DOUBLE), kernel)
    assert float(out) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("k", [3, 5])
def test_zooming_in_converges_to_one_operator(k, generator):
    """One kernel on grids of n and 2 n cells an axis: outputs at fixed places settle, as a kernel of fixed taps does not."""
    conv = layer(k, generator, spacing=0.2)
    places = torch.tensor([[0.013, 0.027], [-0.31, 0.171]], **DOUBLE)
    asked = Discretization(places, torch.full((2,), 2.0, **DOUBLE), Box.centered(2))
    kernel = conv.weight.detach().flatten(2).permute(2, 1, 0)

    def outputs(n):
        source = grid(Box.centered(2), (n, n), **DOUBLE)
        field = torch.sin(3 * source.points.sum(1))[None, :, None]
        return build_stencil(conv.rule, source, asked).apply(field, kernel)[0, :, 0]

    settled = [float((outputs(2 * n) - outputs(n)).abs().max()) for n in (20, 80, 160)]
    assert settled[2] < settled[0] / 2 and settled[2] < 0.1 * float(outputs(320).abs().max()), settled

    # negative control: the same taps laid on neighbouring pixels of each grid see ever less of the field
    def taps(n):
        image = torch.sin(3 * grid(Box.centered(2), (n, n), **DOUBLE).points.sum(1)).reshape(1, 1, n, n)
        return torch.nn.functional.conv2d(image, conv.weight.detach(), padding=k // 2)[0, 0, n // 4, n // 4]

    exact = math.sin(3 * 2 * (-0.5)) * float(conv.weight.detach().sum())
    assert abs(float(taps(320)) - exact) < 0.05 * abs(exact) + 0.05 and abs(float(taps(20)) - float(taps(320))) > 0.03
