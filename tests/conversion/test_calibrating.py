"""Calibration: closed-form corrections on points; the pixel grid never changes."""

import copy
import json

import pytest
import torch
from reference_calibration import at_points_of, outputs_of_layers, waves
from torch import nn
from torch.nn import functional

from inrbridge.conversion import convert
from inrbridge.conversion.calibrating import calibrate
from inrbridge.conversion.correcting import Calls, regress
from inrbridge.conversion.finetuning import relative_error
from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Torus, domain_from_config
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.models import build_model
from inrbridge.models.converted import Places
from inrbridge.models.converted.located import feature_map
from inrbridge.models.converted.rules import Run, apply_on_points
from inrbridge.nn import Sampled
from inrbridge.nn.reading import read
from inrbridge.sampling import grid, halton, lattice, sobol
from inrbridge.stacking import FieldStack, stack

SQUARE = Box.centered(2)


class Small(nn.Module):
    """Convolutions with and without bias, groups and a stride, normalization, a classifier."""

    def __init__(self, normalized: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4) if normalized else nn.Identity()
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = functional.relu(self.norm(self.conv1(x)))
        return self.fc(functional.relu(self.conv2(x)).mean((2, 3)))


class Wide(nn.Module):
    """More weights behind the mean over pixels than there may be fields."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 54, 1), nn.Linear(54, 2)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)).mean((2, 3)))


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(2, 6, 5, padding=2), nn.GELU(), nn.Conv1d(6, 6, 3, padding=1, groups=6), nn.GELU())
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.body(x).mean(-1))


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(inplace=True), nn.MaxPool3d(2))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3, 4)))


class Dense(nn.Module):
    """Down, up by a transposed convolution, joined to what came before."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x):
        fine = self.down(x)
        return self.last(torch.cat([fine, self.up(self.deep(fine))], 1))


def net_of(module: type[nn.Module] = Small, domain=SQUARE, resolution=12, dtype=torch.float64, **options):
    """A net with weights of a fixed seed, whose maps live on the points and are read by polynomials, unless told."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = module()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 1.5)
    options = {"levels": "points", "oversampling": 1.0, "reader": "polynomials", "neighbors": 12, **options}
    return convert(module.to(dtype).eval(), domain, resolution, **options)


def drawn(sampler, n: int, seed: int = 0, domain=SQUARE) -> Discretization:
    return sampler(domain, n, torch.Generator().manual_seed(seed)).to(torch.float64)


def answers(net, fields, points):
    """The output on points, and at the pixels."""
    values = stack(fields)
    with torch.no_grad():
        here, there = (
            net.compute(Sampled(p, values(p.points)))
            if not hasattr(net, "features")
            else net.features(Sampled(p, values(p.points)))
            for p in (points, net.pixels().to(torch.float64))
        )
        if hasattr(net, "features"):
            return read(here, there.discretization.points), there.values
    return here, there


def error(net, fields, points) -> float:
    return float(relative_error(*answers(net, fields, points)))


def test_pixels_stay_bitwise_what_they_were():
    net, fields = net_of(dtype=torch.float32), waves(SQUARE, 2, 24, 0)
    images = torch.randn(3, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = net(images)
        points = lattice(SQUARE, 128)
        moved = net(stack(fields), points)
        calibrate(net, fields, ridge=0.1)
        assert torch.equal(net(images), before)
        assert [(kind.sampler, kind.points) for kind in net.adapted_to] == [("lattice", 144), ("sobol", 144)]
        assert not torch.equal(net(stack(fields), points), moved)


@pytest.mark.parametrize("levels", ["points", "inner-grids", "grids"])
@pytest.mark.parametrize("normalized", [True, False])
def test_statistics_equal_a_slow_twin(levels, normalized):
    net, fields, points = net_of(lambda: Small(normalized), levels=levels), waves(SQUARE, 2, 40, 0), drawn(sobol, 150)
    calibrate(net, fields, points)
    pixels = outputs_of_layers(net, fields, None)
    found = outputs_of_layers(net, fields, points)
    plain = outputs_of_layers(net, fields, points, adapted=False)
    layers = ["conv1", *(["norm"] if normalized else []), "conv2", "fc"]
    for layer in layers:
        here, there = at_points_of(found[layer], pixels[layer], net)
        assert torch.allclose(here.mean(0), there.mean(0), atol=1e-9)
        assert torch.allclose(here.std(0), there.std(0), rtol=1e-7)
        uncorrected = at_points_of(plain[layer], pixels[layer], net)[0]
        assert not torch.allclose(uncorrected.std(0), there.std(0), rtol=1e-3)  # there was something to correct


@pytest.mark.parametrize(
    ("module", "dim", "layers"), [(Line, 1, ["body.0", "body.2", "head"]), (Volume, 3, ["body.0", "body.1"])]
)
def test_statistics_on_lines_and_volumes(module, dim, layers):
    box = Box.centered(dim)
    net, fields, points = net_of(module, box, 8), waves(box, 2, 20, 0), drawn(sobol, 8**dim + 5, domain=box)
    calibrate(net, fields, points)
    pixels, found = outputs_of_layers(net, fields, None), outputs_of_layers(net, fields, points)
    for layer in layers:
        here, there = at_points_of(found[layer], pixels[layer], net)
        assert torch.allclose(here.mean(0), there.mean(0), atol=1e-9)
        assert torch.allclose(here.std(0), there.std(0), rtol=1e-7)


def test_several_sets_of_points_share_the_fields():
    net, fields = net_of(), waves(SQUARE, 2, 20, 0)
    calibrate(net, fields, [drawn(sobol, 150, 0), drawn(sobol, 150, 1)])
    assert len(net.adapted) == 1
    halves = [outputs_of_layers(net, fields[i::2], drawn(sobol, 150, i))["conv1"] for i in (0, 1)]
    pixels = [outputs_of_layers(net, fields[i::2], None)["conv1"] for i in (0, 1)]
    pairs = [at_points_of(found, image, net) for found, image in zip(halves, pixels, strict=True)]
    here, there = (torch.cat(side) for side in zip(*pairs, strict=True))
    assert torch.allclose(here.mean(0), there.mean(0), atol=1e-9)
    assert torch.allclose(here.std(0), there.std(0), rtol=1e-7)


@pytest.mark.parametrize("groups", [1, 2])
def test_ridge_regression_is_least_squares_on_the_stacked_system(groups):
    torus, n = Torus((1.0, 1.0)), 60

    def module():
        return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular", groups=groups), nn.ReLU())

    net = net_of(module, torus, 8)
    points, fields = drawn(lattice, 64, domain=torus).prefix(n), waves(torus, 2, 6, 0)
    layer, run = copy.deepcopy(net.network.get_submodule("0")), Run(Places(net.placement, points), net.reading)
    step = next(step for step in net.program.steps if step.target == "0")
    values, noise = stack(fields)(points.points), torch.Generator().manual_seed(0)
    wanted = torch.randn(6, 4, 8, 8, generator=noise, dtype=torch.float64)
    given = ([feature_map(Sampled(points, values), run.places.root())], {})
    calls = Calls(step, [run], [given], [apply_on_points(run, step, layer, *given)], [wanted])
    target = next(calls.pairs(1))[1].flatten(0, 1)  # (rows, 4)

    # slow twin: read the field at every node of the kernel, stack all rows, solve by orthogonal factors
    reading = net.reading.order, net.reading.neighbors
    at_node = [
        read(Sampled(points, values), (points.points + torch.tensor([i, j]).to(points.points) / 8).remainder(1.0), *reading)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    patches = torch.stack(at_node, -1).flatten(0, 1)  # (rows, 2, 9)
    with torch.no_grad():
        found = regress(layer, calls, 1, 0.0)[0]
    for group in range(groups):
        mine, outputs = (
            slice(group * 2 // groups, (group + 1) * 2 // groups),
            slice(group * 4 // groups, (group + 1) * 4 // groups),
        )
        inputs = torch.cat([patches[:, mine].flatten(1), torch.ones(len(patches), 1, dtype=torch.float64)], 1)
        solution = torch.linalg.lstsq(inputs, target[:, outputs], driver="gelsd").solution
        assert torch.allclose(found.values.transpose(1, 2).flatten(0, 1)[:, outputs], inputs @ solution, atol=1e-6)
        assert torch.allclose(layer.weight[outputs].flatten(1), solution[:-1].T, atol=1e-5)
        assert torch.allclose(layer.bias[outputs], solution[-1], atol=1e-6)


def test_a_heavy_ridge_keeps_the_weights():
    net, fields, points = net_of(), waves(SQUARE, 2, 24, 0), drawn(lattice, 64)
    calibrate(net, fields, points, ridge=1e9)
    heavy = copy.deepcopy(net.adapted[0].state_dict())
    calibrate(net, fields, points)
    assert all(torch.allclose(value, heavy[name], atol=1e-6) for name, value in net.adapted[0].state_dict().items())
    calibrate(net, fields, points, ridge=1e-3)
    assert not torch.allclose(net.adapted[0].conv1.weight, heavy["conv1.weight"], rtol=1e-2)


# a first-order reading of many neighbours blurs, which gains can undo
BLURRED = {"order": 1}
CASES = [
    (Small, 2, 12, 144, None, 0.5), (Small, 2, 12, 144, 0.1, 0.5), (Volume, 3, 8, 512, None, 0.5),
    (Volume, 3, 8, 512, 0.1, 0.5), (Dense, 2, 12, 144, 0.1, 0.95),
]  # fmt: skip


@pytest.mark.parametrize(("module", "dim", "resolution", "n", "ridge", "share"), CASES)
def test_outputs_come_nearer_to_the_discrete_network_on_other_fields_and_points(module, dim, resolution, n, ridge, share):
    box = Box.centered(dim)
    net = net_of(module, box, resolution, **BLURRED, neighbors=3 * 2**dim)
    fields, others = waves(box, 2, 64, 0, highest=3), waves(box, 2, 32, 1, highest=3)
    elsewhere = [drawn(sobol, n, seed, box) for seed in (10, 11)]
    before = [error(net, others, points) for points in elsewhere]
    calibrate(net, fields, [drawn(sobol, n, seed, box) for seed in range(4)], ridge=ridge)
    after = [error(net, others, points) for points in elsewhere]
    assert all(new < share * old for new, old in zip(after, before, strict=True))


def test_shuffled_targets_do_not_help(monkeypatch):
    """Negative control: the gain comes from what the network says of the same fields."""
    net, points = net_of(**BLURRED), drawn(sobol, 144)
    fields, others = waves(SQUARE, 2, 48, 0, highest=3), waves(SQUARE, 2, 32, 1, highest=3)
    calibrate(net, fields, points, ridge=1e-3)
    honest = error(net, others, points)
    pairs = Calls.pairs
    monkeypatch.setattr(Calls, "pairs", lambda self, dim: ((x, y.roll(1, 0), w) for x, y, w in pairs(self, dim)))
    calibrate(net, fields, points, ridge=1e-3)
    assert error(net, others, points) > max(0.9, 2 * honest)  # no better than a constant


def test_a_layer_that_is_called_twice_is_left_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.again(torch.relu(self.again(self.first(x)))).mean((2, 3))

    net = net_of(Twice)
    calibrate(net, waves(SQUARE, 2, 16, 0), drawn(lattice, 64), ridge=0.1)
    assert torch.equal(net.adapted[0].again.weight, net.network.again.weight)
    assert not torch.equal(net.adapted[0].first.weight, net.network.first.weight)


def test_points_take_the_copy_of_their_sampler_nearest_in_number():
    net, fields = net_of(), waves(SQUARE, 2, 16, 0)
    calibrate(net, fields, [drawn(lattice, 64), drawn(lattice, 256), drawn(sobol, 256)])
    small, large, scattered = net.adapted
    assert net.network_for(drawn(lattice, 32)) is small
    assert net.network_for(drawn(lattice, 512)) is large
    assert net.network_for(drawn(sobol, 1000)) is scattered
    assert net.network_for(drawn(halton, 200)) is scattered
    assert net.network_for(drawn(halton, 60)) is small
    assert net.network_for(grid(SQUARE, 144)) is net.network  # the pixels
    assert net.network_for(grid(SQUARE, 100)) is net.network
    calibrate(net, fields, drawn(lattice, 64, seed=5))
    assert len(net.adapted) == 3  # a kind is adapted anew, not twice


def test_where_maps_live_on_grids_few_points_serve_no_many():
    net, fields = net_of(levels="grids"), waves(SQUARE, 2, 16, 0)
    calibrate(net, fields, [drawn(lattice, 64), drawn(lattice, 256)])
    small, large = net.adapted
    assert net.network_for(drawn(lattice, 32)) is small and net.network_for(drawn(lattice, 128)) is large
    assert net.network_for(drawn(lattice, 512)) is net.network
    assert net.network_for(drawn(halton, 256)) is net.network


def test_the_same_fields_give_the_same_weights():
    states = []
    for _ in range(2):
        net = net_of()
        calibrate(net, waves(SQUARE, 2, 20, 0), drawn(lattice, 64), ridge=0.1)
        states.append(net.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_adapted_copies_survive_config_and_state():
    net, points = net_of(dtype=torch.float32), lattice(SQUARE, 64)
    calibrate(net, waves(SQUARE, 2, 16, 0), points)
    config = json.loads(json.dumps(net.config()))
    again = build_model(config["name"], domain_from_config(config["domain"]), config["in_channels"], config["classes"],
                        **config["options"]).eval()  # fmt: skip
    again.load_state_dict(net.state_dict())
    assert again.adapted_to == net.adapted_to and again.config()["options"]["adapted"] == config["options"]["adapted"]
    fields = stack(waves(SQUARE, 2, 3, 1))
    with torch.no_grad():
        assert torch.equal(again(fields, points), net(fields, points))
    assert "adapted" in repr(again)


def test_mode_follows_and_comes_back():
    net, fields = net_of().train(), waves(SQUARE, 2, 16, 0)
    before = copy.deepcopy(net.network.state_dict())
    calibrate(net, fields, drawn(lattice, 64))
    assert net.training and net.network.norm.training and net.adapted[0].norm.training
    assert all(torch.equal(value, before[name]) for name, value in net.network.state_dict().items())


def test_a_stack_and_a_dataset_serve_as_fields():
    fields = waves(SQUARE, 2, 16, 0)

    class Set:
        def __len__(self):
            return len(fields)

        def stack(self, indices) -> FieldStack:
            return stack([fields[i] for i in indices])

    states = []
    for source in (fields, stack(fields), Set()):
        net = net_of()
        calibrate(net, source, drawn(lattice, 64))
        states.append(net.adapted[0].conv1.weight)
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])


def test_mistakes_are_told():
    net, fields, points = net_of(), waves(SQUARE, 2, 16, 0), drawn(lattice, 64)
    for few in ([], fields[:15]):
        with pytest.raises(ConfigError, match=rf"Got {len(few)} fields to calibrate on, expected at least 16"):
            calibrate(net, few, points)
    with pytest.raises(ShapeMismatch, match="Got fields of 3 channels, expected 2"):
        calibrate(net, waves(SQUARE, 3, 16, 0), points)
    with pytest.raises(ShapeMismatch, match="Got fields on Box"):
        calibrate(net, waves(Box.unit(2), 2, 16, 0), points)
    with pytest.raises(ShapeMismatch, match=r"Got points on Box.*draw them there"):
        calibrate(net, fields, lattice(Box.unit(2), 64))
    with pytest.raises(ConfigError, match="Got the pixel grid of the network to adapt to"):
        calibrate(net, fields, net.pixels())
    with pytest.raises(ConfigError, match="Got ridge=-1"):
        calibrate(net, fields, points, ridge=-1)
    with pytest.raises(ConfigError, match='Got 16 values to correct the 55 weights of each output of "head", expected more'):
        calibrate(net_of(Wide), fields, points, ridge=0.0)
    assert len(net.adapted_to) == len(net.adapted)


def test_convert_calibrates():
    fields = waves(SQUARE, 2, 32, 0)
    by_hand = net_of()
    calibrate(by_hand, fields)
    at_once = net_of(calibrate=fields)
    assert [kind.sampler for kind in at_once.adapted_to] == ["lattice", "sobol"]
    assert all(torch.equal(value, by_hand.state_dict()[name]) for name, value in at_once.state_dict().items())
    points = drawn(halton, 64)
    assert net_of(calibrate=fields, points=points).adapted_to[0].sampler == "halton"
