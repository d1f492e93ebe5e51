"""Q8: on the grid that its kernels are taken from an architecture is its discrete twin, weight for weight."""

import pytest
import torch
from reference_models import (
    ConvNeXtTwin,
    ResNetTwin,
    TransformerTwin,
    UNetTwin,
    copy_weights,
    image_on_grid,
    pairs,
    randomize_statistics,
)

from inrbridge.models import build_model
from inrbridge.nn import Sampled, TransformerBlock

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
SHAPES = {1: (16,), 2: (8, 8), 3: (6, 6, 6)}


def check_equal(net, twin, sampled, image, as_output=lambda out: out):
    """Outputs in evaluation and training, running statistics after a step, and the gradients of the weights."""
    dtype = image.dtype
    tolerance = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    torch.testing.assert_close(as_output(net.eval()(sampled)), twin.eval()(image), **tolerance)
    mine, theirs = as_output(net.train()(sampled)), twin.train()(image)
    torch.testing.assert_close(mine, theirs, **tolerance)
    for name, value, other in pairs(net, twin):
        torch.testing.assert_close(value, other.reshape(value.shape), **tolerance, msg=lambda text, name=name: f"{name}: {text}")
    mine.square().sum().backward()
    theirs.square().sum().backward()
    for name, p, q in pairs(net, twin):
        if p.requires_grad:
            scale = float(q.grad.abs().max()) + 1
            assert (p.grad - q.grad.reshape(p.shape)).abs().max() < TOLERANCE[dtype] * scale, name


def image_of(sampled: Sampled):
    return sampled.values.transpose(1, 2).unflatten(2, sampled.discretization.structure.shape)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("dim", SHAPES)
@pytest.mark.parametrize("strides", [[1, 2], [2, 1]])
def test_resnet(dtype, dim, strides, generator):
    shape, widths, blocks = SHAPES[dim], [4, 6], [2, 1]
    image, sampled = image_on_grid(shape, 2, dtype, generator)
    net = build_model("resnet", sampled.discretization.domain, 2, 3, widths=widths, blocks=blocks, strides=strides,
                      resolution=shape[0], generator=generator).to(dtype)  # fmt: skip
    randomize_statistics(net, generator)
    check_equal(net, copy_weights(net, ResNetTwin(dim, 2, 3, widths, blocks, strides)), sampled, image)


def test_a_resnet_of_three_stages_on_an_odd_grid(generator):
    image, sampled = image_on_grid((9, 9), 2, torch.float64, generator)
    net = build_model("resnet", sampled.discretization.domain, 2, 3, widths=[4, 6, 8], blocks=[1, 2, 1], resolution=9,
                      generator=generator).double()  # fmt: skip
    check_equal(net, copy_weights(net, ResNetTwin(2, 2, 3, [4, 6, 8], [1, 2, 1], [1, 2, 2])), sampled, image)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "widths"), [((16,), [4, 6, 8]), ((8, 8), [4, 6, 8]), ((4, 4, 4), [4, 6]), ((9, 9), [4, 6, 8])])
def test_unet(dtype, shape, widths, generator):
    image, sampled = image_on_grid(shape, 2, dtype, generator)
    net = build_model("unet", sampled.discretization.domain, 2, 3, widths=widths, resolution=shape[0], generator=generator)
    net = net.to(dtype)
    randomize_statistics(net, generator)
    check_equal(net, copy_weights(net, UNetTwin(len(shape), 2, 3, widths, 2)), sampled, image, image_of)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "strides"), [((16,), [2, 2]), ((8, 8), [1, 2]), ((8, 8), [2, 2]), ((4, 4, 4), [2, 2])])
def test_convnext(dtype, shape, strides, generator):
    image, sampled = image_on_grid(shape, 2, dtype, generator)
    widths, blocks = [4, 6], [1, 2]
    net = build_model("convnext", sampled.discretization.domain, 2, 3, widths=widths, blocks=blocks, strides=strides,
                      kernel_size=5, layer_scale=0.5, resolution=shape[0], generator=generator).to(dtype)  # fmt: skip
    check_equal(net, copy_weights(net, ConvNeXtTwin(len(shape), 2, 3, widths, blocks, strides, 5)), sampled, image)


def test_convnext_as_published(generator):
    """Three stages of 7x7 kernels, wider than the coarsest grid."""
    image, sampled = image_on_grid((16, 16), 3, torch.float64, generator, count=2)
    net = build_model("convnext", sampled.discretization.domain, 3, 5, widths=[4, 6, 8], blocks=[1, 1, 1], layer_scale=1.0,
                      resolution=16, generator=generator).double()  # fmt: skip
    check_equal(net, copy_weights(net, ConvNeXtTwin(2, 3, 5, [4, 6, 8], [1, 1, 1], [2, 2, 2], 7)), sampled, image)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "patch"), [((16,), 4), ((8, 8), 2), ((12, 12), 4), ((4, 4, 4), 2)])
def test_transformer(dtype, shape, patch, generator):
    image, sampled = image_on_grid(shape, 2, dtype, generator)
    net = build_model("transformer", sampled.discretization.domain, 2, 3, width=12, depth=2, heads=3, hidden=20, patch=patch,
                      resolution=shape[0], generator=generator).to(dtype)  # fmt: skip
    twin = TransformerTwin(len(shape), 2, 3, 12, 2, 3, 20, patch, (0.5, 1.0, 2.0, 4.0)).to(dtype)
    layers = [(net.tokens, twin.embed), (net.norm, twin.norm), (net.head, twin.head)]
    layers += [(block, TransformerBlock.from_discrete(layer)) for block, layer in zip(net.blocks, twin.layers, strict=True)]
    for mine, theirs in layers:
        mine.load_state_dict(theirs.state_dict())
    tolerance = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    torch.testing.assert_close(net.eval()(sampled), twin.eval()(image), **tolerance)
    torch.testing.assert_close(net.train()(sampled), twin.train()(image), **tolerance)
    net(sampled).square().sum().backward()
    twin(image).square().sum().backward()
    torch.testing.assert_close(net.tokens.weight.grad, twin.embed.weight.grad, **tolerance)


def test_negative_control_another_border_is_not_the_zero_padded_twin(generator):
    image, sampled = image_on_grid((8, 8), 2, torch.float64, generator)
    build = {"widths": [4, 6], "blocks": [1, 1], "resolution": 8, "border": "reflect", "generator": generator}
    net = build_model("resnet", sampled.discretization.domain, 2, 3, **build).double().eval()
    twin = copy_weights(net, ResNetTwin(2, 2, 3, [4, 6], [1, 1], [1, 2]))
    assert (net(sampled) - twin(image)).abs().max() > 1e-3
