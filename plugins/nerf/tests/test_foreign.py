"""Checkpoints of other code bases: layouts by slow twins, what is told and assumed, and what is refused."""

import json

import numpy as np
import pytest
import torch
from inrbridge_nerf import NerfFormat
from inrbridge_nerf.dialects import DIALECTS, find_networks
from torch.nn.functional import linear, relu, softplus

from inrbridge import Box, Probe, Product, Sphere, errors

BLENDER = Product(Box.centered(3, 1.5), Sphere())


def pairs(*layers):
    """Random layers: name, inputs, outputs."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, inputs, outputs in layers:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) / 3
    return state


def fsc(x, n):
    """Coordinates, then for each octave all sines and all cosines."""
    return torch.cat([x, *(f(2.0**k * x) for k in range(n) for f in (torch.sin, torch.cos))], -1)


def sfc(x, n):
    phases = [2.0**k * x for k in range(n)]
    return torch.cat([x, *(torch.sin(p) for p in phases), *(torch.cos(p) for p in phases)], -1)


def scf(x, n, highest):
    """nerfstudio: by coordinate, frequencies inner; coordinates last."""
    exponents = [highest * k / (n - 1) for k in range(n)]
    phases = torch.stack([2 * torch.pi * x[..., c] * 2**e for c in range(3) for e in exponents], -1)
    return torch.cat([phases.sin(), phases.cos(), x], -1)


def cfs(x, n):
    parts = [
        part for c in range(3) for part in (x[..., c], *(f(2.0**k * x[..., c]) for k in range(n) for f in (torch.sin, torch.cos)))
    ]
    return torch.stack(parts, -1)


W, P, Q = 8, 15, 9  # width; columns of 2 and of 1 frequencies


def yenchenlin():
    trunk = [(f"pts_linears.{i}", P if i == 0 else W + P * (i == 2), W) for i in range(4)]
    state = pairs(*trunk, ("alpha_linear", W, 1), ("feature_linear", W, W), ("views_linears.0", W + Q, 4), ("rgb_linear", 4, 3))

    def slow(x, d, at):
        h = fsc(x, 2)
        for i in range(4):
            h = relu(at(f"pts_linears.{i}", torch.cat([fsc(x, 2), h], -1) if i == 2 else h))
        g = relu(at("views_linears.0", torch.cat([at("feature_linear", h), fsc(d, 1)], -1)))
        return at("rgb_linear", g).sigmoid(), relu(at("alpha_linear", h))

    return {"network_fine_state_dict": state, "global_step": 3}, state, slow


def without_directions():
    # the branch is saved and not used; the fifth output neither
    trunk = [("pts_linears.0", P, W), ("pts_linears.1", W, W)]
    state = pairs(*trunk, ("views_linears.0", W + 3, 4), ("output_linear", W, 5))

    def slow(x, d, at):
        out = at("output_linear", relu(at("pts_linears.1", relu(at("pts_linears.0", fsc(x, 2))))))
        return out[..., :3].sigmoid(), relu(out[..., 3:4])

    return {"network_fn_state_dict": state, "network_fine_state_dict": None}, state, slow


def krrish():
    state = pairs(("layer1", P, W), ("layers_xyz.0", W, W), ("layers_xyz.1", W + P, W), ("fc_alpha", W, 1), ("fc_feat", W, W),
                  ("layers_dir.0", W + Q, 4), ("fc_rgb", 4, 3))  # fmt: skip

    def slow(x, d, at):
        h = relu(at("layers_xyz.0", at("layer1", fsc(x, 2))))
        h = relu(at("layers_xyz.1", torch.cat([h, fsc(x, 2)], -1)))
        g = relu(at("layers_dir.0", torch.cat([relu(at("fc_feat", h)), fsc(d, 1)], -1)))
        return at("fc_rgb", g).sigmoid(), relu(at("fc_alpha", h))

    return {"iter": 1, "model_fine_state_dict": state}, state, slow


def nerf_pl():
    state = pairs(("xyz_encoding_1.0", P, W), ("xyz_encoding_2.0", W + P, W), ("sigma", W, 1), ("xyz_encoding_final", W, W),
                  ("dir_encoding.0", W + Q, 4), ("rgb.0", 4, 3))  # fmt: skip

    def slow(x, d, at):
        h = relu(at("xyz_encoding_2.0", torch.cat([fsc(x, 2), relu(at("xyz_encoding_1.0", fsc(x, 2)))], -1)))
        g = relu(at("dir_encoding.0", torch.cat([at("xyz_encoding_final", h), fsc(d, 1)], -1)))
        return at("rgb.0", g).sigmoid(), relu(at("sigma", h))

    return {"state_dict": {f"nerf_fine.{name}": value for name, value in state.items()}}, state, slow


def nerfacc():
    state = pairs(("mlp.base.hidden_layers.0", P, W), ("mlp.base.hidden_layers.1", W + P, W),
                  ("mlp.sigma_layer.output_layer", W, 1), ("mlp.bottleneck_layer.output_layer", W, W),
                  ("mlp.rgb_layer.hidden_layers.0", W + Q, 4),
                  ("mlp.rgb_layer.output_layer", 4, 3))  # fmt: skip
    scales = {"posi_encoder.scales": torch.tensor([1, 2]), "view_encoder.scales": torch.tensor([1])}

    def slow(x, d, at):
        h = relu(at("mlp.base.hidden_layers.0", sfc(x, 2)))
        h = relu(at("mlp.base.hidden_layers.1", torch.cat([h, sfc(x, 2)], -1)))
        g = relu(at("mlp.rgb_layer.hidden_layers.0", torch.cat([at("mlp.bottleneck_layer.output_layer", h), sfc(d, 1)], -1)))
        return at("mlp.rgb_layer.output_layer", g).sigmoid(), relu(at("mlp.sigma_layer.output_layer", h))

    return {"radiance_field_state_dict": state | scales, "estimator_state_dict": {"occs": torch.zeros(8)}}, state, slow


def nerfstudio():
    state = pairs(("mlp_base.layers.0", P, W), ("mlp_base.layers.1", W + P, W), ("field_output_density.net", W, 1),
                  ("mlp_head.layers.0", 15 + W, 4), ("mlp_head.layers.1", 4, 5), ("field_heads.0.net", 5, 3))  # fmt: skip

    def slow(x, d, at):
        h = relu(at("mlp_base.layers.0", scf(x, 2, 8.0)))
        h = relu(at("mlp_base.layers.1", torch.cat([scf(x, 2, 8.0), h], -1)))
        g = relu(at("mlp_head.layers.1", relu(at("mlp_head.layers.0", torch.cat([scf(d, 2, 4.0), h], -1)))))
        return at("field_heads.0.net", g).sigmoid(), softplus(at("field_output_density.net", h))

    return {"step": 1, "pipeline": {f"_model.module.field_fine.{k}": v for k, v in state.items()}}, state, slow


def jiayi_pan():
    state = pairs(
        ("fc_1.0", P, W), ("fc_2.0", W + P, W), ("sigma", W, 1), ("fc_noact", W, W), ("fc_dir.0", W + Q, 4), ("rgb.0", 4, 3)
    )

    def slow(x, d, at):
        h = relu(at("fc_2.0", torch.cat([cfs(x, 2), relu(at("fc_1.0", cfs(x, 2)))], -1)))
        g = relu(at("fc_dir.0", torch.cat([at("fc_noact", h), cfs(d, 1)], -1)))
        return at("rgb.0", g).sigmoid(), relu(at("sigma", h))

    return {"epoch": 1, "model_state_dict": state}, state, slow


LAYOUTS = {"yenchenlin": yenchenlin, "yenchenlin without directions": without_directions, "krrish": krrish, "nerf-pl": nerf_pl,
           "nerfacc": nerfacc, "nerfstudio": nerfstudio, "jiayi-pan": jiayi_pan}  # fmt: skip


def coords(n=40):
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return torch.rand(n, 3, generator=generator, dtype=torch.float64) * 3 - 1.5, directions / directions.norm(dim=1, keepdim=True)


def ask(field, x, d):
    both = torch.cat([x, d], -1) if isinstance(field.domain, Product) else x
    return field(both.to(torch.float64)).detach()


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_against_slow_twins(name, tmp_path):
    content, state, slow = LAYOUTS[name]()
    torch.save(content, tmp_path / "step.ckpt")
    field, (x, d) = NerfFormat().open(tmp_path / "step.ckpt"), coords()
    truth = torch.cat(
        slow(x, d, lambda layer, v: linear(v, state[f"{layer}.weight"].double(), state[f"{layer}.bias"].double())), -1
    )
    assert (ask(field, x, d) - truth).abs().max() < 1e-9
    assert field.assumed[0] == f"dialect = {name.partition(' ')[0]} (by the names of the tensors)"
    assert (field.domain == BLENDER) == (name != "yenchenlin without directions")
    again = tmp_path / "native.safetensors"
    NerfFormat().save(field, again)
    assert torch.equal(ask(NerfFormat().open(again), x, d), ask(field, x, d))


def objects(path, arrays):
    held = np.empty(len(arrays), object)
    held[:] = arrays
    np.save(path, held, allow_pickle=True)
    return path


def arrays_of(state, names):
    return [part for name in names for part in (state[f"{name}.weight"].numpy().T.copy(), state[f"{name}.bias"].numpy())]


@pytest.mark.parametrize("seen", [True, False])
def test_lists_of_arrays(seen, tmp_path):
    _, state, slow = (yenchenlin if seen else without_directions)()
    heads = ["feature_linear", "views_linears.0", "rgb_linear", "alpha_linear"] if seen else ["output_linear"]
    path = objects(tmp_path / "model_000010.npy", arrays_of(state, [f"pts_linears.{i}" for i in range(4 if seen else 2)] + heads))
    assert NerfFormat().recognizes(Probe(path))
    field, (x, d) = NerfFormat().open(path), coords()
    truth = torch.cat(
        slow(x, d, lambda layer, v: linear(v, state[f"{layer}.weight"].double(), state[f"{layer}.bias"].double())), -1
    )
    assert (ask(field, x, d) - truth).abs().max() < 1e-9 and "dialect = bmild" in field.assumed[0]


def test_every_dialect_has_a_layout():
    here, beside = {name.partition(" ")[0] for name in LAYOUTS} | {"bmild"}, "autonerf krrish-multihead"
    beside += " krrish-replicate krrish-tiny jiayi-pan-tiny"  # in test_kin.py
    assert here | set(beside.split()) == set(DIALECTS)


def save(tmp_path, content, name="step.ckpt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def test_the_fine_network_unless_the_other_is_asked_for(tmp_path):
    fine, other = yenchenlin()[1], {name: value + 1 for name, value in yenchenlin()[1].items()}
    path = save(tmp_path, {"network_fn_state_dict": other, "network_fine_state_dict": fine})
    held = {word: NerfFormat().open(path, network=word).density.bias for word in ("fine", "coarse")}
    assert torch.equal(NerfFormat().open(path).density.bias, held["fine"])
    assert torch.equal(held["fine"], fine["alpha_linear.bias"]) and torch.equal(held["coarse"], other["alpha_linear.bias"])
    alone = save(tmp_path, {"network_fn_state_dict": fine, "network_fine_state_dict": None})
    assert "network = coarse (the file holds no fine one)" in NerfFormat().open(alone).assumed
    with pytest.raises(errors.CannotOpen, match="leave the network out"):
        NerfFormat().open(alone, network="fine")


@pytest.mark.parametrize("wrapper", [(), ("state_dict",), ("model",), ("network_fn_state_dict", "module"), ("models", "fine")])
def test_wrappers(wrapper, tmp_path):
    content = yenchenlin()[1]
    for word in reversed(wrapper):
        content = {word: content} if word != "module" else {f"module.{name}": value for name, value in content.items()}
    assert NerfFormat().open(save(tmp_path, content)).layers == 4


def test_the_box_of_nerfacc_and_the_dark_beyond(tmp_path):
    content, _, _ = nerfacc()
    content["estimator_state_dict"] |= {"aabbs": torch.tensor([[-1.0, -1, -0.5, 1, 1, 0.5], [-2.0, -2, -1, 2, 2, 1]])}
    path = save(tmp_path, content, "mlp_nerf_10")
    assert NerfFormat().open(path).domain.a == Box((-1, -1, -0.5), (1, 1, 0.5))
    wide, narrow = NerfFormat().open(path, low=-2, high=2), NerfFormat().open(path)
    x, d = coords()
    inside = (x.abs() <= torch.tensor([1, 1, 0.5])).all(1)
    values = ask(wide, x, d)
    assert bool((values[~inside, 3] == 0).all()) and torch.equal(values[inside], ask(narrow, x, d)[inside])
    assert float(values[:, 3].max()) > 0


def test_normalized_device_coordinates(tmp_path):
    path = save(tmp_path, krrish()[0])
    (tmp_path / "config.yml").write_text(
        "dataset:\n  type: llff\n  no_ndc: false\nmodels:\n  coarse: {log_sampling_xyz: false}\n"
    )
    field = NerfFormat().open(path)
    assert field.domain.a == Box.centered(3) and any("space = ndc" in text for text in field.assumed)
    assert any("log_sampling_xyz = False" in text for text in field.assumed)
    assert NerfFormat().open(path, space="world").domain == BLENDER
    (tmp_path / "config.yml").unlink()
    assert any("space = world (the default" in text for text in NerfFormat().open(path).assumed)
    assert NerfFormat().open(path, space="ndc").domain.a == Box.centered(3)


@pytest.mark.parametrize(("spheric", "side"), [(False, 1.0), (True, 1.5)])
def test_the_hyperparameters_of_nerf_pl_tell_a_forward_facing_scene(spheric, side, tmp_path):
    told = {"hyper_parameters": {"dataset_name": "llff", "spheric_poses": spheric}}
    assert NerfFormat().open(save(tmp_path, nerf_pl()[0] | told)).domain.a == Box.centered(3, side)


def test_the_frame_of_the_cameras_of_nerfstudio(tmp_path):
    path = save(tmp_path, nerfstudio()[0], "step-000000100.ckpt")
    with pytest.raises(errors.CannotOpen, match=r"dataparser_transforms\.json"):
        NerfFormat().open(path, frame="world")
    turn, shift, scale = [[0.0, 1, 0], [0, 0, 1], [1, 0, 0]], [0.5, -0.25, 0], 0.5
    rows = [[*row, move] for row, move in zip(turn, shift, strict=True)]
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps({"transform": rows, "scale": scale}))
    ours, theirs = NerfFormat().open(path, frame="world"), NerfFormat().open(path)
    assert any('frame="world"' in text for text in theirs.assumed)
    q, d = coords()
    matrix = torch.tensor(turn, dtype=torch.float64)
    p = scale * (q @ matrix.T + torch.tensor(shift, dtype=torch.float64))
    truth = ask(theirs, p, d @ matrix.T) * torch.tensor([1, 1, 1, scale])
    assert (ask(ours, q, d) - truth).abs().max() < 1e-9
    box = ours.domain.a
    corners = (torch.tensor([[-1.5] * 3, [1.5] * 3]) / scale - torch.tensor(shift)) @ matrix.float()
    assert torch.allclose(torch.tensor(box.bounds), torch.stack([corners.amin(0), corners.amax(0)]))


def test_half_and_double_precision(tmp_path):
    for dtype, expected in [(torch.float16, torch.float32), (torch.float64, torch.float64)]:
        path = save(tmp_path, {name: value.to(dtype) for name, value in yenchenlin()[1].items()})
        assert NerfFormat().open(path).density.weight.dtype == expected


@pytest.mark.parametrize("spoil", ["missing bias", "one more layer", "a gap", "hash tables", "only the trunk"])
def test_what_fits_no_dialect_is_declined(spoil, tmp_path):
    state = yenchenlin()[1]
    if spoil == "missing bias":
        del state["pts_linears.1.bias"]
    elif spoil == "one more layer":
        state |= pairs(("time_linear", 3, 3))
    elif spoil == "a gap":
        state = {name.replace("pts_linears.1", "pts_linears.7"): value for name, value in state.items()}
    elif spoil == "hash tables":  # HashNeRF-pytorch, whose networks have other names
        state = {"sigma_net.0.weight": torch.zeros(4, 4), "color_net.0.weight": torch.zeros(4, 4)}
    else:
        state = {name: value for name, value in state.items() if name.startswith("pts_linears")}
    content = {"network_fn_state_dict": state, "embed_fn_state_dict": {"embeddings.0.weight": torch.zeros(4, 2)}}
    path = save(tmp_path, content)
    assert not NerfFormat().recognizes(Probe(path)) and find_networks(Probe(path)) == []
    with pytest.raises(errors.CannotOpen, match="fit none of the dialects"):
        NerfFormat().open(path)


@pytest.mark.parametrize("shapes", [{}, {"0": (3, 4)}, {str(i): (4,) for i in range(24)}, {str(i): (4, 4) for i in range(18)}])
def test_lists_of_other_things_are_declined(shapes, tmp_path):
    path = objects(tmp_path / "list.npy", [np.zeros(shape, np.float32) for shape in shapes.values()])
    assert not NerfFormat().recognizes(Probe(path))


@pytest.mark.parametrize("name", LAYOUTS)
def test_shapes_that_do_not_fit_are_told_before_they_are_read(name, tmp_path):
    content, state, _ = LAYOUTS[name]()
    originals = dict(state)
    used = [key for key in originals if not (name.endswith("directions") and key.startswith("views"))]
    for key in used:
        spoilt = {k: torch.zeros(*v.shape[:-1], v.shape[-1] + 7) if k == key else v for k, v in originals.items()}
        path = save(tmp_path, _rewrapped(content, originals, spoilt))
        with pytest.raises(errors.CannotOpen):
            NerfFormat().open(path)


def _rewrapped(content, state, spoilt):
    """Put other tensors in the places of a state's."""
    places = {id(value): key for key, value in state.items()}

    def replaced(node):
        if isinstance(node, dict):
            return {key: replaced(value) for key, value in node.items()}
        return spoilt[places[id(node)]] if id(node) in places else node

    return replaced(content)


def test_integers_and_what_is_not_finite(tmp_path):
    state = yenchenlin()[1]
    with pytest.raises(errors.CannotOpen, match="expected real numbers"):
        NerfFormat().open(save(tmp_path, state | {"alpha_linear.bias": torch.zeros(1, dtype=torch.int64)}))
    field = NerfFormat().open(save(tmp_path, state | {"alpha_linear.bias": torch.tensor([float("nan")])}))
    assert bool(ask(field, *coords())[:, 3].isnan().all())


def test_broken_files_cannot_be_opened(tmp_path):
    path = save(tmp_path, yenchenlin()[0], "000400.tar")
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 50):
        path.write_bytes(whole[:size])
        assert not NerfFormat().recognizes(Probe(path))
        with pytest.raises(errors.CannotOpen):
            NerfFormat().open(path)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dialect": "bmilt"}, errors.UnknownName, "bmild"),
        ({"dialect": "krrish"}, errors.CannotOpen, "leave the dialect out"),
        ({"network": "finest"}, errors.UnknownName, "fine"),
        ({"space": "image"}, errors.UnknownName, "ndc"),
        ({"frame": "camera"}, errors.UnknownName, "world"),
        ({"density": "exp"}, errors.UnknownName, "softplus"),
        ({"low": 2}, errors.InrBridgeError, "expected|Got"),
        ({"high": [1, 2]}, errors.InrBridgeError, "expected|Got"),
    ],
)
def test_wrong_options_are_told(options, error, text, tmp_path):
    with pytest.raises(error, match=text):
        NerfFormat().open(save(tmp_path, yenchenlin()[0]), **options)
