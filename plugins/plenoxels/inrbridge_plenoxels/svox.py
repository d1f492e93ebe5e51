"""Read the files of svox (Yu et al. 2021, "PlenOctrees"): an octree whose leaves hold colours or coefficients, and density."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from inrbridge import Box, Product, Sphere, errors
from inrbridge_plenoxels.octree import count_levels
from inrbridge_plenoxels.source import Parts, Source, check_whole

_LOBES = {"SG": ("gaussians", 4), "ASG": ("anisotropic", 11)}  # numbers that say where a lobe points, and how sharply


def read_svox(source: Source) -> Parts:
    """Read an N3Tree.npz: in each cell the coefficients, those of red first, and then raw density."""
    child = _child(source)
    data = source.array("data", (*child.shape, "columns")).flatten(0, 3).float()
    kind, count = _data_format(source, data.shape[1])
    table = torch.cat([data[:, -1:], data[:, :-1]], 1)
    return _tree(source, child, table, kind, count)


def read_compressed(source: Source) -> Parts:
    """Read a compressed octree: the first coefficients as they are, if any were retained, the others from tables of colours."""
    child = _child(source)
    sigma = source.array("sigma", tuple(child.shape)).flatten().float()
    kept = []
    if "data_retained" in source.arrays:
        kept = source.array("data_retained", ("r", *child.shape, 3)).flatten(1, 4).float()
    places = source.array("quant_map", ("k", *child.shape)).flatten(1)
    colours = source.array("quant_colors", (len(places), "colours", 3)).float()
    places = check_whole("quant_map", places)
    if int(places.min()) < 0 or int(places.max()) >= colours.shape[1]:
        raise errors.CannotOpen(f"its quant_map leads beyond the {colours.shape[1]} quant_colors; the file is damaged.")
    count = len(kept) + len(places)
    kind, told = _data_format(source, 1 + 3 * count)
    table = torch.empty(len(sigma), 1 + 3 * count)
    table[:, 0] = sigma
    coefficients = table[:, 1:].unflatten(1, (3, count))
    for j, part in enumerate(kept):
        coefficients[:, :, j] = part
    for j, (row, palette) in enumerate(zip(places, colours, strict=True), len(kept)):
        coefficients[:, :, j] = palette[row.long()]
    return _tree(source, child, table, kind, told)


def _child(source: Source) -> Tensor:
    child = check_whole("child", source.array("child", ("nodes", "N", "N", "N")))
    if len(set(child.shape[1:])) != 1:
        raise errors.CannotOpen(f'its array "child" is of shape {tuple(child.shape)}, expected (n, N, N, N).')
    return child


def _data_format(source: Source, columns: int) -> tuple[str, int]:
    """Return "RGBA", "SH", "SG" or "ASG", and how many functions of the direction there are."""
    told = source.scalars.get("data_format")
    if told is None:
        told = "RGBA" if columns == 4 else f"SH{(columns - 1) // 3}"
        source.assume.note(f"data_format = {told} (by the {columns} numbers of a cell)")
    found = re.fullmatch(r"(RGBA|SH|SG|ASG)(\d*)", str(told))
    if not found or (found[1] == "RGBA") == bool(found[2]):
        raise errors.CannotOpen(f'its data_format is "{told}", expected RGBA, or SH, SG or ASG and a number.')
    kind, count = found[1], int(found[2] or 1)
    if columns != 1 + 3 * count:
        raise errors.CannotOpen(f"it has {columns} numbers in a cell, expected {1 + 3 * count} of {told}.")
    return kind, count


def _tree(source: Source, child: Tensor, table: Tensor, kind: str, count: int) -> Parts:
    """Put the parts together; a row of the table is the raw density and the coefficients of a cell."""
    nodes, branching = len(child), child.shape[1]
    options = {"nodes": nodes, "branching": branching, "levels": count_levels(child), "density": "relu", "density_scale": 1.0,
               "colour": "sigmoid", "padding": source.assume.choose("padding", source.padding, 0.0)}  # fmt: skip
    state = {"table": table.reshape(*child.shape, -1), "child": child}
    box = _box(source)
    if kind == "RGBA":
        return Parts(box, {**options, "head": "medium"}, state)
    if kind == "SH":
        degrees = round(count**0.5)
        if degrees**2 != count:
            raise errors.CannotOpen(f"it has {count} coefficients a colour, expected 1, 4, 9, 16 or 25 spherical harmonics.")
        options["harmonics"] = degrees
    else:
        basis, width = _LOBES[kind]
        state["lobes"] = source.array("extra_data", (count, width)).float()
        options |= {"basis": basis, "components": count}
    return Parts(Product(box, Sphere()), options, state)


def _box(source: Source) -> Box:
    """Return the box that offset + p * invradius takes to the unit cube."""
    offset = source.numbers("offset")
    if "invradius3" in source.arrays:
        scale = source.numbers("invradius3")
    else:
        value = source.scalars.get("invradius")
        scale = [float(value) if isinstance(value, int | float) else 0.0] * 3
    if not all(s > 0 for s in scale):
        raise errors.CannotOpen(f"its invradius is {scale}, expected numbers above 0; the file is damaged.")
    pairs = list(zip(offset, scale, strict=True))
    return Box([-o / s for o, s in pairs], [(1 - o) / s for o, s in pairs])
