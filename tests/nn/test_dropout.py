"""Dropout draws from its own generator, does nothing in evaluation, and mutates nothing."""

import copy

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.errors import ConfigError
from inrbridge.nn import Activation, Dropout, PointDropout, Residual, Sampled, Sequential, use_generator
from inrbridge.sampling import lattice

KINDS = [lambda **k: Dropout(0.5, **k), lambda **k: Dropout(0.5, channels=True, **k), lambda **k: PointDropout(0.5, **k)]


@pytest.fixture
def sampled(generator):
    points = lattice(Box.unit(2), 64)
    return Sampled(points, torch.randn(2, 64, 3, generator=generator))


@pytest.mark.parametrize("make", KINDS)
def test_one_seed_one_choice_and_the_global_seed_has_no_say(make, sampled):
    state, before = torch.get_rng_state(), sampled.values.clone()
    first = [make(generator=torch.Generator().manual_seed(5))(sampled).values for _ in range(2)]
    other = make(generator=torch.Generator().manual_seed(6))(sampled).values
    assert torch.equal(*first) and not torch.equal(first[0], other)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sampled.values, before)


@pytest.mark.parametrize("make", KINDS)
def test_evaluation_passes_everything_and_training_needs_a_generator(make, sampled):
    assert make().eval()(sampled) is sampled
    with pytest.raises(ConfigError, match="use_generator"):
        make()(sampled)


def test_use_generator_reaches_every_layer(sampled, generator):
    net = Sequential(Residual(Dropout(0.2), Activation("relu")), PointDropout(0.5))
    use_generator(net, generator)
    assert len(net(sampled).discretization) == 32
    copied = copy.deepcopy(net)
    assert torch.equal(copied(sampled).values, net(sampled).values)  # a copy goes on where its original was


def test_no_dropout_needs_no_generator(sampled):
    assert Dropout(0.0)(sampled) is sampled and PointDropout(0.0)(sampled) is sampled
    with pytest.raises(ConfigError, match="0 <= p < 1"):
        Dropout(1.0)


def test_points_left_forget_the_sequence(sampled, generator):
    left = PointDropout(0.5, generator=generator)(sampled).discretization
    assert left.structure is None and left.finer is None and left.extend_to is None
    torch.testing.assert_close(left.weights.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("make", KINDS)
def test_gradients(make, generator):
    points = lattice(Box.unit(2), 8, dtype=torch.float64)
    layer = make(generator=generator)
    values = torch.randn(1, 8, 2, dtype=torch.float64, generator=generator, requires_grad=True)

    def forward(v):
        generator.manual_seed(3)
        return layer(Sampled(points, v)).values

    assert torch.autograd.gradcheck(forward, values)
