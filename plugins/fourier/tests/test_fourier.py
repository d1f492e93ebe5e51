"""The fourier format: the laws of every format, its mathematics, its stacked evaluation."""

import math

import pytest
import torch
from inrbridge_fourier import FourierFormat

from inrbridge import Box, errors, stack
from inrbridge.testing import FormatConformance


class TestFourier(FormatConformance):
    format = FourierFormat()


def build(domain=None, channels=1, seed=0, **options):
    options = {"width": 16, "layers": 2, "features": 8} | options
    return FourierFormat().build(domain or Box.unit(2), channels, generator=torch.Generator().manual_seed(seed), **options)


def rand(*shape, dtype=torch.float32):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(5))


def states_of(fields):
    return {name: torch.stack([field.state_dict()[name] for field in fields]) for name in fields[0].state_dict()}


@pytest.mark.parametrize(("final", "function"), [("identity", lambda z: z), ("sigmoid", torch.sigmoid)])
def test_the_formula(final, function):
    field = build(Box((0.0, 2.0), (4.0, 3.0)), 3, final=final)
    coords, unit = torch.tensor([[1.0, 2.5]]), torch.tensor([[0.25, 0.5]])
    phase = 2 * math.pi * unit @ field.frequencies.T
    x = torch.cat([torch.cos(phase), torch.sin(phase)], -1)
    for layer in field.layers[:-1]:
        x = torch.relu(x @ layer.weight.T + layer.bias)
    expected = function(x @ field.layers[-1].weight.T + field.layers[-1].bias)
    assert torch.allclose(field(coords), expected, atol=1e-5)
    assert torch.allclose(field.evaluate_stack(states_of([field]), coords)[0], expected, atol=1e-5)


def test_sigma_is_the_deviation_of_the_frequencies():
    assert build(features=4000, sigma=3.0).frequencies.std() == pytest.approx(3.0, rel=0.03)


def test_frequencies_are_saved_and_not_trained(tmp_path):
    field = build()
    assert [name for name, _ in field.named_parameters() if "frequencies" in name] == []
    FourierFormat().save(field, tmp_path / "field.safetensors")
    again = FourierFormat().open(tmp_path / "field.safetensors")
    assert torch.equal(again.frequencies, field.frequencies) and again.architecture == field.architecture


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("coords_shape", [(50, 2), (7, 50, 2)])
def test_a_stack_equals_the_loop(dtype, coords_shape):
    fields = [build(channels=2, seed=seed) for seed in range(7)]
    coords = rand(coords_shape, dtype=dtype)
    each = coords if coords.ndim == 3 else [coords] * 7
    truth = torch.stack([field(own) for field, own in zip(fields, each, strict=True)])
    found = fields[0].evaluate_stack(states_of(fields), coords)
    assert found.dtype == dtype and torch.allclose(found, truth, atol=1e-5)


def test_a_stack_in_chunks_equals_the_loop():
    fields = [build(width=64, seed=seed) for seed in range(5)]
    coords = rand(3000, 2)
    with torch.no_grad():
        truth = torch.stack([field(coords) for field in fields])
        assert torch.allclose(fields[0].evaluate_stack(states_of(fields), coords), truth, atol=1e-5)


def test_gradients_of_a_stack():
    fields = [build(channels=2, width=4, features=3, sigma=1.0, seed=seed).double() for seed in range(2)]
    names, tensors = zip(*((name, value.requires_grad_()) for name, value in states_of(fields).items()), strict=True)
    coords = rand(3, 2, dtype=torch.float64).requires_grad_()

    def evaluate(coords, *tensors):
        return fields[0].evaluate_stack(dict(zip(names, tensors, strict=True)), coords)

    assert torch.autograd.gradcheck(evaluate, (coords, *tensors))


def test_build_is_seeded_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b, c = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.frequencies, b.frequencies) and not torch.equal(a.frequencies, c.frequencies)


IMPOSSIBLE = [{"layers": 0}, {"width": 0}, {"features": 0}, {"final": "cosine"}, {"activation": "swish"}, {"skips": [0]},
              {"skips": [3]},
              {"network": "cnn"}, {"network": "filters", "layers": 0}, {"network": "filters", "width": [3, 4]},
              {"network": "filters", "final": "cosine"}]  # fmt: skip


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=str)
def test_impossible_networks_are_refused(options):
    with pytest.raises(errors.InrBridgeError, match="expected"):
        build(**options)


def test_native_files_take_no_options_of_foreign_ones(tmp_path):
    with pytest.raises(errors.ConfigError, match="final"):
        FourierFormat().open(FourierFormat().example(tmp_path), final="sigmoid")


KINDS = [
    {"activation": "softplus", "beta": 100.0, "skips": [1, 2]},
    {"activation": "elu", "raw": True, "final": "tanh"},
    {"activation": "sine", "raw": True, "skips": [2]},
    {"network": "filters"},
    {"network": "filters", "final": "sigmoid", "layers": 1},
]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_every_kind_stacks_saves_and_differentiates_twice(options, tmp_path):
    fields = [build(channels=2, width=5, sigma=0.5, seed=seed, **({"features": 4} | options)).double() for seed in range(3)]
    coords = rand(6, 2, dtype=torch.float64)
    truth = torch.stack([field(coords) for field in fields])
    assert torch.allclose(fields[0].evaluate_stack(states_of(fields), coords), truth, atol=1e-12)
    assert torch.allclose(stack(fields)(coords), truth, atol=1e-12)
    assert torch.autograd.gradgradcheck(fields[0], coords.requires_grad_())
    names, tensors = zip(*((name, value.requires_grad_()) for name, value in states_of(fields[:2]).items()), strict=True)

    def evaluate(coords, *tensors):
        return fields[0].evaluate_stack(dict(zip(names, tensors, strict=True)), coords)

    assert torch.autograd.gradcheck(evaluate, (coords[:2].detach().requires_grad_(), *tensors))
    FourierFormat().save(fields[1], tmp_path / "field.safetensors")
    again = FourierFormat().open(tmp_path / "field.safetensors")
    assert again.architecture == fields[1].architecture and torch.equal(again(coords), fields[1](coords))


def test_the_formula_with_skips():
    field, u = build(channels=2, raw=True, skips=[1], activation="softplus", beta=3.0), rand(4, 2)
    phase = 2 * math.pi * u @ field.frequencies.T
    first, second, readout = field.layers
    h = torch.nn.functional.softplus(first(torch.cat([u, phase.cos(), phase.sin()], 1)), 3.0)
    h = torch.nn.functional.softplus(second(torch.cat([h, u], 1)), 3.0)
    assert torch.allclose(field(u), readout(h), atol=1e-5)


def test_the_formula_of_filters():
    field, u = build(Box.centered(2), 2, network="filters", width=7, layers=3), rand(4, 2)
    z = field.filters[0](u).sin()
    for layer, filter in zip(field.layers, field.filters[1:], strict=True):
        z = filter(u).sin() * layer(z)
    assert torch.allclose(field(2 * u - 1), field.readout(z), atol=1e-5)


def test_fresh_filters_keep_the_spread_of_their_products():
    field = build(network="filters", width=128, layers=4, sigma=2.0, channels=16)
    values = field(rand(500, 2))
    assert 0.3 < float(values.detach().std()) < 3
    total = torch.stack([layer.weight.detach() for layer in field.filters]).square().sum(0).mean().sqrt() / (2 * math.pi)
    assert float(total) == pytest.approx(2.0, rel=0.1)
