"""Grids and lattices: stencils found at one point and shifted to the others equal those that are found one by one."""

from dataclasses import replace

import pytest
import torch

from inrbridge.domains import Box, Torus
from inrbridge.sampling import grid, lattice, sobol
from inrbridge.stencils import Bins, BSpline, Pixels, Quadrature, Radial, Reconstruct, build_stencil, kernel_nodes, shifts

DOUBLE = {"dtype": torch.float64}


def rules(d, h):
    nodes = kernel_nodes((3,) * d, (h,) * d)
    seeds = tuple((0.4 * h * (s % 3 - 1),) * d for s in range(3))
    return {
        "nodes": Reconstruct(nodes, (h,) * d),
        "cubic": Reconstruct(nodes[:2], (h,) * d, order=3),
        "spline": Quadrature(BSpline((3,) * d, (h,) * d), (h,) * d, normalize=True),
        "rings": Quadrature(Radial(d, 1.7 * h), (h,) * d),
        "bins": Bins(seeds, (1.3 * h,) * d, ball=True),
    }


def one_by_one(rule, source, **options):
    """The stencil of the same points, of which nothing is known."""
    return build_stencil(rule, replace(source, structure=None, cache={}), **options).dense()


@pytest.fixture
def shifted(monkeypatch):
    """How many points were shifted by each call."""
    counts, spread = [], shifts.Shifts.spread

    def counting(self, at, inner, *rest):
        counts.append(int(inner.sum()))
        return spread(self, at, inner, *rest)

    monkeypatch.setattr(shifts.Shifts, "spread", counting)
    return counts


@pytest.mark.parametrize("compiled", ["1", "0"])
@pytest.mark.parametrize("border", ["zeros", "fading", "reflect", "replicate", "circular", "renormalize"])
@pytest.mark.parametrize("name", ["nodes", "spline", "bins"])
def test_shifted_stencils_equal_those_found_one_by_one(name, border, compiled, shifted, generator, monkeypatch):
    monkeypatch.setenv("INRBRIDGE_COMPILED", compiled)
    for source in (lattice(Box.centered(2), 512, generator, **DOUBLE), grid(Box((0.0, -1.0), (1.0, 2.0)), (14, 19), **DOUBLE)):
        rule = rules(2, 1.1 * source.spacing)[name]
        found = build_stencil(rule, source, border=border).dense()
        assert shifted.pop() > 50
        torch.testing.assert_close(found, one_by_one(rule, source, border=border), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["nodes", "cubic", "spline", "rings", "bins"])
@pytest.mark.parametrize("d", [1, 3])
def test_in_other_dimensions_and_on_thinned_outputs(d, name, shifted, generator):
    source = lattice(Box.centered(d), 64 if d == 1 else 2048, generator, **DOUBLE)
    rule = rules(d, source.spacing)[name]
    found = build_stencil(rule, source, stride=2).dense()
    assert 0 < shifted.pop() < len(source) / 2**d
    torch.testing.assert_close(found, one_by_one(rule, source, stride=2), atol=1e-10, rtol=1e-10)


def test_on_a_torus_every_point_is_shifted(shifted, generator):
    source = lattice(Torus((2.0, 3.0)), 256, generator, **DOUBLE)
    for rule in rules(2, source.spacing).values():
        found = build_stencil(rule, source).dense()
        assert shifted.pop() == 256
        torch.testing.assert_close(found, one_by_one(rule, source), atol=1e-10, rtol=1e-10)


def test_thinned_grids_are_shifted_too(shifted):
    source = grid(Box.unit(2), (24, 20), **DOUBLE)
    for rule in rules(2, 0.08).values():
        found = build_stencil(rule, source, stride=3).dense()
        assert shifted.pop() > 10
        torch.testing.assert_close(found, one_by_one(rule, source, target=source.thin(3)), atol=1e-10, rtol=1e-10)


def test_the_cast_to_float32_moves_no_point_of_a_common_box(shifted, generator):
    source = lattice(Box.centered(2), 1024, generator)
    found = build_stencil(rules(2, source.spacing)["nodes"], source).dense()
    assert shifted.pop() > 500
    same = one_by_one(rules(2, source.spacing)["nodes"], source)
    torch.testing.assert_close(found, same, atol=1e-10, rtol=1e-10)


def test_what_is_not_shifted(shifted, generator):
    """Points that rounding has moved, targets that are other points, kernels as wide as the domain, images."""
    thirds = lattice(Box((0.0, 0.0), (0.3, 0.7)), 512, generator)  # in float32
    nudged = lattice(Box.centered(2), 512, generator, **DOUBLE)
    nudged = replace(nudged, points=nudged.points + 1e-9)
    plain = lattice(Box.centered(2), 512, generator, **DOUBLE)
    build_stencil(rules(2, thirds.spacing)["spline"], thirds)
    build_stencil(rules(2, nudged.spacing)["spline"], nudged)
    build_stencil(rules(2, plain.spacing)["spline"], plain, sobol(plain.domain, 256, generator, **DOUBLE))
    build_stencil(rules(2, 0.9)["spline"], plain)
    build_stencil(replace(rules(2, plain.spacing)["nodes"], pixels=Pixels((16, 16), (-0.9375,) * 2, (0.125,) * 2)), plain)
    assert shifted == []
