"""The levels of a converted net: where feature maps of each shape lie, and which points they get."""

import pytest
import torch
from torch import nn

from inrbridge import convert
from inrbridge.domains import Box, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.models.converted import Placement, Places, checked_resolution
from inrbridge.sampling import grid, lattice, sobol

BOX = Box((0.0, 0.0), (8.0, 8.0))  # 8 pixels of side 1


def places(points, **options):
    return Places.on(points, Placement(BOX, (8, 8), **options))


def test_the_root_has_the_given_points():
    points = lattice(BOX, 64)
    root = places(points).root()
    assert root.points is points and not root.on_grid
    assert (root.start, root.step, root.size) == ((0.5, 0.5), (1.0, 1.0), 64)


def test_levels_are_made_once_and_remembered_with_the_points():
    points = lattice(BOX, 64)
    found = places(points)
    coarse = found.reach((4, 4), (0.5, 0.5), (2.0, 2.0), BOX)
    assert found.reach((4, 4), (1.0, 1.0), (2.0, 2.0), BOX) is coarse  # whoever reaches the shape first places it
    assert places(points) is found and places(points, oversampling=4.0) is not found


@pytest.mark.parametrize(("oversampling", "count"), [(1.0, 16), (2.0, 32), (4.0, 64), (100.0, 64)])
def test_a_coarser_level_has_the_first_points(oversampling, count):
    points = lattice(BOX, 64)
    coarse = places(points, oversampling=oversampling).reach((4, 4), (0.5, 0.5), (2.0, 2.0), BOX)
    assert len(coarse.points) == count and torch.equal(coarse.points.points, points.points[:count])
    assert float(coarse.points.weights.sum()) == pytest.approx(64.0)


def test_prefixes_of_lattices_are_lattices():
    box = Box((0.0, 0.0), (12.0, 12.0))
    found = Places.on(lattice(box, 256), Placement(box, (12, 12)))
    coarse = found.reach((6, 6), (0.5, 0.5), (2.0, 2.0), box)
    assert len(coarse.points) == 64  # and not 256 / 4 rounded anyhow: 36 / 144 of 256 is 64
    third = found.reach((4, 4), (1.0, 1.0), (3.0, 3.0), box)
    assert len(third.points) == 32 and third.points.structure is not None  # 28.4 is no power of two


def test_layers_without_padding_shrink_the_domain():
    points = sobol(BOX, 256)
    inner = places(points).reach((6, 6), (1.5, 1.5), (1.0, 1.0), BOX)
    assert inner.points.domain == Box((1.0, 1.0), (7.0, 7.0))
    inside = ((points.points >= 1 - 1e-5) & (points.points <= 7 + 1e-5)).all(1)
    assert torch.equal(inner.points.points, points.points[inside][: len(inner.points)])
    assert float(inner.points.weights.sum()) == pytest.approx(36.0)


def test_strides_that_leave_a_rest_keep_the_domain():
    found = places(sobol(BOX, 256))
    # kernel 3, stride 2, padding 1 on 8 pixels: centres at 0, 2, 4, 6; kernel and stride 4: patches
    assert found.reach((4, 4), (0.5, 0.5), (2.0, 2.0), BOX).points.domain == BOX
    assert found.reach((2, 2), (2.0, 2.0), (4.0, 4.0), BOX).points.domain == BOX
    # 3 outputs at stride 3 stand for 9 pixels, one more than there are: no cell of theirs lies outside
    assert found.reach((3, 3), (0.5, 0.5), (3.0, 3.0), BOX).points.domain == BOX


def test_padding_beyond_the_kernel_grows_the_domain():
    larger = places(sobol(BOX, 256)).reach((10, 10), (-0.5, -0.5), (1.0, 1.0), BOX)
    domain = larger.points.domain
    assert domain == Box((-1.0, -1.0), (9.0, 9.0)) and bool(domain.contains(larger.points.points).all())
    assert float(larger.points.points.min()) < 0 and float(larger.points.weights.sum()) == pytest.approx(100.0)


def test_finer_levels_extend_the_sequence():
    points = lattice(BOX, 64)
    fine = places(points).reach((16, 16), (0.25, 0.25), (0.5, 0.5), BOX)
    assert len(fine.points) == 256 and torch.equal(fine.points.points[:64], points.points)


def test_own_grids():
    found = places(lattice(BOX, 64), own_grids=frozenset({(4, 4)}))
    coarse = found.reach((4, 4), (1.0, 1.0), (2.0, 2.0), BOX)
    assert coarse.on_grid and torch.equal(coarse.points.points, grid(BOX, (4, 4)).points)
    assert not found.reach((2, 2), (2.0, 2.0), (4.0, 4.0), BOX).on_grid
    inner = places(lattice(BOX, 64), levels="inner-grids")
    assert not inner.root().on_grid and inner.reach((4, 4), (1.0, 1.0), (2.0, 2.0), BOX).on_grid


def test_fewer_points_than_pixels_are_read_onto_grids():
    assert places(lattice(BOX, 32)).root().on_grid
    assert not places(lattice(BOX, 64)).root().on_grid


@pytest.mark.parametrize("side", [16, 12])
def test_other_grids_are_thinned_as_the_pixels_are(side):
    found = places(grid(BOX, (side, side)))
    h = 8 / side
    coarse = found.reach((4, 4), (0.5, 0.5), (2.0, 2.0), BOX).points.structure
    assert coarse.shape == (side // 2, side // 2) and coarse.step == pytest.approx((2 * h, 2 * h))
    assert coarse.start == pytest.approx((h / 2, h / 2))  # every second point from the first on
    patches = found.reach((2, 2), (2.0, 2.0), (4.0, 4.0), BOX).points.structure
    assert patches.shape == (side // 4, side // 4) and patches.start == pytest.approx((2 * h, 2 * h))


def test_the_pixel_grid_is_recognized():
    p = Placement(BOX, (8, 8))
    assert p.is_pixel_grid(grid(BOX, (8, 8))) and p.is_pixel_grid(grid(BOX, (8, 8)).to(torch.float64))
    assert not p.is_pixel_grid(grid(BOX, (16, 16))) and not p.is_pixel_grid(grid(BOX, (8, 8)).thin(2))
    assert not p.is_pixel_grid(grid(Box.centered(2), (8, 8))) and not p.is_pixel_grid(lattice(BOX, 64))


def test_a_torus_keeps_its_domain():
    torus = Torus((8.0, 8.0))
    found = Places.on(lattice(torus, 64), Placement(torus, (8, 8)))
    assert found.reach((6, 6), (1.5, 1.5), (1.0, 1.0), torus).points.domain == torus


def test_resolutions():
    assert checked_resolution(BOX, 8) == (8, 8) and checked_resolution(BOX, [8, 4]) == (8, 4)
    for wrong in ([8], [8, 8, 8], 0):
        with pytest.raises(ShapeMismatch, match="expected 2 sizes"):
            checked_resolution(BOX, wrong)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"levels": "grid"}, 'levels "grid" .* one of: points, inner-grids, grids'),
        ({"kernel": "bspline"}, 'kernel "bspline"'),
        ({"kernel": "spline", "levels": "grids"}, "kernels stay discrete"),
        ({"oversampling": 0.5}, "oversampling 0.5"),
        ({"reader": "cubic"}, 'reader "cubic"'),
    ],
)
def test_options_that_do_not_fit(options, said):
    with pytest.raises(ConfigError, match=said):
        convert(nn.Conv2d(1, 1, 3), BOX, 8, **options)


def test_the_model_of_pixels_is_for_boxes_of_up_to_two_dimensions():
    for domain, layer in ((Torus((8.0, 8.0)), nn.Conv2d(1, 1, 3)), (Box.unit(3), nn.Conv3d(1, 1, 3))):
        assert convert(layer, domain, 8).reading.reader == "polynomials"
        with pytest.raises(ConfigError, match=r'expected "polynomials", or "pixels" on a Box'):
            convert(layer, domain, 8, reader="pixels")
