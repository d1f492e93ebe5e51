"""Q8 [Wang & Golland 2023, property 4]: on the pixel grid an INR-Net layer is the discrete layer, borders included."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.models import build_model
from inrbridge.nn import (  # fmt: skip
    Activation,
    AdaptiveAvgPool,
    AvgPool,
    BasisConv,
    BatchNorm,
    Conv,
    Downsample,
    GlobalIntegral,
    Linear,
    MaxPool,
    Residual,
    Sampled,
    Sequential,
    Upsample,
)
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
    expected = torch.autograd.grad(
        (F.conv2d(image, layer.weight, layer.bias, padding=1) * out).sum(), [image, layer.weight, layer.bias]
    )
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


class Block(nn.Module):
    """A strided residual block of torch layers, and the same block of INR-Net layers with the same weights."""

    def __init__(self, channels, out, generator):
        super().__init__()
        self.discrete = nn.ModuleDict({
            "conv1": nn.Conv2d(channels, out, 3, 2, 1, bias=False), "norm1": nn.BatchNorm2d(out),
            "conv2": nn.Conv2d(out, out, 3, 1, 1, bias=False), "norm2": nn.BatchNorm2d(out),
            "short": nn.Conv2d(channels, out, 1, 2, bias=False),
        })  # fmt: skip
        conv1, conv2 = (Conv(a, out, 3, spacing=h, stride=s, bias=False, generator=generator)
                        for a, h, s in ((channels, 0.1, 2), (out, 0.2, 1)))  # fmt: skip
        self.body = Sequential(conv1, BatchNorm(out), Activation("relu"), conv2, BatchNorm(out))
        self.short = Linear.from_discrete(self.discrete["short"])
        self.continuous = Sequential(Residual(*self.body, shortcut=Sequential(Downsample(2), self.short)), Activation("relu"))
        for mine, theirs in ((conv1, "conv1"), (conv2, "conv2")):
            mine.weight = nn.Parameter(self.discrete[theirs].weight.detach().clone())

    def run(self, image):
        d = self.discrete
        inner = d["norm2"](d["conv2"](torch.relu(d["norm1"](d["conv1"](image)))))
        return torch.relu(inner + d["short"](image))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_residual_net_in_training_and_evaluation(dtype, generator):
    """Logits, running statistics after three steps and then evaluation agree."""
    block = Block(3, 6, generator).to(dtype)
    tolerance = {"atol": TOLERANCE[dtype] * 10, "rtol": TOLERANCE[dtype] * 10}
    for _ in range(3):
        image, sampled = image_on((9, 12), 3, dtype, generator)
        expected, out = block.run(image), block.continuous(sampled)
        torch.testing.assert_close(as_image(out, image, expected.shape[2:]), expected, **tolerance)
        torch.testing.assert_close(GlobalIntegral()(out), expected.mean((2, 3)), **tolerance)
    for mine, theirs in ((block.body[1], "norm1"), (block.body[4], "norm2")):
        torch.testing.assert_close(mine.running_mean, block.discrete[theirs].running_mean, **tolerance)
        torch.testing.assert_close(mine.running_var, block.discrete[theirs].running_var, **tolerance)
    block.eval()
    expected = block.run(image)
    torch.testing.assert_close(as_image(block.continuous(sampled), image, expected.shape[2:]), expected, **tolerance)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_pooling_and_upsampling(d, generator):
    shape = {1: (12,), 2: (8, 12), 3: (4, 6, 8)}[d]
    image, sampled = image_on(shape, 3, torch.float64, generator)
    pools = {"Max": MaxPool.from_kernel(2, 0.1, 2), "Avg": AvgPool.from_kernel(2, 0.1, 2)}
    for name, pool in pools.items():
        expected = getattr(nn, f"{name}Pool{d}d")(2)(image)
        torch.testing.assert_close(as_image(pool(sampled), image, expected.shape[2:]), expected)
    expected = nn.Upsample(scale_factor=2)(image)
    fine = grid(sampled.discretization.domain, tuple(2 * n for n in shape), dtype=torch.float64)
    torch.testing.assert_close(as_image(Upsample(2)(sampled, fine), image, expected.shape[2:]), expected)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_adaptive_pooling_with_its_flatten_order(d, generator):
    shape = {1: (12,), 2: (8, 12), 3: (4, 6, 8)}[d]
    cells = {1: (3,), 2: (2, 3), 3: (2, 3, 2)}[d]
    image, sampled = image_on(shape, 3, torch.float64, generator)
    expected = getattr(nn, f"AdaptiveAvgPool{d}d")(cells)(image)
    for case in (sampled, unstructured(sampled)):
        out = AdaptiveAvgPool(cells)(case)
        assert out.discretization.structure.shape == cells
        torch.testing.assert_close(out.values.transpose(1, 2).flatten(1), expected.flatten(1))


def test_a_classifier_from_pixels_to_logits(generator):
    """The whole convnet against its CNN twin, weight for weight."""
    net = (
        build_model("convnet", Box.centered(2), 1, 4, widths=(4, 8), strides=(1, 2), resolution=12, generator=generator)
        .double()
        .eval()
    )
    conv1, norm1, _, conv2, norm2, _ = net.trunk
    image = torch.randn(3, 1, 12, 12, dtype=torch.float64, generator=generator)
    hidden = image
    for conv, norm, stride in ((conv1, norm1, 1), (conv2, norm2, 2)):
        hidden = F.conv2d(hidden, conv.weight, None, stride, 1)
        hidden = torch.relu(F.batch_norm(hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias))
    pixels = Sampled(grid(Box.centered(2), (12, 12), dtype=torch.float64), image.flatten(2).transpose(1, 2))
    torch.testing.assert_close(net(pixels), net.head(hidden.mean((2, 3))), atol=1e-10, rtol=1e-10)


def test_negative_control_nodes_at_another_spacing_are_another_convolution(generator):
    """Equality is of the kernel's size in domain units: half as wide, or with taps that are not shifted, it is lost."""
    image, sampled = image_on((9, 12), 3, torch.float64, generator)
    layer = Conv(3, 5, 3, spacing=0.05, generator=generator).double()
    expected = F.conv2d(image, layer.weight, layer.bias, padding=1)
    assert (as_image(layer(unstructured(sampled)), image, (9, 12)) - expected).abs().max() > 0.1
    even = Conv(3, 5, 2, spacing=0.1, generator=generator).double()
    shifted = F.conv2d(F.pad(image, (1, 0, 1, 0)), even.weight, even.bias)  # torch's "same" pads after, not before
    assert (as_image(even(sampled), image, (9, 12)) - shifted).abs().max() > 0.1


def test_off_the_grid_the_discrete_net_is_left_little_by_little(generator):
    """Points shifted from the grid leave it continuously (appendix E.2): a small shift is a small change, a larger a larger."""
    _, sampled = image_on((9, 12), 3, torch.float64, generator)
    layer = Conv(3, 5, 3, spacing=0.1, generator=generator).double()
    old, shift = sampled.discretization, torch.rand(108, 2, generator=generator, dtype=torch.float64) - 0.5
    changes = []
    for amount in (1e-4, 1e-2):
        points = (old.points + 0.1 * amount * shift).clamp(min=0)
        out = layer(Sampled(Discretization(points, old.weights, old.domain), sampled.values)).values
        changes.append(float((out - layer(sampled).values).detach().abs().max()))
    assert 0 < changes[0] < 0.05 * changes[1] < 0.05, changes
