"""Readers of networks that a latent vector modulates: what it does to each layer becomes part of the weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from inrbridge import errors, read_tensors
from inrbridge_siren.layered import read_layers
from inrbridge_siren.source import Layer, Parts, Source, check_chain

_LAYER = r"modulated_siren_layer(?:_(\d+))?"


def read_lucidrains(source: Source) -> Parts:
    """SirenNet of lucidrains; a modulator multiplies what leaves the sines, x_i <- h_i sin(..): the next weight takes h_i up.

    h_0 = relu(M_0 z), h_i = relu(M_i (h_{i-1} | z)).
    """
    parts = read_layers(source)
    if grid := next(source.find("grid"), None):
        size = _picture(source.tensors[grid[0]])
        if size:
            source.assume.note(f"the picture has {size[0]} rows and {size[1]} columns (by its grid)")
    names = {int(found[1]): found[0].removesuffix("weight") for found in source.find(r"modulator\.layers\.(\d+)\.0\.weight")}
    if not names:
        if source.told.latent is not None:
            raise errors.CannotOpen("it has no modulator, got a latent vector; leave the latent out.")
        return parts
    if sorted(names) != list(range(len(parts.layers) - 1)):
        raise errors.CannotOpen(f"its modulator has layers {sorted(names)}, expected one for each of {len(parts.layers) - 1}.")
    size = source.tensor(f"{names[0]}weight", None, None).shape[1]
    latent = _latent(source, size, torch.zeros(size), "zeros: the latent vector is not in the file")
    parts.is_modulated = True
    hidden = latent.new_zeros(0)
    for i in range(len(names)):
        weight = source.tensor(f"{names[i]}weight", parts.layers[i][0].shape[0], len(hidden) + size).double()
        bias = source.tensor(f"{names[i]}bias", len(weight)).double()
        hidden = torch.relu(weight @ torch.cat([hidden, latent]) + bias)
        following, shift = parts.layers[i + 1]
        parts.layers[i + 1] = ((following.double() * hidden).to(following.dtype), shift)
    return parts


def _picture(grid: Tensor) -> tuple[int, int] | None:
    """Return rows and columns of a grid of coordinates (h w, 2), the row number being the slower."""
    if grid.ndim != 2 or grid.shape[1] != 2 or not len(grid):
        return None
    columns = int((grid[:, 0] == grid[0, 0]).sum())
    return (len(grid) // columns, columns) if columns and len(grid) % columns == 0 else None


def _latent(source: Source, size: int, default: Tensor, origin: str) -> Tensor:
    """Return the latent vector in double precision: the one told, or the default, which is written down."""
    told = source.told.latent
    if told is None:
        source.assume.note(f"latent = {origin}")
        return default.double()
    try:
        latent = torch.tensor([float(value) for value in told], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise errors.ConfigError(f"Got latent = {told!r}, expected {size} numbers.") from error
    if len(latent) != size or not bool(latent.isfinite().all()):
        raise errors.ConfigError(f"Got a latent vector of {len(latent)} numbers, expected {size} finite ones.")
    return latent


def read_functa(source: Source) -> Parts:
    """Networks of functa: layers sin(w0 (s_i (x W + b) + t_i)), where the latent gives s_i - 1 and t_i, or one of them."""
    found: dict[int, Layer] = {}
    for match in source.find(rf"\w*modulated_siren/{_LAYER}/linear\.w"):
        name = match[0].removesuffix("w")
        weight = source.tensor(f"{name}w", None, None).mT
        found[int(match[1] or 0)] = (weight, source.tensor(f"{name}b", len(weight)))
    if sorted(found) != list(range(len(found))):
        raise errors.CannotOpen(f"its layers have the numbers {sorted(found)}, expected 0, 1, 2, ...")
    layers = [found[i] for i in range(len(found))]
    check_chain(layers)
    scales, shifts = _modulations(source, [len(weight) for weight, _ in layers[:-1]])
    for i, (scale, shift) in enumerate(zip(scales, shifts, strict=True)):
        weight, bias = (value.double() for value in layers[i])
        kind = layers[i][0].dtype
        layers[i] = ((scale[:, None] * weight).to(kind), (scale * bias + shift).to(kind))
    return Parts(layers, omegas=source.omegas(len(layers) - 1), is_modulated=True)


def _modulations(source: Source, widths: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Return scale and shift of each sine layer."""
    scales = [torch.ones(width, dtype=torch.float64) for width in widths]
    shifts = [torch.zeros(width, dtype=torch.float64) for width in widths]
    linear = sorted(
        (int(match[1]), match[0].removesuffix("w")) for match in source.find(r".*/latent_to_modulation/.*linear_(\d+)\.w")
    )
    if not linear:
        for match in source.find(rf"\w*modulated_siren/{_LAYER}/.*\.(scale|shift)"):
            target, i = (scales if match[2] == "scale" else shifts), int(match[1] or 0)
            if i < len(widths):
                target[i] = source.tensor(match[0], widths[i]).double()
        return scales, shifts
    value = _functa_latent(source, source.tensor(f"{linear[0][1]}w", None, None).shape[0])
    for step, (_, name) in enumerate(linear):
        weight = source.tensor(f"{name}w", len(value), None).double()
        value = (torch.relu(value) if step else value) @ weight + source.tensor(f"{name}b", weight.shape[1]).double()
    kinds = _kinds(source, len(value), sum(widths))
    start = 0
    for i, width in enumerate(widths):
        for kind in kinds:
            part, start = value[start : start + width], start + width
            if kind == "scale":
                scales[i] = part + 1
            else:
                shifts[i] = part
    return scales, shifts


def _kinds(source: Source, count: int, units: int) -> tuple[str, ...]:
    """Say whether the modulations are scales and shifts, or one of them, by their number and the stored configuration."""
    if count == 2 * units:
        return ("scale", "shift")
    if count != units:
        raise errors.CannotOpen(f"its latent makes {count} modulations, expected {units} or {2 * units} for {units} units.")
    is_scale = any(name.endswith("modulate_scale") and value is True for name, value in source.scalars.items())
    return ("scale",) if is_scale else ("shift",)


def _functa_latent(source: Source, size: int) -> Tensor:
    told = source.told
    if told.modulations is None:
        stored = next(source.find(r".*latent_vector\.latent_vector"), None)
        default = source.tensor(stored[0], size) if stored else torch.zeros(size)
        return _latent(source, size, default, "the one stored with the parameters, of no sample" if stored else "zeros")
    if told.latent is not None:
        raise errors.ConfigError("Got a latent vector and a file of modulations, expected one of them.")
    table = {name: value for name, value in read_tensors(Path(told.modulations)).items() if name.endswith(".modulation")}
    splits = [name.removesuffix(".modulation") for name in table]
    if not splits:
        raise errors.CannotOpen(f"{told.modulations} holds no modulations, expected those of functa.")
    split = source.assume.choose("split", told.split, "train" if "train" in splits else splits[0], kind=str)
    if split not in splits:
        raise errors.unknown_name("split", split, splits)
    rows = table[f"{split}.modulation"]
    if rows.ndim != 2 or rows.shape[1] != size or not rows.is_floating_point():
        raise errors.CannotOpen(
            f"{told.modulations} holds modulations of shape {tuple(rows.shape)}, expected (any, {size}) for this network; "
            "params and modulations of functa belong together by the number of latents in their names."
        )
    return rows[source.choose_index(len(rows))].double()


def refuse_modulations(source: Source) -> Parts:
    """Say which file opens a file of modulations."""
    counts = {match[1]: tuple(source.tensors[match[0]].shape) for match in source.find(r"(train|test)\.modulation")}
    shape = next(iter(counts.values()))
    size = shape[-1] if shape else 0
    name = re.sub(r"_modulations_(\d+)_latents", r"_params_\1_latents", source.path.name)
    near = name if name != source.path.name else f"..._params_{size}_latents.npz"
    there = "beside it" if (source.path.parent / near).is_file() else "of the same release"
    raise errors.CannotOpen(
        f"it holds latent vectors of functa ({', '.join(f'{k} {v}' for k, v in counts.items())}) and no network; open {near} "
        f"{there} with modulations={source.path} and index=0."
    )
