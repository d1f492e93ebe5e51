"""Converted nets equal the discrete ones: on the pixel grid by the same operations, and on the pixels as mere points by rules."""

import pytest
import torch
from discrete import all_families
from reference_conversion import converted, images_of, on_bare_pixels, on_grid

FAMILIES = all_families()


def same_shape(output, wanted):
    return output.reshape(wanted.shape)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_on_the_grid_and_on_bare_pixels_it_is_the_discrete_network(name):
    factory, channels, resolution = FAMILIES[name]
    module = factory().double()
    images = images_of(channels, resolution)
    net, wanted = converted(module, images), module(images)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(same_shape(on_grid(net, images), wanted), wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(on_bare_pixels(net, images), wanted, rtol=0, atol=1e-9 * max(1.0, float(wanted.abs().max())))
