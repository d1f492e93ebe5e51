"""A dense net gives a field: evaluable anywhere, again and again, its trunk running once."""

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.errors import ShapeMismatch
from inrbridge.field import Field, FunctionField, query
from inrbridge.models.dense import DenseNet
from inrbridge.nn import Activation, Conv, Sampled, Sequential, reading
from inrbridge.nn.reading import read
from inrbridge.sampling import lattice, sobol
from inrbridge.stencils import reconstruct

BOX = Box.centered(2)


class Plain(DenseNet):
    name = "plain"

    def __init__(self, domain, in_channels, classes, *, skip=False, generator=None):
        super().__init__(domain, in_channels, classes, 256, {"skip": skip}, width=6, head=8, skip=skip, generator=generator)
        self.trunk = Sequential(Conv(in_channels, 6, 3, spacing=2 / 16, generator=generator), Activation("tanh"))
        self.runs = 0

    def features(self, sampled):
        self.runs += 1
        return self.trunk(sampled)


def waves(frequency: float) -> FunctionField:
    return FunctionField(lambda x: torch.sin(frequency * x.sum(-1, keepdim=True)), BOX, 1)


def plain(**options) -> Plain:
    return Plain(BOX, 1, 3, generator=torch.Generator().manual_seed(0), **options).eval()


@pytest.mark.parametrize("skip", [False, True])
def test_the_output_is_a_field_that_is_evaluated_again_and_again(skip):
    net = plain(skip=skip)
    points = lattice(BOX, 256, torch.Generator().manual_seed(1))
    outputs = net([waves(2.0), waves(3.0)], points)
    first = outputs(sobol(BOX, 50).points)
    second = outputs(lattice(BOX, 64).points)
    assert net.runs == 1
    assert first.shape == (2, 50, 3) and second.shape == (2, 64, 3)
    torch.testing.assert_close(outputs(sobol(BOX, 50).points), first)
    field = outputs[1]
    assert isinstance(field, Field)
    torch.testing.assert_close(query(field, sobol(BOX, 50).points.view(5, 10, 2)), first[1].view(5, 10, 3))


@pytest.mark.parametrize("skip", [False, True])
def test_on_the_points_of_the_trunk_it_is_the_output_for_samples(skip):
    net, stacked = plain(skip=skip), [waves(2.0), waves(3.0)]
    points = lattice(BOX, 256, torch.Generator().manual_seed(1))
    samples = Sampled(points, torch.stack([f(points.points) for f in stacked]))
    torch.testing.assert_close(net(stacked, points)(points.points), net(samples).values)
    # shuffled, so that they are found by the local fit
    order = torch.randperm(256, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(net(stacked, points)(points.points[order]), net(samples).values[:, order], atol=1e-5, rtol=1e-5)


def test_coordinates_of_their_own_for_each_field_equal_separate_runs():
    net, fields = plain(skip=True), [waves(2.0), waves(3.0)]
    coords = torch.stack([sobol(BOX, 40).points, lattice(BOX, 40).points])
    points = lattice(BOX, 256)
    together = net(fields, points, at=coords)
    for i, field in enumerate(fields):
        torch.testing.assert_close(together[i], net(field, points)[0](coords[i]))


def test_reading_is_exact_for_quadratics_and_differentiable_in_the_values():
    points = sobol(BOX, 200, torch.Generator().manual_seed(0), dtype=torch.float64)
    coords = lattice(BOX, 30, dtype=torch.float64).points

    def quadratic(x):
        return (1 + x[:, :1] - 2 * x[:, 1:] + 3 * x[:, :1] * x[:, 1:] + x[:, 1:] ** 2)[None]

    torch.testing.assert_close(read(Sampled(points, quadratic(points.points)), coords), quadratic(coords))
    values = torch.randn(1, 200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: read(Sampled(points, v), coords[:4]), values)


def test_what_does_not_fit_is_refused():
    net = plain(skip=True)
    with pytest.raises(ShapeMismatch, match="2 coordinates of a point"):
        net(waves(1.0))(torch.zeros(3, 1, 5, 2)[..., :1])
    samples = Sampled(lattice(BOX, 64), torch.zeros(1, 64, 1))
    with pytest.raises(ShapeMismatch, match="no values of the input"):
        net(samples, at=torch.zeros(5, 2))


def test_shared_coordinates_are_searched_once_for_the_same_points(monkeypatch):
    points = sobol(BOX, 128, torch.Generator().manual_seed(0))
    searches, search = [], reading.reconstruct_at
    monkeypatch.setattr(reading, "reconstruct_at", lambda *given: searches.append(1) or search(*given))
    coords = lattice(BOX, 20).points
    values = torch.randn(2, 2, 128, 3, generator=torch.Generator().manual_seed(1))
    first, second = (read(Sampled(points, batch), coords) for batch in values)
    assert len(searches) == 1
    points.cache.clear()
    assert torch.equal(read(Sampled(points, values[1]), coords.clone()), second) and not torch.equal(first, second)
    other = read(Sampled(points, values[0]), -coords)
    assert len(searches) == 3 and not torch.allclose(other, first)


def test_many_coordinates_are_read_in_parts(monkeypatch):
    points = sobol(BOX, 128, torch.Generator().manual_seed(0))
    sampled = Sampled(points, torch.randn(2, 128, 3, generator=torch.Generator().manual_seed(1)))
    coords = sobol(BOX, 50, torch.Generator().manual_seed(2)).points
    whole = read(sampled, coords)
    points.cache.clear()
    monkeypatch.setattr(reconstruct, "AT_ONCE", 7)
    torch.testing.assert_close(read(sampled, coords), whole)
    torch.testing.assert_close(read(sampled, coords.expand(2, -1, -1)), whole)
