"""Q11: channel mixing with rows that sum to 1 (eq. 127); statistics are integrals (eq. 128-130)."""

import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.nn import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Linear, Sampled
from inrbridge.sampling import lattice


def crowded(n=4096, power=2.0):
    """Points that crowd at the lower corner of the unit square, with the weights that undo it."""
    even = lattice(Box.unit(2), n, dtype=torch.float64)
    points = even.points**power
    weights = (power * even.points ** (power - 1)).prod(1)
    return Discretization(points, weights / weights.sum(), Box.unit(2))


def fields(points):
    x, y = points.unbind(-1)
    first = torch.stack([torch.sin(3 * x) + y, torch.exp(x * y)], -1)
    return torch.stack([first, 2 * first + x[:, None]])


def test_normalized_rows_sum_to_one_and_keep_constants(generator):
    layer = Linear(5, 3, bias=False, normalized=True, generator=generator)
    torch.testing.assert_close(layer.matrix.sum(1), torch.ones(3))
    constant = Sampled(lattice(Box.unit(2), 16), torch.full((1, 16, 5), 0.7))
    torch.testing.assert_close(layer(constant).values, torch.full((1, 16, 3), 0.7))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2, 3, 4, -1]] * 3))
    torch.testing.assert_close(layer.matrix.sum(1), torch.ones(3))


def test_normalized_rows_stay_finite_where_the_sum_vanishes():
    layer = Linear(2, 2, normalized=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    layer.matrix.sum().backward()
    assert layer.matrix.isfinite().all() and layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("make", [lambda: BatchNorm(2), lambda: InstanceNorm(2, affine=True)])
def test_output_has_the_learned_mean_and_deviation_on_crowded_points(make):
    points = crowded()
    layer = make().double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 0.5]))
        layer.bias.copy_(torch.tensor([-1.0, 3.0]))
    out = layer(Sampled(points, fields(points.points)))
    mean = out.weights @ out.values
    variance = out.weights @ (out.values - mean[:, None]) ** 2
    if isinstance(layer, BatchNorm):  # statistics of the minibatch
        variance, mean = (variance + mean**2).mean(0), mean.mean(0)
        variance = variance - mean**2
    torch.testing.assert_close(mean, layer.bias.expand_as(mean), rtol=0, atol=1e-4)
    torch.testing.assert_close(variance.sqrt(), layer.weight.expand_as(variance), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchNorm(2),
        lambda: InstanceNorm(2),
        lambda: GroupNorm(1, 2),
        lambda: GroupNorm(2, 2),
        lambda: LayerNorm(2, over="all"),
    ],
)
def test_weights_make_crowded_points_give_the_integral(make):
    """Q19: the same affine map as on even points; without weights it is another one (negative control)."""
    even, uneven = lattice(Box.unit(2), 4096, dtype=torch.float64), crowded()
    plain = Discretization(uneven.points, torch.full((4096,), 1 / 4096, dtype=torch.float64), uneven.domain)
    probe = 16
    outputs = []
    for points in (even, uneven, plain):
        # the first values are those of one set of places, of no weight: what the layer does to them tells its statistics
        places = torch.cat([even.points[:probe], points.points])
        weights = torch.cat([torch.zeros(probe, dtype=torch.float64), points.weights])
        weighted = Discretization(places, weights, points.domain)
        outputs.append(make().double()(Sampled(weighted, fields(places))).values[:, :probe])
    truth, weighted, unweighted = outputs
    assert (weighted - truth).abs().max() < 2e-3 * truth.abs().max()
    assert (unweighted - truth).abs().max() > 0.1 * truth.abs().max()


def test_instance_norm_forgets_affine_changes():
    points = crowded(256)
    values = fields(points.points)
    layer = InstanceNorm(2, eps=0.0).double()
    first, second = layer(Sampled(points, values)).values, layer(Sampled(points, 5 * values - 3)).values
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


def test_batch_statistics_are_the_mean_over_fields_of_integrals():
    points = crowded(256)
    values = fields(points.points)
    layer = BatchNorm(2, momentum=1.0).double()
    layer(Sampled(points, values))
    weights = points.weights / points.weights.sum()
    mean = torch.einsum("n,bnc->c", weights, values) / 2
    torch.testing.assert_close(layer.running_mean, mean)
    variance = torch.einsum("n,bnc->c", weights, (values - mean) ** 2) / 2
    count = 2 / (weights**2).sum()
    torch.testing.assert_close(layer.running_var, variance * count / (count - 1))
