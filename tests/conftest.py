"""Shared by all tests: the slow twins are importable, and shared data is found or skipped."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

# Small tensors gain nothing from several threads, and on a busy machine threads wait long for one another.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Seed what modules of torch draw from when they are made: a test sees the same weights whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator: the same points and weights in every run."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets and checkpoints, named by INRBRIDGE_DATA; skip where there is none."""
    folder = os.environ.get("INRBRIDGE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set INRBRIDGE_DATA to the folder of shared data to run this test")
    return Path(folder)
