"""Residual blocks add their input once, on the points of their output, and refuse what is not aligned."""

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.errors import ShapeMismatch
from inrbridge.nn import Activation, Downsample, GlobalIntegral, Linear, Residual, Sampled, Sequential, add, concat
from inrbridge.sampling import grid, lattice, sobol


@pytest.fixture
def sampled(generator):
    points = lattice(Box.unit(2), 64, dtype=torch.float64)
    return Sampled(points, torch.randn(2, 64, 3, generator=generator, dtype=torch.float64))


def test_residual_adds_the_input_not_the_output_twice(sampled):
    before = sampled.values.clone()
    out = Residual(Activation(torch.sin), Activation(torch.exp))(sampled)
    torch.testing.assert_close(out.values, before + before.sin().exp(), rtol=0, atol=1e-12)
    assert torch.equal(sampled.values, before)


@pytest.mark.parametrize("sampler", [grid, lattice, sobol])
def test_residual_with_stride_thins_its_input(sampler, generator):
    points = sampler(Box.unit(2), 64, dtype=torch.float64)
    x = Sampled(points, torch.randn(1, 64, 3, generator=generator, dtype=torch.float64))
    out = Residual(Downsample(2), Activation("tanh"), stride=2)(x)
    coarse = Downsample(2)(x)
    assert out.discretization is coarse.discretization
    torch.testing.assert_close(out.values, coarse.values + coarse.values.tanh(), rtol=0, atol=1e-12)


def test_residual_with_a_projection(sampled, generator):
    body, shortcut = Linear(3, 5, generator=generator).double(), Linear(3, 5, generator=generator).double()
    out = Residual(Downsample(2), body, shortcut=Sequential(Downsample(2), shortcut))(sampled)
    coarse = Downsample(2)(sampled)
    torch.testing.assert_close(out.values, body(coarse).values + shortcut(coarse).values, rtol=0, atol=1e-12)


def test_misaligned_sums_are_refused(sampled, generator):
    with pytest.raises(ShapeMismatch, match="`shortcut` that brings"):
        Residual(Linear(3, 5).double())(sampled)
    with pytest.raises(ShapeMismatch, match="state the `stride`"):
        Residual(Downsample(2))(sampled)
    other = Sampled(lattice(Box.unit(2), 64, generator, dtype=torch.float64), sampled.values)
    with pytest.raises(ShapeMismatch, match="one discretization"):
        concat(sampled, other)
    twin = Sampled(lattice(Box.unit(2), 64, dtype=torch.float64), sampled.values)
    torch.testing.assert_close(add(sampled, twin).values, 2 * sampled.values)


def test_sequential_may_leave_the_domain(sampled):
    net = Sequential(Linear(3, 4), Activation("relu"), GlobalIntegral(), torch.nn.Linear(4, 2)).double()
    assert net(sampled).shape == (2, 2)
    assert set(net.state_dict()) == {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_gradients(sampled):
    small = Sampled(sampled.discretization.prefix(4), sampled.values[:, :4])
    block = Residual(Linear(3, 3), Activation("tanh")).double()
    assert torch.autograd.gradcheck(lambda v: block(small.with_values(v)).values, small.values.requires_grad_())
