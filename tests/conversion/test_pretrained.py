"""Weights by their names, whatever a checkpoint wraps them in, and the normalization of a pretrained network as a part of it."""

import pytest
import torch
from torch import nn

from inrbridge import Box, convert
from inrbridge.conversion.pretrained import Normalized, fill
from inrbridge.errors import ConfigError, ShapeMismatch


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.fixture
def state(generator):
    return {name: torch.rand(value.shape, generator=generator) for name, value in network().state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.module.", "model.backbone."])
def test_weights_are_found_behind_any_prefix(state, prefix):
    wrapped = {prefix + name: value for name, value in state.items()}
    wrapped |= {"optimizer.state.0.exp_avg": torch.zeros(3), "epoch": torch.zeros(())} if prefix else {}
    filled = fill(network(), wrapped)
    assert not filled.training
    assert all(torch.equal(value, state[name].to(value)) for name, value in filled.state_dict().items())


def test_counters_that_old_files_lack_are_left_alone(state):
    del state["1.num_batches_tracked"]
    assert fill(network(), state)[1].num_batches_tracked == 0


def test_what_is_missing_or_left_over_is_told_by_name(state):
    more = {**state, "0.total_ops": torch.zeros(1), "aux.0.weight": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"have 0.total_ops, aux.0.weight besides"):
        fill(network(), more)
    fill(network(), more, ignore=["*total_ops", "aux.*"])
    del more["2.weight"]
    with pytest.raises(ConfigError, match=r"lack 2.weight and have"):
        fill(network(), more)
    with pytest.raises(ConfigError, match=r"lack 0.weight, 0.bias, 1.weight and 5 more"):
        fill(network(), {"features.weight": torch.zeros(1)}, prefix="features.", ignore=["*"])
    with pytest.raises(ShapeMismatch, match=r"2.weight of \(3, 4, 1, 1\), expected \(2, 4, 1, 1\)"):
        fill(network(), {**state, "2.weight": torch.zeros(3, 4, 1, 1)})


def test_two_states_of_one_file_are_told_apart(state):
    twice = {f"{prefix}.{name}": value + i for i, prefix in enumerate(("ema", "model")) for name, value in state.items()}
    with pytest.raises(ConfigError, match=r"ema\., model\."):
        fill(network(), twice)
    torch.testing.assert_close(fill(network(), twice, prefix="model.")[0].weight.data, state["0.weight"] + 1)


def test_a_normalized_network_takes_the_values_of_fields(generator):
    plain = network().eval()
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    x = torch.rand(2, 3, 8, 8, generator=generator)
    expected = plain((x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
    net = convert(Normalized(plain, mean, std).eval(), Box.centered(2), 8)
    torch.testing.assert_close(net(x), expected)
    assert {name for name, _ in net.network.named_buffers()} >= {"mean", "std"}
    line = Normalized(nn.Conv1d(1, 1, 1), [2.0], [4.0], dim=1)
    torch.testing.assert_close(line(torch.full((1, 1, 5), 6.0)), line.network(torch.ones(1, 1, 5)))


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.1, 0.1]), ([], []), ([0.5], [0.0])])
def test_a_normalization_that_cannot_be_is_told(mean, std):
    with pytest.raises(ConfigError, match="above 0"):
        Normalized(network(), mean, std)
