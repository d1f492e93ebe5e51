"""Read the checkpoint of another code base into an `NgpField`, and say what had to be assumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from inrbridge import Assumptions, Probe, Product, errors, foreign, read_tensors
from inrbridge.frames import Motion
from inrbridge_ngp.dialects import DIALECTS, Dialect, bare, detect
from inrbridge_ngp.field import NgpField
from inrbridge_ngp.source import Parts, Source, Told

FRAMES = ("file", "ngp", "world")
_CYCLE = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))  # instant-ngp's x, y, z are the y, z, x of a transforms.json
_STILL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def open_foreign(path: Path, dialect: str | None, told: Told) -> NgpField:
    """Build the field that a foreign file describes (see `NgpFormat.open`).

    Raises:
        CannotOpen: the file is damaged, or of none of the dialects.
    """
    probe = Probe(path)
    tensors: dict = {}
    for name, value in read_tensors(path).items():
        tensors.setdefault(bare(name), value)
    spoken = foreign.choose_dialect(
        dialect, DIALECTS, detect(probe), lambda one: one.fits(set(tensors)), tensors, "a vector of tiny-cuda-nn needs "
        "its configuration beside it, named like the file with .config.json in place of its suffix, or config.json.",
    )  # fmt: skip
    _check_options(told, spoken)
    assume = Assumptions(spoken.name, sidecar=probe.sidecar, sidecar_name=probe.sidecar_name)
    if dialect is None:
        assume.note(f"dialect = {spoken.name} (by the names of the tensors)")
    source = Source(tensors, probe.scalars, probe.sidecar, probe.sidecar_name or "", assume, told)
    with foreign.fitting_together(bool(told.names)):
        parts = _reader(spoken)(source)
        _place(parts, source, spoken)
        field = _assemble(parts)
    field.assumed = tuple(assume.sentences)
    return field


def _check_options(told: Told, dialect: Dialect) -> None:
    for name in told.names:
        if name not in dialect.options:
            raise errors.ConfigError(
                f"Got {name} for a file of dialect {dialect.name}, which has no use for it; expected some of "
                f"{', '.join(dialect.options)}."
            )


def _reader(dialect: Dialect):
    import importlib

    module, function = dialect.reader.split(":")
    return getattr(importlib.import_module(f"inrbridge_ngp.{module}"), function)


def _place(parts: Parts, source: Source, dialect: Dialect) -> None:
    """Turn the field into another frame of coordinates where one was asked for, and say which it is."""
    told = source.told
    if told.frame not in FRAMES:
        raise errors.unknown_name("frame", told.frame, FRAMES)
    if told.convention not in ("file", "image"):
        raise errors.unknown_name("convention", told.convention, ("file", "image"))
    if told.convention == "image":
        if parts.domain.dim != 2:
            raise errors.CannotOpen('it is no image, got convention="image"; open it with convention="file".')
        parts.convention["rotation"] = ((0.0, 1.0), (1.0, 0.0))
        parts.axes = ("row", "column")
        source.assume.note("coordinates are (row, column) in [0, 1]")
    motion = _motion(source, dialect)
    if told.frame != "world":
        if motion is not None:
            source.assume.note(f"coordinates are {dialect.name}'s own; frame=\"world\" gives those of the cameras' file")
        return
    if motion is None:
        raise errors.CannotOpen(
            "it does not tell how its coordinates lie in the world, or dataparser_transforms.json is not beside it; open it with "
            'frame="file".'
        )
    _move(parts, motion)
    source.assume.note(
        f"coordinates are those of the world; the scale is {motion.scale:.6g}, densities are per unit of the world"
    )


def _motion(source: Source, dialect: Dialect) -> Motion | None:
    """Return how the network's coordinates lie in the world; None where it is not told."""
    if dialect.name != "instant-ngp":
        return Motion.beside(source.sidecar)
    at = "snapshot.nerf.dataset."
    scale, offset = source.number(f"{at}scale"), [source.number(f"{at}offset.{i}") for i in range(3)]
    if not scale or scale < 0 or None in offset:
        return None
    if source.scalars.get(f"{at}from_mitsuba") is True:
        return Motion(_STILL, scale, tuple(o / scale for o in offset))
    return Motion(_CYCLE, scale, tuple(offset[i] / scale for i in (1, 2, 0)))


def _move(parts: Parts, motion: Motion) -> None:
    """Rewrite the field for points of the world."""
    is_product = isinstance(parts.domain, Product)
    place = parts.domain.a if is_product else parts.domain
    convention = parts.convention
    low, high = convention.get("low", place.low), convention.get("high", place.high)
    for name, corner in (("low", low), ("high", high)):
        convention[name] = tuple(value / motion.scale - move for value, move in zip(corner, motion.shift, strict=True))
    convention["rotation"], parts.axes, parts.up = motion.rotation, ("x", "y", "z"), None
    convention["density_scale"] = convention.get("density_scale", 1.0) * motion.scale
    box = motion.box_in_world(place)
    parts.domain = dataclasses.replace(parts.domain, a=box) if is_product else box


def _assemble(parts: Parts) -> NgpField:
    from inrbridge_ngp import NgpFormat

    options = {"convention": parts.convention, "axes": parts.axes, "channel_ranges": parts.ranges, "up": parts.up}
    field = foreign.assemble(NgpFormat(), parts.domain, parts.channels, options | parts.options, parts.state)
    if parts.names:
        field.channel_names = parts.names
    return field
