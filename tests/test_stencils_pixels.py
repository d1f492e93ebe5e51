"""`Pixels`: an image recovered from its values at scattered points."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrbridge import Box, GridField
from inrbridge.sampling import grid, lattice, sobol
from inrbridge.stencils import Pixels, Reconstruct, build_stencil
from inrbridge.stencils import pixels as module
from inrbridge.stencils.pixels import LENGTH, REACH, pixels_at

BOX = Box.centered(2)
SIZE = 12


def pixels_of(shape=(SIZE, SIZE), domain=BOX, **options):
    step = tuple(length / n for length, n in zip(domain.lengths, shape, strict=True))
    return Pixels(shape, tuple(low + h / 2 for low, h in zip(domain.low, step, strict=True)), step, **options)


def rule(shape=(SIZE, SIZE), domain=BOX):
    """Read the image at a point itself."""
    pixels = pixels_of(shape, domain)
    return Reconstruct(((0.0,) * len(shape),), pixels.step, pixels=pixels)


def weights(points, coords, **options):
    """The weights as a matrix (coords, points)."""
    matrix = pixels_at(pixels_of(), points, coords, **options)
    out = np.zeros((len(coords), len(points)))
    out[matrix.rows().numpy(), matrix.columns.numpy()] = matrix.weights.numpy()
    return out


def image(shape=(SIZE, SIZE), seed=0, rough=1.0):
    """Noise over a slope: it changes from pixel to pixel, as natural images do at their edges."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(0, 1, shape[0]).reshape(-1, *[1] * len(shape))
    return slope + rough * 0.2 * torch.randn(*shape, 2, generator=generator)


def recovered(stencil_rule, points, values, target):
    return build_stencil(stencil_rule, points, target).interpolate(values[None])[0]


def slow_weights(points, coord, neighbors):
    """The weights of one place, from the definition: all pixels, one sample after the other."""
    h = 2 / SIZE
    places, query = ((x + 1 - h / 2) / h for x in (points, coord))
    nearest = np.argsort(np.linalg.norm(places - query, axis=1), kind="stable")[:neighbors]

    def keys(t):
        t = abs(t)
        return (1.5 * t - 2.5) * t * t + 1 if t < 1 else ((2.5 - t / 2) * t - 4) * t + 2 if t < 2 else 0.0

    def interpolation(place):
        weights = np.zeros((SIZE, SIZE))
        for i in range(-3, SIZE + 3):
            for j in range(-3, SIZE + 3):
                at = np.clip([i, j], 0, SIZE - 1)
                weights[tuple(at)] += keys(place[0] - i) * keys(place[1] - j)
        return weights.ravel()

    index = np.indices((SIZE, SIZE)).reshape(2, -1).T
    r = np.sqrt(3) / LENGTH * np.linalg.norm(index[:, None] - index[None], axis=-1)
    prior = (1 + r) * np.exp(-r)
    samples = np.stack([interpolation(places[k]) for k in nearest])
    m = len(nearest)
    system = np.ones((m + 1, m + 1))
    system[:m, :m] = samples @ prior @ samples.T + pixels_of().noise * np.eye(m)
    system[m, m] = 0
    right = np.append(samples @ prior @ interpolation(query), 1.0)
    assert np.abs(places[nearest] - np.rint(query)).max() <= REACH  # none is left out
    out = np.zeros(len(points))
    out[nearest] = np.linalg.solve(system, right)[:m]
    return out


@pytest.mark.parametrize("coord", [(-1 / SIZE, 1 / SIZE), (-1 + 1 / SIZE, -1 + 1 / SIZE), (0.93, -0.21), (0.4, 0.37)])
def test_weights_equal_those_of_the_definition(coord):
    points = sobol(BOX, 160, torch.Generator().manual_seed(1)).points.double().numpy()
    found = weights(points, np.asarray([coord]), neighbors=9)[0]
    np.testing.assert_allclose(found, slow_weights(points, np.asarray(coord), 9), atol=1e-9)


def test_parts_do_not_change_the_weights(monkeypatch):
    points = lattice(BOX, 256).points.double().numpy()
    coords = grid(BOX, (SIZE, SIZE)).points.double().numpy()
    whole = weights(points, coords)
    monkeypatch.setattr("inrbridge.stencils.pixels.AT_ONCE", 1)
    np.testing.assert_allclose(whole, weights(points, coords), atol=1e-12)


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


def test_constants_are_exact_and_samples_their_own_values():
    points = sobol(BOX, 144, torch.Generator().manual_seed(0))
    array = points.points.double().numpy()
    np.testing.assert_allclose(weights(array, grid(BOX, (SIZE, SIZE)).points.double().numpy()).sum(1), 1.0, atol=1e-9)
    np.testing.assert_array_equal(weights(array, array), np.eye(144))
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
    corner = torch.rand(4, 2, generator=torch.Generator().manual_seed(0)).double().numpy() * 0.1 - 1
    found = weights(corner, np.asarray([[0.95, 0.95], [-0.9, -0.9]]))
    assert np.isfinite(found).all() and np.allclose(found.sum(1), 1)
    assert sorted(found[0]) == pytest.approx([0, 0, 0, 1])  # the opposite corner is out of reach of all


def test_a_fading_border_is_that_of_an_image_with_zeros_around():
    """Along a line through the edge: 1 at the centre of the last pixel, 1/2 at the edge, 0 at the centre of the first outside."""
    points, h = grid(BOX, (SIZE, SIZE)), 2 / SIZE
    nodes = tuple((0.0, k * h / 4) for k in range(-2, 7))
    reading = Reconstruct(nodes, (h, h), pixels=pixels_of())
    last = replace(points, points=torch.tensor([[h / 2, 1 - h / 2]]), weights=torch.ones(1), structure=None, cache={})
    ones = torch.ones(1, SIZE * SIZE, 1)

    def along(border):
        return [float(build_stencil(replace(reading, nodes=(node,)), points, last, border).interpolate(ones)) for node in nodes]

    assert along("fading") == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0], abs=1e-6)
    assert along("zeros") == pytest.approx([1, 1, 1, 1, 1, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("count", [20, 144, 400])
def test_windows_as_small_as_they_can_be_give_what_the_largest_gives(count, monkeypatch):
    points = sobol(BOX, count, torch.Generator().manual_seed(3), dtype=torch.float64).points.numpy()
    coords = np.random.default_rng(0).uniform(-1, 1, (60, 2))
    small = weights(points, coords)
    reaches = module._reaches
    monkeypatch.setattr(module, "_reaches", lambda places, queries: np.full(len(queries), REACH))
    np.testing.assert_allclose(small, weights(points, coords), atol=1e-10)
    monkeypatch.setattr(module, "_reaches", lambda places, queries: np.maximum(reaches(places, queries) - 2, 0))
    assert abs(small - weights(points, coords)).max() > 1e-4  # a window that leaves some out
