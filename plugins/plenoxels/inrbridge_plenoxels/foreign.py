"""Read the file of another code base into a `PlenoxelField`, and say what had to be assumed."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from inrbridge import Assumptions, Probe, errors, read_tensors
from inrbridge_plenoxels.dialects import DIALECTS, Dialect, detect
from inrbridge_plenoxels.field import PlenoxelField
from inrbridge_plenoxels.source import Parts, Source


def open_foreign(path: Path, dialect: str | None, padding: float | None) -> PlenoxelField:
    """Build the field that a foreign file describes (see `PlenoxelsFormat.open`).

    Raises:
        CannotOpen: the file is damaged, or of none of the dialects.
    """
    probe = Probe(path)
    spoken = _dialect(dialect, probe)
    assume = Assumptions(spoken.name, sidecar=probe.sidecar, sidecar_name=probe.sidecar_name)
    if dialect is None:
        assume.note(f"dialect = {spoken.name} (by the names of the arrays)")
    module, function = spoken.reader.split(":")
    read = getattr(importlib.import_module(f"inrbridge_plenoxels.{module}"), function)
    try:
        field = _assemble(read(Source(read_tensors(path), probe.scalars, assume, padding)))
    except errors.ConfigError as error:
        if padding is not None:  # it may be at fault
            raise
        raise errors.CannotOpen(f"its contents do not fit together: {error}") from error
    except errors.InrBridgeError as error:
        if isinstance(error, errors.CannotOpen):
            raise
        raise errors.CannotOpen(f"its contents do not fit together: {error}") from error
    except (ValueError, ArithmeticError, LookupError, RuntimeError, TypeError, MemoryError) as error:
        raise errors.CannotOpen(f"its contents do not fit together ({type(error).__name__}: {error}).") from error
    field.assumed = tuple(assume.sentences)
    return field


def _dialect(name: str | None, probe: Probe) -> Dialect:
    shown = ", ".join(list(probe.tensors)[:4])
    if name is None:
        found = detect(probe.tensors)
        if found is None:
            raise errors.CannotOpen(
                f"its arrays ({shown}, ...) fit none of the dialects {', '.join(DIALECTS)}; see: inrbridge info FILE --all"
            )
        return found
    if name not in DIALECTS:
        raise errors.unknown_name("dialect", name, DIALECTS)
    if not DIALECTS[name].fits(probe.tensors):
        raise errors.CannotOpen(
            f'its arrays ({shown}, ...) do not fit dialect "{name}" ({DIALECTS[name].source}); leave the dialect out to have it '
            "found."
        )
    return DIALECTS[name]


def _assemble(parts: Parts) -> PlenoxelField:
    from inrbridge_plenoxels import PlenoxelsFormat

    with torch.device("meta"):  # shapes are compared before memory is taken
        field = PlenoxelsFormat().build(parts.domain, 4, axes=("x", "y", "z"), **parts.options)
    expected = {name: tuple(value.shape) for name, value in field.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in parts.state.items()}
    for name in expected | found:
        if expected.get(name) != found.get(name):
            raise errors.CannotOpen(
                f'its part "{name}" is {found.get(name, "absent")}, expected {expected.get(name, "none")} by the others.'
            )
    field.load_state_dict({name: value.contiguous() for name, value in parts.state.items()}, assign=True)
    field.cells.check(field.state_dict())
    return field.requires_grad_(True)
