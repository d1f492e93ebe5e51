"""Normalizations equal torch's on grids, training and evaluation, gradients and running statistics included."""

import pytest
import torch
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Sampled, norm
from inrbridge.sampling import grid, lattice

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
SHAPES = {1: (12,), 2: (5, 4), 3: (3, 4, 2)}


def of_dim(dim, *classes):
    return classes[dim - 1]


def as_image(values, shape):
    return values.unflatten(1, shape).movedim(-1, 1)


def pairs(dim):
    """Our layer and torch's, by name."""
    batch, instance = (
        of_dim(dim, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
        of_dim(dim, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    )
    return {
        "batch": (BatchNorm(4), batch(4)),
        "batch, cumulative": (BatchNorm(4, momentum=None, eps=0.1), batch(4, momentum=None, eps=0.1)),
        "batch, untracked": (
            BatchNorm(4, affine=False, track_running_stats=False),
            batch(4, affine=False, track_running_stats=False),
        ),
        "instance": (InstanceNorm(4), instance(4)),
        "instance, tracked": (
            InstanceNorm(4, affine=True, momentum=0.3, track_running_stats=True),
            instance(4, affine=True, momentum=0.3, track_running_stats=True),
        ),
        "group": (GroupNorm(2, 4, eps=1e-3), nn.GroupNorm(2, 4, eps=1e-3)),
        "group, plain": (GroupNorm(4, 4, affine=False), nn.GroupNorm(4, 4, affine=False)),
        "layer, all": (LayerNorm(4, over="all"), nn.GroupNorm(1, 4)),
    }


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted twin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", list(pairs(1)))
def test_equals_torch_on_grids(name, dim, dtype, weighted, generator, monkeypatch):
    shape, close = SHAPES[dim], {"rtol": 0, "atol": TOLERANCE[dtype]}
    points = grid(Box.unit(dim), shape, dtype=dtype)
    if weighted:  # the path of unequal weights, on weights that happen to be equal
        monkeypatch.setattr(norm, "has_equal_weights", lambda points: False)
    ours, theirs = (layer.to(dtype).train() for layer in pairs(dim)[name])
    for (_, a), (_, b) in zip(sorted(ours.named_parameters()), sorted(theirs.named_parameters()), strict=True):
        with torch.no_grad():
            a.copy_(torch.randn(4, generator=generator, dtype=dtype))
            b.copy_(a)
    assert {k for k, _ in ours.named_buffers()} == {k for k, _ in theirs.named_buffers()}
    for _ in range(3):
        values = 3 + 2 * torch.randn(3, len(points), 4, generator=generator, dtype=dtype)
        mine, other = values.clone().requires_grad_(), values.clone().requires_grad_()
        slope = torch.randn(values.shape, generator=generator, dtype=dtype)
        out = ours(Sampled(points, mine)).values
        expected = theirs(as_image(other, shape)).movedim(1, -1).flatten(1, dim)
        torch.testing.assert_close(out, expected, **close)
        (out * slope).sum().backward()
        (expected * slope).sum().backward()
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=10 * TOLERANCE[dtype])
    for (_, a), (_, b) in zip(sorted(ours.named_parameters()), sorted(theirs.named_parameters()), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=100 * TOLERANCE[dtype])
    for key, buffer in ours.named_buffers():
        if key == "num_batches_tracked" and name.startswith("instance"):
            assert int(buffer) == 3  # torch has this counter in its instance norms but never moves it
            continue
        torch.testing.assert_close(buffer, dict(theirs.named_buffers())[key], **close)
    ours.eval(), theirs.eval()
    expected = theirs(as_image(values, shape)).movedim(1, -1).flatten(1, dim)
    torch.testing.assert_close(ours(Sampled(points, values)).values, expected, **close)


def test_states_load_from_torch(generator):
    theirs = nn.BatchNorm2d(3)
    theirs(torch.randn(2, 3, 4, 4, generator=generator))
    ours = BatchNorm(3)
    ours.load_state_dict(theirs.state_dict())
    assert int(ours.num_batches_tracked) == 1 and torch.equal(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_over_channels_equals_torch(bias, generator):
    points = lattice(Box.unit(2), 16)
    values = torch.randn(2, 16, 6, generator=generator)
    ours, theirs = LayerNorm(6, bias=bias), nn.LayerNorm(6, bias=bias)
    torch.testing.assert_close(ours(Sampled(points, values)).values, theirs(values))
    assert {k for k, _ in ours.named_parameters()} == {k for k, _ in theirs.named_parameters()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchNorm(4),
        lambda: InstanceNorm(4),
        lambda: GroupNorm(2, 4),
        lambda: LayerNorm(4),
        lambda: LayerNorm(4, over="all"),
    ],
)
def test_gradients_flow_through_the_statistics(make, weighted, generator):
    points = lattice(Box.unit(2), 6, dtype=torch.float64)
    if weighted:
        weights = torch.rand(6, generator=generator, dtype=torch.float64)
        points = Discretization(points.points, weights / weights.sum(), points.domain)
    layer = make().double()
    values = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: layer(Sampled(points, v)).values, values)


def test_points_first_memory_gives_the_same_and_nothing_is_mutated(generator):
    points = lattice(Box.unit(2), 32, dtype=torch.float64)
    values = torch.randn(32, 3, 4, generator=generator, dtype=torch.float64).transpose(0, 1)
    before = values.clone()
    for make in (lambda: BatchNorm(4), lambda: GroupNorm(2, 4)):
        torch.testing.assert_close(
            make().double()(Sampled(points, values)).values, make().double()(Sampled(points, before)).values
        )
    assert torch.equal(values, before)


def test_half_precision_statistics_are_summed_in_float32(generator):
    points = lattice(Box.unit(2), 1024)
    values = (100 + torch.randn(1, 1024, 2, generator=generator)).to(torch.bfloat16)
    out = InstanceNorm(2)(Sampled(points, values)).values
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float().mean(1), torch.zeros(1, 2), rtol=0, atol=5e-3)


def test_errors_name_what_to_do(generator):
    one = Sampled(lattice(Box.unit(2), 1), torch.randn(1, 1, 4, generator=generator))
    with pytest.raises(ShapeMismatch, match="at least 2"):
        BatchNorm(4)(one)
    with pytest.raises(ShapeMismatch, match="at least 2"):
        InstanceNorm(4)(one)
    assert BatchNorm(4).eval()(one).values.isfinite().all()
    with pytest.raises(ConfigError, match="divides"):
        GroupNorm(3, 4)
    with pytest.raises(ConfigError, match="range of a LayerNorm"):
        LayerNorm(4, over="everything")
    with pytest.raises(ShapeMismatch, match="Got 4 channels in BatchNorm"):
        BatchNorm(3)(one)


def test_one_point_that_outweighs_all_others_keeps_the_running_variance_finite(generator):
    even = lattice(Box.unit(2), 8, dtype=torch.float64)
    weights = torch.full((8,), 1e-12, dtype=torch.float64)
    weights[0] = 1.0
    x = Sampled(Discretization(even.points, weights, even.domain), torch.randn(1, 8, 2, generator=generator, dtype=torch.float64))
    for layer in (BatchNorm(2).double(), InstanceNorm(2, track_running_stats=True).double()):
        layer(x)
        assert bool((layer.running_var >= 0).all()) and bool((layer.running_var <= 1).all())
