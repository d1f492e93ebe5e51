"""Evaluation and prediction: figures, points, classes by name, and model folders that are damaged or foreign."""

import json

import pytest
import torch
from fake_training import MemoryDataset, SmallNet, config, striped

from inrbridge import stack
from inrbridge.errors import CannotOpen, ConfigError, MissingFile, StoreError
from inrbridge.training import evaluate, load_model, predict, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    setup = config(folder, optimizer={"steps": 60, "lr": 0.05}, model={"options": {"width": 24}}, points={"n": 64, "eval_n": 100})
    train(setup, MemoryDataset(), eval_dataset=MemoryDataset(12))
    return folder


@pytest.fixture
def model(trained):
    return load_model(trained, trusted=["fake_training"])


def test_figures_equal_a_plain_loop(model):
    data = MemoryDataset(15)
    result = evaluate(model, data, sampler="grid", n=81, batch_size=4)
    guesses = []
    for field in data.fields:
        answer = predict(model, field, sampler="grid", n=81)[0]
        guesses.append(model.card.class_names.index(answer["label"]))
        assert abs(sum(answer["probabilities"].values()) - 1) < 1e-6
    confusion = torch.zeros(2, 2, dtype=torch.long)
    for truth, guess in zip(data.labels, guesses, strict=True):
        confusion[truth, guess] += 1
    assert result["confusion"] == confusion.tolist()
    assert result["accuracy"] == pytest.approx(float(confusion.diagonal().sum()) / 15)
    for name, share in result["accuracy_by_format"].items():
        mine = [int(y) == g for y, g, f in zip(data.labels, guesses, data.formats, strict=True) if f == name]
        assert share == pytest.approx(sum(mine) / len(mine))
    assert (result["sampler"], result["n"], result["fields"]) == ("grid", 81, 15) and result["seconds"] > 0


def test_points_default_to_those_of_the_model_and_repeat(model):
    data = MemoryDataset(6)
    first, second = (evaluate(model, data) for _ in range(2))
    assert first["n"] == 100 and first["seed"] == 0
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert evaluate(model, data, n=64, seed=1)["loss"] != first["loss"]
    untrained = SmallNet(data.domain, 1, 2).train()
    assert evaluate(untrained, data)["n"] == 1024 and untrained.training


def test_classes_are_matched_by_name(model):
    data, swapped = MemoryDataset(12), MemoryDataset(12, class_names=("down", "across"))
    swapped.labels = 1 - swapped.labels
    assert evaluate(model, swapped)["confusion"] == evaluate(model, data)["confusion"]
    with pytest.raises(StoreError, match="diagonal"):
        evaluate(model, MemoryDataset(12, class_names=("across", "diagonal")))
    with pytest.raises(StoreError, match="without fields"):
        evaluate(model, MemoryDataset(0))


def test_predict_takes_fields_and_files_and_keeps_going(model, tmp_path):
    fields = [striped(False, 0.2), tmp_path / "absent.safetensors"]
    with pytest.raises(MissingFile):
        predict(model, fields)
    answers = predict(model, fields, keep_going=True)
    assert answers[0]["label"] == "across" and "absent" in answers[1]["error"]
    assert predict(model, []) == []
    both = MemoryDataset(2).fields
    single, stacked = predict(model, both, batch_size=1), predict(model, stack(both))
    assert [answer["label"] for answer in single] == [answer["label"] for answer in stacked] == ["across", "down"]
    with pytest.raises(ConfigError, match="card"):
        predict(SmallNet(MemoryDataset.domain, 1, 2), fields)


def test_a_folder_never_imports_what_it_names(trained):
    with pytest.raises(ConfigError, match="--trust fake_training"):
        load_model(trained)
    own = load_model(trained, model=SmallNet(MemoryDataset.domain, 1, 2, width=24))
    assert not own.training
    with pytest.raises(CannotOpen, match="other tensors"):
        load_model(trained, model=SmallNet(MemoryDataset.domain, 1, 2, width=3))


@pytest.mark.parametrize("damage", ["absent", "no json", "newer", "no model", "weights cut", "list", "huge", "option"])
def test_damaged_folders_say_so(trained, tmp_path, damage):
    content = json.loads((trained / "config.json").read_text())
    weights = (trained / "model.safetensors").read_bytes()
    if damage == "newer":
        content["api"] = 99
    if damage == "no model":
        del content["model"]["domain"]
    if damage == "huge":
        content["model"] |= {"name": "convnet", "options": {"widths": [500_000, 500_000]}}  # 9 TB of weights
    if damage == "option":
        content["model"]["options"]["depth"] = 3
    text = {"no json": "{", "list": "[]"}.get(damage, json.dumps(content))
    if damage != "absent":
        (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(weights[: 100 if damage == "weights cut" else None])
    with pytest.raises(CannotOpen):
        load_model(tmp_path, trusted=["fake_training"])
