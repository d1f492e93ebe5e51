"""Volume rendering: equal to the sums of the paper, to closed forms, differentiable, and only as far as the box reaches."""

import math
import sys

import pytest
import torch
from reference_radiance import NAMES, VoxelFormat, ball, ball_opacity, march

from inrbridge import Box, FunctionField, Product, Region, Sphere
from inrbridge.domains import Ball
from inrbridge.errors import ConfigError, MissingDependency, NotFinite, ShapeMismatch, UnknownName
from inrbridge.radiance import Camera, Medium, Occupancy, Rays, composite, focal_length, orbit, render, render_rays
from inrbridge.radiance.marching import intersect


def camera(size=24, **options):
    return Camera(orbit(-math.pi, -math.pi / 6, 4.0), focal_length(size), size, size, **options)


def intervals(n, s, generator):
    edges = torch.rand(n, s + 1, generator=generator, dtype=torch.float64).cumsum(1)
    return edges[:, :-1], edges[:, 1:]


def test_composing_equals_the_slow_twin(generator):
    starts, ends = intervals(5, 7, generator)
    colours = torch.rand(5, 7, 3, generator=generator, dtype=torch.float64)
    densities = 2 * torch.rand(5, 7, generator=generator, dtype=torch.float64)
    densities[0] = 0
    background = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    for found, expected in zip(
        composite(colours, densities, starts, ends, background), march(colours, densities, starts, ends, background), strict=True
    ):
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    ends[:, -1] = 1e10  # the last interval of the first NeRF codes: what comes after the last sample is all alike
    assert torch.allclose(composite(colours, densities, starts, ends)[1][1:], torch.ones(4, dtype=torch.float64))


def test_composing_has_the_right_gradients(generator):
    starts, ends = intervals(2, 4, generator)
    colours = torch.rand(2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    densities = torch.rand(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    background = torch.ones(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c, d: tuple(composite(c, d, starts, ends, background)), (colours, densities))


@pytest.mark.parametrize("directions", [True, False])
def test_a_ball_of_constant_density_has_its_closed_form(directions):
    view = camera(near=2.0, far=6.0)
    found = render(ball(directions=directions), view, samples=800, background="white")
    rays = view.rays()
    opacity = ball_opacity(rays.origins, rays.directions).reshape(24, 24)
    assert (found.opacities - opacity).abs().max() < 5e-3 and 0.9 < opacity.max() < 0.96
    expected = opacity[..., None] * torch.tensor([0.9, 0.4, 0.1]) + (1 - opacity[..., None])
    assert (found.colours - expected).abs().max() < 5e-3
    middle = found.depths[12, 12]
    assert 3.5 < middle < 3.9  # the front of the ball counts most
    seen = render(ball(directions=directions), view, samples=200, occupancy=Occupancy.of(ball(), 32))
    assert torch.allclose(seen.colours, render(ball(), view, samples=200).colours, atol=1e-6)


def test_what_lies_before_the_near_plane_is_not_seen():
    assert render(ball(), camera(near=4.6, far=6.0)).opacities.max() == 0
    assert render(ball(), camera(near=2.0, far=3.4)).opacities.max() == 0


def test_rays_meet_the_box_where_its_faces_are():
    origins = torch.tensor([[0.0, 0.0, 4.0], [0.0, 0.0, 0.0], [3.0, 0.0, 4.0], [0.0, 0.0, 4.0]])
    directions = torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    rays = Rays(origins, directions, torch.zeros(4), torch.full((4,), math.inf))
    near, far = intersect(rays, Box.centered(3))
    assert near.tolist() == [3, 0, 0, 0] and far.tolist() == [5, 1, 0, 0]


def test_the_direction_is_that_of_the_ray():
    """A fog that is red for rays that go down, blue for rays that go up."""

    def values(x):
        down = (x[..., 5:] < 0).to(x)
        return torch.cat([down, 0 * down, 1 - down, 0 * down + 5], -1)

    fog = FunctionField(values, Product(Box.centered(3), Sphere()), 4, NAMES)
    for phi, colour in ((-0.5, [1, 0, 0]), (0.5, [0, 0, 1])):
        view = Camera(orbit(0.0, phi, 4.0), 50.0, 3, 3)
        assert torch.allclose(render(fog, view).colours[1, 1], torch.tensor(colour).float(), atol=1e-3)


def test_rendering_is_differentiable_and_random_only_by_its_generator(generator):
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def values(x):
        return torch.cat([torch.sigmoid(x), scale * torch.exp(-x.square().sum(-1, keepdim=True))], -1)

    field = FunctionField(values, Box.centered(3), 4, NAMES)
    view = camera(3).rays().to(torch.float64)
    loss = render_rays(field, view, samples=16).colours.sum()
    (gradient,) = torch.autograd.grad(loss, scale)
    with torch.no_grad():
        values = []
        for shift in (1e-5, -1e-5):
            scale += shift
            values.append(render_rays(field, view, samples=16).colours.sum())
            scale -= shift
    assert gradient == pytest.approx(float(values[0] - values[1]) / 2e-5, rel=1e-6)
    state = torch.get_rng_state()
    one, two = (render_rays(field, view, samples=8, generator=torch.Generator().manual_seed(3)).colours for _ in range(2))
    assert torch.equal(one, two) and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(one, render_rays(field, view, samples=8).colours)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("sdf", lambda x: x.norm(dim=-1, keepdim=True) - 0.5),
        ("occupancy", lambda x: torch.sigmoid(100 * (0.5 - x.norm(dim=-1, keepdim=True)))),
    ],
)
def test_distances_and_occupancies_are_opaque_bodies(name, body):
    field = FunctionField(body, Box.centered(3), 1, (name,))
    view = camera(64)
    found = render(field, view, samples=512, occupancy=Occupancy.of(field, 32))
    rays = view.rays()
    solid = ball_opacity(rays.origins, rays.directions, density=1e9).reshape(64, 64) > 0.5
    assert ((found.opacities > 0.5) == solid).float().mean() > 0.99 and found.opacities[32, 32] > 0.99
    shade = found.colours[32, :, 0]
    assert shade[32] > 0.85 and shade[solid[32]].min() < 0.6  # darker where the surface turns away


def test_matter_outside_the_domain_is_not_seen():
    for domain in (Ball((0.0, 0.0, 0.0), 0.5), Region(Box.centered(3), lambda x: x.norm(dim=-1) < 0.5)):
        field = FunctionField(lambda x: torch.cat([x * 0 + 0.5, x[..., :1] * 0 + 3], -1), domain, 4, NAMES)
        view = camera(16)
        found = render(field, view, samples=400).opacities.reshape(-1)
        rays = view.rays()
        assert (found - ball_opacity(rays.origins, rays.directions)).abs().max() < 0.02


def test_mistakes(monkeypatch):
    with pytest.raises(ConfigError, match="draw slices instead"):
        Medium.of(FunctionField(lambda x: x, Box.centered(3), 3))
    with pytest.raises(ConfigError, match="draw slices instead"):
        Medium.of(FunctionField(lambda x: x, Box.centered(2), 2, ("density", "red")))
    with pytest.raises(ConfigError, match="samples=0"):
        render(ball(), camera(2), samples=0)
    with pytest.raises(UnknownName, match="background"):
        render(ball(), camera(2), background="whiet")
    with pytest.raises(ShapeMismatch, match="red, green and blue"):
        render(ball(), camera(2), background=(1, 2, 3))
    with pytest.raises(NotFinite, match="damaged"):
        render(ball(density=math.nan), camera(2))
    monkeypatch.setitem(sys.modules, "nerfacc", None)
    with pytest.raises(MissingDependency, match=r'pip install "inrbridge\[render\]"'):
        render(ball(), camera(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_marching_on_a_gpu_equals_that_on_the_cpu():
    view, field = (
        camera(32),
        VoxelFormat().build(Product(Box.centered(3), Sphere()), 4, generator=torch.Generator().manual_seed(0)),
    )
    expected = render(field, view, samples=800).colours
    field.cuda()
    found = render(field, view, samples=800, occupancy=Occupancy.of(field, 32))
    assert (found.colours.cpu() - expected).abs().max() < 1e-2
