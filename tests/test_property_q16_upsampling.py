"""Q16, values: down and up again is back on the same points, and exact on piecewise constants, for every sampler."""

import pytest
import torch

from inrbridge.domains import Ball, Box, Sphere, Torus
from inrbridge.nn import Downsample, Sampled, Upsample, add, concat
from inrbridge.sampling import get_sampler, sampler_names

DOMAINS = [Box.centered(1), Box((0.0, -1.0), (1.0, 3.0)), Box.unit(3), Torus((1.0, 2.0)), Ball((0.0, 0.0), 1.0), Sphere()]


def sets():
    for name in sampler_names():
        for domain in DOMAINS:
            if name == "grid" and not isinstance(domain, Box | Torus):
                continue
            if name == "points":
                continue  # made from given points, not from a number of them
            yield pytest.param(name, domain, id=f"{name}-{domain}")


SETS = list(sets())


def draw(name, domain, generator, n=4096):
    options = {"density": lambda x: 1 + x[..., 0] ** 2} if name == "importance" else {}
    return get_sampler(name)(domain, n, generator, dtype=torch.float64, **options)


@pytest.mark.parametrize(("name", "domain"), SETS)
def test_down_then_up_is_back_on_the_same_points(name, domain, generator):
    points = draw(name, domain, generator)
    x = Sampled(points, torch.randn(2, len(points), 3, generator=generator, dtype=torch.float64))
    down, up = Downsample(2), Upsample(2)
    coarse = down(x)
    assert len(coarse.discretization) < len(points)
    back = up(coarse)
    assert back.discretization is points  # so that skip connections are aligned
    assert torch.equal(down(back).values, coarse.values)  # old points keep their values
    assert add(x, back).values.shape == x.values.shape and concat(x, back).channels == 6
    twice = up(up(down(coarse)))
    assert twice.discretization is points


@pytest.mark.parametrize(("name", "domain"), SETS)
def test_nearest_is_exact_on_piecewise_constants(name, domain, generator):
    """Away from the jump: nothing within twice the coarse spacing of it; constants everywhere."""
    points = draw(name, domain, generator)
    coarse = Downsample(2)(Sampled(points, torch.zeros(1, len(points), 1, dtype=torch.float64))).discretization
    low, high = domain.bounds
    middle = (low[0] + high[0]) / 2

    def step(d):
        return torch.stack([(d.points[:, 0] > middle).double(), torch.full((len(d),), 0.3, dtype=torch.float64)], 1)[None]

    out = Upsample(2)(Sampled(coarse, step(coarse)))
    expected = step(out.discretization)
    wrong = (out.values != expected).any(2)[0]
    distance = (out.discretization.points[:, 0] - middle).abs()
    if isinstance(domain, Torus):  # the ends are a second jump
        distance = torch.minimum(distance, low[0] + high[0] - middle - distance)
    assert not bool(wrong[distance > 4 * coarse.spacing].any())
    assert float(wrong.double().mean()) < 0.2
    assert torch.equal(out.values[..., 1], expected[..., 1])


@pytest.mark.parametrize("name", ["lattice", "sobol", "halton", "uniform"])
def test_nested_sequences_are_extended_where_nothing_was_thinned(name, generator):
    points = draw(name, Box.centered(2), generator, 256)
    out = Upsample(2)(Sampled(points, points.points[None]))
    assert len(out.discretization) == 1024
    assert torch.equal(out.discretization.points[:256], points.points)
    assert torch.equal(out.values[0, :256], points.points)
    assert Downsample(2)(out).discretization is points
