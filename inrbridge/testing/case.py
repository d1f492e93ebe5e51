"""Floor 9: what the laws are asked about: a format, a file of it, and the answers of a law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from inrbridge.domains import Domain
from inrbridge.field import Field
from inrbridge.formats import Format

POINTS = 12
_TOLERANCE = 1e-4  # of the largest value: float32 sums in another order; a broken law is off by far more


class Broken(AssertionError):
    """A law that the format breaks; the text says how, and what to do."""


class Absent(Exception):
    """A law that cannot be asked, for the format has not what it speaks of."""


def require(condition: bool, text: str) -> None:
    """Raise Broken with the text unless the condition holds."""
    if not condition:
        raise Broken(text)


@dataclass
class Case:
    """A format, a file of it, options to open it, and a folder for the files that the laws write."""

    format: Format
    path: Path
    folder: Path
    options: Mapping[str, object] = field(default_factory=dict)

    def open(self, path: Path | None = None) -> Field:
        """Open a file of the format as its own `open` does, without the host around it."""
        return self.format.open(self.path if path is None else path, **self.options)

    @cached_property
    def field(self) -> Field:
        """The opened field; Absent where the format gives none (law `is_a_field` says why)."""
        try:
            opened = self.open()
        except Exception as error:
            raise Absent(f"the file does not open ({type(error).__name__}: {error})") from error
        if not isinstance(opened, Field) or not isinstance(opened.domain, Domain) or not isinstance(opened.channels, int):
            raise Absent("what opens is no field")
        return opened

    @cached_property
    def steady_field(self) -> Field:
        """The field; Absent where its values change from call to call, so that nothing can be compared."""
        if not equal(self.field, self.points(), self.field):
            raise Absent("its values change from call to call (law is_deterministic)")
        return self.field

    def points(self, *batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Points of the field's domain, the same at every call: (*batch, d), by default (12, d)."""
        batch = batch or (POINTS,)
        generator = torch.Generator().manual_seed(1)
        unit = torch.rand(int(torch.tensor(batch).prod()), self.field.domain.unit_dim, generator=generator, dtype=torch.float64)
        return self.field.domain.from_unit(unit).to(dtype).reshape(*batch, -1)


def values_at(field: Field, coords: Tensor) -> Tensor:
    """Values without a graph."""
    with torch.no_grad():
        return field(coords).detach()


def close(a: Tensor, b: Tensor) -> bool:
    """Say whether two tensors agree up to rounding, judged by the largest value."""
    if a.shape != b.shape:
        return False
    scale = max(float(b.abs().max()), 1e-6) if b.numel() else 1.0
    return bool(((a - b).abs() <= _TOLERANCE * scale).all())


def equal(a: Field, coords: Tensor, b: Field) -> bool:
    """Say whether two fields have equal values, bit for bit, at the points."""
    return torch.equal(values_at(a, coords), values_at(b, coords))
