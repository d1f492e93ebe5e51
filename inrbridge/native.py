"""Floor 5: inrbridge's own file: a safetensors file whose metadata says how to build the field again.

The metadata key "inrbridge" holds JSON: {format, api, architecture, domain, channels, channel_names, version}, and {notes},
what a field was made from and how well, where its maker says so.
Reading builds the field first without memory and compares every shape with the file, so that a false
architecture is refused before it costs anything.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.overrides import TorchFunctionMode

from inrbridge import __version__
from inrbridge.containers.listing import read_contents
from inrbridge.domains import domain_from_config
from inrbridge.errors import CannotOpen, CannotSave, ConfigError, InrBridgeError
from inrbridge.field import Field, Stackable, channel_names
from inrbridge.hookspecs import API_VERSION
from inrbridge.writing import written_whole

if TYPE_CHECKING:
    from inrbridge.formats import Format

KEY = "inrbridge"
CALLS_AT_LEAST, CALLS_A_TENSOR = 10_000, 200  # of torch, while a field is built; an honest one needs ten or so a tensor
TENSOR_AT_LEAST, TENSOR_OF_FILE = 64 * 2**20, 8  # bytes that one tensor may have anyhow, and how many times those of the file


def native_header(field: Field, format: str | None = None) -> dict:
    """Return the JSON description from which `build_native` makes a field of the same shape.

    Raises:
        CannotSave: the field does not know its format, or cannot say how to build it anew.
    """
    format = format or getattr(field, "format", None)
    if not format:
        raise CannotSave(
            f"Got a {type(field).__name__} that belongs to no format, expected a field with a `format` attribute; "
            "fit it first: inrbridge.fit([field], format=...)."
        )
    if not isinstance(field, Stackable):
        raise CannotSave(
            f"Got a {type(field).__name__} without `architecture` and `state_dict()`, expected a field that can be built anew; "
            "fit it first: inrbridge.fit([field], format=...)."
        )
    notes = getattr(field, "notes", None)
    return {
        "format": format,
        "api": API_VERSION,
        "architecture": dict(field.architecture),
        "domain": field.domain.to_config(),
        "channels": field.channels,
        "channel_names": list(channel_names(field)),
        "version": __version__,
        **({"notes": dict(notes)} if notes else {}),
    }


def write_native(field: Field, path: str | Path, *, format: str | None = None) -> None:
    """Write the field's state and description; the file appears complete or not at all.

    Raises:
        CannotSave: the field cannot be described in JSON, or the place cannot be written.
    """
    path = Path(path)
    header = native_header(field, format)
    # clones: safetensors refuses tensors that share memory, which buffers of a module may do
    state = {name: value.detach().cpu().contiguous().clone() for name, value in field.state_dict().items()}
    try:
        metadata = {KEY: json.dumps(header)}
    except TypeError as error:
        raise CannotSave(
            f"Got an architecture of {header['format']} that is no JSON ({error}), expected numbers, texts and lists; "
            "correct the field's `architecture`."
        ) from error
    with written_whole(path) as temporary:
        temporary.write_bytes(save(state, metadata=metadata))  # not `save_file`, whose files no other user may read


def read_native(path: str | Path, format: Format, told: Collection[str] = ()) -> Field:
    """Read a field that `write_native` wrote, through the format's `build`.

    Args:
        told: names of options that the caller gave for files of other code bases; here they have no use.

    Raises:
        CannotOpen: the file is damaged, or its header and its tensors disagree.
        ConfigError: there are such options.
    """
    if told:
        raise ConfigError(f"Got {', '.join(told)} for a file that inrbridge wrote, expected none; it tells them itself.")
    path = Path(path)
    contents = read_contents(path, "safetensors")
    if contents.damage:
        raise CannotOpen(f"{contents.damage}; copy or download it again.")
    try:
        header = json.loads(contents.metadata[KEY])
        named, api = header["format"], int(header["api"])
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CannotOpen('it has no "inrbridge" header, expected a file written by inrbridge.save_field.') from error
    if named != format.name:
        raise CannotOpen(f'it is a file of format "{named}", not "{format.name}"; open it with format="{named}".')
    if api > API_VERSION:
        raise CannotOpen(f"it was written by plugin API {api}, this inrbridge speaks {API_VERSION}: pip install -U inrbridge")
    check_native(header, contents.tensors, format)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CannotOpen(f"the tensors cannot be read ({error}); copy or download the file again.") from error
    with _WithinBounds(path.stat().st_size):
        field = build_native(header, format)
    _compare(field.state_dict(), contents.tensors)
    for name, value in field.state_dict().items():
        if state[name].is_complex() and not value.is_complex():
            raise CannotOpen(f'its tensor "{name}" holds complex numbers, expected {value.dtype}; the file was edited.')
    kinds = {value.dtype for value in state.values() if value.is_floating_point()}
    if len(kinds) == 1:
        field = field.to(kinds.pop())
    field.load_state_dict(state, strict=True)
    if isinstance(header.get("notes"), dict):
        field.notes = header["notes"]
    return field


def build_native(header: Mapping, format: Format) -> Field:
    """Build a fresh field from a native header; its weights are to be loaded.

    Raises:
        CannotOpen: the header lacks something, or the format cannot build what it describes.
    """
    try:
        domain, names = domain_from_config(header["domain"]), tuple(str(name) for name in header["channel_names"])
        if header["channels"] != len(names):
            raise CannotOpen(f"it states {header['channels']} channels and names {len(names)} of them.")
        # weights are replaced at once, so any fixed generator does; the global one stays untouched
        generator = torch.Generator().manual_seed(0)
        field = format.build(domain, len(names), generator=generator, **header["architecture"])
    except InrBridgeError as error:
        raise CannotOpen(f"its header does not fit: {error}") from error
    except Exception as error:  # the build of a format may raise anything at arguments that make no sense
        raise CannotOpen(f"its header does not describe a field of {format.name} ({type(error).__name__}: {error})") from error
    if channel_names(field) != names:
        field.channel_names = names
    if getattr(field, "format", None) != format.name:
        field.format = format.name
    return field


class _WithoutMemory(TorchFunctionMode):
    """Put every tensor on the meta device, also where a device is asked for by name; stop what goes on for ever."""

    def __init__(self, tensors: int):
        super().__init__()
        self.calls_left = CALLS_AT_LEAST + CALLS_A_TENSOR * tensors

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls_left -= 1
        if self.calls_left < 0:
            raise CannotOpen("its architecture describes far more tensors than the file holds.")
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


class _WithinBounds(TorchFunctionMode):
    """Stop a build that makes a tensor far larger than the file, before its numbers are drawn and so its memory taken."""

    def __init__(self, size: int):
        super().__init__()
        self.most = max(TENSOR_AT_LEAST, TENSOR_OF_FILE * size)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() * result.element_size() > self.most:
            raise CannotOpen(f"its architecture describes a tensor {tuple(result.shape)}, far larger than the file.")
        return result


def check_native(header: Mapping, held: Mapping[str, tuple[int, ...]], format: Format) -> None:
    """Raise CannotOpen unless the field that a header describes has the tensors `held` (name -> shape); takes no memory."""
    try:
        with torch.device("meta"), _WithoutMemory(len(held)):
            built = build_native(header, format)
    except CannotOpen as error:
        cause = error.__cause__
        if isinstance(cause, RuntimeError) and "meta" in str(cause):  # this build reads values back, which meta tensors have not
            return
        raise
    _compare(built.state_dict(), held)


def _compare(built: Mapping[str, torch.Tensor], held: Mapping[str, tuple[int, ...]]) -> None:
    built = {name: tuple(value.shape) for name, value in built.items()}
    if built == dict(held):
        return
    for name in sorted(set(built) | set(held)):
        if built.get(name) != held.get(name):
            raise CannotOpen(
                f'its header and its tensors disagree: "{name}" is {held.get(name, "absent")} in the file and '
                f"{built.get(name, 'absent')} by its architecture; the file was edited."
            )
