"""Mixing of channels, activations, positional encodings: closed forms and torch's own layers."""

import math

import pytest
import torch

from inrbridge.domains import Box, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import Activation, Linear, PositionalEncoding, Sampled
from inrbridge.sampling import grid, lattice


def sampled(channels, generator, dim=2, n=64, dtype=torch.float64):
    points = lattice(Box.centered(dim), n, dtype=dtype)
    return Sampled(points, torch.randn(2, n, channels, generator=generator, dtype=dtype))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_linear_equals_the_1x1_convolution_it_was_copied_from(dim, groups, generator):
    conv = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[dim - 1](4, 6, 1, groups=groups, dtype=torch.float64)
    points = grid(Box.unit(dim), (3,) * dim, dtype=torch.float64)
    x = Sampled(points, torch.randn(2, 3**dim, 4, generator=generator, dtype=torch.float64))
    expected = conv(x.values.unflatten(1, (3,) * dim).movedim(-1, 1)).movedim(1, -1).flatten(1, dim)
    torch.testing.assert_close(Linear.from_discrete(conv)(x).values, expected, rtol=0, atol=1e-12)


def test_linear_copies_a_torch_linear_without_bias(generator):
    layer = torch.nn.Linear(3, 5, bias=False)
    x = sampled(3, generator, dtype=torch.float32)
    torch.testing.assert_close(Linear.from_discrete(layer)(x).values, layer(x.values))


def test_linear_refuses_larger_kernels_and_wrong_channels(generator):
    with pytest.raises(ShapeMismatch, match="size 1 in every axis"):
        Linear.from_discrete(torch.nn.Conv2d(3, 4, 3))
    with pytest.raises(ShapeMismatch, match="Got 2 channels in Linear"):
        Linear(3, 4)(sampled(2, generator, dtype=torch.float32))


def test_linear_draws_from_its_generator_alone():
    state = torch.get_rng_state()
    first, second = (Linear(3, 4, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)
    assert torch.equal(torch.get_rng_state(), state)


def test_linear_gradients(generator):
    for normalized in (False, True):
        layer = Linear(3, 2, normalized=normalized, generator=generator).double()
        x = sampled(3, generator, n=4)

        def forward(values, weight, bias, layer=layer, x=x):
            parameters = {"weight": weight, "bias": bias}
            return torch.func.functional_call(layer, parameters, (x.with_values(values),)).values

        arguments = (x.values.requires_grad_(), layer.weight, layer.bias)
        assert torch.autograd.gradcheck(forward, arguments)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "tanh", "sin", "identity"])
def test_activation_acts_on_each_value(name, generator):
    function = {"sin": torch.sin, "identity": lambda v: v}.get(name) or getattr(torch.nn.functional, name)
    x = sampled(3, generator)
    before = x.values.clone()
    assert torch.equal(Activation(name)(x).values, function(before))
    assert torch.equal(x.values, before)


def test_activation_takes_callables_and_registers_modules(generator):
    x = sampled(3, generator, dtype=torch.float32)
    assert torch.equal(Activation(torch.cos)(x).values, x.values.cos())
    assert list(Activation(torch.nn.PReLU()).parameters())
    with pytest.raises(ConfigError, match='Did you mean "relu"'):
        Activation("rellu")
    with pytest.raises(ShapeMismatch, match="by itself"):
        Activation(lambda v: v.sum(1))(x)


def test_positional_encoding_equals_the_closed_form(generator):
    x = sampled(3, generator)
    encoding = PositionalEncoding((0.5, 2.0), mode="concat")
    out = encoding(x)
    assert out.channels == encoding.out_channels(3, 2) == 3 + 8
    place = (x.discretization.points + 1) / 2
    expected = [f(2 * math.pi * cycles * place[:, a]) for cycles in (0.5, 2.0) for f in (torch.sin, torch.cos) for a in (0, 1)]
    torch.testing.assert_close(out.values[1, :, 3:], torch.stack(expected, 1), rtol=0, atol=1e-12)
    assert torch.equal(out.values[..., :3], x.values)


def test_positional_encoding_adds_its_features_channel_by_channel(generator):
    x = sampled(11, generator)
    encoding = PositionalEncoding((1.0, 2.0), amplitude=0.5)
    added = encoding(x).values - x.values
    features = encoding.features(x)
    for channel in range(11):
        torch.testing.assert_close(added[0, :, channel], 0.5 * features[:, channel % 8], rtol=0, atol=1e-12)


def test_positional_encoding_has_no_seam_on_a_torus():
    torus = Torus((2.0,))
    ends = Sampled(lattice(torus, 2, dtype=torch.float64), torch.zeros(1, 2, 1, dtype=torch.float64))
    object.__setattr__(ends.discretization, "points", torch.tensor([[0.0], [2.0]], dtype=torch.float64))
    features = PositionalEncoding((1.0, 3.0)).features(ends)
    torch.testing.assert_close(features[0], features[1], rtol=0, atol=1e-12)
