"""Several processes: the shares of a minibatch, and two gloo processes against one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_training import MemoryDataset, config
from safetensors.torch import load_file

from inrbridge.errors import ConfigError
from inrbridge.training import read_metrics, train
from inrbridge.training.distributed import World, choose_device, is_main, processes

SECTIONS = {"optimizer": {"steps": 4}, "augment": {"flip": [0], "shift": 0.1}}
RUNS = {
    "pointwise": SECTIONS,
    "normalized": {**SECTIONS, "model": {"name": "resnet", "options": {"widths": [4, 6], "blocks": [1, 1], "resolution": 8}}},
}
SCRIPT = f"""
import sys
from fake_training import MemoryDataset, config
from inrbridge.training import train
from inrbridge.training.distributed import processes
with processes("cpu"):
    for name, sections in {RUNS}.items():
        summary = train(config(sys.argv[1] + name, **sections), MemoryDataset(19), eval_dataset=MemoryDataset(7))
        # one write, for both processes share the stream
        sys.stdout.write(f"{{name}} loss {{summary.loss}} accuracy {{summary.metrics['accuracy']}}\\n")
"""


def test_shares_are_even_and_complete():
    for size in (1, 2, 3):
        shares = [World(rank, size, torch.device("cpu")).share(list(range(8))) for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(8)) and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_no_launcher(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with processes("cpu") as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True) and is_main()
        model = torch.nn.Linear(1, 1)
        assert world.parallel(model) is model
        world.require_same("formats", ["grid"])
        with pytest.raises(ConfigError):
            world.on_main(lambda: choose_device("gpu"))


def test_devices_that_do_not_exist():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="GPUs are visible"):
        choose_device("cuda:99")


@pytest.mark.slow
def test_two_processes_of_four_fields_equal_one_of_eight(tmp_path):
    script, root = tmp_path / "script.py", Path(__file__).resolve().parents[2]
    script.write_text(SCRIPT)
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests"), *sys.path])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(script), str(tmp_path / "two-")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = set(done.stdout.splitlines())  # both processes know the whole result
    assert len(lines) == len(RUNS)
    for line in lines:
        name, _, loss, _, accuracy = line.split()
        alone = train(config(tmp_path / name, **RUNS[name]), MemoryDataset(19), eval_dataset=MemoryDataset(7))
        assert float(loss) == pytest.approx(alone.loss, rel=1e-5) and float(accuracy) == alone.metrics["accuracy"]
        one, two = (load_file(tmp_path / folder / "model.safetensors") for folder in (name, f"two-{name}"))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6)
        assert len(read_metrics(tmp_path / f"two-{name}")) == 4
