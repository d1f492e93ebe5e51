"""Files that strangers have: without biases, of many coordinates, of modules that tell their activations, of other names."""

import math
import sys
import types
from itertools import pairwise

import pytest
import torch
from inrbridge_siren import SirenFormat
from inrbridge_siren.dialects import detect
from torch import nn

from inrbridge import errors, open_field


def sines(layers, coords, omegas, final=lambda values: values):
    """Evaluate (weight, bias) pairs one point at a time."""
    rows = []
    for x in coords:
        for (weight, bias), omega in zip(layers[:-1], omegas, strict=True):
            x = torch.sin(omega * (weight @ x + bias))
        rows.append(final(layers[-1][0] @ x + layers[-1][1]))
    return torch.stack(rows)


def drawn(*sizes, scale=0.2):
    generator = torch.Generator().manual_seed(0)
    return [(scale * torch.randn(b, a, generator=generator), scale * torch.randn(b, generator=generator))
            for a, b in pairwise(sizes)]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "omegas"),
    [(("net.0.linear", "net.1.linear", "last_layer.linear"), (30, 30)), (("layers.0", "layers.1", "last_layer"), (30, 1))],
)
def test_layers_without_biases(names, omegas, tmp_path):
    layers = [(weight, torch.zeros(len(weight))) for weight, _ in drawn(2, 8, 8, 3)]
    torch.save({f"{name}.weight": weight for name, (weight, _) in zip(names, layers, strict=True)}, tmp_path / "net.pt")
    coords = torch.rand(20, 2, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(SirenFormat().open(tmp_path / "net.pt")(coords), sines(layers, coords, omegas), atol=1e-5)


def test_a_lost_bias_is_no_absent_one():
    shapes = {"layers.0.weight": (8, 2), "layers.0.bias": (8,), "last_layer.weight": (3, 8)}
    assert detect(shapes) is None


@pytest.mark.parametrize("dim", [17, 20, 33, 129])
def test_state_spaces_of_deepreach_are_coordinates(dim, tmp_path):
    layers = drawn(dim, 8, 8, 1, scale=0.3 / dim)
    state = {f"net.net.{i}.0.{kind}": value for i, pair in enumerate(layers)
             for kind, value in zip(("weight", "bias"), pair, strict=True)}  # fmt: skip
    torch.save(state, tmp_path / "model.pth")
    field = SirenFormat().open(tmp_path / "model.pth")
    coords = torch.rand(9, dim, generator=torch.Generator().manual_seed(1))
    assert field.domain.dim == dim
    assert torch.allclose(field(coords), sines(layers, coords, (30, 30)), atol=1e-5)


@pytest.mark.parametrize("module", [nn.ReLU, nn.Tanh])
def test_pickled_modules_tell_their_activations(module, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), module(), nn.Linear(8, 8), module(), nn.Linear(8, 3), nn.Sigmoid())
    torch.save(network, tmp_path / "net.pt")
    coords = torch.rand(20, 2)
    field = SirenFormat().open(tmp_path / "net.pt")
    assert torch.allclose(field(coords), network(coords), atol=1e-6)
    assert "final = sigmoid (told by the modules of the file)" in field.assumed
    assert SirenFormat().open(tmp_path / "net.pt", final="identity", activation="sine").final == "identity"


def test_layers_of_any_names_open_on_request(tmp_path):
    layers = drawn(1, 8, 8, 2)
    names = ("input_layer", "hidden_layers.0", "output_layer")
    state = {f"{name}.{kind}": value for name, pair in zip(names, layers, strict=True)
             for kind, value in zip(("weight", "bias"), pair, strict=True)}  # fmt: skip
    torch.save(state, tmp_path / "net.pt")
    assert detect({name: tuple(value.shape) for name, value in state.items()}) is None
    with pytest.raises(errors.CannotOpen, match="dialect=ordered"):
        SirenFormat().open(tmp_path / "net.pt")
    field = SirenFormat().open(tmp_path / "net.pt", dialect="ordered", omega_0=1.0, hidden_omega=1.0)
    coords = torch.linspace(-math.pi, math.pi, 20)[:, None]
    assert torch.allclose(field(coords), sines(layers, coords, (1, 1)), atol=1e-6)


@pytest.fixture
def strangers(monkeypatch):
    """A module whose classes a file refers to, gone when the file is opened."""
    module = types.ModuleType("strangers")

    class SineLayer(nn.Module):
        def __init__(self, fan_in, fan_out, omega):
            super().__init__()
            self.omega_0, self.linear = omega, nn.Linear(fan_in, fan_out)

    class Siren(nn.Module):
        def __init__(self, omegas):
            super().__init__()
            sizes = [3] + [6] * len(omegas)
            layers = [SineLayer(sizes[i], sizes[i + 1], omega) for i, omega in enumerate(omegas)]
            self.net = nn.Sequential(*layers, nn.Linear(6, 1))

    for one in (SineLayer, Siren):
        one.__module__, one.__qualname__ = "strangers", one.__name__
        setattr(module, one.__name__, one)
    monkeypatch.setitem(sys.modules, "strangers", module)
    return module


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("omegas", [[50, 50], [40, 10, 20, 10]])
@pytest.mark.parametrize("new", [True, False])
def test_pickled_modules_tell_their_frequencies(omegas, new, strangers, monkeypatch, tmp_path):
    torch.manual_seed(0)
    module = strangers.Siren(omegas)
    torch.save(module, tmp_path / "net.pt", _use_new_zipfile_serialization=new)
    monkeypatch.delitem(sys.modules, "strangers")
    field, x = open_field(tmp_path / "net.pt"), torch.rand(20, 3, generator=torch.Generator().manual_seed(1))
    assert field.omega_0 == omegas[0] and field.hidden_omega == omegas[1]
    assert any("frequencies are those of the file's modules" in text for text in field.assumed)
    values = field(x)
    for omega, layer in zip(omegas, module.net, strict=False):
        x = torch.sin(omega * layer.linear(x))
    assert torch.allclose(values, module.net[-1](x), atol=1e-5)
