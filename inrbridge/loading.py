"""Floor 5: read the tensors of a file, and nothing but tensors.

Formats that read the files of other code bases start here: no code of the file runs, and what its headers
claim is compared with its size first.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from inrbridge.containers.hierarchical import DamagedHierarchy, hierarchy_leaves
from inrbridge.containers.packed import DamagedPack, pack_leaves, read_pack
from inrbridge.containers.pickles import DamagedPickle, InertFile, RefusedPickle, TensorRef
from inrbridge.errors import CannotOpen
from inrbridge.formats import Probe
from inrbridge.headers import leaves

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
    readers = {"safetensors": load_file, "torch": _torch, "npz": _archive, "npy": _npy, "pickle": _inert, "msgpack": _packed,
               "gzip": _packed, "hdf5": _hierarchy}  # fmt: skip
    reader = _inert if probe.contents.is_inert else readers.get(probe.magic)
    if reader is None:
        raise CannotOpen(f"it is {probe.describe()}, expected a file of tensors; see: inrbridge info {probe.path} --all")
    try:
        return reader(probe.path)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError, OSError, MemoryError, zlib.error,
            zipfile.BadZipFile, DamagedPickle, RefusedPickle, DamagedPack, DamagedHierarchy) as error:  # fmt: skip
        if isinstance(error, PermissionError):
            raise
        raise CannotOpen(f"its tensors cannot be read ({error}); copy or download it again.") from error


def _torch(path: Path) -> dict[str, Tensor]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value for name, value in leaves(loaded) if isinstance(value, Tensor)}


def _inert(path: Path) -> dict[str, Tensor]:
    file = InertFile(path)
    found = {}
    for name, value in file.leaves():
        if isinstance(value, TensorRef):
            found[name] = file.read(value)
        elif isinstance(value, np.ndarray):
            found[name] = _tensor(value)
    return found


def _archive(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return {name: _tensor(value) for name, value in arrays.items() if value.dtype.kind in "fiub"}


def _npy(path: Path) -> dict[str, Tensor]:
    return {"array": _tensor(np.load(path, allow_pickle=False))}


def _packed(path: Path) -> dict[str, Tensor]:
    return {name: _tensor(value) for name, value in pack_leaves(read_pack(path)) if isinstance(value, np.ndarray)}


def _hierarchy(path: Path) -> dict[str, Tensor]:
    return {name: _tensor(np.asarray(value)) for name, value in hierarchy_leaves(path, values=True) if hasattr(value, "dtype")}


def _tensor(array: np.ndarray) -> Tensor:
    kind = _WIDER.get(array.dtype.name)
    array = array.astype(kind or array.dtype.newbyteorder("="))
    return torch.from_numpy(np.array(array, copy=True, order="C"))
