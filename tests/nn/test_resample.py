"""Resampling on grids equals torch's; nearest points are found around the edges of a torus."""

import pytest
import torch
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Product, Region, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import Downsample, Sampled, Upsample
from inrbridge.sampling import grid, lattice, sobol


def as_image(values, shape):
    return values.unflatten(1, shape).movedim(-1, 1)


def as_points(image):
    return image.movedim(1, -1).flatten(1, image.ndim - 2)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", [(5,), (6,), (4, 5), (3, 2, 4)], ids=str)
def test_grid_equals_torch(shape, stride, generator):
    dim = len(shape)
    points = grid(Box.unit(dim), shape, dtype=torch.float64)
    x = Sampled(points, torch.randn(2, len(points), 3, generator=generator, dtype=torch.float64))
    down = Downsample(stride)(x)
    image = as_image(x.values, shape)
    strided = image[(..., *(slice(None, None, stride),) * dim)]
    assert torch.equal(down.values, as_points(strided))
    fine = grid(Box.unit(dim), tuple(stride * n for n in shape), dtype=torch.float64)
    for mode, name in (("nearest", "nearest"), ("linear", ("linear", "bilinear", "trilinear")[dim - 1])):
        expected = as_points(nn.Upsample(scale_factor=stride, mode=name)(image))
        for out in (Upsample(stride, mode)(x), Upsample(stride, mode)(x, fine)):
            torch.testing.assert_close(out.discretization.points, fine.points, rtol=0, atol=1e-12)
            torch.testing.assert_close(out.discretization.weights, fine.weights)
            torch.testing.assert_close(out.values, expected, rtol=0, atol=1e-10)
    if all(n % stride == 0 for n in shape):
        expected = as_points(nn.Upsample(scale_factor=stride)(strided))
        assert torch.equal(Upsample(stride)(down).values, expected)  # thinned points stand for their block
    assert Upsample(stride)(down).discretization is points


def test_onto_any_target(generator):
    coarse, fine = sobol(Box.unit(2), 64, generator, dtype=torch.float64), lattice(Box.unit(2), 256, dtype=torch.float64)
    x = Sampled(coarse, torch.randn(2, 64, 3, generator=generator, dtype=torch.float64))
    out = Upsample()(x, fine)
    nearest = torch.cdist(fine.points, coarse.points).argmin(1)
    assert out.discretization is fine and torch.equal(out.values, x.values[:, nearest])


def test_linear_is_exact_on_linear_functions(generator):
    coarse, fine = sobol(Box.unit(2), 256, generator, dtype=torch.float64), lattice(Box.unit(2), 512, dtype=torch.float64)
    values = coarse.points @ torch.tensor([[2.0], [-1.0]], dtype=torch.float64) + 3
    out = Upsample(mode="linear")(Sampled(coarse, values[None]), fine).values[0]
    expected = fine.points @ torch.tensor([[2.0], [-1.0]], dtype=torch.float64) + 3
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-8)


def test_nearest_reaches_around_the_edges_of_a_torus(generator):
    domain = Product(Torus((2.0,)), Box.centered(1))
    assert Region(domain, lambda x: x[..., 1] > 0, measure=2.0).axis_periods == (2.0, 0.0)
    coarse, fine = lattice(domain, 32, generator, dtype=torch.float64), lattice(domain, 256, generator, dtype=torch.float64)
    out = Upsample()(Sampled(coarse, coarse.points[None]), fine).values[0]
    offset = (fine.points[:, None] - coarse.points[None]).abs()
    offset[..., 0] = torch.minimum(offset[..., 0], 2 - offset[..., 0])
    assert torch.equal(out, coarse.points[offset.norm(dim=-1).argmin(1)])
    edge = Discretization(torch.tensor([[2.0], [1.0]]), torch.ones(2), Torus((2.0,)))  # rounding may put a point on the seam
    target = Discretization(torch.tensor([[0.1], [1.9]]), torch.ones(2), Torus((2.0,)))
    out = Upsample()(Sampled(edge, torch.tensor([[[5.0], [6.0]]])), target)
    assert out.values.flatten().tolist() == [5.0, 5.0]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("kind", [grid, sobol])
def test_gradients(mode, kind, generator):
    fine = kind(Box.unit(2), 64, dtype=torch.float64)
    coarse = fine.thin(2)
    values = torch.randn(1, len(coarse), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: Upsample(2, mode)(Sampled(coarse, v)).values, values)
    values = torch.randn(1, len(fine), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: Downsample(2)(Sampled(fine, v)).values, values)


def test_errors(generator):
    with pytest.raises(ConfigError, match="stride"):
        Downsample(0)
    with pytest.raises(ConfigError, match="interpolation mode"):
        Upsample(2, "cubic")
    free = Discretization(torch.rand(8, 2, generator=generator), torch.full((8,), 1 / 8), Box.unit(2))
    with pytest.raises(ShapeMismatch, match="cannot be extended"):
        Upsample(2)(Sampled(free, torch.zeros(1, 8, 1)))
    offset = Downsample(2)(Sampled(grid(Box.unit(1), 5), torch.zeros(1, 5, 1))).discretization
    with pytest.raises(ShapeMismatch, match="reach outside"):
        Upsample(3)(Sampled(offset, torch.zeros(1, 3, 1)))
