"""The siren format: the laws of every format, its mathematics, its stacked evaluation, and what is refused."""

import math

import pytest
import torch
from inrbridge_siren import SirenFormat
from safetensors.torch import save_file

import inrbridge
from inrbridge import Box, Sphere, errors, stack
from inrbridge.testing import FormatConformance


class TestSiren(FormatConformance):
    format = SirenFormat()


def build(domain=None, channels=1, seed=0, **options):
    options = {"width": 16, "layers": 2} | options
    return SirenFormat().build(domain or Box.unit(2), channels, generator=torch.Generator().manual_seed(seed), **options)


def rand(*shape, dtype=torch.float32):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(5))


def states_of(fields):
    return {name: torch.stack([field.state_dict()[name] for field in fields]) for name in fields[0].state_dict()}


def test_the_formula():
    field = build(Box((0.0, 2.0), (4.0, 3.0)), 3, omega_0=20.0, hidden_omega=5.0)
    coords = torch.tensor([[1.0, 2.25]])
    x = torch.tensor([[-0.5, -0.5]])  # the coords mapped to [-1, 1]^2
    (w0, b0), (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in field.layers)
    expected = torch.sin(5 * (torch.sin(20 * (x @ w0.T + b0)) @ w1.T + b1)) @ w2.T + b2
    assert torch.allclose(field(coords), expected, atol=1e-6)


@pytest.mark.parametrize(("final", "function"), [("sigmoid", torch.sigmoid), ("sine", lambda z: torch.sin(30 * z))])
def test_final_activations(final, function):
    plain, field = build(), build(final=final)
    coords = rand(5, 2)
    assert torch.allclose(field(coords), function(plain(coords)), atol=1e-5)
    assert torch.allclose(field.evaluate_stack(states_of([field]), coords)[0], field(coords), atol=1e-6)


def test_initial_activations_are_spread_as_in_the_paper():
    """Sitzmann et al. 2020, section 3.2: what the weights feed into a sine after the first is standard normal, and comes
    out with the spread of an arcsine distribution."""
    field = build(Box.centered(2), width=256, layers=4)
    with torch.no_grad():
        x = 2 * rand(2000, 2) - 1
        for index, layer in enumerate(field.layers[:-1]):
            fed = 30 * x @ layer.weight.T
            assert index == 0 or 0.9 < fed.std() < 1.1
            x = torch.sin(fed + 30 * layer.bias)
            assert abs(x.std() - math.sqrt(0.5)) < 0.03


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
    coords = rand(3000, 2)  # 5 x 3000 x 64 numbers: several chunks
    with torch.no_grad():
        truth = torch.stack([field(coords) for field in fields])
        assert torch.allclose(fields[0].evaluate_stack(states_of(fields), coords), truth, atol=1e-5)


def test_gradients_of_a_stack():
    fields = [build(channels=2, width=4, omega_0=2.0, hidden_omega=2.0, seed=seed).double() for seed in range(2)]
    names, tensors = zip(*((name, value.requires_grad_()) for name, value in states_of(fields).items()), strict=True)
    coords = rand(3, 2, dtype=torch.float64).requires_grad_()

    def evaluate(coords, *tensors):
        return fields[0].evaluate_stack(dict(zip(names, tensors, strict=True)), coords)

    assert torch.autograd.gradcheck(evaluate, (coords, *tensors))


ENCODED = [
    {"encoding": "waves", "features": 5},
    {"encoding": "waves", "features": 4, "raw": True, "angle": 3.0},
    {"encoding": "bumps", "features": 6},
    {"activation": "softplus"},
    {"activation": "elu", "final": "tanh"},
]


@pytest.mark.parametrize("options", ENCODED, ids=str)
def test_encodings_and_activations_stack_save_and_differentiate_twice(options, tmp_path):
    fields = [build(channels=2, width=5, omega_0=2.0, hidden_omega=2.0, seed=seed, **options).double() for seed in range(3)]
    coords = rand(6, 2, dtype=torch.float64)
    truth = torch.stack([field(coords) for field in fields])
    assert torch.allclose(fields[0].evaluate_stack(states_of(fields), coords), truth, atol=1e-12)
    assert torch.allclose(stack(fields)(coords), truth, atol=1e-12)
    assert torch.autograd.gradgradcheck(fields[0], coords.requires_grad_())
    names, tensors = zip(*((name, value.requires_grad_()) for name, value in states_of(fields[:2]).items()), strict=True)

    def evaluate(coords, *tensors):
        return fields[0].evaluate_stack(dict(zip(names, tensors, strict=True)), coords)

    assert torch.autograd.gradcheck(evaluate, (coords[:2].detach().requires_grad_(), *tensors))
    SirenFormat().save(fields[1], tmp_path / "field.safetensors")
    again = SirenFormat().open(tmp_path / "field.safetensors")
    assert again.architecture == fields[1].architecture and torch.equal(again(coords), fields[1](coords))


def test_features_of_an_encoding():
    waves, x = build(encoding="waves", features=3, raw=True, angle=2.0, normalize=False).encoding, rand(4, 2)
    phase = 2 * x @ waves.frequencies.T
    assert torch.allclose(waves(x, {"frequencies": waves.frequencies}), torch.cat([x, phase.cos(), phase.sin()], 1), atol=1e-6)
    bumps = build(encoding="bumps", features=3).encoding
    for k in range(3):
        square = float(((x[0] - bumps.centres[k].detach()) ** 2).sum())
        found = bumps(x, dict(bumps.named_parameters()))[0, k]
        assert float(found.detach()) == pytest.approx(
            math.exp(-((float(bumps.sharpness[k].detach()) * square) ** 2)), rel=1e-4, abs=1e-12
        )


def test_an_empty_stack_and_no_points():
    field = build()
    empty = {name: value[None][:0] for name, value in field.state_dict().items()}
    assert field.evaluate_stack(empty, torch.zeros(5, 2)).shape == (0, 5, 1)
    assert field.evaluate_stack(states_of([field]), torch.zeros(0, 2)).shape == (1, 0, 1)


def test_half_precision_coordinates_keep_the_phase():
    field, coords = build(), rand(100, 2).half()
    assert field(coords).dtype == torch.float16
    assert torch.allclose(field(coords).float(), field(coords.float()), atol=1e-3)


def test_build_is_seeded_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b, c = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.layers[0].weight, b.layers[0].weight) and not torch.equal(a.layers[0].weight, c.layers[0].weight)


def test_it_lives_on_other_domains():
    sphere = Sphere()
    field = build(sphere, 2)
    assert field(sphere.from_unit(rand(10, 2))).shape == (10, 2)


def test_widths_may_differ(tmp_path):
    field = build(width=[8, 12], layers=99)
    assert field.architecture["width"] == [8, 12] and field.architecture["layers"] == 2
    inrbridge.write_native(field, tmp_path / "field.safetensors")
    assert SirenFormat().open(tmp_path / "field.safetensors").architecture == field.architecture


def test_channel_names_and_meaning_survive_the_file(tmp_path):
    field = build(channels=3, axes=("x", "y"), channel_ranges=[(0, 255)] * 3, normalize=False, final="sigmoid")
    field.channel_names = ("red", "green", "blue")
    SirenFormat().save(field, tmp_path / "field.safetensors")
    again = SirenFormat().open(tmp_path / "field.safetensors")
    assert again.architecture == field.architecture and again.channel_names == field.channel_names
    assert again.axes == ("x", "y") and again.channel_ranges == ((0.0, 255.0),) * 3


IMPOSSIBLE = [{"layers": 0}, {"width": 0}, {"final": "cosine"}, {"activation": "swish"}, {"encoding": "hash"},
              {"encoding": "waves", "features": 0}]  # fmt: skip


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=str)
def test_impossible_networks_are_refused(options):
    with pytest.raises(errors.InrBridgeError, match="expected"):
        build(**options)


def test_fitting_many_at_once_learns():
    """A few steps of Adam on stacked states: the way in which many signals are fitted."""
    fields = [build(width=16, seed=seed) for seed in range(4)]
    states = {name: value.requires_grad_() for name, value in states_of(fields).items()}
    coords = rand(64, 2)
    target = torch.stack([torch.sin(3 * (k + 1) * coords[:, :1]) for k in range(4)])
    optimizer = torch.optim.Adam(states.values(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (fields[0].evaluate_stack(states, coords) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 30


def test_fields_of_one_architecture_stack_as_one_group():
    fields = [build(seed=seed) for seed in range(3)]
    coords = rand(9, 2)
    with torch.no_grad():
        truth = torch.stack([field(coords) for field in fields])
    assert torch.allclose(stack(fields)(coords), truth, atol=1e-6)


def test_native_files_take_no_options_of_foreign_ones(tmp_path):
    path = SirenFormat().example(tmp_path)
    with pytest.raises(errors.ConfigError, match="hidden_omega"):
        SirenFormat().open(path, hidden_omega=1.0)


def test_files_of_other_formats_are_refused(tmp_path):
    save_file({"net.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(errors.CannotOpen, match="none of the dialects"):
        SirenFormat().open(tmp_path / "other.safetensors")
