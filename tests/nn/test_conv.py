"""Convolutions as modules: parameters, shapes, generators, errors."""

import pytest
import torch

from inrbridge.domains import Box
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn.conv import BasisConv, Conv, MLPConv
from inrbridge.nn.sampled import Sampled
from inrbridge.sampling import grid, lattice, sobol

H = 2 / 16


def layers(generator, dim=2, dtype=torch.float64):
    made = [
        Conv(2, 3, 3, spacing=H, dim=dim, generator=generator),
        MLPConv(2, 3, half_width=0.3, bins=16, dim=dim, generator=generator),
    ]
    made += [
        BasisConv(2, 3, 3, spacing=H, basis=b, dim=dim, generator=generator)
        for b in ("spline", "polynomial", "gaussian", "radial")
    ]
    return [layer.to(dtype) for layer in made]


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("which", range(6))
def test_every_kernel_works_in_every_dimension(dim, which, generator):
    layer = layers(generator, dim)[which]
    source = lattice(Box.centered(dim), {1: 64, 2: 256, 3: 4096}[dim], generator, dtype=torch.float64)
    out = layer(Sampled(source, torch.randn(2, len(source), 2, dtype=torch.float64, generator=generator)))
    assert out.values.shape == (2, len(source), 3) and out.values.isfinite().all() and out.discretization is source


@pytest.mark.parametrize("which", range(6))
def test_gradients(which, generator):
    layer = layers(generator)[which]
    source = sobol(Box.centered(2), 64, generator, dtype=torch.float64)
    values = torch.randn(2, 64, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    names, tensors = zip(*layer.named_parameters(), strict=True)

    def run(values, *tensors):
        return torch.func.functional_call(layer, dict(zip(names, tensors, strict=True)), (Sampled(source, values),)).values

    assert torch.autograd.gradcheck(run, (values, *tensors), fast_mode=True)


def test_same_seed_same_weights():
    a, b = (Conv(2, 3, spacing=H, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)


def test_stride_keeps_one_point_in_four(generator):
    source = lattice(Box.centered(2), 256, generator)
    out = Conv(1, 4, spacing=H, stride=2, generator=generator)(Sampled(source, torch.zeros(1, 256, 1)))
    assert out.discretization is source.thin(2) and out.values.shape == (1, 64, 4)


def test_nothing_is_mutated(generator):
    source = lattice(Box.centered(2), 256, generator)
    values = torch.randn(2, 256, 2, generator=generator)
    before, points = values.clone(), source.points.clone()
    for layer in layers(generator, dtype=torch.float32):
        layer(Sampled(source, values))
    assert torch.equal(values, before) and torch.equal(source.points, points)


def test_bins_may_change_at_any_time(generator):
    layer = MLPConv(2, 3, half_width=0.3, bins=16, generator=generator)
    layer.bins = 64
    assert layer.bins == 64 and len({tuple(s) for s in layer.rule.seeds}) == 64


def test_bf16_and_float32_follow_the_input(generator):
    source = grid(Box.centered(2), (16, 16))
    layer = Conv(1, 2, spacing=H, generator=generator)
    assert layer(Sampled(source, torch.zeros(1, 256, 1))).values.dtype == torch.float32
    assert layer.double()(Sampled(source, torch.zeros(1, 256, 1).double())).values.dtype == torch.float64


def test_wrong_requests_say_what_to_do(generator):
    source = lattice(Box.centered(2), 64, generator)
    with pytest.raises(ShapeMismatch, match=r"Got 3 channels in Conv.*expected 2.*in_channels=3"):
        Conv(2, 3, spacing=H)(Sampled(source, torch.zeros(1, 64, 3)))
    with pytest.raises(ConfigError, match="border"):
        Conv(2, 3, spacing=H, border="same")
    with pytest.raises(ConfigError, match="groups"):
        Conv(3, 4, spacing=H, groups=2)
    with pytest.raises(ConfigError, match='basis "fourier"'):
        BasisConv(2, 3, spacing=H, basis="fourier")
    with pytest.raises(ConfigError, match="one value for each axis"):
        Conv(2, 3, (3, 3, 3), spacing=(H, H))
    with pytest.raises(ShapeMismatch, match="one row for each point"):
        Sampled(source, torch.zeros(1, 63, 3))
