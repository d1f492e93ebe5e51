"""Read the checkpoint of another code base into a `NerfField`, and say what had to be assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from inrbridge import Assumptions, Box, Probe, Product, Sphere, errors, foreign, read_tensors
from inrbridge.frames import Motion
from inrbridge_nerf.dialects import DIALECTS, Found, find_networks
from inrbridge_nerf.field import NerfField
from inrbridge_nerf.layout import Layout, solve, state_of

NETWORKS, SPACES, FRAMES = ("fine", "coarse"), ("world", "ndc"), ("file", "world")
BLENDER = 1.5  # half the side of the box of the synthetic scenes of NeRF


@dataclass(frozen=True)
class Told:
    """The options of `NerfFormat.open`; None where nothing was said."""

    dialect: str | None = None
    network: str | None = None
    low: float | Sequence[float] | None = None
    high: float | Sequence[float] | None = None
    space: str | None = None
    frame: str | None = None
    density: str | None = None
    colour: str | None = None


def open_foreign(path: Path, told: Told) -> NerfField:
    """Build the field that a foreign file describes (see `NerfFormat.open`).

    Raises:
        CannotOpen: the file is damaged, or of none of the dialects.
    """
    probe = Probe(path)
    for name, known in (("network", NETWORKS), ("space", SPACES), ("frame", FRAMES)):
        if getattr(told, name) not in (None, *known):
            raise errors.unknown_name(name, getattr(told, name), known)
    found = _choose(probe, told)
    assume = Assumptions(found.dialect.name, sidecar=probe.sidecar, sidecar_name=probe.sidecar_name)
    if told.dialect is None:
        by = "order and shapes of the arrays" if found.dialect.name == "bmild" else "names of the tensors"
        by += f' and its "{found.dialect.mark}"' if found.dialect.mark else ""
        assume.note(f"dialect = {found.dialect.name} (by the {by})")
    if told.network is None and found.network:
        assume.note(f"network = {found.network}" + ("" if found.network == "fine" else " (the file holds no fine one)"))
    with foreign.fitting_together(told != Told()):
        is_list = found.dialect.name == "bmild"
        shapes = {bare: probe.tensors[name] for bare, name in found.tensors.items()}
        if is_list:
            shapes = {name: shape[::-1] for name, shape in shapes.items()}
        layout = solve(found, shapes)
        tensors = read_tensors(path)
        state = state_of(found, layout, lambda name: _tensor(tensors, found.tensors[name], is_list))
        field = _assemble(found, layout, state, _Surroundings(probe, told, assume), tensors)
    _compare_with_config(found, layout, assume)
    field.assumed = tuple(assume.sentences)
    return field


def _choose(probe: Probe, told: Told) -> Found:
    if told.dialect is not None and told.dialect not in DIALECTS:
        raise errors.unknown_name("dialect", told.dialect, DIALECTS)
    networks = find_networks(probe, told.dialect)
    if not networks:
        if probe.damage or probe.refused:
            read_tensors(probe.path)  # says why
        shown = ", ".join(list(probe.tensors)[:4])
        raise errors.CannotOpen(f"its tensors ({shown}, ...) fit none of the dialects {', '.join(DIALECTS)}.")
    fitting = [one for one in networks if told.dialect in (None, one.dialect.name)]
    if not fitting:
        raise errors.CannotOpen(
            f'its tensors are of dialect "{networks[0].dialect.name}", not "{told.dialect}"; leave the dialect out.'
        )
    chosen = [one for one in fitting if told.network in (None, one.network)]
    if not chosen:
        held = " and ".join(one.network or "one that is named neither fine nor coarse" for one in fitting)
        raise errors.CannotOpen(f'it holds the network {held}, got network="{told.network}"; leave the network out.')
    return chosen[0]


def _tensor(tensors: dict[str, Tensor], name: str, is_list: bool) -> Tensor:
    found = foreign.real_tensor(tensors, name)
    return found.T if is_list and found.ndim == 2 else found


@dataclass(frozen=True)
class _Surroundings:
    """What is known beside the network."""

    probe: Probe
    told: Told
    assume: Assumptions


def _assemble(found: Found, layout: Layout, state: dict[str, Tensor], around: _Surroundings, tensors: dict) -> NerfField:
    from inrbridge_nerf import NerfFormat

    told, convention = around.told, dict(layout.convention)
    for name, default in (("density", found.dialect.density_activation), ("colour", "sigmoid")):
        convention[name] = around.assume.choose(name, getattr(told, name), default, kind=str)
    formula = found.dialect.encoding.formula if layout.options["frequencies"] else "none: the coordinates as they are"
    around.assume.note(f"encoding = {formula} (that of its dialect)")
    convention |= _even(found, around.assume)
    box = _place(found, convention, around, tensors)
    domain = Product(box, Sphere()) if layout.options["head"] == "radiance" else box
    options = {"convention": convention, "axes": ("x", "y", "z")} | layout.options
    return foreign.assemble(NerfFormat(), domain, 4, options, state)


def _place(found: Found, convention: dict, around: _Surroundings, tensors: dict) -> Box:
    """Return the box that positions lie in; enter into the convention how the network sees it."""
    told, assume = around.told, around.assume
    space = _space(around)
    side, origin = (1.0, "normalized device coordinates") if space == "ndc" else (BLENDER, "the synthetic scenes of NeRF")
    low, high = [-side] * 3, [side] * 3
    aabb = tensors.get("estimator_state_dict.aabbs")
    if found.dialect.name == "nerfacc" and aabb is not None and aabb.ndim == 2 and len(aabb) and aabb.shape[1] == 6:
        corners = aabb[0].tolist()
        low, high, origin = corners[:3], corners[3:], "aabbs of its estimator"
        convention |= {"low": low, "high": high}  # its marching never looks beyond
    if told.low is None or told.high is None:
        assume.note(f"box = {_spell(low)} to {_spell(high)} (that of {origin})")
    box = foreign.told_box(told.low, told.high, low, high)
    motion = Motion.beside(around.probe.sidecar) if found.dialect.name == "nerfstudio" else None
    if told.frame != "world":
        if motion is not None:
            assume.note("coordinates are nerfstudio's own; frame=\"world\" gives those of the cameras' file")
        return box
    if motion is None:
        raise errors.CannotOpen(
            "dataparser_transforms.json, which tells how its coordinates lie in the world, is not beside it; open it with "
            'frame="file".'
        )
    convention |= {"rotation": motion.rotation, "scale": motion.scale, "shift": motion.shift}
    assume.note(f"coordinates are those of the world; the scale is {motion.scale:.6g}, densities are per unit of the world")
    return motion.box_in_world(box)


def _space(around: _Surroundings) -> str:
    """Say whether positions are those of the world or normalized device coordinates of a forward-facing scene."""
    if around.told.space is not None:
        return around.told.space
    sidecar, scalars, assume = around.probe.sidecar, around.probe.scalars, around.assume
    if sidecar.get("dataset.no_ndc") is False and sidecar.get("dataset.type") == "llff":
        where = f"no_ndc = False ({around.probe.sidecar_name})"
    elif sidecar.get("dataset_type") == "llff" and not sidecar.get("no_ndc"):  # in config.txt options left out are off
        where = f"dataset_type = llff, no_ndc off ({around.probe.sidecar_name})"
    elif isinstance(sidecar.get("dataset_type"), str):
        assume.note(f"space = world (dataset_type = {sidecar['dataset_type']}, {around.probe.sidecar_name})")
        return "world"
    elif scalars.get("hyper_parameters.dataset_name") == "llff" and scalars.get("hyper_parameters.spheric_poses") is not True:
        where = "dataset_name = llff (of its hyperparameters)"
    else:
        assume.note("space = world (the default; a forward-facing scene may be in normalized device coordinates)")
        return "world"
    assume.note(f"space = ndc: positions are normalized device coordinates, directions those of the world; {where}")
    return "ndc"


def _spell(corner: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in corner) + ")"


def _even(found: Found, assume: Assumptions) -> dict:
    """Return which frequencies of a file of krrish's are equally spaced; its encodings are those of the coarse network."""
    even = {}
    for part, name in (("even", "log_sampling_xyz"), ("direction_even", "log_sampling_dir")):
        if found.dialect.name.startswith("krrish") and assume.sidecar.get(f"models.coarse.{name}") is False:
            even[part] = True
            assume.note(f"{name} = False: those frequencies are equally spaced ({assume.sidecar_name})")
    return even


def _compare_with_config(found: Found, layout: Layout, assume: Assumptions) -> None:
    """Say where the configuration beside a file of krrish's tells another network than its tensors, which decide."""
    if not found.dialect.name.startswith("krrish"):
        return
    part = f"models.{found.network or 'fine'}"
    pairs = {"hidden_size": layout.options["width"], "num_layers": layout.options["layers"],
             "num_encoding_fn_xyz": layout.options["frequencies"]}  # fmt: skip
    for name, truth in pairs.items():
        said = assume.sidecar.get(f"{part}.{name}")
        if said is not None and said != truth:
            assume.note(f"{name} = {truth} (by the shapes; {assume.sidecar_name} says {said})")
