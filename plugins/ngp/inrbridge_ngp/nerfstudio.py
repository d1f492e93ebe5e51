"""Reader of nerfstudio's nerfacto and instant-ngp checkpoints, of all its eras and of both implementations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrbridge import Box, errors
from inrbridge_ngp.levels import GridSpec, growth_between
from inrbridge_ngp.networks import Layer, find_network, unpack_network
from inrbridge_ngp.source import Parts, Source, colour_layers, colour_network, corners, cut, find_grid, unbounded
from inrbridge_ngp.trainers import choose_contraction, radiance

MODEL = "pipeline.model."  # where config.yml keeps the settings of the model


def read_nerfstudio(source: Source) -> Parts:
    """NerfactoField, and the instant-ngp field of the first eras; tensors begin with "field."."""
    names = set(source.tensors)
    is_ngp = any(name.startswith("occupancy_grid.") for name in names)
    is_early = "occupancy_grid._roi_aabb" in names  # instant-ngp before nerfacc 0.5
    is_recent = any(name.startswith("field.mlp_base.model.") for name in names)  # since December 2023
    box = source.tensor("field.aabb", 2, 3).tolist()
    low, high = corners(source, *box)
    disabled = source.sidecar.get(f"{MODEL}disable_scene_contraction")
    default = "none" if disabled is True else "sphere" if is_early else "cube"
    contraction = choose_contraction(source, default)
    if disabled is not None and source.told.contraction is None:
        source.assume.note(f"disable_scene_contraction = {disabled} ({source.sidecar_name})")
    if contraction == "none":
        place, cube = Box(low, high), (low, high)
    else:
        # the contraction by cubes knows nothing of the scene's box
        cube = (low, high) if contraction == "sphere" else ((-1.0,) * 3, (1.0,) * 3)
        place = unbounded(source, *cube)
    scale = source.assume.choose(
        "density_scale", source.told.density_scale, 0.01 if is_recent and not is_ngp else 1.0, key=f"{MODEL}average_init_density"
    )
    convention = {"low": cube[0], "high": cube[1], "contraction": contraction, "outside": "origin", "density_scale": scale}
    parts = radiance(place, convention)
    network = _add_base(source, parts)
    geometry = network[-1][0].shape[0]
    parts.options["geometry"] = geometry
    parts.add_network("base", network)
    appearance = _appearance(source, is_ngp)
    length = 0 if appearance is None else appearance.numel()
    sizes = {"harmonics": 16, "outputs": geometry, "geometry": geometry - 1, "constant": length}
    if "field.mlp_head.layers.0.weight" in names:
        head = source.layers("field.mlp_head.layers")
        parts.convention["directions"] = "shifted"
    else:
        key = "field.mlp_head.tcnn_encoding.params"
        head = colour_network(source.vector(key if key in names else "field.mlp_head.params"), 15 + geometry + length)
    order = ("harmonics", "geometry") + (("constant",) if length else ())
    parts.add_network("colour", colour_layers(head, order, sizes, appearance))
    return parts


def _add_base(source: Source, parts: Parts) -> list[Layer]:
    """Find grid and base network by the names of their era."""
    names, vector = source.tensors, source.vector
    for key in ("field.mlp_base.model.params", "field.mlp_base.params"):
        if key in names:
            spec, width, layers = _solve(source, vector(key).numel(), True)
            network, table = cut(vector(key), spec, 16, width, layers)
            parts.add_grid(spec, table)
            return network
    for grid, mlp in (("field.mlp_base_grid", "field.mlp_base_mlp"), ("field.mlp_base.0", "field.mlp_base.1")):
        if f"{grid}.tcnn_encoding.params" in names:
            table = vector(f"{grid}.tcnn_encoding.params")
            spec, _, _ = _solve(source, table.numel(), False)
            parts.add_grid(spec, table.reshape(spec.rows, spec.features))
            packed = vector(f"{mlp}.tcnn_encoding.params")
            found = find_network(packed.numel(), spec.outputs, 16)
            if found is None:
                raise errors.CannotOpen(f"its base network has {packed.numel()} parameters, which fit no network.")
            return unpack_network(packed, spec.outputs, 16, *found, padding=1.0)
    for grid, mlp in (
        ("field.mlp_base.model.0", "field.mlp_base.model.1"),
        ("field.mlp_base_grid", "field.mlp_base_mlp"),
        ("field.mlp_base.0", "field.mlp_base.1"),
    ):
        if f"{grid}.hash_table" in names:
            _add_hash_table(source, parts, source.tensor(f"{grid}.hash_table", None, None))
            return source.layers(f"{mlp}.layers")
    raise errors.CannotOpen("it has no grid under field.mlp_base; was the field saved without it?")


def _solve(source: Source, count: int, network: bool) -> tuple[GridSpec, int, int]:
    """Find the grid of a tiny-cuda-nn vector; since February 2023 buffers tell its size."""
    told = {name: source.number(f"field.{name}") for name in ("max_res", "num_levels", "log2_hashmap_size")}
    config = source.sidecar
    levels = told["num_levels"] or _config(config, "num_levels") or 16
    table = told["log2_hashmap_size"] or _config(config, "log2_hashmap_size") or 19
    finest = told["max_res"] or _config(config, "max_res")
    base = _config(config, "base_res") or 16
    features = _config(config, "features_per_level") or 2
    hidden = _config(config, "hidden_dim")
    # 1024 until December 2022, then 2048; the first instant-ngp had 4096
    candidates = (finest,) if finest else (2048, 1024, 4096, 8192)
    for name, value in (("levels", levels), ("log2_table", table), ("base", base), ("features", features)):
        if not (math.isfinite(value) and value >= 1 and value == int(value)):
            raise errors.CannotOpen(f"its {name} is {value}, expected a whole number of at least 1.")
    return find_grid(source, count, 16, levels=int(levels), features=int(features), log2_table=int(table), base=int(base),
                     finest=candidates, network=network, width=int(hidden) if hidden and network else None)  # fmt: skip


def _config(config, name: str) -> float | None:
    value = config.get(f"{MODEL}{name}")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _add_hash_table(source: Source, parts: Parts, table: Tensor) -> None:
    """Take the hash table of nerfstudio's own implementation: every level has 2^log2_table rows."""
    told, config = source.told, source.sidecar
    levels = told.levels or source.number("field.num_levels") or _config(config, "num_levels") or 16
    if levels != int(levels) or levels < 1 or table.shape[0] % int(levels):
        raise errors.CannotOpen(f"its hash table has {table.shape[0]} rows, expected a multiple of its {levels:g} levels.")
    rows = table.shape[0] // int(levels)
    if rows & (rows - 1):
        raise errors.CannotOpen(f"its hash table has {rows} rows a level, expected a power of 2; tell levels.")
    finest = told.finest or source.number("field.max_res") or _config(config, "max_res") or 2048.0
    base = int(source.assume.choose("base", told.base, 16, key=f"{MODEL}base_res", kind=int))
    if told.finest is None and source.number("field.max_res") is None:
        source.assume.note(f"finest = {finest:g}")
    if not (math.isfinite(finest) and finest >= 1 and base >= 1):
        raise errors.CannotOpen(f"its grid runs from {base} to {finest} points, expected at least 1.")
    growth = told.growth or growth_between(base, finest, int(levels))
    spec = GridSpec(3, int(levels), table.shape[1], rows.bit_length() - 1, base, growth, layout="nerfstudio")
    parts.add_grid(spec, table)


def _appearance(source: Source, is_ngp: bool) -> Tensor | None:
    """Return the appearance that the colour network is given; None where it takes none."""
    keys = ("field.embedding_appearance.embedding.weight", "field.appearance_embedding.embedding.weight")
    key = next((name for name in keys if name in source.tensors), None)
    if key is None:
        return None
    table = source.tensor(key, None, None)
    told = source.told.appearance
    average = source.sidecar.get(f"{MODEL}use_average_appearance_embedding")
    default = "zeros" if average is False or (is_ngp and average is not True) else "mean"
    chosen = str(source.assume.choose("appearance", told, default, kind=str))
    if told is None and average is not None:
        source.assume.note(f"use_average_appearance_embedding = {average} ({source.sidecar_name})")
    if chosen == "zeros":
        return torch.zeros(table.shape[1])
    if chosen == "mean":
        return table.mean(0)
    if chosen.isdigit() and int(chosen) < table.shape[0]:
        return table[int(chosen)]
    raise errors.CannotOpen(
        f'it was learnt from {table.shape[0]} images, got appearance = "{chosen}", expected "mean", "zeros" or the number of an '
        f"image, 0 to {table.shape[0] - 1}."
    )
