"""The code bases whose checkpoints open here, found by the names of their tensors; no tensor is read for it.

The names decide, not the shapes: a vector of parameters looks the same whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inrbridge import Probe

_WRAPPERS = re.compile(
    r"^(state_dict|model_state_dict|model|module|_orig_mod|network|pipeline|_model|radiance_field_state_dict|radiance_field)\."
)
_BOX = ("low", "high")
_GRID = ("base", "finest", "growth")
_VECTOR = ("levels", "features", "log2_table", *_GRID)  # what the length of tiny-cuda-nn's vector does not tell alone
_GMNERF_INPUTS = 144  # of the network alone: 24 octaves of three coordinates


@dataclass(frozen=True)
class Dialect:
    """How one code base writes a field.

    `marks` are groups of names, one group of which is there entirely; `never` names are not. `reader` is "module:function"
    in this package; `options` are those of `NgpFormat.open` that it heeds.
    """

    name: str
    source: str
    reader: str
    marks: tuple[tuple[str, ...], ...]
    options: tuple[str, ...]
    never: tuple[str, ...] = ()

    def fits(self, names: set[str]) -> bool:
        """Say whether a file with tensors of these bare names is of this code base."""
        return any(names.issuperset(group) for group in self.marks) and names.isdisjoint(self.never)


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("instant-ngp", "github.com/NVlabs/instant-ngp", "snapshot:read_snapshot", (("snapshot.params_binary",),),
                ("frame", "convention", "finest", "growth", "size", "extra")),
        Dialect(
            "nerfstudio", "github.com/nerfstudio-project/nerfstudio: nerfacto, instant-ngp", "nerfstudio:read_nerfstudio",
            tuple(("field.aabb", f"field.{base}", f"field.{head}")
                  for base in ("mlp_base.model.params", "mlp_base.params", "mlp_base_grid.tcnn_encoding.params",
                               "mlp_base.0.tcnn_encoding.params", "mlp_base.model.0.hash_table", "mlp_base_grid.hash_table",
                               "mlp_base.0.hash_table")
                  for head in ("mlp_head.params", "mlp_head.tcnn_encoding.params", "mlp_head.layers.0.weight")),
            ("frame", *_BOX, "extent", "contraction", "density_scale", "appearance", *_VECTOR),
        ),
        Dialect(
            "nerfacc", "github.com/nerfstudio-project/nerfacc: NGPRadianceField of its examples", "trainers:read_nerfacc",
            (("mlp_base.params", "mlp_head.params"),), (*_BOX, "extent", "contraction", *_VECTOR),
        ),
        Dialect("ngp-pl", "github.com/kwea123/ngp_pl", "trainers:read_ngp_pl", (("xyz_encoder.params", "rgb_net.params"),),
                (*_BOX, *_VECTOR)),
        Dialect(
            "torch-ngp", "github.com/ashawkey/torch-ngp", "trainers:read_torch_ngp",
            (("encoder.embeddings", "encoder.offsets", "sigma_net.0.weight", "color_net.0.weight", "aabb_train"),
             ("encoder.params", "sigma_net.params", "color_net.params", "aabb_train"),
             ("encoder.embeddings", "encoder.offsets", "backbone.0.weight")),
            (*_BOX, *_VECTOR),
        ),
        Dialect(
            "hashnerf", "github.com/yashbhalgat/HashNeRF-pytorch", "trainers:read_hashnerf",
            tuple((f"{embeddings}embeddings.0.weight", f"{network}sigma_net.0.weight", f"{network}color_net.0.weight")
                  for embeddings in ("embed_fn_state_dict.", "")
                  for network in ("network_fine_state_dict.", "network_fn_state_dict.", "")),
            (*_BOX, *_GRID),
        ),
        Dialect(
            "gmnerf", "github.com/CVLAB-Unibo: nerf2vec, GMNeRF", "trainers:read_gmnerf",
            (("mlp_base.params", "encoding.params"), ("mlp_base.params", "triplane"), ("mlp_base.params",)),
            (*_BOX, "activation", *_VECTOR), never=("mlp_head.params", "aabb", "direction_encoding.params"),
        ),
        Dialect("tcnn", "github.com/NVlabs/tiny-cuda-nn: one vector and its JSON", "snapshot:read_vector", (("params",),),
                ("growth", "dim", "channels", "convention")),
    )
}  # fmt: skip


def bare(name: str) -> str:
    """Drop the words that wrap a state dict.

    >>> bare("pipeline._model.module.field.mlp_base.model.params")
    'field.mlp_base.model.params'
    """
    while (shorter := _WRAPPERS.sub("", name)) != name:
        name = shorter
    return name


def detect_names(names: Iterable[str]) -> Dialect | None:
    """Return the first dialect that fits bare names."""
    found = set(names)
    return next((dialect for dialect in DIALECTS.values() if dialect.fits(found)), None)


def detect(probe: Probe) -> Dialect | None:
    """Return the dialect of a file; None where it is of another kind, or could be."""
    shapes = {bare(name): tuple(shape) for name, shape in probe.tensors.items()}
    found = detect_names(shapes)
    if found is None:
        return None
    if found.name == "tcnn":
        sure = set(shapes) == {"params"} and len(shapes["params"]) == 1 and "encoding.otype" in probe.sidecar
    elif found.name == "gmnerf" and "triplane" not in shapes and not _count(shapes.get("encoding.params", ())):
        from inrbridge_ngp.networks import find_network

        sure = find_network(_count(shapes["mlp_base.params"]), _GMNERF_INPUTS, 4) is not None
    else:
        sure = True
    return found if sure else None


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 1 else 0
