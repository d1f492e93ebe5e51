"""Domains: measures, maps from the unit cube, membership, and descriptions."""

import json
import math
import pickle

import numpy as np
import pytest
import torch

from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus, domain_from_config
from inrbridge.errors import ConfigError, NotFinite, OutsideDomain, ShapeMismatch
from inrbridge.sampling import sobol

MASK = np.zeros((4, 8), dtype=bool)
MASK[1:3, 2:7] = True

MAPPED = [
    Box((-1, 0), (1, 3)),
    Box.unit(1),
    Ball((0.5,), 2.0),
    Ball((1.0, -1.0), 2.0),
    Ball((0.0, 0.0, 0.0)),
    Ball((0.0,) * 5, 0.5),
    Sphere(2.0, (1.0, 0.0, -1.0)),
    Torus((1.0, 2.5)),
    Product(Box.centered(1), Sphere()),
    Product(Torus((2.0,)), Product(Box.unit(1), Ball((0.0, 0.0)))),
]
REGIONS = [Region(Box((0, 0), (1, 2)), MASK), Product(Region(Box((0, 0), (1, 2)), MASK), Sphere())]


def names(domain):
    return type(domain).__name__ + str(domain.dim)


@pytest.mark.parametrize("domain", MAPPED, ids=names)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_unit_cube_maps_onto_the_domain_and_keeps_the_dtype(domain, dtype, generator):
    unit = torch.rand(500, domain.unit_dim, generator=generator, dtype=dtype)
    points = domain.from_unit(unit)
    assert points.shape == (500, domain.dim) and points.dtype == dtype
    domain.check(points)
    low, high = (torch.tensor(v, dtype=dtype) for v in domain.bounds)
    assert bool(((points >= low - 1e-4) & (points <= high + 1e-4)).all())


@pytest.mark.parametrize("domain", MAPPED, ids=names)
def test_points_off_the_domain_are_refused(domain):
    far = torch.tensor(domain.bounds[1]) + 1.0
    assert not bool(domain.contains(far))
    with pytest.raises(OutsideDomain, match="Got 1 of 1 points outside"):
        domain.check(far[None])
    with pytest.raises(NotFinite):
        domain.check(torch.full((2, domain.dim), float("nan")))
    with pytest.raises(ShapeMismatch):
        domain.check(torch.zeros(2, domain.dim + 1))


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5])
def test_the_map_onto_a_ball_keeps_volumes(dim, generator):
    ball = Ball((1.0,) * dim, 2.0)
    x = sobol(ball, 2**13, generator, dtype=torch.float64).points - 1.0
    r2 = x.square().sum(-1)
    for inner in (0.5, 0.8):
        assert float((r2 <= (2 * inner) ** 2).double().mean()) == pytest.approx(inner**dim, abs=2e-3)
    # E[x_a x_b] = r^2 / (d + 2) delta_ab
    torch.testing.assert_close(x.T @ x / len(x), 4 / (dim + 2) * torch.eye(dim, dtype=torch.float64), atol=2e-2, rtol=0)
    torch.testing.assert_close(x.mean(0), torch.zeros(dim, dtype=torch.float64), atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    "dim, radius, measure", [(1, 2, 4), (2, 2, 4 * math.pi), (3, 1, 4 / 3 * math.pi), (4, 1, math.pi**2 / 2)]
)
def test_the_measure_of_a_ball(dim, radius, measure):
    assert Ball((0.0,) * dim, radius).measure == pytest.approx(measure)


def test_the_map_onto_the_sphere_keeps_areas(generator):
    x = sobol(Sphere(), 2**12, generator, dtype=torch.float64).points
    for height in (-0.5, 0.0, 0.9):  # a cap of height h has the share h / 2 of the area
        assert float((x[:, 2] > height).double().mean()) == pytest.approx((1 - height) / 2, abs=2e-3)
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(3, dtype=torch.float64) / 3, atol=2e-3, rtol=0)


def test_the_surface_of_a_sphere_holds_neither_its_inside_nor_its_outside():
    sphere = Sphere(2.0)
    coords = torch.tensor([[2.0, 0, 0], [0, 0, -2.0], [1.9, 0, 0], [2.1, 0, 0], [0, 0, 0]])
    assert sphere.contains(coords).tolist() == [True, True, False, False, False]


def test_a_product_concatenates_coordinates_and_multiplies_measures():
    rays = Product(Box.centered(3), Sphere())
    assert (rays.dim, rays.intrinsic_dim, rays.unit_dim) == (6, 5, 5)
    assert rays.measure == pytest.approx(8 * 4 * math.pi)
    assert rays.bounds == ((-1.0,) * 6, (1.0,) * 6)
    assert rays.envelope is rays


def test_a_mask_lies_over_the_cells_axis_by_axis():
    region = Region(Box((0, 0), (1, 2)), MASK)  # cells of 0.25 x 0.25
    inside = torch.tensor([[0.26, 0.51], [0.74, 1.74], [0.24, 0.6], [0.6, 1.76], [0.3, 0.4]])
    assert region.contains(inside).tolist() == [True, True, False, False, False]
    assert region.contains(inside.reshape(5, 1, 2)).shape == (5, 1)
    assert region.measure == pytest.approx(10 / 32 * 2)
    centres = (torch.cartesian_prod(torch.arange(4), torch.arange(8)) + 0.5) * 0.25
    assert torch.equal(region.contains(centres).reshape(4, 8), torch.from_numpy(MASK))


def test_the_measure_of_an_indicator_is_given_or_estimated():
    disc = Region(Box.centered(2), lambda x: x.square().sum(-1) < 1)
    assert disc.measure == pytest.approx(math.pi, rel=1e-3)
    assert Region(Box.centered(2), lambda x: x.square().sum(-1) < 1, measure=math.pi).measure == math.pi
    cap = Region(Sphere(), lambda x: x[..., 2] > 0.5)
    assert cap.measure == pytest.approx(math.pi, rel=1e-3)
    half = Region(disc, lambda x: x[..., 0] > 0)  # a region of a region
    assert half.measure == pytest.approx(math.pi / 2, rel=1e-3)
    assert half.envelope == Box.centered(2)


def test_a_product_with_a_region_has_the_product_of_envelopes_around_it():
    domain = REGIONS[1]
    assert domain.envelope == Product(Box((0, 0), (1, 2)), Sphere())
    assert domain.contains(torch.tensor([0.3, 0.6, 0, 0, 1.0])) and not domain.contains(torch.tensor([0.1, 0.6, 0, 0, 1.0]))


@pytest.mark.parametrize("domain", MAPPED + REGIONS, ids=names)
def test_a_domain_survives_its_description_hashing_and_pickling(domain):
    text = json.dumps(domain.to_config())
    again = domain_from_config(json.loads(text))
    assert again == domain and hash(again) == hash(domain)
    assert pickle.loads(pickle.dumps(domain)) == domain


def test_masks_of_one_content_are_one_region():
    box = Box((0, 0), (1, 2))
    assert Region(box, MASK) == Region(box, torch.from_numpy(MASK.copy()))
    assert Region(box, MASK) != Region(box, ~MASK)


def test_an_indicator_function_is_not_written_to_a_file():
    with pytest.raises(ConfigError, match="pass a bool array over the cells"):
        Region(Box.unit(1), lambda x: x[..., 0] < 0.5).to_config()


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda: Box((0, 1), (1, 1)), ShapeMismatch),
        (lambda: Box((0,), (1, 1)), ShapeMismatch),
        (lambda: Box((0,), (float("nan"),)), ShapeMismatch),
        (lambda: Box((0,), (float("inf"),)), ShapeMismatch),
        (lambda: Box(-1, 1), ShapeMismatch),
        (lambda: Box.centered(0), ShapeMismatch),
        (lambda: Ball((0, 0), 0), ShapeMismatch),
        (lambda: Ball((0, 0), "wide"), ShapeMismatch),
        (lambda: Sphere(-1), ShapeMismatch),
        (lambda: Sphere(1, (0, 0)), ShapeMismatch),
        (lambda: Torus((1, 0)), ShapeMismatch),
        (lambda: Product(Box.unit(1), "sphere"), ConfigError),
        (lambda: Region("box", lambda x: x), ConfigError),
        (lambda: Region(Box.unit(2), MASK.astype(int)), ShapeMismatch),
        (lambda: Region(Box.unit(3), MASK), ShapeMismatch),
        (lambda: Region(Ball((0, 0)), MASK), ConfigError),
        (lambda: Region(Box.unit(2), np.zeros((2, 2), bool)), ConfigError),  # empty
        (lambda: Region(Box.unit(2), lambda x: x[..., 0] > 2), ConfigError),  # empty
        (lambda: Region(Box.unit(2), lambda x: x[..., 0] > 0, measure=2.0), ConfigError),
        (lambda: Region(Box.unit(2), lambda x: x[..., 0]), ShapeMismatch),  # not bool
        (lambda: Region(Box.unit(2), lambda x: x > 0), ShapeMismatch),  # not one answer for each point
        (lambda: Region(Box.unit(2), MASK).from_unit(torch.rand(3, 2)), ConfigError),
    ],
)
def test_what_is_no_domain_is_refused(make, error):
    with pytest.raises(error, match="expected"):
        make()


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"type": "bax"},
        {"type": "box"},
        {"type": "box", "low": 0, "high": 1},
        {"type": "box", "low": ["a"], "high": [1]},
        {"type": "product", "a": {"type": "box", "low": [0], "high": [1]}},
        {
            "type": "region",
            "domain": {"type": "sphere", "radius": 1, "center": [0, 0, 0]},
            "mask": {"shape": [8], "bits": "AA=="},
        },
        {"type": "region", "domain": {"type": "box", "low": [0], "high": [1]}, "mask": {"shape": [10**12], "bits": "AA=="}},
        {"type": "region", "domain": {"type": "box", "low": [0], "high": [1]}, "mask": {"shape": [-8], "bits": "AA=="}},
        {"type": "region", "domain": {"type": "box", "low": [0], "high": [1]}, "mask": {"shape": [8], "bits": "!"}},
    ],
)
def test_damaged_descriptions_are_refused(config):
    with pytest.raises((ConfigError, ShapeMismatch), match=r"expected|cannot be read"):
        domain_from_config(config)


@pytest.mark.parametrize(
    "domain",
    [
        Box((-1.0, 2.0), (3.0, 2.5)),
        *(Ball((0.5,) * d, 2.0) for d in (1, 2, 3, 4)),
        Sphere(2.0, (1.0, 0.0, -1.0)),
        Torus((1.0, 3.0)),
        Product(Box.unit(1), Sphere()),
    ],
    ids=str,
)
def test_the_map_from_the_cube_has_an_inverse(domain):
    unit = torch.rand(500, domain.unit_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(domain.to_unit(domain.from_unit(unit)), unit, rtol=0, atol=1e-7)
    assert domain.to_unit(torch.tensor([domain.from_unit(unit)[0].tolist()])).shape == (1, domain.unit_dim)


def test_a_region_has_no_inverse_map():
    with pytest.raises(ConfigError, match="can be inverted"):
        Region(Box.unit(2), lambda x: x[..., 0] < 0.5).to_unit(torch.zeros(1, 2))
