"""The kernels pass their tests interpreted on the CPU, in a process of their own: Triton chooses when it is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inrbridge.gpu.precision import interprets

FOLDER = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(interprets() or importlib.util.find_spec("triton") is None, reason="needs triton, not interpreting yet")
@pytest.mark.parametrize("name", ["local", "perceptron"])
def test_kernels_interpreted(name):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-x", str(FOLDER / f"test_{name}.py")]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, cwd=FOLDER.parent.parent
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
