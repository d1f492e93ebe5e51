"""Dense networks converted: exact on the pixels whatever the shape of the output, and fields of their own elsewhere."""

import numpy as np
import pytest
import torch
from discrete import all_families
from torch import nn

import inrbridge
from inrbridge import Box, FunctionField, GridField, ModelField, convert, distill, open_field, save_field
from inrbridge.errors import ShapeMismatch
from inrbridge.nn import Sampled
from inrbridge.sampling import grid, lattice, sobol

FAMILIES = all_families()
DENSE = ["unet", "unet_bilinear", "deeplab", "super_resolution", "wavenet", "volume_unet", "discriminator_patches", "vit_dense"]


def converted(name: str):
    """A discrete network, its INR-Net, and a smooth field with the picture of it."""
    factory, channels, resolution = FAMILIES[name]
    module, box = factory(), Box.centered(len(resolution))
    net = convert(module, box, resolution, in_channels=channels)

    def function(x):
        return torch.cat([torch.sin(2 * x[..., :1] + i) + torch.cos((1 + i % 3) * x[..., -1:]) for i in range(channels)], -1)

    field = FunctionField(function, box, channels)
    image = function(net.pixels().points).T.reshape(1, channels, *resolution)
    return module, net, field, image


def rows(image):
    """(b, c, *shape) -> (b, n, c)."""
    return image.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_arrays_samples_and_fields_give_the_networks_own_map(name):
    module, net, field, image = converted(name)
    expected = module(image)
    assert net.kind == "dense" and net.classes == expected.shape[1]
    assert torch.equal(net(image), expected)  # a pixel array gives a pixel array
    output = net(field)[0]  # of a field a field
    cells = net.features(net.as_fields(image)).discretization
    assert cells.structure.shape == tuple(expected.shape[2:])
    torch.testing.assert_close(output(cells.points), rows(expected)[0], atol=1e-5, rtol=1e-5)
    sampled = net(Sampled(net.pixels(), rows(image)))  # of samples the output at the very points
    assert sampled.values.shape == (1, image[0, 0].numel(), net.classes)
    if expected.shape[2:] == image.shape[2:]:
        assert torch.equal(sampled.values, rows(expected))
    else:
        torch.testing.assert_close(sampled.values[0], output(net.pixels().points), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "n", "close"), [("unet_bilinear", 1024, 0.5), ("wavenet", 128, 0.2), ("vit_dense", 1024, 0.1)])
@torch.no_grad()
def test_other_points_give_nearly_the_same_field(name, n, close):
    """In units of the spread of the output; the negative control forgets where the points are."""
    module, net, field, image = converted(name)
    expected = rows(module(image))[0]
    spread = (expected - expected.mean(0)).square().mean().sqrt()
    for points in (lattice(net.domain, n), sobol(net.domain, n), grid(net.domain, tuple(2 * k for k in net.resolution))):
        found = net(field, points)[0](net.pixels().points)
        assert (found - expected).square().mean().sqrt() < close * spread
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    points = lattice(net.domain, n)
    wrong = net.read(net.features(Sampled(points, field(points.points)[None, order])), net.pixels().points)[0]
    assert (wrong - expected).square().mean().sqrt() > 0.9 * spread


@torch.no_grad()
def test_an_output_is_read_at_twice_the_resolution():
    """A net of one convolution: where pixels are half as wide, kernels keep their width, and hit the finer pixels exactly."""
    torch.manual_seed(0)
    module = nn.Conv2d(1, 2, 3, padding=1, padding_mode="replicate")
    net = convert(module, Box.centered(2), 16, levels="points")
    field = FunctionField(lambda x: torch.sin(1.5 * x[..., :1] + x[..., 1:]), net.domain, 1)
    fine, h = grid(net.domain, (32, 32)), 2 / 16
    inside = (fine.points.abs() < 0.8).all(1)
    nodes = [(module.weight[:, 0, i, j], torch.tensor([(i - 1) * h, (j - 1) * h])) for i in range(3) for j in range(3)]
    truth = (sum(weight * field(fine.points + offset) for weight, offset in nodes) + module.bias)[inside]
    image = field(fine.points).T.reshape(1, 1, 32, 32)
    found = net(image)
    assert found.shape == (1, 2, 32, 32)
    torch.testing.assert_close(rows(found)[0][inside], truth, atol=1e-5, rtol=0)
    torch.testing.assert_close(net(field, fine)[0](fine.points)[inside], truth, atol=1e-5, rtol=0)
    torch.testing.assert_close(net(field)[0](fine.points)[inside], truth, atol=1e-2, rtol=0)  # read between the coarse pixels
    plain = rows(module(image))[0][inside]  # the control: kernels as wide as three fine pixels
    assert (plain - truth).abs().max() > 0.04
    on_grids = convert(module, Box.centered(2), 16)  # all levels on the network's own grids: finer pixels are read onto them
    assert on_grids(image).shape == (1, 2, 16, 16)
    torch.testing.assert_close(on_grids(field)[0](fine.points)[inside], truth, atol=2e-2, rtol=0)
    torch.testing.assert_close(on_grids(field, fine)[0](fine.points)[inside], truth, atol=2e-2, rtol=0)


@torch.no_grad()
def test_layers_without_padding_leave_a_part_of_the_domain():
    """Outputs lie where the kernels' centres do, on the pixels and on other points; beyond them the edge goes on."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 3))
    net = convert(module, Box.centered(2), 16)
    field = FunctionField(lambda x: torch.sin(1.5 * x[..., :1] + x[..., 1:]), net.domain, 1)
    image = field(net.pixels().points).T.reshape(1, 1, 16, 16)
    cells = net.features(net.as_fields(image)).discretization
    assert cells.structure.shape == (12, 12) and cells.structure.start == pytest.approx((-1 + 2.5 / 8,) * 2)
    assert torch.equal(net(image), module(image))
    found = net(field, lattice(net.domain, 1024))[0](cells.points)
    torch.testing.assert_close(found, rows(module(image))[0], atol=0.02, rtol=0)
    corner, edge = net(field)[0](torch.tensor([[-1.0, -1.0], [-0.75, -0.75]]))
    torch.testing.assert_close(corner, edge)


def test_gradients_reach_weights_and_pixels():
    _, net, _, image = converted("unet_bilinear")
    image = image.requires_grad_()
    net(image).square().mean().backward()
    assert image.grad.abs().sum() > 0 and net.network.get_parameter("outc.weight").grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((32, 24, 3), np.uint8), "numpy array of uint8"),
        (torch.zeros(1, 3, 32, 24, dtype=torch.uint8), "tensor of torch.uint8"),
        (torch.zeros(3, 32, 24), "with 2 axes of pixels"),
        (torch.zeros(1, 1, 32, 24), r"\(fields, 3, \*shape\)"),
    ],
)
def test_pixels_of_another_kind_are_told(pixels, said):
    _, net, _, _ = converted("unet")
    with pytest.raises(ShapeMismatch, match=said):
        net(pixels)


@torch.no_grad()
def test_pixels_take_the_dtype_of_the_net():
    module, net, _, image = converted("unet")
    torch.testing.assert_close(net(image.double()), module(image))


@torch.no_grad()
def test_an_output_is_a_file_and_a_field_of_another_format(tmp_path):
    module, net, _, image = converted("unet_bilinear")
    names = ("sky", "road", "tree", "car")
    field = GridField(image[0].permute(1, 2, 0), net.domain, channel_names=("red", "green", "blue"))
    points = {"sampler": "grid", "n": 1024, "seed": 0}
    save_field(ModelField(net, field, points=points, activation="softmax", channel_names=names), tmp_path / "o.safetensors")
    output = open_field(tmp_path / "o.safetensors")  # without a word of trust: its class is one of ours
    torch.testing.assert_close(output(net.pixels().points), rows(module(image).softmax(1))[0], atol=1e-5, rtol=1e-5)
    own = distill(output, "grid", tmp_path / "own.safetensors", shape=32)
    assert own.channel_names == names and own.notes["rms"] < 0.1
    torch.testing.assert_close(own(net.pixels().points), output(net.pixels().points), atol=1e-4, rtol=0)
    shifted = ModelField(net, field, points={**points, "sampler": "sobol"}, activation="softmax", channel_names=names)
    assert (shifted(net.pixels().points).argmax(1) == output(net.pixels().points).argmax(1)).float().mean() > 0.8
    assert float(inrbridge.integrate(output, n=256).sum()) == pytest.approx(4.0, rel=1e-3)
