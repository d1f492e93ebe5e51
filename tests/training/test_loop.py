"""Training: Algorithm 1, repeatable and resumable."""

import itertools
import json

import pytest
import torch
from fake_training import MemoryDataset, SmallNet, config
from safetensors.torch import load_file

from inrbridge.errors import CannotOpen, ConfigError, NotFinite, StoreError
from inrbridge.training import evaluate, load_model, predict, read_metrics, train
from inrbridge.training.checkpoint import steps_of
from inrbridge.training.config import OptimizerConfig
from inrbridge.training.optimizing import learning_rate, make_optimizer


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_learns_and_leaves_a_whole_model_folder(tmp_path):
    seen = []
    setup = config(tmp_path / "run", optimizer={"steps": 60, "lr": 0.05}, model={"options": {"width": 24}})
    summary = train(
        setup, MemoryDataset(), eval_dataset=MemoryDataset(12), command="inrbridge train x.toml",
        progress=lambda done, total, figures: seen.append((done, total)),
    )  # fmt: skip
    assert summary.metrics["accuracy"] >= 0.9 and summary.is_finished and seen[-1] == (60, 60)
    assert summary.metrics["accuracy_by_format"].keys() == {"grid", "formula"}
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 61))
    assert lines[-1]["loss"] < lines[0]["loss"] and lines[-1]["eval_accuracy"] == summary.metrics["accuracy"]
    card = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (
        card["class_names"] == ["across", "down"]
        and card["channels"] == ["gray"]
        and card["formats"].keys() == {"grid", "formula"}
    )
    assert card["formats"]["grid"]["distribution"] == "inrbridge" and card["points"] == {"sampler": "lattice", "n": 64, "seed": 0}
    readme = (tmp_path / "run" / "README.md").read_text()
    for word in ("inrbridge train x.toml", "accuracy", "Licence", "seed 0"):
        assert word in readme
    model = load_model(tmp_path / "run", trusted=["fake_training"])
    assert evaluate(model, MemoryDataset(12))["accuracy"] == summary.metrics["accuracy"]
    assert not [p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {
            "model": {"options": {"dropout": 0.3}},
            "augment": {"noise": 0.2, "shift": 0.1, "flip": [0], "rotate": 0.3, "crop": 0.8, "contrast": 0.2, "drop": 0.1},
        },
        {"points": {"pool": 2, "n": [32, 64]}, "optimizer": {"name": "sgd"}, "run": {"log_every": 4}},
        {"model": {"name": "convnet", "options": {"widths": [6, 6], "strides": [1, 2], "resolution": 8, "dropout": 0.2}}},
    ],
    ids=["plain", "dropout and augmentation", "pool and momentum", "convolutions and batch norm"],
)
def test_six_steps_equal_three_and_three_resumed_bit_for_bit(tmp_path, sections):
    whole = train(config(tmp_path / "whole", **sections), MemoryDataset(20))
    interrupted = config(tmp_path / "parts", **sections)
    half = train(interrupted, MemoryDataset(20), stop_at=3)
    assert (half.steps, half.is_finished) == (3, False) and not (tmp_path / "parts" / "config.json").exists()
    rest = train(interrupted, MemoryDataset(20), resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts")) and rest.loss == whole.loss
    for newest in (steps_of(tmp_path / name)[-1] for name in ("whole", "parts")):
        assert newest.name == "step-000006"
    plain = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(tmp_path / n)] for n in ("whole", "parts")
    ]
    assert plain[0] == plain[1]


def test_same_seed_same_weights_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)  # the global generator must not matter
        setup = config(tmp_path / name, model={"options": {"dropout": 0.5}})
        train(setup, MemoryDataset(), sets=[f"run.seed={seed}"])
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b")) and not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_training_leaves_global_state_alone(tmp_path):
    torch.manual_seed(3)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train(config(tmp_path, run={"threads": 2, "deterministic": True}, model={"options": {"dropout": 0.5}}), MemoryDataset())
    assert torch.equal(torch.random.get_rng_state(), before) and torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_kept_samples_change_nothing(tmp_path):
    pool = {"points": {"pool": 2}}
    train(config(tmp_path / "kept", **pool), MemoryDataset())
    data = MemoryDataset()
    train(config(tmp_path / "asked", points={"pool": 2, "cache": 0}), data)
    assert data.evaluated == 6 * 8
    for name, value in weights(tmp_path / "kept").items():
        torch.testing.assert_close(value, weights(tmp_path / "asked")[name])


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(tmp_path):
    train(config(tmp_path), MemoryDataset(), stop_at=2)
    with pytest.raises(ConfigError, match="--resume"):
        train(config(tmp_path), MemoryDataset())
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        train(config(tmp_path, optimizer={"lr": 0.5}), MemoryDataset(), resume=True)
    longer = train(config(tmp_path, optimizer={"steps": 7}), MemoryDataset(), resume=True)
    assert longer.steps == 7 and len(read_metrics(tmp_path)) == 7
    again = train(config(tmp_path, optimizer={"steps": 7}), MemoryDataset(), resume=True)  # nothing left to do
    assert again.is_finished and again.metrics == {}
    with pytest.raises(ConfigError, match=r"optimizer\.steps"):
        train(config(tmp_path, optimizer={"steps": 3}), MemoryDataset(), resume=True)


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    train(config(tmp_path, run={"checkpoint_every": 1}), MemoryDataset(), stop_at=3)
    names = [path.name for path in steps_of(tmp_path)]
    assert names == ["step-000002", "step-000003"]  # run.keep = 2
    (tmp_path / "step-000003" / "optimizer.safetensors").write_bytes(b"short")
    with pytest.raises(CannotOpen, match=r"step-000003.*delete"):
        train(config(tmp_path, run={"checkpoint_every": 1}), MemoryDataset(), resume=True)
    (tmp_path / "step-000003" / "model.safetensors").unlink()
    with pytest.raises(CannotOpen, match=r"step-000003.*delete"):
        train(config(tmp_path, run={"checkpoint_every": 1}), MemoryDataset(), resume=True)


def test_data_that_cannot_be_learned_from(tmp_path):
    unlabelled = MemoryDataset()
    unlabelled.labels[3] = -1
    with pytest.raises(StoreError, match="1 of 24 items without a label"):
        train(config(tmp_path / "a"), unlabelled)
    with pytest.raises(StoreError, match="1 of 24 items without a label"):  # before the first step, not after the first epoch
        train(config(tmp_path / "a"), MemoryDataset(), eval_dataset=unlabelled)
    with pytest.raises(StoreError, match="diagonal"):
        train(config(tmp_path / "a"), MemoryDataset(), eval_dataset=MemoryDataset(4, class_names=("across", "diagonal")))
    with pytest.raises(StoreError, match="without fields"):
        train(config(tmp_path / "b"), MemoryDataset(0))
    with pytest.raises(ConfigError, match=r"data\.store"):
        train(config(tmp_path / "c"))
    with pytest.raises(ConfigError, match="Missing"):
        train(config(tmp_path / "d", model={"name": "fake_training:Missing"}), MemoryDataset())
    assert not list(tmp_path.iterdir())


def test_a_diverging_run_stops(tmp_path):
    with pytest.raises(NotFinite, match=r"optimizer\.lr"):
        train(config(tmp_path, optimizer={"lr": 1e30, "clip": 0.0, "steps": 20}), MemoryDataset())


def test_regression(tmp_path):
    data = MemoryDataset(24)
    data.labels, data.class_names = data.labels * 2.0 - 1.0, []
    setup = config(tmp_path, optimizer={"steps": 80, "lr": 0.05}, model={"options": {"width": 24}})
    summary = train({**setup, "task": "regression"}, data, eval_dataset=data)
    assert summary.metrics["mse"] < 0.6 and summary.metrics["mse_by_format"].keys() == {"grid", "formula"}
    answer = predict(summary.model, data.fields[0])
    assert answer[0].keys() == {"path", "value"} and isinstance(answer[0]["value"], float)


def test_trackers_receive_every_line(tmp_path):
    class Listener:
        lines, is_closed = (), False

        def log(self, figures, step):
            self.lines += (step,)

        def close(self):
            self.is_closed = True

    listener = Listener()
    train(config(tmp_path, run={"log_every": 4}), MemoryDataset(), trackers=[listener])
    assert listener.lines == (4, 6) and listener.is_closed


def test_learning_rate_and_decay():
    cosine = [learning_rate(OptimizerConfig(lr=2.0, warmup=1), step, 5) for step in range(5)]
    assert cosine[:2] == [1.0, 2.0] and all(a > b for a, b in itertools.pairwise(cosine[1:])) and cosine[-1] > 0
    assert learning_rate(OptimizerConfig(lr=2.0, schedule="constant"), 99, 100) == 2.0
    groups = make_optimizer(SmallNet(MemoryDataset.domain, 1, 2), OptimizerConfig(weight_decay=0.1)).param_groups
    assert {p.ndim >= 2: group["weight_decay"] for group in groups for p in group["params"]} == {True: 0.1, False: 0.0}
