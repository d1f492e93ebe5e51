"""The points of each step, the samples that are kept, and coordinates that are changed on purpose."""

import pytest
import torch
from fake_training import MemoryDataset, striped

from inrbridge import Box, FunctionField, Sphere, Torus, stack
from inrbridge.errors import ConfigError, UnknownName
from inrbridge.sampling import lattice
from inrbridge.sampling.fixed import fixed_points
from inrbridge.training.augmenting import augmented, check_augment, recoloured
from inrbridge.training.config import AugmentConfig, PointsConfig
from inrbridge.training.points import PointSource, SampleCache
from inrbridge.training.seeding import generator
from inrbridge.transforms import AffineField, MapChannels, MixChannels, augmentation

BOX = Box.centered(2)


def test_fresh_points_differ_by_step_and_repeat_by_seed():
    source, again = (PointSource(BOX, PointsConfig(n=32), seed=5) for _ in range(2))
    draws = [source.draw(step).discretization.points for step in range(3)]
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(draws[2], again.draw(2).discretization.points)  # whatever was drawn before
    assert not torch.equal(draws[0], PointSource(BOX, PointsConfig(n=32), seed=6).draw(0).discretization.points)


def test_sizes_and_samplers_are_drawn_from_lists():
    source = PointSource(BOX, PointsConfig(sampler=("lattice", "sobol"), n=(16, 64)), seed=0)
    seen = {(d.sampler, len(d)) for d in (source.draw(step).discretization for step in range(40))}
    assert seen == {("lattice", 16), ("lattice", 64), ("sobol", 16), ("sobol", 64)}
    with pytest.raises(UnknownName, match="lattice"):
        PointSource(BOX, PointsConfig(sampler="latice"), seed=0)


def test_a_pool_reuses_the_same_objects():
    source = PointSource(BOX, PointsConfig(n=(16, 32), pool=3), seed=0)
    draws = [source.draw(step) for step in range(30)]
    assert {draw.pooled for draw in draws} == {0, 1, 2}
    assert len({id(draw.discretization) for draw in draws}) == 3
    assert {len(draw.discretization) for draw in draws} == {16, 32}


def test_cached_samples_equal_evaluated_ones_and_are_evaluated_once():
    dataset = MemoryDataset(10)
    source = PointSource(BOX, PointsConfig(n=16, pool=2), seed=0)
    cache = SampleCache(dataset, budget=2**20)
    for step in range(8):
        draw, indices = source.draw(step), [7, 0, 3]
        expected = stack([dataset.fields[i] for i in indices])(draw.discretization.points)
        torch.testing.assert_close(cache.values(indices, draw, 1), expected)
    assert dataset.evaluated == 2 * len(dataset)


def test_the_cache_keeps_to_its_budget():
    dataset = MemoryDataset(10)
    source = PointSource(BOX, PointsConfig(n=16, pool=2), seed=0)
    draws = {draw.pooled: draw for draw in map(source.draw, range(20))}
    cache = SampleCache(dataset, budget=10 * 16 * 4)
    kept = [cache.values([1], draws[number], 1) for number in (0, 1)]
    assert kept[0] is not None and kept[1] is None
    fresh = PointSource(BOX, PointsConfig(n=16), seed=0).draw(0)
    assert SampleCache(dataset, budget=2**20).values([0], fresh, 1) is None


def test_evaluation_points_are_fixed_by_sampler_n_and_seed():
    first, second, other = (fixed_points(BOX, "sobol", 32, seed) for seed in (3, 3, 4))
    assert torch.equal(first.points, second.points) and not torch.equal(first.points, other.points)


def test_reading_at_changed_coordinates_is_transforming_the_field():
    points = lattice(BOX, 64)
    flipped = augmented(points, AugmentConfig(flip=(1,)), 20, generator(0, "augment"))
    mirrored = points.points * torch.tensor([1.0, -1.0])
    kinds = {bool(torch.equal(c, mirrored)) for c in flipped}
    assert kinds == {True, False}
    for coords in flipped:
        assert torch.equal(coords, mirrored) or torch.equal(coords, points.points)
    shifted = augmented(points, AugmentConfig(shift=0.1), 1, generator(1))[0]
    inside = (shifted.abs() < 1).all(-1)
    offset = (shifted - points.points)[inside]
    assert offset.abs().max() <= 0.2 and torch.allclose(offset, offset[0].expand_as(offset), atol=1e-6)
    field = striped(True, 0.3)
    assert torch.allclose(field(shifted[inside]), torch.sin(3 * (points.points + offset[0])[inside][:, 1:] + 0.3), atol=1e-5)


def test_changed_coordinates_stay_on_the_domain_and_repeat():
    augment = AugmentConfig(noise=0.5, shift=0.3, scale=0.5, flip=(0, 1))
    points = lattice(Box((0.0, 5.0), (2.0, 6.0)), 32)
    coords = augmented(points, augment, 4, generator(0))
    points.domain.check(coords)
    assert coords.shape == (4, 32, 2) and torch.equal(coords, augmented(points, augment, 4, generator(0)))
    assert torch.equal(augmented(points, AugmentConfig(), 2, generator(0))[1], points.points)


def test_augmentation_is_refused_where_it_means_nothing():
    with pytest.raises(ConfigError, match="Box"):
        check_augment(AugmentConfig(shift=0.1), Sphere())
    with pytest.raises(ConfigError, match=r"augment\.flip"):
        check_augment(AugmentConfig(flip=(2,)), BOX)
    check_augment(AugmentConfig(), Sphere())
    check_augment(AugmentConfig(shift=0.1, flip=(0,), noise=0.1), Torus((1.0, 1.0)))
    with pytest.raises(ConfigError, match=r"\[augment\] does not fit .* seams"):
        check_augment(AugmentConfig(scale=0.1), Torus((1.0, 1.0)))
    with pytest.raises(ConfigError, match=r"augment\.saturation.*channels gray"):
        check_augment(AugmentConfig(saturation=0.1), BOX, ["gray"])
    with pytest.raises(ConfigError, match='border mode "zeros"'):
        check_augment(AugmentConfig(shift=0.1, border="zeros"), BOX)


@pytest.mark.parametrize("border", ["clamp", "reflect", "circular"])
def test_every_field_of_a_minibatch_is_transformed_by_its_own_map(border):
    """The coordinates and colours of a step are the views and colours of `transforms.augmentation`, field by field."""
    points = lattice(Box((0.0, -1.0), (2.0, 3.0)), 64, dtype=torch.float64)
    augment = AugmentConfig(shift=0.1, scale=0.2, rotate=0.4, crop=0.7, flip=(1,), border=border, contrast=0.3, brightness=0.1,
                            saturation=0.2, drop=0.2)  # fmt: skip
    rgb = FunctionField(lambda x: torch.cat([x, x.prod(-1, True)], -1) / 6, points.domain, 3)
    chance = generator(0, "augment")
    coords = augmented(points, augment, 5, chance)
    values = recoloured(torch.stack([rgb(c) for c in coords])[[1, 4]], augment, ["red", "green", "blue"], 5, [1, 4], chance)
    chance = generator(0, "augment")
    view = {"rotate": 0.4, "scale": 0.2, "crop": 0.7, "shift": 0.1, "flip": (1,)}
    matrix, offset = augmentation.draw_views(points.domain, 5, chance, **view)
    colours = {"brightness": 0.1, "contrast": 0.3, "saturation": 0.2, "drop": 0.2, "middles": [0.5] * 3}
    mix, add = augmentation.draw_colours(3, 5, chance, **colours)
    centre = torch.tensor([1.0, 1.0], dtype=torch.float64)
    for row, got in zip((1, 4), values, strict=True):
        seen = AffineField(
            rgb, points.domain, matrix[row].tolist(), (centre - matrix[row] @ centre + offset[row]).tolist(), border
        )
        mixed = MixChannels(seen, mix[row].tolist(), ["r", "g", "b"])
        torch.testing.assert_close(got, MapChannels(mixed, [1, 1, 1], add[row].tolist())(points.points))
    assert not torch.allclose(values[0], rgb(points.points))  # negative control: something was changed
    assert torch.equal(recoloured(values, AugmentConfig(shift=0.1), ["a"] * 3, 2, [0, 1], chance), values)


def test_shifts_wrap_on_a_torus():
    points = lattice(Torus((1.0, 2.0)), 64)
    coords = augmented(points, AugmentConfig(shift=0.5, noise=0.3, flip=(0,)), 3, generator(0))
    points.domain.check(coords)
    assert len({round(float(v), 3) for v in (coords[0] - points.points).flatten()}) > 3
