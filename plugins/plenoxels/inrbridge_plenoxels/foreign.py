"""Read the file of another code base into a `PlenoxelField`, and say what had to be assumed."""

from __future__ import annotations

import importlib
from pathlib import Path

from inrbridge import Assumptions, Probe, foreign, read_tensors
from inrbridge_plenoxels.dialects import DIALECTS, detect
from inrbridge_plenoxels.field import PlenoxelField
from inrbridge_plenoxels.source import Parts, Source


def open_foreign(path: Path, dialect: str | None, padding: float | None) -> PlenoxelField:
    """Build the field that a foreign file describes (see `PlenoxelsFormat.open`).

    Raises:
        CannotOpen: the file is damaged, or of none of the dialects.
    """
    probe = Probe(path)
    names = probe.tensors
    spoken = foreign.choose_dialect(dialect, DIALECTS, detect(names), lambda one: one.fits(names), names)
    assume = Assumptions(spoken.name, sidecar=probe.sidecar, sidecar_name=probe.sidecar_name)
    if dialect is None:
        assume.note(f"dialect = {spoken.name} (by the names of the arrays)")
    module, function = spoken.reader.split(":")
    read = getattr(importlib.import_module(f"inrbridge_plenoxels.{module}"), function)
    with foreign.fitting_together(padding is not None):
        field = _assemble(read(Source(read_tensors(path), probe.scalars, assume, padding)))
    field.assumed = tuple(assume.sentences)
    return field


def _assemble(parts: Parts) -> PlenoxelField:
    from inrbridge_plenoxels import PlenoxelsFormat

    options = {"axes": ("x", "y", "z")} | parts.options
    field = foreign.assemble(PlenoxelsFormat(), parts.domain, 4, options, parts.state)
    field.cells.check(field.state_dict())
    return field
