"""Converted nets equal the discrete ones: on the pixel grid by the same operations, and on the pixels as mere points by rules."""

import pytest
import torch
from discrete import all_families
from reference_conversion import assert_equal, converted, images_of, on_bare_pixels, on_grid

from inrbridge import GridField
from inrbridge.sampling import grid

FAMILIES = all_families()
LARGE = ("resnet18", "volume", "volume_unet")  # slow to find neighbours in
parametrized = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in FAMILIES]
)


@parametrized
@torch.no_grad()
def test_on_the_grid_and_on_bare_pixels_it_is_the_discrete_network(name):
    factory, channels, resolution = FAMILIES[name]
    module = factory().double()
    images = images_of(channels, resolution)
    net, wanted = converted(module, images, reader=None), module(images)  # the reader that a user gets
    assert wanted.std() > 1e-3
    assert_equal(on_grid(net, images), wanted)
    assert_equal(on_bare_pixels(net, images), wanted, wanted.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["resnet18_groups", "unet", "vit_multihead", "audio", "volume"])
@torch.no_grad()
def test_fields_sampled_at_the_pixels_give_what_images_give(name, dtype):
    factory, channels, resolution = FAMILIES[name]
    module = factory().to(dtype)
    images = images_of(channels, resolution).to(dtype)
    net = converted(module, images)
    wanted = module(images)
    fields = [GridField(image.movedim(0, -1), net.domain) for image in images]
    points = grid(net.domain, resolution, dtype=dtype)
    output, given = net(fields), net(net.sample(fields, points))
    if wanted.ndim > 2:
        output = torch.cat([field(points.points) for field in output])
        output, given = (x.transpose(1, 2) for x in (output[None].unflatten(1, (len(images), -1))[0], given.values))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for found in (output, given):
        torch.testing.assert_close(found.reshape(wanted.shape), wanted, rtol=0, atol=tolerance * max(1, wanted.abs().max()))


@torch.no_grad()
def test_the_twin_notices_points_that_lie_elsewhere():
    factory, channels, resolution = FAMILIES["unet"]
    module, images = factory().double(), images_of(channels, resolution)
    net, wanted = converted(module, images), module(images)
    assert (on_bare_pixels(net, images, shift=0.2) - wanted).abs().max() > 0.1 * wanted.std()


@torch.no_grad()
def test_a_converted_net_shares_nothing_with_the_module():
    factory, channels, resolution = FAMILIES["lenet"]
    module, images = factory().double(), images_of(channels, resolution)
    net, wanted = converted(module, images), module(images)
    assert not net.training
    for weight in module.parameters():
        weight.zero_()
    assert_equal(net(images), wanted)
    assert not torch.allclose(module(images), wanted)
