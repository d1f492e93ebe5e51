"""`Pixels`: an image recovered from its values at scattered points."""

import numpy as np
import pytest
import torch

from inrbridge import Box, GridField
from inrbridge.sampling import grid, lattice, sobol
from inrbridge.stencils import Pixels, Reconstruct, build_stencil
from inrbridge.stencils.pixels import LENGTH, NOISE, REACH, pixel_weights

BOX = Box.centered(2)
SIZE = 12


def rule(shape=(SIZE, SIZE), domain=BOX, neighbors=None):
    spacing = tuple(length / n for length, n in zip(domain.lengths, shape, strict=True))
    return Pixels(shape, tuple(low + h / 2 for low, h in zip(domain.low, spacing, strict=True)), spacing, neighbors)


def image(shape=(SIZE, SIZE), seed=0, rough=1.0):
    """Noise over a slope: it changes from pixel to pixel, as natural images do at their edges."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(0, 1, shape[0]).reshape(-1, *[1] * len(shape))
    return slope + rough * 0.2 * torch.randn(*shape, 2, generator=generator)


def recovered(stencil_rule, points, values, target):
    return build_stencil(stencil_rule, points, target).interpolate(values[None])[0]


def slow_weights(points, pixel, size, neighbors):
    """The weights of one pixel (i, j), from the definition: all pixels, one sample after the other."""
    h = 2 / size
    places = (points + 1 - h / 2) / h
    nearest = np.argsort(np.linalg.norm(places - pixel, axis=1), kind="stable")[:neighbors]

    def keys(t):
        t = abs(t)
        return (1.5 * t - 2.5) * t * t + 1 if t < 1 else ((2.5 - t / 2) * t - 4) * t + 2 if t < 2 else 0.0

    def interpolation(place):
        weights = np.zeros((size, size))
        for i in range(-3, size + 3):
            for j in range(-3, size + 3):
                at = np.clip([i, j], 0, size - 1)
                weights[tuple(at)] += keys(place[0] - i) * keys(place[1] - j)
        return weights.ravel()

    index = np.indices((size, size)).reshape(2, -1).T
    r = np.sqrt(3) / LENGTH * np.linalg.norm(index[:, None] - index[None], axis=-1)
    prior = (1 + r) * np.exp(-r)
    samples = np.stack([interpolation(places[k]) for k in nearest])
    m = len(nearest)
    system = np.ones((m + 1, m + 1))
    system[:m, :m] = samples @ prior @ samples.T + NOISE * np.eye(m)
    system[m, m] = 0
    right = np.append(samples @ prior[pixel[0] * size + pixel[1]], 1.0)
    return nearest, np.linalg.solve(system, right)[:m]


@pytest.mark.parametrize("pixel", [(5, 6), (0, 0), (11, 4)])
def test_weights_equal_those_of_the_definition(pixel):
    points = sobol(BOX, 160, torch.Generator().manual_seed(1)).points.double().numpy()
    index, weight = pixel_weights(rule(neighbors=9), points)
    row = pixel[0] * SIZE + pixel[1]
    nearest, expected = slow_weights(points, pixel, SIZE, 9)
    found = dict(zip(index[row], weight[row], strict=True))
    assert np.abs((points[nearest] + 1) / (2 / SIZE) - 0.5 - pixel).max() <= REACH  # none is left out
    np.testing.assert_allclose([found[k] for k in nearest], expected, atol=1e-9)


def test_parts_do_not_change_the_weights(monkeypatch):
    points = lattice(BOX, 256).points.double().numpy()
    whole = pixel_weights(rule(), points)
    monkeypatch.setattr("inrbridge.stencils.pixels.AT_ONCE", 1)
    for a, b in zip(whole, pixel_weights(rule(), points), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("sampler", [lattice, sobol])
def test_an_interpolated_image_comes_back_where_polynomials_blur_it(sampler):
    pixels, target = image(), grid(BOX, (SIZE, SIZE))
    points = sampler(BOX, 256, torch.Generator().manual_seed(0))
    values = GridField(pixels, BOX)(points.points)
    h = 2 / SIZE
    errors = [
        float((recovered(r, points, values, target) - pixels.reshape(-1, 2)).square().mean().sqrt())
        for r in (rule(), Reconstruct(((0.0, 0.0),), (h, h), 2, 9))
    ]
    assert errors[0] < 0.03 and errors[0] < 0.4 * errors[1]


def test_constants_are_exact_and_pixels_their_own_values():
    points = sobol(BOX, 144, torch.Generator().manual_seed(0))
    _, weight = pixel_weights(rule(), points.points.double().numpy())
    np.testing.assert_allclose(weight.sum(1), 1.0, atol=1e-9)
    target = grid(BOX, (SIZE, SIZE))
    pixels = image().reshape(-1, 2)
    assert torch.equal(recovered(rule(), target, pixels, target), pixels)


def test_one_axis_and_unequal_ones():
    line = Box.unit(1)
    pixels, points = image((16,)), lattice(line, 32)
    found = recovered(rule((16,), line), points, GridField(pixels, line)(points.points), grid(line, (16,)))
    assert float((found - pixels).abs().max()) < 0.05
    wide = Box((0.0, 1.0), (1.0, 4.0))
    pixels, points = image((8, 24)), sobol(wide, 512)
    found = recovered(rule((8, 24), wide), points, GridField(pixels, wide)(points.points), grid(wide, (8, 24)))
    assert float((found - pixels.reshape(-1, 2)).abs().mean()) < 0.02


def test_where_points_are_few_or_far_the_nearest_has_to_do():
    corner = torch.rand(4, 2, generator=torch.Generator().manual_seed(0)) * 0.1 - 1
    _, weight = pixel_weights(rule(), corner.double().numpy())
    assert np.isfinite(weight).all() and np.allclose(weight.sum(1), 1)
    assert np.allclose(weight[-1], [1, 0, 0, 0])  # the opposite corner is out of reach of all
