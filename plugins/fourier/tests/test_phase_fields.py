"""Kees' phase fields without Fourier features: layers on the coordinates themselves, which may enter again."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from inrbridge import open_field, save_field


def layers(sizes, first, seed=3):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes), first):
        state[f"lin{i}.weight"] = torch.randn(fan_out, fan_in, generator=generator) / 2
        state[f"lin{i}.bias"] = torch.randn(fan_out, generator=generator) / 2
    return state


def points(dim):
    return torch.rand(9, dim, generator=torch.Generator().manual_seed(4)) - 0.5


@pytest.mark.parametrize(("dim", "skip"), [(3, 2), (3, None), (2, 2)])
def test_coordinates_without_frequencies(dim, skip, tmp_path):
    state = layers([dim, 8, 8, 8, 1], 0)
    for kind in ("weight", "bias") if skip else ():
        state[f"lin{skip - 1}.{kind}"] = state[f"lin{skip - 1}.{kind}"][:-dim]
    torch.save(state, tmp_path / "net.pth")
    h = x = points(dim)
    for i in range(4):
        h = torch.cat([h, x], 1) / math.sqrt(2) if i == skip else h
        h = h @ state[f"lin{i}.weight"].T + state[f"lin{i}.bias"]
        h = functional.softplus(h, 100) if i < 3 else h
    field = open_field(tmp_path / "net.pth")
    assert torch.allclose(field(x), h, atol=1e-6)
    stacked = field.evaluate_stack({name: value[None] for name, value in field.state_dict().items()}, x)
    assert torch.allclose(stacked[0], h, atol=1e-5)
    save_field(field, tmp_path / "own.safetensors")
    assert torch.equal(open_field(tmp_path / "own.safetensors")(x), field(x))


def test_the_first_networks_are_relu_and_tanh(tmp_path):
    state = layers([2, 8, 8, 1], 1)
    torch.save(state, tmp_path / "net.pth")
    h = x = points(2)
    for i in (1, 2, 3):
        h = h @ state[f"lin{i}.weight"].T + state[f"lin{i}.bias"]
        h = torch.relu(h) if i < 3 else torch.tanh(h)
    field = open_field(tmp_path / "net.pth")
    assert torch.allclose(field(x), h, atol=1e-6)
    assert field.channel_ranges == ((-1.0, 1.0),) and not any("sigmoid" in text for text in field.assumed)
