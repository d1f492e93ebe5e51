"""Floor 7: many fields in one picture, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from inrbridge.data.channels import RANGES, RGB, canonical_channels
from inrbridge.domains import Box
from inrbridge.errors import ConfigError
from inrbridge.field import Field, channel_names
from inrbridge.radiance.pictures import save_pictures
from inrbridge.rendering import preview


def sheet(fields: Sequence[Field], path: str | Path, *, resolution: int = 64) -> Path:
    """Draw fields in rows and columns: those on a plane pixel by pixel, all others as `preview` draws them.

    Args:
        fields: at least one, all on one domain with the same channels; on a plane, red, green and blue are drawn together, else
            the first channel, on one scale for all.
        path: the .png file to write.
        resolution: pixels of a field along its longest side.

    Raises:
        ConfigError: no fields, another suffix, or a resolution out of range.
        MissingDependency: pillow, or for other fields than planar ones matplotlib, is not installed.
    """
    check_sheet(path, resolution)
    if not fields:
        raise ConfigError("Got no fields for a sheet, expected at least one.")
    path = Path(path)
    domain = fields[0].domain
    if not isinstance(domain, Box) or domain.dim != 2:
        return save_pictures(np.stack([preview(field, resolution=resolution) for field in fields]), path)
    pixels = np.stack([_pixels(field, domain, resolution) for field in fields])  # (k, rows, columns, c)
    names = canonical_channels(channel_names(fields[0]))
    shown = [names.index(colour) for colour in RGB] if all(colour in names for colour in RGB) else [0]
    pixels = pixels[..., shown]
    low, high = RANGES.get(names[shown[0]]) or (float(pixels.min()), float(pixels.max()))
    scaled = ((pixels - low) / max(high - low, 1e-12)).clip(0, 1)
    framed = np.pad((scaled * 255).round().astype(np.uint8), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    return save_pictures(np.broadcast_to(framed, (*framed.shape[:3], 3)), path)


def check_sheet(path: str | Path, resolution: int) -> None:
    """Raise ConfigError unless a sheet can have this name and resolution."""
    if Path(path).suffix.lower() != ".png" or not 2 <= resolution <= 2048:
        raise ConfigError(
            f"Got the sheet {path} at resolution={resolution}, expected a name that ends in .png, and 2 to 2048 pixels a field."
        )


def _pixels(field: Field, domain: Box, resolution: int) -> np.ndarray:
    """Evaluate a planar field in the middle of pixels (rows, columns, c)."""
    sides = [high - low for low, high in zip(domain.low, domain.high, strict=True)]
    counts = [max(1, round(resolution * side / max(sides))) for side in sides]
    axes = [low + side * (torch.arange(n) + 0.5) / n for low, side, n in zip(domain.low, sides, counts, strict=True)]
    with torch.no_grad():
        return field(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)).cpu().numpy()
