"""The fourier format: the laws of every format, its mathematics, its stacked evaluation, foreign files."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_fourier import FourierFormat
from inrbridge_fourier.dialects import DIALECTS, detect

from inrbridge import Box, Probe, errors
from inrbridge.testing import FormatConformance

DATA = os.environ.get("INRBRIDGE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")


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


@pytest.mark.parametrize("options", [{"layers": 0}, {"width": 0}, {"features": 0}, {"final": "tanh"}])
def test_impossible_networks_are_refused(options):
    with pytest.raises(errors.InrBridgeError, match="expected"):
        build(**options)


def test_native_files_take_no_options_of_foreign_ones(tmp_path):
    with pytest.raises(errors.ConfigError, match="final"):
        FourierFormat().open(FourierFormat().example(tmp_path), final="sigmoid")


# file, golden values, dialect
REAL = [
    ("fourier_features/jmclong_minted_sequential.pt", "fourier_features/jmclong_minted.golden.npz", "jmclong"),
    ("fourier_features/jmclong_minted_split.pt", "fourier_features/jmclong_minted.golden.npz", "jmclong"),
    ("inr_datasets/dinet_minted/inet12_rff_test_0.pt", "inr_datasets/dinet_minted/inet12_rff_test_0.golden.npz", "dinet"),
]


@needs_data
@pytest.mark.parametrize(("file", "golden", "dialect"), REAL, ids=[row[0] for row in REAL])
def test_real_files_have_the_values_of_the_code_that_wrote_them(file, golden, dialect):
    path = Path(DATA, "checkpoints", file)
    assert FourierFormat().recognizes(Probe(path))
    field = FourierFormat().open(path)
    truth = np.load(Path(DATA, "checkpoints", golden), allow_pickle=False)
    with torch.no_grad():
        values = field(torch.tensor(truth["coords"])).numpy()
    assert np.abs(values - truth["output"]).max() <= 1e-5 * np.abs(truth["output"]).max()
    assert f"dialect = {dialect} (by the names of the tensors)" in field.assumed
    field.domain.check(torch.tensor(truth["coords"]))


@needs_data
def test_real_files_of_others_are_declined():
    others = ["siren/coin_minted_kodim15_192x128.pt", "siren/dalmia_celtic.model", "nerf/krrish/lego_lowres.ckpt",
              "inr_datasets/dws_minted/inr_rff8.pth", "fourier_features/kees_phasefield_bumpyFF.pth"]  # fmt: skip
    for file in others:
        assert not FourierFormat().recognizes(Probe(Path(DATA, "checkpoints", file))), file


def sequential(m=8, dim=2, width=6, channels=1):
    """An encoding and two linear layers with an activation between them, as nn.Sequential names them."""
    sizes = {"1": (width, 2 * m), "3": (channels, width)}
    state = {"0.b": rand(m, dim)}
    for name, shape in sizes.items():
        state |= {f"{name}.weight": rand(*shape) - 0.5, f"{name}.bias": rand(shape[0]) - 0.5}
    return state


def test_a_sequence_with_relu(tmp_path):
    state = sequential()
    torch.save({"model": state}, tmp_path / "net.pt")
    field, coords = FourierFormat().open(tmp_path / "net.pt"), rand(5, 2)
    phase = 2 * math.pi * coords @ state["0.b"].T
    x = torch.cat([phase.cos(), phase.sin()], -1)
    x = torch.relu(x @ state["1.weight"].T + state["1.bias"])
    assert torch.allclose(field(coords), x @ state["3.weight"].T + state["3.bias"], atol=1e-5)
    assert field.channel_names == ("gray",) and field.architecture["sigma"] is None
    FourierFormat().save(field, tmp_path / "native.safetensors")
    again = FourierFormat().open(tmp_path / "native.safetensors")
    assert torch.equal(again(coords), field(coords)) and again.architecture == field.architecture


def test_equal_architectures_of_files_agree_so_that_they_stack(tmp_path):
    for seed in (1, 2):
        state = sequential()
        state["0.b"] = state["0.b"] * seed
        torch.save(state, tmp_path / f"{seed}.pt")
    assert FourierFormat().open(tmp_path / "1.pt").architecture == FourierFormat().open(tmp_path / "2.pt").architecture


@pytest.mark.parametrize("spoil", ["no frequencies", "width", "bias", "extra"])
def test_what_fits_no_dialect_is_declined(spoil, tmp_path):
    state = sequential()
    assert detect({name: tuple(value.shape) for name, value in state.items()}).name == "sequential"
    if spoil == "no frequencies":
        del state["0.b"]
    elif spoil == "width":
        state["0.b"] = rand(9, 2)
    elif spoil == "bias":
        del state["1.bias"]
    else:
        state["running_mean"] = rand(3)
    assert detect({name: tuple(value.shape) for name, value in state.items()}) is None
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(errors.CannotOpen, match="frequencies"):
        FourierFormat().open(tmp_path / "net.pt")


def test_wrong_options_are_told(tmp_path):
    torch.save(sequential(), tmp_path / "net.pt")
    with pytest.raises(errors.UnknownName, match="sequential"):
        FourierFormat().open(tmp_path / "net.pt", dialect="sequentail")
    with pytest.raises(errors.CannotOpen, match="dinet"):
        FourierFormat().open(tmp_path / "net.pt", dialect="dinet")
    with pytest.raises(errors.ShapeMismatch, match="2 numbers"):
        FourierFormat().open(tmp_path / "net.pt", high=[1, 1, 1])
    assert FourierFormat().open(tmp_path / "net.pt", low=-1).domain == Box((-1, -1), (1, 1))


@needs_data
def test_a_dialect_that_maps_its_domain_keeps_it():
    path = Path(DATA, "checkpoints/inr_datasets/dinet_minted/inet12_rff_test_0.pt")
    with pytest.raises(errors.ConfigError, match="fixes"):
        FourierFormat().open(path, low=0)


def test_every_dialect_names_its_source():
    assert all(dialect.source for dialect in DIALECTS.values())
