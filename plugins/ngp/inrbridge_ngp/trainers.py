"""Readers of the checkpoints of nerfacc's examples, ngp_pl, torch-ngp, HashNeRF-pytorch, and of nerf2vec and GMNeRF."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from inrbridge import Box, Product, Sphere, errors
from inrbridge_ngp.levels import GridSpec
from inrbridge_ngp.networks import find_network, unpack_network
from inrbridge_ngp.source import (
    Parts,
    Source,
    activation,
    colour_layers,
    colour_network,
    corners,
    cut,
    find_grid,
    unbounded,
)

GEOMETRY = 16  # outputs of the base network, the logarithm of density among them
SIZES = {"harmonics": 16, "outputs": GEOMETRY, "geometry": GEOMETRY - 1}
_SCENE = {"axes": ("x", "y", "z")}


def radiance(box: Box, convention: dict) -> Parts:
    """Begin a radiance field in a box."""
    options = {"head": "radiance", "geometry": GEOMETRY, "harmonics": 4}
    return Parts(Product(box, Sphere()), 4, options, {}, convention=convention, **_SCENE)


def choose_contraction(source: Source, default: str, key: str | None = None) -> str:
    """Return how unbounded space is squeezed: "none", "sphere" or "cube"."""
    found = source.assume.choose("contraction", source.told.contraction, default, key=key, kind=str)
    if found not in ("none", "sphere", "cube"):
        raise errors.unknown_name("contraction", found, ("none", "sphere", "cube"))
    return found


def read_nerfacc(source: Source) -> Parts:
    """NGPRadianceField of nerfacc's examples."""
    vector = source.vector("mlp_base.params")
    box = source.tensor("aabb", 6).tolist() if "aabb" in source.tensors else [-1.0] * 3 + [1.0] * 3
    if "aabb" not in source.tensors:
        source.assume.note("the file has no aabb: the scene's box is [-1, 1]^3 unless low and high are told")
    low, high = corners(source, box[:3], box[3:])
    contraction = choose_contraction(source, "none")
    place = Box(low, high) if contraction == "none" else unbounded(source, low, high)
    parts = radiance(place, {"low": low, "high": high, "contraction": contraction, "outside": "dark", "density_shift": -1.0})
    spec, width, layers = find_grid(source, vector.numel(), GEOMETRY, finest=(4096, 2048, 1024, 8192))
    base, table = cut(vector, spec, GEOMETRY, width, layers)
    has_directions = "direction_encoding.params" in source.tensors
    order = ("harmonics", "geometry") if has_directions else ("geometry",)
    head = colour_network(source.vector("mlp_head.params"), sum(SIZES[name] for name in order))
    parts.add_grid(spec, table)
    parts.add_network("base", base)
    parts.add_network("colour", colour_layers(head, order, SIZES))
    source.assume.note("density = exp(output - 1)")
    return parts


def read_ngp_pl(source: Source) -> Parts:
    """NGP of ngp_pl, in a full or a slim checkpoint."""
    near, far = (source.tensor(name, 1, 3)[0].tolist() for name in ("xyz_min", "xyz_max"))
    low, high = corners(source, near, far)
    vector = source.vector("xyz_encoder.params")
    spec, width, layers = find_grid(source, vector.numel(), GEOMETRY, finest=(2048 * far[0],))
    tone = [f"tonemapper_net_{i}.params" for i in range(3)]
    has_tone = all(name in source.tensors for name in tone)
    parts = radiance(Box(low, high), {"low": low, "high": high, "tone": has_tone})
    base, table = cut(vector, spec, GEOMETRY, width, layers)
    parts.add_grid(spec, table)
    parts.add_network("base", base)
    head = colour_network(source.vector("rgb_net.params"), 32)
    parts.add_network("colour", colour_layers(head, ("harmonics", "outputs"), SIZES))
    if has_tone:
        _add_tone(source, parts, tone)
        source.assume.note("colours are tone-mapped at unit exposure")
    return parts


def _add_tone(source: Source, parts: Parts, names: list[str]) -> None:
    width = parts.options["colour_width"]
    nets = [unpack_network(source.vector(name), 1, 1, width, 1, padding=1.0) for name in names]
    parts.state["tone.0.weight"] = torch.stack([net[0][0] for net in nets])
    parts.state["tone.0.bias"] = torch.stack([net[0][1] for net in nets])
    parts.state["tone.1.weight"] = torch.stack([net[1][0] for net in nets])


def read_torch_ngp(source: Source) -> Parts:
    """NeRFNetwork of torch-ngp, over its own grid or over tiny-cuda-nn, and its SDFNetwork."""
    is_sdf = "backbone.0.weight" in source.tensors
    bound = 1.0 if is_sdf else float(source.tensor("aabb_train", 6)[3])
    if not (math.isfinite(bound) and bound > 0):
        raise errors.CannotOpen(f"its aabb_train ends at {bound}, expected a number above 0.")
    low, high = corners(source, [-bound] * 3, [bound] * 3)
    ours = "encoder.embeddings" in source.tensors
    convention = {"low": low, "high": high, "outside": "blank" if ours else "wrap"}
    finest = (2048 * bound) if source.told.finest is None else source.told.finest
    if is_sdf:
        parts = Parts(Box(low, high), 1, {"head": "values"}, {}, names=("sdf",), convention=convention, **_SCENE)
        _add_embeddings(source, parts, finest)
        parts.add_network("base", source.layers("backbone"))
        return parts
    parts = radiance(Box(low, high), convention)
    if any(name.startswith("bg_net.") for name in source.tensors):
        source.assume.note("its background network is left out")
    if ours:
        _add_embeddings(source, parts, finest)
        base, head = source.layers("sigma_net"), source.layers("color_net")
    else:
        vector = source.vector("encoder.params")
        spec, _, _ = find_grid(source, vector.numel(), GEOMETRY, finest=(finest,), network=False)
        parts.add_grid(spec, vector.reshape(spec.rows, spec.features))
        network = source.vector("sigma_net.params")
        found = find_network(network.numel(), spec.outputs, GEOMETRY)
        if found is None:
            raise errors.CannotOpen(f"its sigma_net has {network.numel()} parameters, which fit no network.")
        base = unpack_network(network, spec.outputs, GEOMETRY, *found, padding=1.0)
        head = colour_network(source.vector("color_net.params"), 31)
    _set_geometry(parts, base)
    parts.add_network("base", base)
    parts.add_network("colour", colour_layers(head, ("harmonics", "geometry"), _sizes(base)))
    return parts


def _sizes(base: list) -> dict[str, int]:
    outputs = base[-1][0].shape[0]
    return {"harmonics": 16, "outputs": outputs, "geometry": outputs - 1}


def _set_geometry(parts: Parts, base: list) -> None:
    parts.options["geometry"] = base[-1][0].shape[0]


def _add_embeddings(source: Source, parts: Parts, finest: float) -> None:
    table = source.tensor("encoder.embeddings", None, None)
    offsets = [int(value) for value in source.tensors["encoder.offsets"].flatten()]
    sizes = [b - a for a, b in pairwise(offsets)]
    if not sizes or offsets[0] != 0 or min(sizes) < 1 or offsets[-1] != table.shape[0]:
        raise errors.CannotOpen(
            f"its offsets run from {offsets[:1]} to {offsets[-1:]} by steps of at least {min(sizes, default=0)}, expected from 0 "
            f"to the {table.shape[0]} rows of its embeddings, growing."
        )
    levels, most, told = len(sizes), max(sizes), source.told
    base = int(source.assume.choose("base", told.base, 16, kind=int))
    finest = source.assume.choose("finest", told.finest, finest)
    growth = told.growth or (2 ** (math.log2(finest / base) / (levels - 1)) if levels > 1 else 1.0)
    log2_table = told.log2_table or (most.bit_length() - 1 if most & (most - 1) == 0 else 19)
    for layout in ("torch-ngp", "torch-ngp-early", "torch-ngp-aligned"):
        spec = GridSpec(3, levels, table.shape[1], log2_table, base, growth, layout=layout)
        if spec.sizes == sizes:
            if layout == "torch-ngp-aligned":
                source.assume.note("its levels have the rows of align_corners=True")
            return parts.add_grid(spec, table)
    raise errors.CannotOpen(
        f"its levels have {sizes[:4]}.. rows, expected {spec.sizes[:4]}.. for a grid from {base} to {finest:g} points; "
        "tell base and finest."
    )


def read_hashnerf(source: Source) -> Parts:
    """HashEmbedder and NeRFSmall of HashNeRF-pytorch."""
    part = "network_fine_state_dict" if "network_fine_state_dict.sigma_net.0.weight" in source.tensors else ""
    part = part or ("network_fn_state_dict" if "network_fn_state_dict.sigma_net.0.weight" in source.tensors else "")
    prefix = f"{part}." if part else ""
    embeddings = "embed_fn_state_dict.embeddings" if "embed_fn_state_dict.embeddings.0.weight" in source.tensors else "embeddings"
    tables: list[Tensor] = []
    while f"{embeddings}.{len(tables)}.weight" in source.tensors:
        like = tables[0].shape if tables else (None, None)
        tables.append(source.tensor(f"{embeddings}.{len(tables)}.weight", *like))
    if not tables or tables[0].shape[0] & (tables[0].shape[0] - 1):
        rows = tables[0].shape[0] if tables else 0
        raise errors.CannotOpen(f"its {len(tables)} tables have {rows} rows, expected a power of 2.")
    if source.told.low is None or source.told.high is None:
        source.assume.note("the file does not tell the box of its data: coordinates run over it from -1 to 1")
    low, high = corners(source, [-1.0] * 3, [1.0] * 3)
    base = int(source.assume.choose("base", source.told.base, 16, kind=int))
    finest = source.assume.choose("finest", source.told.finest, 512.0, key="finest_res")
    # as there, in single precision throughout
    steps = torch.log(torch.tensor(finest, dtype=torch.float32)) - torch.log(torch.tensor(base, dtype=torch.float32))
    growth = source.told.growth or float(torch.exp(steps / max(len(tables) - 1, 1)))
    log2_table = tables[0].shape[0].bit_length() - 1
    spec = GridSpec(3, len(tables), tables[0].shape[1], log2_table, base, growth, layout="hashnerf")
    parts = radiance(Box(low, high), {"low": low, "high": high, "outside": "clamp", "density": "relu"})
    parts.add_grid(spec, torch.cat(tables))
    network = source.layers(f"{prefix}sigma_net")
    _set_geometry(parts, network)
    parts.add_network("base", network)
    parts.add_network("colour", colour_layers(source.layers(f"{prefix}color_net"), ("harmonics", "geometry"), _sizes(network)))
    return parts


def read_gmnerf(source: Source) -> Parts:
    """The fields of nerf2vec and GMNeRF: a network alone, over a hash grid, or over three planes; no view directions."""
    low, high = corners(source, [-0.7] * 3, [0.7] * 3)
    if source.told.low is None and source.told.high is None:
        source.assume.note("box = [-0.7, 0.7]^3 (default of its dialect)")
    convention = {"low": low, "high": high, "outside": "dark", "density_shift": -1.0}
    parts = Parts(Box(low, high), 4, {"head": "medium"}, {}, convention=convention, **_SCENE)
    vector = source.vector("mlp_base.params")
    kind = "sine" if "triplane" in source.tensors else "relu"
    parts.options["activation"] = activation(source.assume.choose("activation", source.told.activation, kind, kind=str))
    padding = 1.0
    if "triplane" in source.tensors:
        planes = source.tensor("triplane", 3, None, None, None)
        if planes.shape[1] != planes.shape[2]:
            raise errors.CannotOpen(f"its planes are {tuple(planes.shape[1:3])}, expected squares.")
        parts.options |= {"levels": 0, "frequencies": 48, "planes": [planes.shape[1], planes.shape[3]]}
        parts.state["planes"] = planes
        inputs = 2 * 3 * 48 + planes.shape[3]
    elif "encoding.params" in source.tensors and source.tensors["encoding.params"].numel():
        grid = source.vector("encoding.params")
        spec, _, _ = find_grid(source, grid.numel(), 4, levels=4, log2_table=12, finest=(128,), network=False)
        parts.add_grid(spec, grid.reshape(spec.rows, spec.features))
        inputs = spec.outputs
    else:
        parts.options |= {"levels": 0, "frequencies": 24}
        inputs = 2 * 3 * 24
    if "frequencies" in parts.options:
        source.assume.note(f"frequencies = {parts.options['frequencies']} (default of its dialect)")
    found = find_network(vector.numel(), inputs, 4)
    if found is None:
        raise errors.CannotOpen(f"its network has {vector.numel()} parameters, which fit no network of {inputs} inputs.")
    parts.add_network("base", unpack_network(vector, inputs, 4, *found, padding=padding))
    source.assume.note("colours = sigmoid(outputs), density = exp(output - 1)")
    return parts
