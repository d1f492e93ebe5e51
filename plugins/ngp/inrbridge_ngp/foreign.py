"""Read the checkpoint of another code base into an `NgpField`, and say what had to be assumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from inrbridge import Assumptions, Box, Probe, Product, errors, read_tensors
from inrbridge_ngp.dialects import DIALECTS, Dialect, bare, detect
from inrbridge_ngp.field import NgpField
from inrbridge_ngp.source import Parts, Source, Told

FRAMES = ("file", "ngp", "world")
_CYCLE = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))  # instant-ngp's x, y, z are the y, z, x of a transforms.json
_ROUND = 1e-3  # how far a rotation may be from one


def open_foreign(path: Path, dialect: str | None, told: Told) -> NgpField:
    """Build the field that a foreign file describes (see `NgpFormat.open`).

    Raises:
        CannotOpen: the file is damaged, or of none of the dialects.
    """
    probe = Probe(path)
    tensors: dict = {}
    for name, value in read_tensors(path).items():
        tensors.setdefault(bare(name), value)
    spoken = _dialect(dialect, probe, tensors)
    _check_options(told, spoken)
    assume = Assumptions(spoken.name, sidecar=probe.sidecar, sidecar_name=probe.sidecar_name)
    if dialect is None:
        assume.note(f"dialect = {spoken.name} (by the names of the tensors)")
    source = Source(tensors, probe.scalars, probe.sidecar, probe.sidecar_name or "", assume, told)
    try:
        parts = _reader(spoken)(source)
        _place(parts, source, spoken)
        field = _assemble(parts)
    except (errors.ConfigError, errors.UnknownName) as error:
        if told.names:  # an option may be at fault
            raise
        raise errors.CannotOpen(f"its contents do not fit together: {error}") from error
    except errors.InrBridgeError:
        raise
    except (ValueError, ArithmeticError, LookupError, RuntimeError, TypeError) as error:
        raise errors.CannotOpen(f"its contents do not fit together ({type(error).__name__}: {error}).") from error
    field.assumed = tuple(assume.sentences)
    return field


def _dialect(name: str | None, probe: Probe, tensors: dict) -> Dialect:
    shown = ", ".join(list(tensors)[:4])
    if name is None:
        found = detect(probe)
        if found is None:
            raise errors.CannotOpen(
                f"its tensors ({shown}, ...) fit none of the dialects {', '.join(DIALECTS)}; a vector of tiny-cuda-nn needs "
                "its configuration beside it, named like the file with .config.json in place of its suffix, or config.json."
            )
        return found
    if name not in DIALECTS:
        raise errors.unknown_name("dialect", name, DIALECTS)
    if not DIALECTS[name].fits(set(tensors)):
        raise errors.CannotOpen(
            f'its tensors ({shown}, ...) do not fit dialect "{name}" ({DIALECTS[name].source}); leave the dialect out to have it '
            "found."
        )
    return DIALECTS[name]


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
    _move(parts, *motion)
    source.assume.note(f"coordinates are those of the world; the scale is {motion[1]:.6g}, densities are per unit of the world")


def _motion(source: Source, dialect: Dialect) -> tuple[tuple, float, list[float]] | None:
    """Return rotation R, scale s and shift t of p = s (R q + t), q being a point of the world; None where it is not told."""
    if dialect.name == "instant-ngp":
        at = "snapshot.nerf.dataset."
        scale, offset = source.number(f"{at}scale"), [source.number(f"{at}offset.{i}") for i in range(3)]
        if not scale or scale < 0 or None in offset:
            return None
        if source.scalars.get(f"{at}from_mitsuba") is True:
            return tuple(tuple(float(i == j) for j in range(3)) for i in range(3)), scale, [o / scale for o in offset]
        return _CYCLE, scale, [offset[i] / scale for i in (1, 2, 0)]
    told = source.sidecar
    rows = [[told.get(f"dataparser.transform.{i}.{j}") for j in range(4)] for i in range(3)]
    scale = told.get("dataparser.scale")
    if not all(isinstance(v, int | float) for v in (scale, *rows[0], *rows[1], *rows[2])) or not scale > 0:
        return None
    rotation = torch.tensor([row[:3] for row in rows], dtype=torch.float64)
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=_ROUND):
        raise errors.CannotOpen("the transform of dataparser_transforms.json is no rotation and shift.")
    return tuple(tuple(row[:3]) for row in rows), float(scale), [row[3] for row in rows]


def _move(parts: Parts, rotation: tuple, scale: float, shift: list[float]) -> None:
    """Rewrite the field for points of the world."""
    is_product = isinstance(parts.domain, Product)
    place = parts.domain.a if is_product else parts.domain
    convention = parts.convention
    low, high = convention.get("low", place.low), convention.get("high", place.high)
    for name, corner in (("low", low), ("high", high)):
        convention[name] = tuple(value / scale - move for value, move in zip(corner, shift, strict=True))
    convention["rotation"], parts.axes, parts.up = rotation, ("x", "y", "z"), None
    convention["density_scale"] = convention.get("density_scale", 1.0) * scale
    turned = torch.tensor(rotation, dtype=torch.float64)
    ends = [torch.tensor(corner, dtype=torch.float64) / scale - torch.tensor(shift, dtype=torch.float64)
            for corner in (place.low, place.high)]  # fmt: skip
    corners = torch.cartesian_prod(*torch.stack(ends, 1)) @ turned  # the inverse of a rotation is its transpose
    box = Box([float(v) for v in corners.amin(0)], [float(v) for v in corners.amax(0)])
    parts.domain = dataclasses.replace(parts.domain, a=box) if is_product else box


def _assemble(parts: Parts) -> NgpField:
    from inrbridge_ngp import NgpFormat

    kinds = {value.dtype for value in parts.state.values()}
    kind = torch.float64 if kinds == {torch.float64} else torch.float32
    with torch.device("meta"):  # shapes are compared before memory is taken
        field = NgpFormat().build(parts.domain, parts.channels, convention=parts.convention, axes=parts.axes,
                                  channel_ranges=parts.ranges, up=parts.up, **parts.options)  # fmt: skip
    expected = {name: tuple(value.shape) for name, value in field.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in parts.state.items()}
    for name in expected | found:
        if expected.get(name) != found.get(name):
            raise errors.CannotOpen(
                f'its part "{name}" is {found.get(name, "absent")}, expected {expected.get(name, "none")} by the others.'
            )
    field.load_state_dict({name: value.to(kind).contiguous().clone() for name, value in parts.state.items()}, assign=True)
    if parts.names:
        field.channel_names = parts.names
    return field.requires_grad_(True)
