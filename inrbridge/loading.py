"""Floor 5: read the tensors of a file, and nothing but tensors.

Formats that read the files of other code bases start here: no code of the file runs, and what its headers
claim is compared with its size first.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from inrbridge.errors import CannotOpen
from inrbridge.formats import Probe
from inrbridge.headers import leaves


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file on the CPU, under the names that `Probe.tensors` lists.

    Raises:
        CannotOpen: the file is damaged, would have to run code, or is of another kind.
    """
    probe = Probe(path)
    if probe.damage:
        raise CannotOpen(f"{probe.damage}; copy or download it again.")
    if probe.refused:
        raise CannotOpen(f"{probe.refused}, expected tensors alone; save its state dict where its code is at home.")
    try:
        if probe.magic == "safetensors":
            return load_file(probe.path)
        if probe.magic == "torch":
            loaded = torch.load(probe.path, map_location="cpu", weights_only=True)
            return {name: value for name, value in leaves(loaded) if isinstance(value, Tensor)}
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CannotOpen(f"its tensors cannot be read ({error}); copy or download it again.") from error
    raise CannotOpen(f"it is {probe.describe()}, expected a safetensors or torch file; see: inrbridge info {probe.path} --all")
