"""A converted net as a model folder: a program is data, so that no code is needed to open one, and none can hide in it."""

import json

import numpy as np
import pytest
import torch
from discrete import all_families
from torch import nn

from inrbridge import Box, GridField, convert, evaluate, fit, predict, sampling
from inrbridge.cli.main import main
from inrbridge.data.targets import open_targets
from inrbridge.errors import CannotOpen, ConfigError
from inrbridge.nn import Sampled
from inrbridge.sampling.fixed import fixed_points
from inrbridge.training import load_model, save_model
from inrbridge.training.model_folder import Card

FAMILIES = all_families()


def saved(folder, name: str):
    """The folder of a converted family, its discrete network and a batch of images."""
    factory, channels, resolution = FAMILIES[name]
    module = factory()
    net = convert(module, Box.centered(len(resolution)), resolution, in_channels=channels)
    save_model(folder, net, Card.of(net))
    return module, net, torch.rand(2, channels, *resolution, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet", "vit_multihead", "unet", "audio", "volume_unet"])
@torch.no_grad()
def test_a_folder_gives_the_same_net_on_pixels_and_on_points(name, tmp_path):
    module, net, images = saved(tmp_path, name)
    again = load_model(tmp_path)
    first, second = (json.loads(json.dumps(each.config())) for each in (net, again))
    assert type(again) is type(net) and first == second == again.card.model
    torch.testing.assert_close(again(images), module(images))
    points = sampling.sobol(net.domain, 64)
    sampled = Sampled(points, torch.rand(2, 64, net.in_channels, generator=torch.Generator().manual_seed(1)))
    first, second = (found.values if isinstance(found, Sampled) else found for found in (net(sampled), again(sampled)))
    assert torch.equal(first, second)
    assert len((tmp_path / "README.md").read_text(encoding="utf-8")) < 1500


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("function", {"kind": "function", "target": "os.system"}),
        ("method", {"kind": "method", "target": "__reduce__"}),
        ("module", {"kind": "module", "target": "nowhere"}),
        ("evaluate", {"kind": "evaluate", "target": "1 + 1"}),
    ],
)
def test_a_program_that_names_anything_else_is_refused(kind, change, tmp_path):
    saved(tmp_path, "lenet")
    config = json.loads((tmp_path / "config.json").read_text())
    steps = config["model"]["options"]["program"]["steps"]
    steps[2] = {**steps[2], **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CannotOpen):
        load_model(tmp_path)


def test_a_card_of_a_net_counts_channels_and_classes(tmp_path):
    module = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(3 * 16, 5))
    net = convert(module, Box.unit(2), 4)
    card = Card.of(net)
    assert (card.task, card.channels, card.class_names) == ("classification", ["0", "1"], list("01234"))
    assert card.points == {"sampler": "lattice", "n": 16, "seed": 0} and card.domain == Box.unit(2)
    with pytest.raises(ConfigError, match="names of 1 channels, expected 2"):
        Card.of(net, channels=["gray"])
    with pytest.raises(ConfigError, match="names of 2 classes, expected 5"):
        Card.of(net, class_names=["a", "b"])


@torch.no_grad()
def test_a_dense_folder_is_measured_and_applied(tmp_path):
    """A net that tells bright pixels from dark ones, on images that are not square; its labels are known."""
    module = nn.Conv2d(1, 2, 1)
    module.weight[:], module.bias[:] = torch.tensor([-20.0, 20.0]).view(2, 1, 1, 1), torch.tensor([10.0, -10.0])
    net = convert(module, Box.centered(2), (8, 6))
    card = Card.of(net, channels=["gray"], class_names=["dark", "bright"], sampler="grid:8x6", n=48, activation="softmax")
    save_model(tmp_path / "net", net, card)
    chance = np.random.default_rng(0)
    pictures = list(chance.random((4, 8, 6)).astype(np.float32))
    fit(pictures, "grid", tmp_path / "store", names=[str(i) for i in range(4)])
    (tmp_path / "labels").mkdir()
    for i, picture in enumerate(pictures):
        np.save(tmp_path / "labels" / f"{i}.npy", (picture > 0.5).astype(np.int64))
    found = evaluate(tmp_path / "net", tmp_path / "store", targets=open_targets(tmp_path / "labels", net.domain))
    assert found["accuracy"] == 1 and (found["sampler"], found["n"]) == ("grid:8x6", 48)
    field = GridField(torch.from_numpy(pictures[0])[..., None], net.domain, channel_names=("gray",))
    (answer,) = predict(tmp_path / "net", field)
    assert answer["shares"]["bright"] == pytest.approx(float((pictures[0] > 0.5).mean()))
    with pytest.raises(ConfigError, match="outputs are fields"):
        predict(tmp_path / "net", field, tol=0.1)


def test_no_verb_prints_a_whole_program(tmp_path, capsys):
    saved(tmp_path / "net", "unet")
    chance = np.random.default_rng(0)
    fit([chance.random((32, 24, 3)).astype(np.float32)], "grid", tmp_path / "store")
    (tmp_path / "field").mkdir()
    from inrbridge import Store, save_field

    save_field(Store(tmp_path / "store").field(0), tmp_path / "field" / "a.safetensors")
    assert main(["predict", str(tmp_path / "net"), str(tmp_path / "field"), "-o", str(tmp_path / "out")]) == 0
    assert main(["info", str(tmp_path / "out" / "a.safetensors")]) == 0
    assert main(["models", "converted"]) == 0 and main(["models", "converted-dense", "--json"]) == 0
    out = capsys.readouterr().out
    assert "modules" in out and "needed" in out and max(map(len, out.splitlines())) < 3000 and len(out) < 12000


def test_a_grid_of_a_picture_has_its_proportions():
    for n, shape in [(12, (3, 4)), (48, (6, 8)), (50, (6, 8)), (1, (1, 1))]:
        assert fixed_points(Box.centered(2), "grid:3x4", n, 0).structure.shape == shape
    assert fixed_points(Box.centered(2), "grid", 12, 0).structure.shape == (3, 3)
    for name in ("grid:3by4", "grid:0x4", "grid:"):
        with pytest.raises(ConfigError, match="proportions"):
            fixed_points(Box.centered(2), name, 12, 0)
