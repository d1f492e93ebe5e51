"""Read the files of svox2 (Fridovich-Keil et al. 2022, "Plenoxels"): a sparse lattice of densities and coefficients."""

from __future__ import annotations

import torch
from torch import Tensor

from inrbridge import Box, Product, Sphere, errors
from inrbridge_plenoxels.source import Parts, Source, check_whole

BASES = {1: "harmonics", 4: "texture", 255: "network"}  # by svox2's basis_type
_LAYERS = (0, 2, 4, 6)  # of its network, activations between


def read_svox2(source: Source) -> Parts:
    """Read a ckpt.npz: links into rows of raw density and of 3 k coefficients, those of red first."""
    if source.padding is not None:
        raise errors.ConfigError(f"Got padding = {source.padding} for a file of svox2, expected none: it pads no colours.")
    links = check_whole("links", source.array("links", ("x", "y", "z")))
    density, coefficients = _rows(source)
    rows, columns = coefficients.shape
    if columns % 3:
        raise errors.CannotOpen(f"it has {columns} coefficients in a row, expected as many for each of three colours.")
    if int(links.max()) >= rows:
        raise errors.CannotOpen(f"its links lead to row {int(links.max())} of {rows}; the file is damaged.")
    radius, center = source.numbers("radius", 1.0), source.numbers("center", 0.0)
    if not all(r > 0 for r in radius):
        raise errors.CannotOpen(f"its radius is {radius}, expected numbers above 0; the file is damaged.")
    sides = [(_short(c - r), _short(c + r)) for c, r in zip(center, radius, strict=True)]
    box = Box(*zip(*sides, strict=True))
    basis, state = _basis(source, columns // 3)
    table = torch.cat([density, coefficients], 1)
    options = {"resolution": list(links.shape), "density": "relu", "density_scale": 1.0, "colour": "relu", **basis}
    if rows == links.numel() and int(links.min()) >= 0:
        table = table[links.long()]  # full: rows in the order of the lattice need no links
    else:
        options["rows"] = rows
        state["links"] = links
    _background(source)
    return Parts(Product(box, Sphere()), options, {"table": table, **state})


def _short(value: float) -> float:
    """Drop the digits that single precision does not have: 1.2000000477 is 1.2."""
    return float(f"{value:.8g}")


def _rows(source: Source) -> tuple[Tensor, Tensor]:
    """Return raw densities (rows, 1) and coefficients (rows, 3 k)."""
    if "density_data" not in source.arrays:  # the oldest files
        data = source.array("data", ("rows", "1 + 3 k")).float()
        return data[:, :1], data[:, 1:]
    coefficients = source.array("sh_data", ("rows", "3 k")).float()
    return source.array("density_data", (len(coefficients), 1)).float(), coefficients


def _basis(source: Source, count: int) -> tuple[dict, dict[str, Tensor]]:
    kind = source.whole("basis_type", 1)
    if kind not in BASES:
        raise errors.CannotOpen(f"its basis_type is {kind}, expected 1 (spherical harmonics), 4 (texture) or 255 (network).")
    if kind == 1:
        degrees = round(count**0.5)
        if degrees**2 != count:
            raise errors.CannotOpen(f"it has {count} coefficients a colour, expected 1, 4, 9 or 16 spherical harmonics.")
        return {"harmonics": degrees}, {}
    if kind == 4:
        texture = source.array("basis_data", ("side", "side", "side", count)).float()
        return {"basis": "texture", "components": count, "side": len(texture)}, {"texture": texture}
    octaves, width = source.whole("mlp_posenc_size", 4), source.whole("mlp_width", 32)
    if any(name.startswith("pt__basis_mlp__") and int(name.split("__")[2]) not in _LAYERS for name in source.arrays):
        raise errors.CannotOpen("its network has layers other than 0, 2, 4 and 6, expected svox2's.")
    state = {}
    widths = [3 + 6 * octaves, width, width, width, count]
    for i, layer in enumerate(_LAYERS):
        state[f"network_{i}_weight"] = source.array(f"pt__basis_mlp__{layer}__weight", (widths[i + 1], widths[i])).float()
        state[f"network_{i}_bias"] = source.array(f"pt__basis_mlp__{layer}__bias", (widths[i + 1],)).float()
    return {"basis": "network", "components": count, "octaves": octaves, "width": width}, state


def _background(source: Source) -> None:
    if "background_data" not in source.arrays:
        return
    shape = tuple(source.arrays["background_data"].shape)
    layers = f" of {shape[1]} layers" if len(shape) == 3 else ""
    source.assume.note(f"its background{layers}, beyond the box, is left out: the field is what is inside")
