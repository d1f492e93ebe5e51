"""Floor 9: the content of a file as a tree that can be changed and written again in the same container.

A tree is made of dicts, lists and tuples; its leaves are tensors, numpy arrays, numbers, texts and bytes. The metadata of a
safetensors file is the dict under "__metadata__", texts of JSON in it opened into trees.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from inrbridge.containers.records import Array, Shell, SparseRef, TensorRef
from inrbridge.containers.torch_files import InertFile
from inrbridge.formats import Probe

METADATA = "__metadata__"
Keys = tuple[object, ...]


@dataclass(frozen=True)
class Tree:
    """What a file holds, and how such content becomes the bytes of a file again."""

    content: object
    write: Callable[[object], bytes]


_MOST_BYTES = 2**28  # of a tensor that is written out


def read_tree(path: Path) -> Tree | None:
    """Return the content of a file; None where it has no container that is written here, or nothing in it can be read."""
    readers = {"safetensors": _safetensors, "torch": _torch, "npz": _archive, "npy": _npy, "pickle": _pickle,
               "msgpack": _packed, "gzip": _packed, "hdf5": _hierarchy}  # fmt: skip
    probe = Probe(path)
    reader = readers.get(probe.magic)
    return reader(path) if reader is not None and not probe.damage and not probe.refused else None


def in_every_container(path: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the tensors of a file, under their names, into each container that `inrbridge.read_tensors` reads.

    Yields the word for the container and the path of the new file; some formats will not know their tensors there.
    """
    from inrbridge.loading import read_tensors

    tensors = read_tensors(path)
    arrays = {name: _array(value) for name, value in tensors.items()}
    blobs = {name: value.tobytes() for name, value in arrays.items()}
    writers: dict[str, tuple[str, Callable[[], bytes]]] = {
        "safetensors": (".safetensors", lambda: save({name: value.contiguous() for name, value in tensors.items()})),
        "torch": (".pt", lambda: _torch_bytes(tensors, True)),
        "torch-legacy": (".pth", lambda: _torch_bytes(tensors, False)),
        "npz": (".npz", lambda: _archive_bytes(arrays)),
        "pickle": (".pkl", lambda: pickle.dumps(arrays)),
        "msgpack": (".msgpack", lambda: _packed_bytes(blobs)),
        "gzip": (".ingp", lambda: gzip.compress(_packed_bytes(blobs), 1)),
        "hdf5": (".h5", lambda: _hierarchy_bytes({name.replace(".", "/"): value for name, value in arrays.items()})),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for container, (suffix, write) in writers.items():
        made = folder / f"{path.stem}{suffix}"
        made.write_bytes(write())
        yield container, made


def leaves_of(node: object, keys: Keys = ()) -> Iterator[tuple[Keys, object]]:
    """Yield the place (keys from the root) and the value of every leaf."""
    if isinstance(node, dict | list | tuple):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves_of(child, (*keys, key))
    else:
        yield keys, node


def changed(node: object, keys: Keys, change: Callable[[object], dict | list]) -> object:
    """Return the tree with the dict or list that holds the leaf at `keys` replaced by `change` of a copy of it."""
    if len(keys) == 1:
        new = change(dict(node) if isinstance(node, dict) else list(node))
    else:
        new = dict(node) if isinstance(node, dict) else list(node)
        new[keys[0]] = changed(new[keys[0]], keys[1:], change)
    return tuple(new) if isinstance(node, tuple) else new


def _safetensors(path: Path) -> Tree:
    with safe_open(path, "pt") as file:
        metadata = {name: _opened(text) for name, text in (file.metadata() or {}).items()}
    return Tree({METADATA: metadata, **load_file(path)}, _safetensors_bytes)


def _opened(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _safetensors_bytes(content: dict) -> bytes:
    metadata = content.get(METADATA, {})
    texts = (
        {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {}
    )
    if any(v.numel() * v.element_size() > _MOST_BYTES for v in content.values() if isinstance(v, Tensor)):
        raise ValueError("a tensor that is only seen as huge would be written out")
    return save({str(k): v.contiguous().clone() for k, v in content.items() if isinstance(v, Tensor)}, metadata=texts)


def _torch(path: Path) -> Tree:
    is_zip = zipfile.is_zipfile(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        content = _inert(path)
    return Tree(content, lambda new: _torch_bytes(new, is_zip))


def _inert(path: Path) -> object:
    """The content of a pickle of more than tensors; objects become dicts of their state."""

    def plain(node: object) -> object:
        if isinstance(node, dict):
            return {key: plain(child) for key, child in node.items()}
        if isinstance(node, list | tuple):
            return type(node)(plain(child) for child in node)
        if isinstance(node, Shell):
            return plain(node.state)
        if isinstance(node, TensorRef | SparseRef):
            return file.read(node)
        return plain(node.content()) if isinstance(node, Array) else node

    with InertFile(path) as file:
        return plain(file.tree)


def _torch_bytes(content: object, is_zip: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


def _archive(path: Path) -> Tree:
    with np.load(path, allow_pickle=False) as archive:
        return Tree({name: archive[name] for name in archive.files}, _archive_bytes)


def _archive_bytes(content: dict) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **{str(name).replace("/", "_"): _small(value) for name, value in content.items()})
    return stream.getvalue()


def _npy(path: Path) -> Tree:
    content = _inert(path) if Probe(path).contents.is_inert else [np.load(path, allow_pickle=False)]
    return Tree(content, _npy_bytes)


def _npy_bytes(content: list) -> bytes:
    if len(content) == 1 and isinstance(content[0], np.ndarray):
        array = content[0]
    else:
        array = np.empty(len(content), object)
        array[:] = [_Kept(value) for value in content]  # numpy would stack arrays of equal shape
        array[:] = [kept.value for kept in array]
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@dataclass
class _Kept:
    value: object


def _pickle(path: Path) -> Tree:
    return Tree(_inert(path), pickle.dumps)


def _packed(path: Path) -> Tree:
    from inrbridge.containers.packed import read_pack

    is_bare = Probe(path).magic == "msgpack"
    return Tree(read_pack(path), lambda new: _packed_bytes(new) if is_bare else gzip.compress(_packed_bytes(new), 1))


def _packed_bytes(content: object) -> bytes:
    import msgpack

    return msgpack.packb(content, default=lambda value: _small(value).tobytes())


def _hierarchy(path: Path) -> Tree:
    import h5py

    found: dict[str, object] = {}

    def keep(name: str, node) -> None:
        found.update({f"{name}@{key}": value for key, value in node.attrs.items()})
        if isinstance(node, h5py.Dataset):
            found[name] = node[()]

    with h5py.File(path, "r") as file:
        keep("", file)
        file.visititems(keep)
    return Tree(found, _hierarchy_bytes)


def _hierarchy_bytes(content: dict) -> bytes:
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, value in content.items():
            if "@" not in name:
                file[name or "unnamed"] = value
        for name, value in content.items():
            owner, at, key = name.partition("@")
            if at:
                (file.require_group(owner) if owner not in file and owner else file[owner or "/"]).attrs[key] = value
    return stream.getvalue()


def _array(value: Tensor) -> np.ndarray:
    if value.numel() * value.element_size() > _MOST_BYTES:
        raise ValueError("a tensor that is only seen as huge would be written out")
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _small(value: object) -> np.ndarray:
    """An array that may be written out; ValueError for one that is only seen as huge."""
    array = np.asarray(value)
    if array.nbytes > _MOST_BYTES:
        raise ValueError("an array that is only seen as huge would be written out")
    return array
