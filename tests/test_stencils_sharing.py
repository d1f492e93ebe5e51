"""What is computed once: stencils of equal rules, searches of equal supports; and that nothing is kept for ever."""

import gc
import weakref

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.nn import BasisConv, Conv, MLPConv, Sampled
from inrbridge.sampling import lattice, sobol
from inrbridge.stencils import Bins, Polynomial, Quadrature, build_stencil, collecting
from inrbridge.stencils.neighbours import PointSet


@pytest.fixture
def searches(monkeypatch):
    """The searches for pairs, by number of outputs."""
    asked, inside = [], PointSet.inside

    def counting(self, queries, *rest):
        asked.append(len(queries))
        return inside(self, queries, *rest)

    monkeypatch.setattr(PointSet, "inside", counting)
    return asked


LAYERS = {
    "nodes": lambda generator: Conv(2, 2, spacing=0.1, generator=generator),
    "basis": lambda generator: BasisConv(2, 2, spacing=0.1, generator=generator),
    "bins": lambda generator: MLPConv(2, 2, half_width=0.2, bins=8, generator=generator),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_layers_of_one_rule_share_a_stencil_and_minibatches_do(make, generator):
    source = sobol(Box.centered(2), 256, generator)
    first, second = make(generator), make(generator)
    sampled = Sampled(source, torch.randn(2, 256, 2, generator=generator))
    first(sampled)
    held = len(source.cache)
    second(first(sampled))
    first(Sampled(source, torch.randn(5, 256, 2, generator=generator)))
    assert len(source.cache) == held
    assert build_stencil(first.rule, source) is build_stencil(second.rule, source)


@pytest.mark.parametrize("sampler", [sobol, lattice])
def test_rules_of_one_support_share_the_search(sampler, searches, generator):
    source = sampler(Box.centered(2), 1024, generator)
    half = (0.15, 0.2)
    build_stencil(Quadrature(Polynomial(half), half), source)
    found = len(searches)
    assert found == (1 if sampler is sobol else 2)  # the lattice's middle, then its rim
    build_stencil(Quadrature(Polynomial(half, 3), half), source)
    build_stencil(Bins(((0.0, 0.0), (0.1, 0.1)), half), source)
    assert len(searches) == found
    build_stencil(Bins(((0.0, 0.0),), half, ball=True), source)
    build_stencil(Quadrature(Polynomial(half), half), source, stride=2)
    assert len(searches) == 3 * found  # another support, other outputs


def test_new_points_for_each_minibatch_do_not_pile_up(generator, monkeypatch):
    net = torch.nn.Sequential(
        Conv(1, 2, spacing=0.2, stride=2, generator=generator), Conv(2, 2, spacing=0.3, generator=generator)
    )

    def alive(most: int) -> int:
        monkeypatch.setattr(collecting, "MOST", most)
        seen = []
        for _ in range(12):
            source = sobol(Box.centered(2), 256, generator)
            seen.append(weakref.ref(source))
            net(Sampled(source, torch.randn(1, 256, 1, generator=generator))).values.sum().backward()
        return sum(ref() is not None for ref in seen)

    gc.collect()
    stencil = 16 * len(build_stencil(net[0].rule, sobol(Box.centered(2), 256, generator), stride=2).matrix.columns)
    assert alive(3 * stencil) <= 4
    gc.disable()
    try:
        assert alive(3 * stencil) == 12  # the points are a cycle, and the user's choice is respected
    finally:
        gc.enable()
