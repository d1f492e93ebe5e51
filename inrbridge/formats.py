"""Floor 5: what a format is (a way in which a file becomes a field) and the shared look at a file that formats judge.

A plugin subclasses `Format`, states `api = 1` and a `name`, and writes `recognizes` and `open`; all else has
a default. The host hands every format the same `Probe`, so that a file is read once however many formats look.
"""

from __future__ import annotations

import inspect
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from inrbridge.containers.listing import HEAD_BYTES, Contents, magic_of, read_contents
from inrbridge.containers.sidecar import find_sidecar
from inrbridge.errors import ConfigError

if TYPE_CHECKING:  # listing formats must not import torch
    import torch

    from inrbridge.domains import Domain
    from inrbridge.field import Field

_WRAPPERS = re.compile(r"^(state_dict|model_state_dict|model|module|_orig_mod|network|params|pipeline)\.")
_FIXED = {"open": 1, "build": 2, "sample": 3}  # arguments that the host passes by position


class Probe:
    """One look at a file or folder, shared by all formats; every part is read on first use and kept.

    `tensors` maps names to shapes, whatever the container (safetensors, torch, npz, npy, pickle, MessagePack, HDF5); nested
    dicts, lists and modules are joined by dots ("state_dict.net.0.weight"). No tensor is read and nothing is executed. A file
    that cannot be listed has no tensors, and says why in `damage` (broken bytes) or `refused` (a pickle that would run code).
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @cached_property
    def head(self) -> bytes:
        """The first 4 KiB; empty for a folder."""
        if self.path.is_dir():
            return b""
        with self.path.open("rb") as file:
            return file.read(HEAD_BYTES)

    @cached_property
    def size(self) -> int:
        """Bytes of the file; 0 for a folder."""
        return 0 if self.path.is_dir() else self.path.stat().st_size

    @cached_property
    def magic(self) -> str:
        """Kind of container: "safetensors", "torch", "npz", "npy", "zip", "pickle", "gzip", "hdf5", "msgpack",
        "png", "jpeg", "wav", "folder" or "unknown"."""
        return magic_of(self.path, self.head)

    @cached_property
    def contents(self) -> Contents:
        """All that the headers tell; the properties below are its parts."""
        return read_contents(self.path, self.magic)

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor or array."""
        return self.contents.tensors

    @property
    def dtypes(self) -> dict[str, str]:
        """Name -> dtype as the container spells it ("F32", "float32", "object")."""
        return self.contents.dtypes

    @property
    def scalars(self) -> dict[str, object]:
        """Name -> number, text or None beside the tensors ("epoch", "snapshot.mode", "net.0.omega_0", ...)."""
        return self.contents.scalars

    @property
    def metadata(self) -> dict[str, str]:
        """Text metadata of a safetensors file."""
        return self.contents.metadata

    @property
    def listing(self) -> tuple[str, ...]:
        """Names in a folder (two levels, folders end with "/") or in a zip archive."""
        return self.contents.listing

    @property
    def damage(self) -> str:
        """Why the bytes are broken; empty when they look sound."""
        return self.contents.damage

    @property
    def refused(self) -> str:
        """Why the file was not listed although it may be sound: it would have to run code; else empty."""
        return self.contents.refused

    @cached_property
    def _found_beside(self) -> tuple[str, Mapping[str, object]]:
        return find_sidecar(self.path)

    @property
    def sidecar(self) -> Mapping[str, object]:
        """Values of the configuration beside the file, by dotted name ("pipeline.model.num_levels"); empty where none is."""
        return self._found_beside[1]

    @property
    def sidecar_name(self) -> str:
        """Name of the file that `sidecar` was read from; "" where there is none."""
        return self._found_beside[0]

    @cached_property
    def native(self) -> dict:
        """Header of a file that inrbridge wrote itself ({"format": ..., "architecture": ...}); empty for foreign ones."""
        try:
            header = json.loads(self.metadata.get("inrbridge", "{}"))
        except (ValueError, RecursionError):
            return {}
        return header if isinstance(header, dict) else {}

    @cached_property
    def bare_tensors(self) -> dict[str, tuple[int, ...]]:
        """`tensors` without leading wrapper words ("state_dict.", "model.", "module.", ...): how dialects are told apart."""
        return {bare(name): shape for name, shape in self.tensors.items()}

    def describe(self) -> str:
        """Say in a few words what was found, for error messages."""
        if self.magic == "folder":
            return f"a folder of {len(self.listing)} entries"
        names = list(self.tensors)
        shown = ", ".join(f"{n} {self.tensors[n]}" for n in names[:3]) + (", ..." if len(names) > 3 else "")
        kind = "a file of unknown kind" if self.magic == "unknown" else f"a {self.magic} file"
        return f"{kind}, {self.size} bytes" + (f", {len(names)} tensors: {shown}" if names else ", no tensors to list")


def bare(name: str) -> str:
    """Drop leading wrapper words of a tensor name.

    >>> bare("state_dict.module.net.0.weight")
    'net.0.weight'
    """
    while (shorter := _WRAPPERS.sub("", name)) != name:
        name = shorter
    return name


class Format(ABC):
    """How a file becomes a field, and a field a file.

    A subclass states `api` (the plugin API it was written for, now 1) and `name` (also the name of its entry
    point). Fields it returns carry `domain`, `channels` and, where they can, `channel_names`, `architecture` (the
    JSON keyword arguments of `build`), `assumed` (what the file did not tell, as a tuple of sentences) and `label`
    (the class that the file itself tells). Options of `open`, `build` and `sample` are named with defaults; `*args`
    and `**kwargs` are refused, so that options can be listed.
    """

    api: int
    name: str
    suffixes: tuple[str, ...] = ()
    description: str = ""

    @abstractmethod
    def recognizes(self, probe: Probe) -> bool:
        """Say whether the file is one of this format; quick, and sure: two formats that claim one file are an error."""

    @abstractmethod
    def open(self, path: Path) -> Field:
        """Read the field on the CPU; subclasses may add named options. Must also read what `save` writes."""

    def count(self, probe: Probe) -> int:
        """Return how many fields the file holds, told from its headers; one that may hold several gives `open` an option
        `index`, and `open(path, index=i)` reads one of them."""
        return 1

    def open_all(self, path: Path, options: Mapping[str, object]) -> Iterator[Field]:
        """Read every field of the file, in the order of `index`; override it where reading all at once is quicker."""
        count = self.count(Probe(path))
        for index in range(count):
            yield self.open(path, **options, **({} if count == 1 else {"index": index}))

    def save(self, field: Field, path: Path) -> None:
        """Write the field; by default into inrbridge's own container, which `read_native(path, self)` reads."""
        from inrbridge.native import write_native

        write_native(field, path, format=self.name)

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None) -> Field:
        """Return a fresh trainable field (an `nn.Module`); subclasses add named options, the keys of `architecture`."""
        raise ConfigError(
            f'Format "{self.name}" opens files but builds no fresh fields; choose one that does: `inrbridge formats --load`.'
        )

    def sample(self, signal: Field, domain: Domain, channels: int) -> Field | None:
        """Return the field closest to the signal where that needs no optimization (grids); None: it must be fitted."""
        return None

    def fit_defaults(self) -> dict[str, float]:
        """Steps and learning rate that suit this format."""
        return {"steps": 500, "lr": 1e-3}

    def preview(self, field: Field):
        """Return an image (height, width, 3) in [0, 1] of a field that needs its own camera; None: the generic drawing."""
        return None

    def self_check(self) -> list[str]:
        """Return what is wrong with this installation, one sentence each; `inrbridge doctor` shows them."""
        return []

    def example(self, folder: Path) -> Path:
        """Write a tiny example file into the folder and return its path."""
        import torch

        from inrbridge.domains import Box

        path = Path(folder) / f"{self.name}.safetensors"
        self.save(self.build(Box.centered(2), 3, generator=torch.Generator().manual_seed(0)), path)
        return path

    def options(self, method: str = "open") -> dict[str, object]:
        """Return the named options of `open`, `build` or `sample` with their defaults (`inspect.Parameter.empty`: required)."""
        parameters = list(inspect.signature(getattr(self, method)).parameters.values())[_FIXED[method] :]
        return {p.name: p.default for p in parameters if p.name != "generator"}

    def required(self, method: str = "open") -> tuple[str, ...]:
        """Return the options of a method that have no default."""
        return tuple(name for name, default in self.options(method).items() if default is inspect.Parameter.empty)

    def abilities(self) -> tuple[str, ...]:
        """Return which optional methods this format brings, of build, sample and preview."""
        optional = ("build", "sample", "preview")
        return tuple(name for name in optional if getattr(type(self), name) is not getattr(Format, name))
