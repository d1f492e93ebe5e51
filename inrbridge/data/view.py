"""Floor 7: how the fields of a dataset are seen: kept with a model, so that what it meets later is seen alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inrbridge.data.channels import Range
from inrbridge.data.placing import Axis, Corners, Directions
from inrbridge.errors import ConfigError

EVERY = "*"  # stands for all formats that are not named


@dataclass(frozen=True)
class View:
    """The options of `align` for a whole dataset; crop, axes and at by format name, "*" for all others, or alone for all."""

    ranges: Mapping[str, Range] | None = None
    crop: Mapping[str, Corners] = field(default_factory=dict)
    axes: Mapping[str, Sequence[Axis]] = field(default_factory=dict)
    at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    directions: Directions | None = None
    length: float | None = None
    ramp: float = 0.0

    def __post_init__(self):
        for name in ("crop", "axes", "at"):
            value = getattr(self, name)
            if value is None or not isinstance(value, Mapping):
                object.__setattr__(self, name, {} if value is None else {EVERY: value})

    def of(self, format: str | None) -> dict:
        """Return the keyword arguments of `align` for fields of a format."""
        return {
            "ranges": self.ranges, **self.cut(format), "directions": self.directions, "length": self.length, "ramp": self.ramp,
        }  # fmt: skip

    def cut(self, format: str | None) -> dict:
        """Return those of them that say which part of a field of that format is seen."""
        return {name: getattr(self, name).get(format, getattr(self, name).get(EVERY)) for name in ("crop", "axes", "at")}

    def to_json(self) -> dict:
        """Return plain values that `View(**values)` reads back."""
        names = ("ranges", "crop", "axes", "at", "directions", "length", "ramp")
        return {name: _plain(getattr(self, name)) for name in names}

    @classmethod
    def from_json(cls, values: Mapping) -> View:
        """Read what `to_json` gave."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"Got {', '.join(unknown)} as ways to see a field, which a newer inrbridge may know; update it.")
        return cls(**values)


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
