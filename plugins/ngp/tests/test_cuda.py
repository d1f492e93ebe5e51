"""The evaluator by tiny-cuda-nn: a package of the same name, written here in loops from its documentation, shows on the CPU
that parameters and inputs are handed over as they should be; with the real package and a GPU both evaluators are compared.
"""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from inrbridge_ngp import NgpFormat, cuda
from inrbridge_ngp.networks import ACTIVATIONS

from inrbridge import Box, Product, Sphere, errors

SPACE = Product(Box((-1, -2, 0), (1, 2, 3)), Sphere())
needs_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and importlib.util.find_spec("tinycudann")), reason="needs a GPU and the package tinycudann"
)
VARIANTS = {
    "values": (Box.unit(2), 3, {"final": "sigmoid"}),
    "wide": (Box.unit(3), 1, {"width": 48, "layers": 2, "activation": "tanh"}),
    "features": (Box((0, 1, 2, 3), (2, 2, 4, 4)), 2, {"features": 4, "levels": 3}),
    "dense": (Box.unit(2), 1, {"grid": "dense", "interpolation": "smoothstep"}),
    "tiled": (Box.unit(2), 1, {"grid": "tiled", "interpolation": "nearest"}),
    "prime": (Box.unit(3), 1, {"hash": "prime"}),
    "medium": (Box.centered(3), 4, {"head": "medium", "convention": {"outside": "dark", "low": [-0.5] * 3, "high": [0.5] * 3}}),
    "radiance": (SPACE, 4, {"geometry": 16, "harmonics": 4}),
    "odd widths": (SPACE, 4, {"geometry": 5, "harmonics": 3, "colour_width": 16, "colour_layers": 1}),
    "a bias beside": (SPACE, 4, {"geometry": 15, "harmonics": 4, "colour_bias": "first"}),
    "a bias of its own": (SPACE, 4, {"geometry": 16, "harmonics": 4, "colour_bias": "first"}),
    "toned": (SPACE, 4, {"convention": {"tone": True}}),
    "contracted": (Product(Box.centered(3, 5), Sphere()), 4,
                   {"convention": {"contraction": "cube", "low": [-1] * 3, "high": [1] * 3, "outside": "origin"}}),
}  # fmt: skip
variants = pytest.mark.parametrize(("domain", "channels", "options"), VARIANTS.values(), ids=VARIANTS)


def build(domain, channels, **options):
    options = {"width": 16, "levels": 4, "log2_table": 7, "base": 3, "finest": 20} | options
    field = NgpFormat().build(domain, channels, generator=torch.Generator().manual_seed(0), **options)
    with torch.no_grad():  # fresh tables and biases are near 0
        field.table.mul_(30)
        for name, value in field.named_parameters():
            if name.endswith("bias"):
                value.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    return field


def points(domain, n):
    unit = torch.rand(n, domain.unit_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return domain.from_unit(unit).float()


def activation(name):
    return lambda h: ACTIVATIONS[{"ReLU": "relu", "Tanh": "tanh"}[name]](torch.tensor(h)).numpy()


@pytest.fixture
def documented(slow, monkeypatch):
    """A module `tinycudann` whose classes evaluate on the CPU what they are given."""
    package = ModuleType("tinycudann")
    package.precision = torch.float32

    class Module(torch.nn.Module):
        def __init__(self, count, inputs):
            super().__init__()
            self.params, self.inputs = torch.nn.Parameter(torch.zeros(count)), inputs

        def forward(self, x):
            assert x.shape[1:] == (self.inputs,) and x.dtype == torch.float32 and self.params.ndim == 1
            return torch.tensor(self.evaluate(x.detach().numpy(), self.params.detach().numpy()), dtype=package.precision)

    def check(config):
        assert config["otype"] == ("FullyFusedMLP" if config["n_neurons"] in (16, 32, 64, 128) else "CutlassMLP")
        assert config["output_activation"] == "None"

    class Network(Module):
        def __init__(self, n_input_dims, n_output_dims, network_config):
            check(network_config)
            self.shape = n_output_dims, network_config["n_neurons"], network_config["n_hidden_layers"]
            super().__init__(slow.count(n_input_dims, *self.shape), n_input_dims)
            self.act = activation(network_config["activation"])

        def evaluate(self, x, params):
            outputs, width, layers = self.shape
            return slow.network(x, params, width, layers, outputs, 1.0, self.act)

    class NetworkWithInputEncoding(Module):
        def __init__(self, n_input_dims, n_output_dims, encoding_config, network_config):
            check(network_config)
            e, self.act = encoding_config, activation(network_config["activation"])
            assert e["otype"] == "Grid"
            self.shape = n_output_dims, network_config["n_neurons"], network_config["n_hidden_layers"]
            self.grid = {"levels": e["n_levels"], "log2_table": e["log2_hashmap_size"], "base": e["base_resolution"],
                         "growth": e["per_level_scale"], "kind": e["type"].lower()}  # fmt: skip
            first = {"CoherentPrime": 1, "Prime": 1958374283}[e["hash"]]
            self.more = {"features": e["n_features_per_level"], "interpolation": e["interpolation"].lower(),
                         "primes": (first, 2654435761, 805459861, 3674653429)}  # fmt: skip
            self.cut = slow.count(e["n_levels"] * e["n_features_per_level"], *self.shape)
            rows = slow.rows_of(n_input_dims, **self.grid)
            super().__init__(self.cut + rows * e["n_features_per_level"], n_input_dims)

        def evaluate(self, x, params):
            outputs, width, layers = self.shape
            features = slow.grid(x, params[self.cut :], **self.grid, **self.more)
            return slow.network(features, params[: self.cut], width, layers, outputs, 0.0, self.act)

    package.Network, package.NetworkWithInputEncoding = Network, NetworkWithInputEncoding
    monkeypatch.setitem(sys.modules, "tinycudann", package)
    cuda._made.cache_clear()
    yield package
    cuda._made.cache_clear()


@variants
def test_what_is_handed_over_gives_the_same_field(domain, channels, options, documented):
    field, coords = build(domain, channels, **options), points(domain, 12)
    assert cuda.obstacle(field) == ""
    with torch.no_grad():
        found, truth = cuda.evaluate_on_cuda(field, coords), field(coords)
    assert found.shape == truth.shape and torch.allclose(found, truth, atol=1e-5, rtol=1e-5)
    documented.precision = torch.float16  # as its real outputs are
    with torch.no_grad():
        half = cuda.evaluate_on_cuda(field, coords)
    assert half.dtype == torch.float32 and torch.allclose(half, truth, atol=4e-3, rtol=4e-3)


def test_the_packed_parameters_are_those_of_the_layout(slow):
    field = build(SPACE, 4, geometry=5, harmonics=3, colour_bias="first")
    base, colour = cuda.base_parameters(field).detach(), cuda.colour_parameters(field).detach()
    assert base.numel() == slow.count(8, 5, 16, 1) + field.table.numel()
    first = base[: 16 * 16].reshape(16, 16)
    assert torch.equal(first[:, :8], field.base[0].weight) and not first[:, 8:].any()
    last = base[16 * 16 : 2 * 16 * 16].reshape(16, 16)
    assert torch.equal(last[:5], field.base[1].weight) and not last[5:].any()
    assert torch.equal(base[-field.table.numel() :], field.table.flatten())
    first = colour[: 16 * 16].reshape(16, 16)  # 9 harmonics, 5 outputs, the bias against an input of 1, and one column more
    assert torch.equal(first[:, :14], field.colour[0].weight) and torch.equal(first[:, 14], field.colour[0].bias)
    assert not first[:, 15].any() and colour.numel() == slow.count(14, 3, 16, 2)


def test_modules_are_made_once_for_all_fields_of_an_architecture(documented):
    a, b = build(Box.unit(2), 3), build(Box.unit(2), 3)
    assert cuda._modules(a) is cuda._modules(b) and cuda._modules(a) is not cuda._modules(build(Box.unit(2), 2))


def test_when_it_is_chosen(monkeypatch):
    field, coords = build(Box.unit(2), 1), points(Box.unit(2), 3)
    on_gpu = type("OnGpu", (), {"is_cuda": True, "requires_grad": False, "dtype": torch.float32})()
    monkeypatch.setattr(cuda, "is_installed", lambda: True)
    assert not cuda.wants_cuda(field, coords)  # on the CPU
    with torch.no_grad():
        assert cuda.wants_cuda(field, on_gpu)
        on_gpu.dtype = torch.float64
        assert not cuda.wants_cuda(field, on_gpu)
        on_gpu.dtype = torch.float32
        assert not cuda.wants_cuda(build(Box.unit(2), 1, bias="all"), on_gpu)
    assert not cuda.wants_cuda(field, on_gpu)  # gradients are asked for
    field.evaluator = "tinycudann"
    assert cuda.wants_cuda(field, on_gpu)
    with pytest.raises(errors.ConfigError, match='not on CUDA; choose evaluator="torch"'):
        field(coords)
    field.evaluator = "torch"
    assert not cuda.wants_cuda(field, on_gpu)
    monkeypatch.setattr(cuda, "is_installed", lambda: False)
    field.evaluator = "tinycudann"
    with pytest.raises(errors.MissingDependency, match=r"pip install .*tiny-cuda-nn"):
        field(coords)


@pytest.mark.parametrize(
    ("domain", "channels", "options", "text"),
    [(Box.unit(2), 1, {"frequencies": 2}, "other features"), (Box.unit(2), 1, {"layout": "torch-ngp"}, "layout torch-ngp"),
     (Box.unit(1), 1, {}, "1 dimensions"), (Box.unit(2), 1, {"features": 3}, "3 features"),
     (Box.unit(2), 1, {"bias": "first"}, "biases"), (SPACE, 4, {"colour_bias": "all"}, "biases"),
     (Box.unit(2), 1, {"width": 24}, "multiples of 16"), (SPACE, 4, {"colour_width": 8}, "multiples of 16"),
     (Box.unit(2), 1, {"layers": 0}, "no hidden"), (SPACE, 4, {"colour_layers": 0}, "no hidden"),
     (SPACE, 4, {"convention": {"outside": "blank"}}, "beyond its box")],
)  # fmt: skip
def test_fields_that_it_cannot_evaluate(domain, channels, options, text):
    assert text in cuda.obstacle(build(domain, channels, **options))


@pytest.mark.gpu
@needs_gpu
@variants
def test_both_evaluators_agree_on_a_gpu(domain, channels, options):
    field, coords = build(domain, channels, **options).cuda(), points(domain, 1000).cuda()
    with torch.no_grad():
        field.evaluator = "tinycudann"
        found = field(coords)
        field.evaluator = "torch"
        truth = field(coords)
    scale = truth.abs().amax(0).clamp(min=1)
    assert np.percentile(((found - truth).abs() / scale).cpu().numpy(), 99) < 1e-2


@pytest.mark.gpu
@needs_gpu
def test_gradients_agree_on_a_gpu():
    field, coords = build(Box.unit(3), 3).cuda(), points(Box.unit(3), 1000).cuda()
    grads = []
    for name in ("tinycudann", "torch"):
        field.evaluator = name
        grads.append(torch.autograd.grad(field(coords).square().sum(), list(field.parameters())))
    for found, truth in zip(*grads, strict=True):
        assert float((found - truth).norm() / truth.norm()) < 2e-2
