"""Floor 7: from a field to photographs: a camera that sees all of it, a turntable, contact sheets and moving pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inrbridge.errors import CannotSave, ConfigError, MissingDependency
from inrbridge.field import Field
from inrbridge.radiance.cameras import FIELD_OF_VIEW, Camera, focal_length, orbit
from inrbridge.radiance.marching import render
from inrbridge.radiance.medium import Medium
from inrbridge.radiance.occupancy import Occupancy

CELLS, PASSES = 48, 2  # of the occupancy grid that spares empty space while a picture is taken
STRAY = 0.01  # share of occupied cells on each side of each axis that a picture need not show: floating specks
THETA, PHI = math.radians(-150), math.radians(-30)
FRAME_MS = 80  # of a moving picture


def default_camera(
    field: Field,
    resolution: int = 256,
    *,
    theta: float = THETA,
    phi: float = PHI,
    radius: float | None = None,
    target: Sequence[float] | None = None,
    angle: float = FIELD_OF_VIEW,
    up: str | None = None,
    near: float = 0.0,
    far: float = math.inf,
    occupancy: Occupancy | None = None,
) -> Camera:
    """Return a camera of resolution x resolution pixels on an orbit around a field.

    Args:
        theta, phi: radians, as of `orbit`; angle: of view along the width, in radians.
        radius, target: default so far away, and aimed so, that all matter is seen (found by `occupancy`, or a look at the
            field); with a radius the default target is the middle of the field's box.
        up: default the field's own `up`, an axis such as "y", where it has one; else "z".
    """
    if target is None or radius is None:
        box = Medium.of(field).box
        low, high = box.bounds
        if radius is None:
            low, high = (occupancy or look(field)).bounds(STRAY)
        target = [(a + b) / 2 for a, b in zip(low, high, strict=True)] if target is None else target
        if radius is None:
            radius = 0.5 * math.dist(low, high) / math.sin(angle / 2)
    if len(target) != 3:
        raise ConfigError(f"Got the target {tuple(target)}, expected three coordinates.")
    focal = focal_length(resolution, angle)
    up = up or getattr(field, "up", None) or "z"
    return Camera(orbit(theta, phi, radius, target=target, up=up), focal, resolution, resolution, near, far)


def turntable(field: Field, count: int, resolution: int = 256, *, theta: float = THETA, **options) -> list[Camera]:
    """Return `count` cameras all around a field, from theta on; options as of `default_camera`."""
    if not isinstance(count, int) or not 1 <= count <= 1000:
        raise ConfigError(f"Got turntable={count!r}, expected 1 to 1000 views.")
    if options.get("radius") is None and options.get("occupancy") is None:
        options["occupancy"] = look(field)
    return [default_camera(field, resolution, theta=theta + 2 * math.pi * i / count, **options) for i in range(count)]


def look(field: Field) -> Occupancy:
    """Return where a field has matter, coarsely: enough to aim a camera, and to skip empty space."""
    return Occupancy.of(field, CELLS, passes=PASSES)


def photograph(field: Field, cameras: Camera | Sequence[Camera], *, occupancy: Occupancy | None = None, **options) -> np.ndarray:
    """Return pictures (n, height, width, 3) uint8 of a field; options: samples, background of `render`."""
    cameras = [cameras] if isinstance(cameras, Camera) else list(cameras)
    occupancy = look(field) if occupancy is None else occupancy
    shots = [render(field, camera, occupancy=occupancy, **options).colours for camera in cameras]
    return np.stack([(shot.clamp(0, 1) * 255).round().byte().cpu().numpy() for shot in shots])


def contact_sheet(pictures: np.ndarray) -> np.ndarray:
    """Lay pictures (n, h, w, 3) out in rows on white: (rows * h, columns * w, 3)."""
    n, h, w, c = pictures.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * columns, h, w, c), 255, np.uint8)
    sheet[:n] = pictures
    return sheet.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def save_pictures(pictures: np.ndarray, path: str | Path) -> Path:
    """Write pictures (n, h, w, 3) uint8: a moving .gif, else one image of all.

    Raises:
        MissingDependency: pillow is not installed.
        CannotSave: the file cannot be written.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency('Writing pictures needs pillow: pip install "inrbridge[plot]"') from error
    path = Path(path)
    try:
        if path.suffix.lower() == ".gif":
            frames = [Image.fromarray(picture) for picture in pictures]
            frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
        else:
            Image.fromarray(contact_sheet(pictures)).save(path)
    except OSError as error:
        raise CannotSave(f"Cannot write {path} ({error}); check that its folder exists and has room.") from error
    return path
