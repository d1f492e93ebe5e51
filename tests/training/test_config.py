"""Configurations: TOML in and out, precedence, and errors that say what to write instead."""

import dataclasses
import subprocess
import sys

import pytest

from inrbridge.errors import ConfigError, MissingFile
from inrbridge.training.config import TrainConfig, all_keys, load_config
from inrbridge.training.toml import parse_value, to_toml

STRANGE = {
    "data": {"store": 'a "b" \\ \x7f\n☃', "formats": ["siren", "grid"], "domain": {"type": "box", "low": [-1], "high": [1.5]}},
    "model": {"options": {"widths": [1, 2], "nested": {"a key": True}}},
    "points": {"n": [64, 256], "sampler": ["lattice", "sobol"]},
    "optimizer": {"lr": 1},
}


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("source", [None, STRANGE])
def test_written_config_reads_back_equal(tmp_path, source, comments):
    config = load_config(source)
    path = tmp_path / "c.toml"
    path.write_text(to_toml(config, comments=comments), encoding="utf-8")
    assert load_config(path) == config
    assert load_config(config.to_dict()) == config == load_config(config)


def test_precedence_is_defaults_then_file_then_settings(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[optimizer]\nlr = 0.5\nepochs = 3\n[points]\nn = 10\n")
    config = load_config(path, ["optimizer.lr=0.25", "points.n=[32, 64]", "model.options.width=8", "points.sampler=sobol"])
    assert (config.optimizer.lr, config.optimizer.epochs, config.optimizer.warmup) == (0.25, 3, 0)
    assert config.points.sizes == (32, 64) and config.points.samplers == ("sobol",)
    assert config.model.options == {"width": 8}


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["optimzer.lr=1"], ['"optimzer"', 'Did you mean "optimizer"?']),
        (["optimizer.wamup=1"], ['Did you mean "optimizer.warmup"?']),
        (["lr=1"], ['Did you mean "optimizer.lr"?']),
        (["data.lr=1"], ['Did you mean "optimizer.lr"?']),
        (["optimizer.lr=fast"], ["'fast'", '"optimizer.lr"', "a number"]),
        (["points.n=true"], ["True", "whole number"]),
        (["points.n=[1, 2.5]"], ["whole number"]),
        (["points.n=[]"], ['"points.n"']),
        (["points.n=0"], ["at least 1"]),
        (["data=3"], ["a section [data]"]),
        (["task.x=1"], ["a string"]),
        (["optimizer.lr.x=1"], ["a number"]),
        (["lr"], ["section.key=value"]),
        (["optimizer.lr=-1"], ["above 0"]),
        (["optimizer.epochs=0"], ["at least 1"]),
        (['task="sorting"'], ["classification"]),
        (["run.deterministic=1"], ["true or false"]),
    ],
)
def test_errors_name_the_key_and_the_remedy(sets, words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, sets)
    for word in words:
        assert word in str(caught.value)


def test_files_that_are_absent_or_no_toml(tmp_path):
    with pytest.raises(MissingFile, match="config init"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_config(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="dict"):
        load_config(3)


def test_a_setting_can_only_hold_one_value():
    assert parse_value("1\nother = 2") == "1\nother = 2"
    assert parse_value(" true ") is True and parse_value("'a b'") == "a b"


def test_every_key_has_a_comment_and_configs_are_frozen():
    text = to_toml(load_config(), comments=True)
    for key in all_keys():
        name = key.rpartition(".")[2]
        lines = text.splitlines()
        assert any(line.startswith(f"{name} = ") and lines[i - 1].startswith("# ") for i, line in enumerate(lines)), key
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().task = "regression"


def test_configurations_need_no_torch():
    code = "import sys; from inrbridge.training import load_config; load_config(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"]).returncode == 0
