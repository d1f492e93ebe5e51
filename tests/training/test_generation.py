"""Algorithm 3 in the loop: fields without labels, two losses, resumed bit for bit, and fields that are made afterwards."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_training import MemoryDataset, config
from safetensors.torch import load_file

from inrbridge import Box, generate, open_field, query, sampling, save_field
from inrbridge.errors import ConfigError
from inrbridge.models import build_model
from inrbridge.nn import Sampled
from inrbridge.training import evaluate, load_model, predict, read_metrics, train
from inrbridge.training.seeding import Noise
from inrbridge.training.tasks import Batch
from inrbridge.training.tasks.generation import DistanceTally, Generated

MAKER = {"widths": [16, 12], "resolution": 8, "degree": 3, "hidden": 24, "head": 12}
PARTNER = {"widths": [12, 12], "strides": [1, 2], "resolution": 8, "norm": "none", "activation": "silu"}
MODELS = {
    "vae": {"name": "vae", "options": {"latent": 3, "beta": 1e-3, "encoder_options": PARTNER, "generator_options": MAKER}},
    "gan": {
        "name": "gan",
        "options": {"latent": 3, "average": 0.9, "critic_rate": 2.0, "critic_options": PARTNER, "generator_options": MAKER},
    },
}


class Unlabelled(MemoryDataset):
    """Stripes of which nobody says which they are."""

    def __init__(self, count=24):
        super().__init__(count, class_names=())
        del self.labels


def setup(folder, name, **sections):
    return {**config(folder, model=MODELS[name], **sections), "task": "generation"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders and summaries of two short runs."""
    runs = {}
    for name, steps, rate in (("vae", 80, 5e-3), ("gan", 80, 2e-3)):
        folder = tmp_path_factory.mktemp(name) / "run"
        sections = {"optimizer": {"steps": steps, "lr": rate, "betas": [0.5, 0.99]}, "points": {"pool": 4, "n": 64}}
        runs[name] = (folder, train(setup(folder, name, **sections), Unlabelled(), eval_dataset=Unlabelled(12)))
    return runs


def untrained_energy(name):
    model = build_model(MODELS[name]["name"], Box.centered(2), 1, 1, generator=torch.Generator().manual_seed(0),
                        **MODELS[name]["options"])  # fmt: skip
    return evaluate(model, Unlabelled(12), task="generation", n=64)["energy"]


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_what_is_made_comes_nearer_to_what_is_real(trained, name):
    folder, summary = trained[name]
    assert summary.metrics["energy"] < 0.75 * untrained_energy(name)
    assert summary.metrics["energy_by_format"].keys() == {"grid", "formula"} and summary.metrics["fields"] == 12
    card = json.loads((folder / "config.json").read_text())
    assert card["task"] == "generation" and card["model"]["name"] == name and card["metrics"]["energy"]
    again = evaluate(folder, Unlabelled(12), batch_size=8)
    assert again["energy"] == pytest.approx(summary.metrics["energy"], abs=1e-6)


def test_the_losses_of_the_autoencoder_fall(trained):
    folder, summary = trained["vae"]
    losses = [line["loss"] for line in read_metrics(folder)]
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10])
    assert summary.metrics["mse"] < 0.2 and summary.metrics["mse_by_format"].keys() == {"grid", "formula"}
    assert "mse" not in trained["gan"][1].metrics


@pytest.mark.parametrize("name", ["vae", "gan"])
@pytest.mark.parametrize("sections", [{}, {"points": {"pool": 2}, "optimizer": {"name": "sgd"}}], ids=["adamw", "sgd"])
def test_six_steps_equal_three_and_three_resumed_bit_for_bit(tmp_path, name, sections):
    whole = train(setup(tmp_path / "whole", name, **sections), Unlabelled(20))
    torch.rand(7)  # the global generator must not matter
    train(setup(tmp_path / "parts", name, **sections), Unlabelled(20), stop_at=3)
    rest = train(setup(tmp_path / "parts", name, **sections), Unlabelled(20), resume=True)
    one, two = (load_file(tmp_path / part / "model.safetensors") for part in ("whole", "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one) and rest.loss == whole.loss
    if name == "gan":
        assert one["num_averaged"] == 6 and not torch.equal(one["averaged.head.0.weight"], one["generator.head.0.weight"])


SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_generation import Unlabelled, setup
from inrbridge.training import train
summary = train(setup(sys.argv[1], "gan"), Unlabelled(19), eval_dataset=Unlabelled(7))
sys.stdout.write(f"loss {{summary.loss}} energy {{summary.metrics['energy']}}\\n")
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Every field has noise of its own, whichever process it is in; what is compared in pairs of a minibatch differs a little."""
    alone = train(setup(tmp_path / "one", "gan"), Unlabelled(19), eval_dataset=Unlabelled(7))
    script, root = tmp_path / "script.py", Path(__file__).resolve().parents[2]
    script.write_text(SCRIPT)
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests"), *sys.path])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(tmp_path / "two")], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = set(done.stdout.splitlines())
    assert len(lines) == 1
    assert float(lines.pop().split()[1]) == pytest.approx(alone.loss, rel=1e-4)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        if key == "critic.head.bias":  # of a difference of two opinions: its gradient is rounding alone
            continue
        difference = (two[key] - value).double().norm()  # Adam makes much of the rounding of small gradients
        assert difference <= 5e-3 * value.double().norm() + 1e-5, key


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_fields_are_made_of_a_seed_and_are_evaluated_at_any_resolution(trained, name, tmp_path):
    folder, _ = trained[name]
    fields = generate(folder, 4, seed=3)
    assert [field.channel_names for field in fields] == [("gray",)] * 4
    for n in (25, 400, 2500):
        values = query(fields[0], sampling.grid(Box.centered(2), n).points)
        assert values.shape == (n, 1)
    coords = sampling.halton(Box.centered(2), 40).points
    made = [field(coords) for field in fields]
    fewer, others = generate(folder, 2, seed=3), generate(folder, 2, seed=4)
    assert all(torch.equal(a(coords), b) for a, b in zip(fewer, made, strict=False))
    assert not any(torch.equal(a(coords), b) for a, b in zip(others, made, strict=False))
    save_field(fields[1], tmp_path / "made.safetensors")
    again = open_field(tmp_path / "made.safetensors")
    torch.testing.assert_close(again(coords), made[1])
    model = load_model(folder)
    torch.testing.assert_close(generate(model, 1, seed=3)[0](coords), made[0])
    finer = generate(model, 1, seed=3, points=256)[0]
    assert finer.points["n"] == 256 and (finer(coords) - made[0]).abs().mean() < made[0].std()


def test_an_autoencoder_tells_the_vector_of_a_field_and_a_generator_takes_none(trained):
    data = Unlabelled(4)
    answers = predict(trained["vae"][0], data.fields)
    assert [len(answer["value"]) for answer in answers] == [3] * 4 and len({tuple(answer["value"]) for answer in answers}) == 4
    with pytest.raises(ConfigError, match="inrbridge generate"):
        predict(trained["gan"][0], data.fields)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda path: train({**config(path), "task": "generation"}, Unlabelled()), "generation"),
        (lambda path: train({**setup(path, "vae"), "task": "classification"}, MemoryDataset()), "vae"),
        (lambda path: train({**setup(path, "vae"), "model": {"name": "generator"}}, Unlabelled()), '"vae" or "gan"'),
        (lambda path: train(setup(path, "vae", optimizer={"betas": [0.5, 1.0]}), Unlabelled()), r"optimizer\.betas"),
        (lambda path: evaluate(build_model("convnet", Box.centered(2), 1, 1), Unlabelled(4), task="generation"), "convnet"),
        (lambda path: generate(torch.nn.Linear(1, 1), 2), "expected one that generates"),
        (lambda path: generate(build_model("generator", Box.centered(2), 1, 1), 0), "n=0"),
        (lambda path: generate(build_model("generator", Box.centered(2), 1, 1), 1, seed=-1), "seed=-1"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, call, said):
    with pytest.raises(ConfigError, match=said):
        call(tmp_path)
    assert not list(tmp_path.iterdir())


def batch_of(values, points, formats=None):
    formats = torch.zeros(len(values), dtype=torch.long) if formats is None else formats
    return Batch(Sampled(points, values), None, formats)


def test_the_energy_distance_is_its_formula_and_near_zero_for_one_distribution():
    points = sampling.shrunk(Box.centered(2), 64, torch.Generator().manual_seed(1), weights="density")
    chance = torch.Generator().manual_seed(2)
    formats = torch.tensor([0, 1, 0, 1, 1, 0])
    real, made = (torch.randn(6, 64, 2, generator=chance) for _ in range(2))
    tally = DistanceTally(["a", "b"])
    tally.add(torch.zeros(6), Generated(Sampled(points, made)), batch_of(real, points, formats))
    w = (points.weights / points.weights.sum()).double()

    def mean(a, b, same=False):
        pairs = [(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)]
        return sum(float((w[:, None] * (x - y).double() ** 2).sum().sqrt()) for x, y in pairs) / len(pairs)

    figures = tally.result()
    assert figures["energy"] == pytest.approx(2 * mean(real, made) - mean(real, real, True) - mean(made, made, True))
    for number, name in enumerate("ab"):
        some = real[formats == number]
        expected = 2 * mean(some, made) - mean(some, some, True) - mean(made, made, True)
        assert figures["energy_by_format"][name] == pytest.approx(expected)

    def energy(shift):  # over many minibatches
        tally = DistanceTally(["a"])
        for _ in range(40):
            real, made = (torch.randn(16, 1, 1, generator=chance).expand(16, 64, 1) for _ in range(2))
            tally.add(torch.zeros(16), Generated(Sampled(points, made + shift)), batch_of(real, points))
        return tally.result()["energy"]

    # E|X - Y| of normal numbers: 2 / sqrt(pi) for equal ones; 1 apart: sqrt(2) * E|N(1 / sqrt(2), 1)|
    apart = 2 / math.sqrt(math.pi) * math.exp(-0.25) + math.erf(0.5)
    assert abs(energy(0.0)) < 0.03 and energy(1.0) == pytest.approx(2 * apart - 4 / math.sqrt(math.pi), abs=0.08)


def test_noise_is_normal_and_its_rows_do_not_depend_on_their_company():
    draw = Noise(range(2000))
    first, second = draw(3), draw(3)
    assert abs(float(first.mean())) < 0.05 and float(first.std()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(first, second) and torch.equal(Noise([7])(3)[0], first[7])
