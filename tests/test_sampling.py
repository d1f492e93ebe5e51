"""Samplers: points on every domain, weights that sum to its measure, and what each promises beyond that."""

import math
import pickle

import numpy as np
import pytest
import torch
from reference_discrepancy import star_discrepancy_1d

from inrbridge import sampling
from inrbridge.discretization import Grid, Lattice
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus
from inrbridge.errors import (
    ConfigError,
    EmptyDiscretization,
    InrBridgeError,
    NotFinite,
    OutsideDomain,
    ShapeMismatch,
    UnknownName,
)
from inrbridge.field import FunctionField
from inrbridge.sampling.fixed import fixed_points
from inrbridge.sampling.sequences import LATTICE_VECTORS, HaltonSequence, LatticeSequence, SobolSequence, radical_inverse

NESTED = ["lattice", "sobol", "halton", "uniform", "shrunk"]
DOMAINS = [
    Box((-1, 0), (1, 3)),
    Box.centered(3),
    Ball((0.0, 1.0), 2.0),
    Ball((0.0,) * 4),
    Sphere(),
    Torus((1.0, 2.0)),
    Product(Box.unit(2), Sphere()),
    Region(Box.centered(2), np.eye(6, dtype=bool)),
    Region(Box.centered(2), lambda x: x.norm(dim=-1) < 0.7),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(name, domain, n, generator=None, **options):
    if name == "importance":
        options["density"] = lambda x: torch.exp(-x.square().sum(-1))
    return sampling.get_sampler(name)(domain, n, generator, **options)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: type(d).__name__ + str(d.dim))
@pytest.mark.parametrize("name", [*NESTED, "importance"])
@pytest.mark.parametrize("seed", [None, 3])
def test_points_lie_on_the_domain_and_weights_sum_to_its_measure(name, domain, seed):
    x = make(name, domain, 300, None if seed is None else seeded(seed))
    assert x.points.shape == (300, domain.dim) and x.sampler == name and x.domain is domain
    domain.check(x.points)
    assert float(x.weights.sum()) == pytest.approx(domain.measure, rel=1e-5)
    assert bool((x.weights > 0).all())


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: type(d).__name__ + str(d.dim))
@pytest.mark.parametrize("name", [*NESTED, "importance"])
def test_an_extension_begins_with_the_points_it_extends(name, domain):
    x = make(name, domain, 100, seeded(1))
    longer = x.extend_to(230)
    assert torch.equal(longer.points[:100], x.points)
    assert torch.equal(longer.points, make(name, domain, 230, seeded(1)).points)
    assert float(longer.weights.sum()) == pytest.approx(domain.measure, rel=1e-5)
    assert longer.points.dtype == x.points.dtype


@pytest.mark.parametrize("name", ["lattice", "sobol", "halton", "grid", "uniform", "shrunk", "importance"])
def test_dtype_and_device_are_those_asked_for(name):
    x = make(name, Box.centered(2), 64, dtype=torch.float64, device="cpu")
    assert x.points.dtype == x.weights.dtype == torch.float64
    low = make(name, Box.centered(2), 64)
    assert low.points.dtype == torch.get_default_dtype()
    torch.testing.assert_close(low.points.double(), x.points, atol=1e-6, rtol=0)


def test_names_lead_to_samplers():
    assert sampling.sampler_names()[0] == "lattice"
    for name in sampling.sampler_names():
        assert sampling.get_sampler(name) is getattr(sampling, name)
    with pytest.raises(UnknownName, match='Did you mean "lattice"'):
        sampling.get_sampler("latice")


@pytest.mark.parametrize("name", ["lattice", "sobol", "halton", "grid", "uniform", "shrunk", "importance"])
@pytest.mark.parametrize(
    "n, error",
    [(0, EmptyDiscretization), (-4, EmptyDiscretization), (4.0, ConfigError), ("many", ConfigError), (True, ConfigError)],
)
def test_a_count_that_is_none_is_refused(name, n, error):
    with pytest.raises(error, match="Got n = "):
        make(name, Box.unit(2), n)


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="expected a Domain"):
        sampling.lattice("box", 4)
    with pytest.raises(ConfigError, match="manual_seed"):
        sampling.sobol(Box.unit(2), 4, 0)
    with pytest.raises(ConfigError, match="floating-point"):
        sampling.sobol(Box.unit(2), 4, dtype=torch.int64)
    with pytest.raises(ConfigError, match='use the sampler "sobol"'):
        sampling.lattice(Box.unit(7), 4)
    assert len(sampling.lattice(Box.unit(2), np.int64(4))) == 4


# lattice ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [Box.centered(1), Box((0, -1), (2, 1)), Box.unit(3)], ids=str)
def test_the_lattice_is_what_its_structure_says(box):
    x = sampling.lattice(box, 512, seeded(5))
    assert isinstance(x.structure, Lattice)
    reversed_index = torch.tensor([int(f"{i:09b}"[::-1], 2) for i in range(512)], dtype=torch.float64)
    z, shift = (torch.tensor(v, dtype=torch.float64) for v in (x.structure.generator, x.structure.shift))
    unit = (reversed_index[:, None] * z / 512 + shift) % 1.0
    torch.testing.assert_close(x.points.double(), box.from_unit(unit), atol=1e-6, rtol=0)


def test_lattice_differences_depend_on_the_difference_of_indices_alone_even_in_float32():
    x = sampling.lattice(Box.centered(2), 1024, seeded(2))
    natural = x.points[torch.tensor([int(f"{i:010b}"[::-1], 2) for i in range(1024)])]
    step = (natural.roll(-1, 0) - natural) % 2.0
    assert len(step.unique(dim=0)) == 1


@pytest.mark.parametrize("dim, least", [(1, 0.99), (2, 0.8), (3, 0.8)])
def test_lattices_are_well_separated_at_every_size(dim, least):
    for m in range(8, 17):
        x = sampling.lattice(Torus((1.0,) * dim), 2**m, dtype=torch.float64).points
        away = (x[1:] - x[0]).abs()
        nearest = torch.minimum(away, 1 - away).square().sum(-1).min().sqrt()
        assert float(nearest) * 2 ** (m / dim) >= least


@pytest.mark.parametrize("dim, most", [(2, 65), (3, 240)])
def test_the_worst_case_error_of_lattices_does_not_stagnate(dim, most):
    # P_2 = mean_k prod_a (1 + 2 pi^2 B_2(x_ka)) - 1, the squared error of the worst periodic field of smoothness 1
    unshifted = LatticeSequence(LATTICE_VECTORS[dim], (0.0,) * dim)
    for m in range(6, 17):
        x = unshifted(0, 2**m)
        p2 = float((1 + 2 * math.pi**2 * (x * x - x + 1 / 6)).prod(-1).mean()) - 1
        assert 2**m * math.sqrt(p2) <= most


def test_only_a_power_of_two_on_a_box_or_torus_is_a_lattice():
    assert sampling.lattice(Box.unit(2), 1000).structure is None
    assert sampling.lattice(Sphere(), 1024).structure is None
    assert isinstance(sampling.lattice(Torus((1.0,)), 4).structure, Lattice)
    assert isinstance(sampling.lattice(Box.unit(2), 1000).extend_to(1024).structure, Lattice)


def test_no_point_of_an_unrandomized_lattice_lies_near_a_border():
    for m in range(1, 17):
        x = sampling.lattice(Box.unit(2), 2**m, dtype=torch.float64).points
        assert float(torch.minimum(x, 1 - x).min()) * 2**m > 0.3


# sobol, halton, uniform ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [Box.unit(2), Box.centered(2), Box((0, 0), (255, 3)), Box.centered(3)], ids=str)
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_each_cell_holds_one_sobol_point_in_float32(box, seed):
    side = 64 if box.dim == 2 else 16
    x = sampling.sobol(box, side**box.dim, None if seed is None else seeded(seed)).points
    cell = ((x - torch.tensor(box.low)) / torch.tensor(box.size) * side).floor()
    assert len(cell.unique(dim=0)) == side**box.dim
    assert cell.min() == 0 and cell.max() == side - 1


def test_a_draw_of_sobol_points_may_begin_anywhere():
    for sequence in (SobolSequence(3), SobolSequence(3, 7)):
        whole = sequence(0, 40)
        torch.testing.assert_close(torch.cat([sequence(0, 1), sequence(1, 2), sequence(2, 17), sequence(17, 40)]), whole)
        assert len(whole.unique(dim=0)) == 40


def test_the_radical_inverse_mirrors_digits():
    assert radical_inverse(torch.arange(4), 2).tolist() == [0.0, 0.5, 0.25, 0.75]
    torch.testing.assert_close(radical_inverse(torch.tensor([1, 5, 9]), 3), torch.tensor([1 / 3, 7 / 9, 1 / 27]).double())


def test_scrambled_halton_points_are_stratified_in_every_coordinate():
    for seed in (None, 4):
        x = HaltonSequence(3, seed)(0, 900)
        for a, base in enumerate((2, 3, 5)):
            for cells in (base, base**2):
                counts = torch.bincount((x[:, a] * cells + 1e-9).long(), minlength=cells)
                assert int(counts.max() - counts.min()) <= 1


def test_uniform_points_are_independent_of_low_discrepancy():
    x = sampling.uniform(Box.unit(1), 4096, seeded(0)).points[:, 0]
    assert 0.3 < star_discrepancy_1d(x) * math.sqrt(4096) < 3  # Kolmogorov's law; a lattice has 0.02


# grid ---------------------------------------------------------------------------------------------------------------


def test_a_grid_is_cell_centred_and_row_major():
    x = sampling.grid(Box((0, -1), (2, 1)), (2, 4))
    assert x.structure == Grid((2, 4), (0.5, -0.75), (1.0, 0.5))
    assert x.points[:3].tolist() == [[0.5, -0.75], [0.5, -0.25], [0.5, 0.25]]
    assert x.points[-1].tolist() == [1.5, 0.75]
    assert torch.equal(x.weights, torch.full((8,), 0.5))


def test_a_grid_of_n_points_has_equally_many_along_each_axis():
    assert sampling.grid(Box.unit(2), 1000).structure.shape == (32, 32)
    assert sampling.grid(Torus((1.0,) * 3), 27).structure.shape == (3, 3, 3)
    assert sampling.grid(Box.unit(2), 1).points.tolist() == [[0.5, 0.5]]


def test_a_grid_of_the_wrong_shape_or_domain_is_refused():
    with pytest.raises(ConfigError, match="expected a Box or Torus"):
        sampling.grid(Sphere(), 16)
    with pytest.raises(ShapeMismatch, match="expected 2 sizes"):
        sampling.grid(Box.unit(2), (4, 4, 4))
    with pytest.raises(EmptyDiscretization):
        sampling.grid(Box.unit(2), (4, 0))


# regions ------------------------------------------------------------------------------------------------------------


def test_a_wrong_measure_of_a_region_ends_in_an_error_not_a_loop():
    tiny = Region(Box.centered(2), lambda x: x.abs().amax(-1) < 1e-3, measure=4.0)
    with pytest.raises(EmptyDiscretization, match="correct the measure or the indicator"):
        sampling.sobol(tiny, 1000)


# shrunk, importance, points -----------------------------------------------------------------------------------------


def test_shrunk_points_follow_the_formula_of_appendix_e1():
    x = sampling.sobol(Box.centered(2), 256, seeded(1), dtype=torch.float64).points
    s = sampling.shrunk(Box.centered(2), 256, seeded(1), dtype=torch.float64).points
    torch.testing.assert_close(s, x.square() * x.sign())
    off_centre = sampling.shrunk(Box((0, 10), (4, 12)), 256, seeded(1), dtype=torch.float64).points
    torch.testing.assert_close(off_centre, s * torch.tensor([2.0, 1.0]) + torch.tensor([2.0, 11.0]))


def test_unknown_kinds_of_weights_are_refused():
    with pytest.raises(UnknownName, match='Did you mean "density"'):
        sampling.shrunk(Box.unit(2), 4, weights="densty")
    with pytest.raises(UnknownName, match="voronoi"):
        sampling.points(Box.unit(2), torch.rand(4, 2), weights="voronoy")


@pytest.mark.parametrize("column", [False, True])
def test_importance_points_are_in_proportion_to_the_density(column):
    density = lambda x: (x[..., :1] + 1) if column else x[..., 0] + 1  # noqa: E731
    x = sampling.importance(Box.centered(2), 4000, seeded(0), density=density)
    share = float((x.points[:, 0] > 0).double().mean())
    assert share == pytest.approx(3 / 4, abs=0.01)
    torch.testing.assert_close(x.weights * (x.points[:, 0] + 1), torch.full((4000,), 2 * 4 / 4000 / 2), rtol=0.05, atol=0)


def test_importance_takes_a_field_and_raises_it_to_a_floor():
    ball = FunctionField(lambda x: (x.norm(dim=-1, keepdim=True) < 0.5) * 10.0, Box.centered(2), 1)
    with pytest.raises(ConfigError, match=r"floor=0\.1"):
        sampling.importance(Box.centered(2), 64, density=ball)
    x = sampling.importance(Box.centered(2), 2000, seeded(0), density=ball, floor=0.2)
    inside = ball(x.points)[:, 0] > 0
    assert float(x.weights[inside].sum()) == pytest.approx(math.pi / 4, rel=0.05)
    assert float(inside.double().mean()) > 0.8


@pytest.mark.parametrize(
    "density, floor, error",
    [
        (lambda x: x[..., 0], 0.0, NotFinite),
        (lambda x: x[..., 0] * float("nan"), 0.0, NotFinite),
        (lambda x: x * 0 + 1, 0.0, ShapeMismatch),
        (lambda x: x[..., 0] * 0, 0.0, ConfigError),
        (lambda x: x[..., 0] * 0 + 1, 2, ConfigError),
        ("density", 0.0, ConfigError),
    ],
)
def test_a_density_that_is_none_is_refused(density, floor, error):
    with pytest.raises(error):
        sampling.importance(Box.centered(2), 64, density=density, floor=floor)


def test_own_points_keep_their_place_and_dtype():
    coords = torch.tensor([[0.1, 0.2], [0.9, 0.4], [0.5, 0.5]], dtype=torch.float64)
    x = sampling.points(Box.unit(2), coords)
    assert torch.equal(x.points, coords) and x.points.dtype == x.weights.dtype == torch.float64
    assert x.weights.tolist() == pytest.approx([1 / 3] * 3)
    assert sampling.points(Box.unit(2), coords.numpy(), dtype=torch.float32).points.dtype == torch.float32
    own = sampling.points(Box.unit(2), coords, weights=torch.tensor([0.5, 0.25, 0.25]))
    assert own.weights.tolist() == [0.5, 0.25, 0.25]


def test_own_points_that_do_not_fit_are_refused():
    box = Box.unit(2)
    with pytest.raises(OutsideDomain):
        sampling.points(box, torch.tensor([[2.0, 0.0]]))
    with pytest.raises(ShapeMismatch):
        sampling.points(box, torch.rand(2))
    with pytest.raises(EmptyDiscretization):
        sampling.points(box, torch.rand(0, 2))
    with pytest.raises(ShapeMismatch, match="one weight per point"):
        sampling.points(box, torch.rand(3, 2), weights=torch.ones(2))
    with pytest.raises(ShapeMismatch, match=r"expected 1, the measure .* scale them"):
        sampling.points(box, torch.rand(3, 2), weights=torch.ones(3))


def test_voronoi_weights_are_the_volumes_of_the_cells():
    line = sampling.points(Box((0,), (10,)), torch.tensor([[1.0], [2.0], [6.0]]), weights="voronoi")
    torch.testing.assert_close(line.weights, torch.tensor([1.5, 2.5, 6.0]), atol=5e-3, rtol=0)
    circle = sampling.points(Torus((10.0,)), torch.tensor([[1.0], [2.0], [6.0]]), weights="voronoi")
    torch.testing.assert_close(circle.weights, torch.tensor([3.0, 2.5, 4.5]), atol=5e-3, rtol=0)
    poles = torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    sphere = sampling.points(Sphere(), poles, weights="voronoi")
    torch.testing.assert_close(sphere.weights, torch.full((6,), 4 * math.pi / 6), rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", NESTED)
def test_discretizations_travel_to_worker_processes(name):
    x = make(name, Sphere(), 32, seeded(0))
    again = pickle.loads(pickle.dumps(x))
    assert torch.equal(again.points, x.points) and torch.equal(again.extend_to(64).points, x.extend_to(64).points)


def test_crowded_points_are_weighed_by_name():
    chance = torch.Generator().manual_seed(3)
    named = fixed_points(Box.centered(2), "shrunk:density", 256, 3)
    expected = sampling.shrunk(Box.centered(2), 256, chance, weights="density")
    assert torch.equal(named.points, expected.points) and torch.equal(named.weights, expected.weights)
    plain = fixed_points(Box.centered(2), "shrunk", 256, 3)
    assert torch.equal(plain.points, named.points) and not torch.allclose(plain.weights, named.weights)


@pytest.mark.parametrize("name, text", [("lattice:density", "no choice of weights"), ("shrunk:heavy", "heavy")])
def test_weights_that_a_name_cannot_have_are_refused(name, text):
    with pytest.raises(InrBridgeError, match=text):
        fixed_points(Box.centered(2), name, 16, 0)
