"""Domains: frames, logarithms and exponentials; manifolds of charts; polygons; empty and tiny regions."""

import json
import math
import pickle

import numpy as np
import pytest
import torch

from inrbridge.domains import Ball, Box, FunctionChart, Manifold, Polygon, Product, Region, Sphere, Torus, domain_from_config
from inrbridge.domains.atlases import cube_sphere, flat_torus, ring_torus, stereographic_sphere
from inrbridge.errors import ConfigError, EmptyDiscretization, ShapeMismatch, UnknownName
from inrbridge.sampling import lattice, sobol, uniform

DOUBLE = {"dtype": torch.float64}
SPHERE = Sphere(2.0, (1.0, 0.0, -1.0))
ATLASES = [cube_sphere(), stereographic_sphere(2.0, (0.0, 1.0, 0.0)), ring_torus(), flat_torus((1.0, 2.0))]
GEOMETRIES = [Box.centered(2), Torus((1.0, 2.5)), SPHERE, Product(Box.unit(1), SPHERE), *ATLASES,
              Region(SPHERE, lambda x: x[..., 2] > 0)]  # fmt: skip


def on(domain, n, generator):
    return uniform(domain, n, generator, **DOUBLE).points


@pytest.mark.parametrize("domain", GEOMETRIES, ids=lambda d: repr(d).partition(" at 0x")[0])
def test_the_logarithm_undoes_the_exponential(domain, generator):
    base = on(domain, 200, generator)
    offsets = 0.1 * torch.randn(200, domain.intrinsic_dim, generator=generator, **DOUBLE)
    reached = domain.exp_map(base, offsets)
    torch.testing.assert_close(domain.log_map(base, reached), offsets, atol=1e-8, rtol=1e-8)
    if not isinstance(domain, Box | Product | Region):
        assert bool(domain.contains(reached).all())
    nothing = torch.zeros_like(offsets)
    torch.testing.assert_close(domain.log_map(base, base), nothing, atol=1e-7, rtol=0)
    torch.testing.assert_close(domain.exp_map(base, nothing), base, atol=1e-8, rtol=0)


@pytest.mark.parametrize("domain", GEOMETRIES, ids=lambda d: repr(d).partition(" at 0x")[0])
def test_frames_are_orthonormal_and_tangent(domain, generator):
    base = on(domain, 100, generator)
    frame = domain.tangent_frame(base)
    assert frame.shape == (100, domain.dim, domain.intrinsic_dim)
    torch.testing.assert_close(
        frame.mT @ frame, torch.eye(domain.intrinsic_dim, **DOUBLE).expand(100, -1, -1), atol=1e-10, rtol=0
    )
    step = torch.full((100, domain.intrinsic_dim), 1e-4, **DOUBLE)
    moved = domain.wrapped(domain.exp_map(base, step) - base)
    torch.testing.assert_close(moved, (frame @ step[..., None])[..., 0], atol=1e-7, rtol=0)


def test_distances_on_the_sphere_are_arcs(generator):
    """By the haversine formula; the far side and the poles included."""
    a, b = on(SPHERE, 300, generator), on(SPHERE, 300, generator)
    chord = (a - b).norm(dim=1) / 4  # half the chord of a radius of 2
    torch.testing.assert_close(SPHERE.log_map(a, b).norm(dim=1), 4 * torch.asin(chord), atol=1e-8, rtol=1e-8)
    poles = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, -3.0]], **DOUBLE)
    assert SPHERE.log_map(poles, poles.flip(0)).norm(dim=1).tolist() == pytest.approx([2 * math.pi] * 2)
    torch.testing.assert_close(SPHERE.exp_map(poles, SPHERE.log_map(poles, poles.flip(0))), poles.flip(0), atol=1e-9, rtol=0)


def test_the_frame_of_the_sphere_points_east_and_north():
    here = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    frame = Sphere().tangent_frame(here)
    assert frame[0].T.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert frame[1].T.tolist() == [[0, 1, 0], [-1, 0, 0]] and frame[2].T.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_an_atlas_of_a_sphere_has_the_sphere_s_distances(generator):
    cube, a, b = cube_sphere(), on(Sphere(), 200, generator), on(Sphere(), 200, generator)
    near = (a - b).norm(dim=1) < 1.9
    arcs = Sphere().log_map(a, b).norm(dim=1)
    torch.testing.assert_close(cube.log_map(a, b).norm(dim=1)[near], arcs[near], atol=1e-7, rtol=1e-7)


def test_a_torus_is_left_on_one_side_and_entered_on_the_other():
    torus = Torus((1.0, 2.0))
    base = torch.tensor([[0.95, 0.1]], **DOUBLE)
    torch.testing.assert_close(torus.exp_map(base, torch.tensor([[0.1, -0.2]], **DOUBLE)), torch.tensor([[0.05, 1.9]], **DOUBLE))
    torch.testing.assert_close(torus.log_map(base, torch.tensor([[0.05, 1.9]], **DOUBLE)), torch.tensor([[0.1, -0.2]], **DOUBLE))


def test_lengths_are_sides_and_those_of_a_square_where_curved():
    assert Box((0, 1), (2, 4)).lengths == (2, 3) and Torus((1.0, 2.0)).lengths == (1, 2)
    assert Sphere().lengths == pytest.approx((math.sqrt(4 * math.pi),) * 2)
    assert Product(Box.unit(1), Sphere()).lengths == pytest.approx((1.0, *Sphere().lengths))


# Manifolds


@pytest.mark.parametrize("manifold", ATLASES, ids=repr)
def test_ready_made_atlases_survive_their_description_hashing_and_pickling(manifold):
    again = domain_from_config(json.loads(json.dumps(manifold.to_config())))
    assert again == manifold and hash(again) == hash(manifold) and repr(again) == repr(manifold)
    assert pickle.loads(pickle.dumps(manifold)) == manifold
    assert manifold != cube_sphere(3.0)


@pytest.mark.parametrize("manifold", ATLASES, ids=repr)
def test_points_lie_on_the_manifold_and_others_do_not(manifold, generator):
    x = sobol(manifold, 256, generator)
    assert bool(manifold.contains(x.points).all()) and x.points.dtype == torch.float32
    low, high = (torch.tensor(v) for v in manifold.bounds)
    assert bool(((x.points >= low) & (x.points <= high)).all())
    if manifold.dim == 3:
        assert not bool(manifold.contains(x.points * 1.02 + 0.01).all())


def test_a_numeric_inverse_finds_what_a_known_one_says(generator):
    known = ring_torus().charts[0]
    numeric = FunctionChart(known)
    u = torch.rand(200, 2, generator=generator, **DOUBLE)
    torch.testing.assert_close(numeric.inverse(known(u)), u, atol=1e-8, rtol=0)
    torch.testing.assert_close(known.inverse(known(u)), u, atol=1e-10, rtol=0)


@pytest.mark.parametrize("manifold", ATLASES, ids=repr)
def test_the_jacobian_by_autograd_is_that_of_finite_differences(manifold, generator):
    chart = manifold.charts[0]
    u = 0.1 + 0.5 * torch.rand(20, chart.dim, generator=generator, **DOUBLE)
    h = 1e-6 * torch.eye(chart.dim, **DOUBLE)
    numeric = torch.stack([manifold.wrapped(chart(u + h[a]) - chart(u - h[a])) / 2e-6 for a in range(chart.dim)], -1)
    torch.testing.assert_close(chart.jacobian(u), numeric, atol=1e-7, rtol=1e-6)


def test_a_partition_and_a_test_of_ones_own():
    def circle(first):
        return FunctionChart(
            lambda u: torch.cat([(2 * math.pi * (first + 0.7 * u)).cos(), (2 * math.pi * (first + 0.7 * u)).sin()], -1), ("open",)
        )

    def halves(x):  # smooth, and 0 where a chart does not reach
        right = torch.sigmoid(1 / (1e-12 + (0.55 - x[:, 0]).clamp(min=0)) - 1 / (1e-12 + (0.55 + x[:, 0]).clamp(min=0)))
        return torch.stack([1 - right, right], 1)

    charts = [circle(0.15), circle(0.65)]
    built, given = Manifold(charts), Manifold(charts, partition=halves, test=lambda x: (x.norm(dim=-1) - 1).abs() < 1e-4)
    assert built.measure == pytest.approx(2 * math.pi, rel=1e-9) and given.measure == pytest.approx(2 * math.pi, rel=1e-4)
    for manifold in (built, given):
        x = lattice(manifold, 512, **DOUBLE)
        assert float(x.weights @ x.points[:, 0] ** 2) == pytest.approx(math.pi, rel=2e-3)
        assert bool(manifold.contains(x.points).all()) and not bool(manifold.contains(1.1 * x.points).any())


def sheet(u):
    return torch.cat([u, 0 * u[:, :1]], -1)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: Manifold([]), ConfigError, "one or more"),
        (lambda: Manifold([sheet]), ConfigError, "leaves a hole.*overlap"),
        (lambda: Manifold([sheet, FunctionChart(lambda u: u, ("open",))]), ConfigError, "all of one dimension"),
        (lambda: Manifold([lambda u: u[:, 0]]), ShapeMismatch, "one point for each row"),
        (lambda: Manifold([lambda u: u[:, :1]]), ShapeMismatch, "at least as many"),
        (lambda: FunctionChart(sheet, ("open", "closed")), ConfigError, "one of: open, edge, wrap"),
        (lambda: Manifold([FunctionChart(sheet, ("edge", "edge"))], partition=lambda x: x), ShapeMismatch, "one number for each"),
        (lambda: Manifold([FunctionChart(sheet, ("edge", "edge"))]).to_config(), ConfigError, "ready-made atlas"),
        (lambda: cube_sphere(overlap=0.0), ConfigError, "between 0.02 and 0.9"),
        (lambda: ring_torus(1.0, 2.0), ConfigError, "0 < minor < major"),
        (lambda: flat_torus((1.0,), share=0.5), ConfigError, "from 0.55"),
        (lambda: domain_from_config({"type": "manifold", "atlas": "cube"}), ConfigError, "no atlas.*cube_sphere"),
        (
            lambda: domain_from_config({"type": "manifold", "atlas": "cube_sphere", "options": {"rad": 1}}),
            ConfigError,
            "cannot be",
        ),
    ],
)
def test_what_is_no_manifold_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("manifold", ATLASES, ids=repr)
def test_discretizations_of_a_manifold_nest_and_travel(manifold, generator):
    x = sobol(manifold, 96, generator)
    fine = x.refine(2)
    assert len(fine) == 96 * 4 and torch.equal(fine.points[:96], x.points) and fine.prefix(96) is x and fine.thin(2) is x
    again = pickle.loads(pickle.dumps(x))
    assert torch.equal(again.points, x.points) and again.domain == manifold
    assert torch.equal(again.extend_to(200).points[:96], x.points)
    assert torch.equal(sobol(manifold, 96, torch.Generator().manual_seed(0)).points[:, :2], x.points[:, :2])


# Polygons

STAR = [(math.cos(t) * r, math.sin(t) * r) for t, r in zip(np.arange(10) * math.pi / 5, [1.0, 0.4] * 5, strict=True)]
SQUARE = [(0, 0), (4, 0), (4, 4), (0, 4)]
HOLE = [(1, 1), (1, 3), (3, 3), (3, 1)]
ISLAND = [(1.5, 1.5), (2.5, 1.5), (2.5, 2.5), (1.5, 2.5)]


def winding_number(point, ring):
    """Slow twin: turns of the ring around a point, by the sum of angles."""
    total = 0.0
    for a, b in zip(ring, [*ring[1:], ring[0]], strict=True):
        first, second = np.subtract(a, point), np.subtract(b, point)
        total += math.atan2(first[0] * second[1] - first[1] * second[0], float(first @ second))
    return round(total / (2 * math.pi))


@pytest.mark.parametrize("rings", [[STAR], [SQUARE], [SQUARE, HOLE], [SQUARE, HOLE, ISLAND], [STAR[::-1]]])
def test_a_polygon_holds_the_points_that_its_rings_wind_around(rings, generator):
    region = Region.polygon(*rings)
    coords = region.domain.from_unit(torch.rand(400, 2, generator=generator, **DOUBLE))
    expected = [sum(abs(winding_number(p, ring)) for ring in rings) % 2 == 1 for p in coords.numpy()]
    assert region.contains(coords).tolist() == expected
    assert region.contains(coords.reshape(20, 20, 2)).shape == (20, 20)
    assert float(sobol(region, 2048).weights.sum()) == pytest.approx(region.measure, rel=1e-5)


def test_the_area_of_a_polygon_is_exact():
    assert Region.polygon(SQUARE).measure == 16 and Region.polygon(SQUARE, HOLE).measure == 12
    assert Region.polygon(SQUARE, HOLE[::-1], ISLAND).measure == 13 and Region.polygon(ISLAND, SQUARE, HOLE).measure == 13
    assert Region.polygon([*SQUARE, SQUARE[0]]).measure == 16  # written closed
    assert Region.polygon(STAR).measure == pytest.approx(10 * 0.5 * 0.4 * math.sin(math.pi / 5))
    apart = Region.polygon(SQUARE, [(9, 9), (10, 9), (10, 10)])
    assert apart.measure == 16.5 and apart.domain == Box((0, 0), (10, 10))


def test_a_polygon_is_written_and_read():
    region = Region.polygon(SQUARE, HOLE, domain=Box.centered(2, 5))
    again = domain_from_config(json.loads(json.dumps(region.to_config())))
    assert again == region and hash(again) == hash(region) and again.measure == 12
    assert pickle.loads(pickle.dumps(region)) == region


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: Region.polygon([(0, 0), (1, 1), (2, 2)]), ConfigError, "area 0, an empty region"),
        (lambda: Region.polygon([(0, 0), (1, 1)]), ShapeMismatch, "at least three vertices"),
        (lambda: Region.polygon(), ShapeMismatch, "without rings"),
        (lambda: Region.polygon((0, 0), (1, 1), (0, 1)), ShapeMismatch, "pass each ring by itself"),
        (lambda: Region.polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), ConfigError, "crosses another"),
        (lambda: Region.polygon(SQUARE, [(2, 2), (6, 2), (6, 3)]), ConfigError, "crosses another"),
        (lambda: Region.polygon(SQUARE, domain=Box.unit(2)), ConfigError, "a Box of two dimensions around it"),
        (lambda: Region(Box.unit(3), Polygon([SQUARE])), ConfigError, "a Box of two dimensions around it"),
        (lambda: Region(Ball((0.0, 0.0)), Polygon([STAR])), ConfigError, "a Box of two dimensions around it"),
        (lambda: Polygon([SQUARE])(torch.zeros(2, 3)), ShapeMismatch, r"expected \(\.\.\., 2\)"),
    ],
)
def test_what_is_no_polygon_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


# Empty and tiny regions


@pytest.mark.parametrize("indicator", [np.zeros((8, 8), bool), lambda x: x[..., 0] > 2], ids=["mask", "indicator"])
def test_an_empty_region_is_refused_in_one_sentence(indicator):
    with pytest.raises(ConfigError, match=r"Got an empty Region .*true nowhere.*expected a measure above 0"):
        Region(Box.unit(2), indicator)


def test_tiny_regions_find_their_points():
    mask = np.zeros((2000, 2000), bool)
    mask[1234, 777] = True
    tiny = [Region(Box.unit(2), mask), Region.polygon([(0, 0), (1e-4, 0), (0, 1e-4)], domain=Box.unit(2))]
    for region in tiny:
        x = sobol(region, 64, **DOUBLE)
        assert bool(region.contains(x.points).all()) and len(x.points.unique(dim=0)) == 64
        assert float(x.weights.sum()) == pytest.approx(region.measure)
        assert Product(region, Sphere()).measure == pytest.approx(4 * math.pi * region.measure)


def test_a_region_too_small_to_be_found_says_what_to_do():
    with pytest.raises(ConfigError, match="put a small region into a smaller domain around it"):
        Region(Box.unit(2), lambda x: (x - 0.1234567).norm(dim=-1) < 1e-5)
    stated = Region(Box.unit(2), lambda x: (x - 0.1234567).norm(dim=-1) < 1e-5, measure=0.5)
    with pytest.raises(EmptyDiscretization, match="smaller domain around it"):
        sobol(stated, 4)


def test_the_name_of_an_atlas_is_suggested():
    with pytest.raises((ConfigError, UnknownName), match='Did you mean "cube_sphere"'):
        domain_from_config({"type": "manifold", "atlas": "cube_spere", "options": {}})
