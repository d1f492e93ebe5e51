"""Floor 5: read the tensors of a file, and nothing but tensors.

Formats that read the files of other code bases start here: no code of the file runs, and what its headers
claim is compared with its size first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from inrbridge.containers.arrays import read_arrays
from inrbridge.containers.contents import first_line
from inrbridge.containers.hierarchical import hierarchy_leaves
from inrbridge.containers.packed import pack_leaves, read_pack
from inrbridge.containers.torch_files import read_pickled
from inrbridge.errors import CannotOpen
from inrbridge.formats import Probe

_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}  # torch computes with few unsigned kinds


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file on the CPU, under the names that `Probe.tensors` lists.

    Containers: safetensors, torch (new and old, pickled modules too, of which only the numbers are taken), npz, npy, bare
    pickles, MessagePack (byte strings as uint8), also compressed, and HDF5. Arrays of uint16 come as int32, of uint32 as int64.

    Raises:
        CannotOpen: the file is damaged, would have to run code, or is of another kind.
    """
    probe = Probe(path)
    if probe.damage:
        raise CannotOpen(f"{probe.damage}; copy or download it again.")
    if probe.refused:
        raise CannotOpen(f"{probe.refused}, expected tensors alone; save its state dict where its code is at home.")
    reader = _pickled if probe.contents.is_inert else _READERS.get(probe.magic)
    if reader is None:
        raise CannotOpen(f"it is {probe.describe()}, expected a file of tensors; see: inrbridge info {probe.path} --all")
    try:
        return reader(probe.path)
    except PermissionError:
        raise
    except Exception as error:  # what is raised at broken bytes is the choice of each reader and the library behind it
        raise CannotOpen(f"its tensors cannot be read ({first_line(error)}); copy or download it again.") from error


def _pickled(path: Path) -> dict[str, Tensor]:
    return {name: value if isinstance(value, Tensor) else _tensor(value) for name, value in read_pickled(path).items()}


def _arrays(path: Path) -> dict[str, Tensor]:
    return {name: _tensor(value) for name, value in read_arrays(path).items()}


def _packed(path: Path) -> dict[str, Tensor]:
    return {name: _tensor(value) for name, value in pack_leaves(read_pack(path)) if isinstance(value, np.ndarray)}


def _hierarchy(path: Path) -> dict[str, Tensor]:
    return {name: _tensor(np.asarray(value)) for name, value in hierarchy_leaves(path, values=True) if hasattr(value, "dtype")}


def _tensor(array: np.ndarray) -> Tensor:
    kind = _WIDER.get(array.dtype.name)
    array = array.astype(kind or array.dtype.newbyteorder("="))
    return torch.from_numpy(np.array(array, copy=True, order="C"))


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "safetensors": load_file, "torch": _pickled, "pickle": _pickled, "npz": _arrays, "npy": _arrays, "msgpack": _packed,
    "gzip": _packed, "hdf5": _hierarchy,
}  # fmt: skip
