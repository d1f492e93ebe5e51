"""Fine-tuning: a short distillation of a converted net on points."""

import copy

import pytest
import torch
from reference_calibration import waves
from torch import nn
from torch.nn import functional

from inrbridge.conversion import convert
from inrbridge.conversion.calibrating import calibrate
from inrbridge.conversion.finetuning import finetune, relative_error
from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import Sampled
from inrbridge.nn.reading import read
from inrbridge.sampling import lattice, sobol
from inrbridge.stacking import stack

SQUARE = Box.centered(2)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.fc = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = functional.relu(self.norm(self.conv1(x)), inplace=True)
        return self.fc(self.drop(functional.relu(self.conv2(x)).mean((2, 3))))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


def net_of(module: type[nn.Module] = Classifier):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = module()
    # maps on points, by a reading that blurs, which training can undo
    return convert(module.eval(), SQUARE, 8, order=1, neighbors=12, levels="points", oversampling=1.0, reader="polynomials")


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error(net, fields, points: Discretization) -> float:
    """How far the output on points is from that on the pixels, by the definition of the loss."""
    values, pixels = stack(fields), net.pixels()
    here, there = (Sampled(p, values(p.points)) for p in (points, pixels))
    with torch.no_grad():
        if hasattr(net, "features"):
            wanted = net(there).values
            found = read(net.features(here), pixels.points)
        else:
            wanted, found = net(there), net(here)
    wanted, found = wanted.flatten(0, -2), found.flatten(0, -2)
    return float(((found - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum())


FAST = {"steps": 30, "batch_size": 16, "lr": 3e-3, "pool": 2}


@pytest.mark.parametrize("module", [Classifier, Dense])
def test_outputs_come_nearer_on_other_fields_and_points(module):
    net, fields, others = net_of(module), waves(SQUARE, 2, 64, 0), waves(SQUARE, 2, 32, 1)
    points = sobol(SQUARE, 64, chance(9))
    before = error(net, others, points)
    losses = finetune(net, fields, sobol(SQUARE, 64), generator=chance(), **FAST)
    assert len(losses) == 30 and sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert error(net, others, points) < 0.9 * before


def test_the_first_loss_is_the_error():
    net, fields = net_of(), waves(SQUARE, 2, 16, 0)
    points = sobol(SQUARE, 64, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    loss = finetune(net, fields, points, generator=generator, steps=1, batch_size=16, pool=1, lr=1e-12)[0]
    assert loss == pytest.approx(error(net_of(), fields, points), rel=1e-4)
    taught, said = torch.randn(5, 3, generator=chance()), torch.zeros(5, 3)
    assert float(relative_error(taught, taught)) == 0.0
    assert float(relative_error(taught.mean(0) + said, taught)) == pytest.approx(1.0)


def test_pixels_stay_bitwise_what_they_were():
    net, images = net_of(), torch.randn(3, 2, 8, 8, generator=chance())
    network = copy.deepcopy(net.network.state_dict())
    with torch.no_grad():
        before = net(images)
    finetune(net, waves(SQUARE, 2, 16, 0), lattice(SQUARE, 64), generator=chance(), **FAST)
    with torch.no_grad():
        assert torch.equal(net(images), before)
    assert all(torch.equal(value, network[name]) for name, value in net.network.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not torch.equal(net.adapted[0].conv1.weight, net.network.conv1.weight)
    assert torch.equal(net.adapted[0].norm.running_mean, net.network.norm.running_mean)


def test_the_same_generator_gives_the_same_weights_and_another_does_not():
    states = []
    for seed in (0, 0, 1):
        net = net_of().train()
        finetune(net, waves(SQUARE, 2, 16, 0), lattice(SQUARE, 64), generator=chance(seed), **{**FAST, "steps": 4})
        assert net.training
        states.append(net.adapted[0].conv1.weight)
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_it_goes_on_from_a_calibration():
    net, fields, points = net_of(), waves(SQUARE, 2, 32, 0), sobol(SQUARE, 64)
    calibrate(net, fields, points)
    calibrated = copy.deepcopy(net.adapted[0].state_dict())
    finetune(net, fields, points, generator=chance(), steps=1, lr=1e-9)
    assert len(net.adapted) == 1
    assert all(torch.allclose(value, calibrated[name], atol=1e-6) for name, value in net.adapted[0].state_dict().items())


def test_labels_are_learned():
    net, fields, points = net_of(), waves(SQUARE, 2, 16, 0), lattice(SQUARE, 64)
    with torch.no_grad():
        labels = net(stack(fields), points).argmin(1)  # the opposite of what the net says
    finetune(net, fields, points, generator=chance(), labels=labels, label_weight=1e4, steps=60, batch_size=16, lr=2e-2, pool=1)
    with torch.no_grad():
        told = net(stack(fields), points).argmax(1)
    assert (told == labels).float().mean() > 0.8


def test_points_of_no_sampler_are_used_as_they_are():
    net, fields = net_of(), waves(SQUARE, 2, 16, 0)
    known = lattice(SQUARE, 64)
    bare = Discretization(known.points, known.weights, SQUARE)
    losses = finetune(net, fields, bare, generator=chance(), **{**FAST, "steps": 3})
    assert len(losses) == 3 and net.adapted_to[0].sampler == "points"
    assert net.network_for(bare) is net.adapted[0]


def test_progress_is_told():
    seen = []
    finetune(net_of(), waves(SQUARE, 2, 16, 0), lattice(SQUARE, 64), generator=chance(), steps=2, pool=1,
             show=lambda done, total, figures: seen.append((done, total, set(figures))))  # fmt: skip
    assert seen == [(1, 2, {"loss"}), (2, 2, {"loss"})]


def test_mistakes_are_told():
    net, fields, points = net_of(), waves(SQUARE, 2, 16, 0), lattice(SQUARE, 64)
    with pytest.raises(ConfigError, match="Got no fields to fine-tune on"):
        finetune(net, [], points, generator=chance())
    with pytest.raises(ConfigError, match="Got steps=0 to fine-tune with, expected a whole number from 1 on"):
        finetune(net, fields, points, generator=chance(), steps=0)
    with pytest.raises(ConfigError, match="Got lr=0 to fine-tune with, expected a number above 0"):
        finetune(net, fields, points, generator=chance(), lr=0)
    with pytest.raises(ConfigError, match="Got 3 labels for 16 fields"):
        finetune(net, fields, points, generator=chance(), labels=[0, 1, 2])
    with pytest.raises(ConfigError, match="Got 16 labels for a dense net"):
        finetune(net_of(Dense), fields, points, generator=chance(), labels=[0] * 16)
    with pytest.raises(ShapeMismatch, match="Got points on Box"):
        finetune(net, fields, lattice(Box.unit(2), 64), generator=chance())
    with pytest.raises(ConfigError, match="Got the pixel grid"):
        finetune(net, fields, net.pixels(), generator=chance())
    with pytest.raises(ShapeMismatch, match="Got fields of 3 channels, expected 2"):
        finetune(net, waves(SQUARE, 3, 16, 0), points, generator=chance())
