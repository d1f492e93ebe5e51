"""Slow twin of converted nets: the meaning of a program on points, tried on the very pixels without telling it that they are
pixels. Whatever the rules do there, the discrete network says what must come out."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from inrbridge import Box, Discretization
from inrbridge.conversion import convert
from inrbridge.models.converted import Converted, Level, Located, Places
from inrbridge.models.converted.levels import grid_points
from inrbridge.nn import Sampled


class BarePixels(Places):
    """Levels whose points are their own pixels, as points of no structure; those bound to their grids stay there."""

    def reach(self, shape, start, step, domain) -> Level:
        if shape in self.levels:
            return self.levels[shape]
        level = super().reach(shape, start, step, domain)
        if not level.on_grid:
            points = grid_points(shape, start, step, level.points.domain, self.given)
            self.levels[shape] = replace(level, points=bare(points))
        return self.levels[shape]


def bare(points: Discretization) -> Discretization:
    """The same points and weights without any structure."""
    return Discretization(points.points, points.weights, points.domain)


def converted(module: nn.Module, images: Tensor, **options) -> Converted:
    """Convert a module that takes these images, on a box that is neither centred nor of equal sides; its maps live on points."""
    resolution = tuple(images.shape[2:])
    sides = [1.0 + 0.5 * axis for axis in range(len(resolution))]
    domain = Box(tuple(0.3 - side for side in sides), (0.3,) * len(sides))
    return convert(
        module, domain, resolution, in_channels=images.shape[1], **{"levels": "points", "reader": "polynomials", **options}
    )


def on_bare_pixels(net: Converted, images: Tensor, shift: float = 0.0) -> Tensor:
    """Run the meaning on points at the pixels; `shift` moves the points by so many pixels, a negative control."""
    place = net.placement
    like = Discretization(images.new_zeros(1, net.domain.dim), images.new_ones(1), net.domain)
    pixels = grid_points(place.resolution, place.first, place.spacing, net.domain, like)
    given = bare(pixels)
    if shift:
        moved = pixels.points + shift * pixels.points.new_tensor(net.placement.spacing)
        given = replace(given, points=moved)
    places = BarePixels(net.placement, given)
    output = net.run_at(Sampled(given, images.flatten(2).transpose(1, 2)), places)
    if isinstance(output, Located):
        assert output.is_map
        return output.values.unflatten(2, output.level.shape)
    return output


def on_grid(net: Converted, images: Tensor) -> Tensor:
    """Run the net on the pixel grid, through the door of fields: an output map is given as the discrete network gives it."""
    sampled = net.as_fields(images)
    if not hasattr(net, "features"):
        return net(sampled)
    features = net.features(sampled)
    return features.values.transpose(1, 2).unflatten(2, features.discretization.structure.shape)


def images_of(channels: int, resolution: tuple[int, ...], fields: int = 2, seed: int = 1) -> Tensor:
    """Return noise as images (b, c, *resolution): every wrong index shows."""
    return torch.randn(fields, channels, *resolution, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_equal(output: Tensor, wanted: Tensor, size: float = 1.0) -> None:
    """Compare in float64, for values as large as `size`."""
    torch.testing.assert_close(output.reshape(wanted.shape), wanted, rtol=0, atol=1e-9 * max(1.0, float(size)))
