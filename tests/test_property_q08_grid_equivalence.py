"""Q8 [Wang & Golland 2023, property 4]: on the pixel grid an INR-Net layer is the discrete layer, borders included."""

import pytest
import torch
import torch.nn.functional as F

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.nn.conv import BasisConv, Conv
from inrbridge.nn.sampled import Sampled
from inrbridge.sampling import grid

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
SHAPES = {1: (11,), 2: (9, 12), 3: (5, 6, 7)}


def image_on(shape, channels, dtype, generator):
    """A random image (2, c, *shape) and the same values sampled on the grid of a box with cells of side 0.1."""
    image = torch.randn(2, channels, *shape, dtype=dtype, generator=generator)
    box = Box((0.0,) * len(shape), tuple(0.1 * n for n in shape))
    return image, Sampled(grid(box, shape, dtype=dtype), image.flatten(2).transpose(1, 2).contiguous())


def unstructured(sampled):
    """The same points without their grid structure: the general stencil must find the same answer."""
    old = sampled.discretization
    return Sampled(Discretization(old.points, old.weights, old.domain), sampled.values)


def pad(image, kernel_size, dilation, mode):
    amounts = [((k - 1) // 2 * dilation, (k - 1 - (k - 1) // 2) * dilation) for k in kernel_size]
    return F.pad(image, [a for pair in reversed(amounts) for a in pair], mode=mode)


def as_image(out, image, spatial):
    return out.values.transpose(1, 2).unflatten(2, spatial)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize(("k", "stride", "dilation", "groups"),
                         [(3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 1, 2), (3, 1, 2, 1), (2, 1, 1, 1), (4, 2, 1, 4), (1, 1, 1, 1),
                          (1, 2, 1, 2), (3, 3, 1, 4)])  # fmt: skip
def test_zero_padded_convolution(dtype, d, k, stride, dilation, groups, generator):
    image, sampled = image_on(SHAPES[d], 4, dtype, generator)
    layer = Conv(4, 8, k, spacing=0.1, stride=stride, dilation=dilation, groups=groups, dim=d, generator=generator).to(dtype)
    expected = CONVOLVE[d](pad(image, (k,) * d, dilation, "constant"), layer.weight, layer.bias, stride, 0, dilation, groups)
    out = layer(sampled)
    assert out.discretization.structure.shape == expected.shape[2:]
    torch.testing.assert_close(as_image(out, image, expected.shape[2:]), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("border", ["zeros", "reflect", "circular", "valid"])
@pytest.mark.parametrize("k", [2, 3])
def test_the_general_stencil_on_grid_points_agrees_too(dtype, d, border, k, generator):
    """Without the fall-through: the stencil itself is exact, at every border."""
    image, sampled = image_on(SHAPES[d], 3, dtype, generator)
    layer = Conv(3, 5, k, spacing=0.1, border=border, dim=d, generator=generator).to(dtype)
    mode = {"zeros": "constant", "valid": None}.get(border, border)
    padded = image if mode is None else pad(image, (k,) * d, 1, mode)
    expected = CONVOLVE[d](padded, layer.weight, layer.bias)
    for case in (sampled, unstructured(sampled)):
        got = as_image(layer(case), image, expected.shape[2:])
        torch.testing.assert_close(got, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_valid_convolution_with_stride(stride, generator):
    image, sampled = image_on((9, 12), 3, torch.float64, generator)
    layer = Conv(3, 5, (3, 5), spacing=(0.1, 0.1), border="valid", stride=stride, generator=generator).double()
    expected = F.conv2d(image, layer.weight, layer.bias, stride)
    torch.testing.assert_close(as_image(layer(sampled), image, expected.shape[2:]), expected, atol=1e-10, rtol=1e-10)


def test_a_chain_of_strided_layers(generator):
    """Thinned grids stay grids: three strided convolutions on an odd-sized image, as in a residual network's stages."""
    image, sampled = image_on((13, 10), 3, torch.float64, generator)
    for i in range(3):
        layer = Conv(3, 3, 3, spacing=0.1 * 2**i, stride=2, generator=generator).double()
        image, sampled = F.conv2d(image, layer.weight, layer.bias, 2, 1), layer(sampled)
        torch.testing.assert_close(as_image(sampled, image, image.shape[2:]), image, atol=1e-10, rtol=1e-10)


def test_gradients_are_those_of_torch(generator):
    image, sampled = image_on((9, 12), 3, torch.float64, generator)
    layer = Conv(3, 5, 3, spacing=0.1, generator=generator).double()
    out = torch.randn(2, 5, 9, 12, dtype=torch.float64, generator=generator)
    image.requires_grad_()
    expected = torch.autograd.grad((F.conv2d(image, layer.weight, layer.bias, padding=1) * out).sum(), [image, layer.weight, layer.bias])
    for case in (sampled, unstructured(sampled)):
        values = case.values.clone().requires_grad_()
        got = layer(Sampled(case.discretization, values)).values
        loss = (got * out.flatten(2).transpose(1, 2)).sum()
        mine = torch.autograd.grad(loss, [values, layer.weight, layer.bias])
        torch.testing.assert_close(mine[0].transpose(1, 2).unflatten(2, (9, 12)), expected[0], atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(mine[1:], expected[1:], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("k", [3, 5])
def test_the_spline_kernel_takes_over_discrete_weights(k, generator):
    """The paper's transfer: the spline through the weights, integrated over grid points, is the discrete convolution."""
    image, sampled = image_on((9, 12), 3, torch.float64, generator)
    layer = BasisConv(3, 5, k, spacing=0.1, generator=generator).double()
    expected = F.conv2d(image, layer.weight, layer.bias, padding=k // 2)
    torch.testing.assert_close(as_image(layer(sampled), image, (9, 12)), expected, atol=1e-10, rtol=1e-10)


def test_dilated_nodes_on_a_finer_grid_fall_through(generator):
    """The kernel keeps its size in domain units: on a grid of half the step it becomes a dilated convolution."""
    image, sampled = image_on((8, 8), 2, torch.float64, generator)
    layer = Conv(2, 2, 3, spacing=0.2, generator=generator).double()
    expected = F.conv2d(image, layer.weight, layer.bias, padding=2, dilation=2)
    for case in (sampled, unstructured(sampled)):
        torch.testing.assert_close(as_image(layer(case), image, (8, 8)), expected, atol=1e-10, rtol=1e-10)
