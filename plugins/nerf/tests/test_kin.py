"""Networks that share names of layers with others, or differ from them by a configuration: by slow twins."""

import pytest
import torch
from inrbridge_nerf import NerfFormat
from torch.nn.functional import linear, relu

from inrbridge import Box, Probe, Product, errors

W, P, Q = 8, 15, 9  # width; columns of 2 and of 1 frequencies


def pairs(*layers):
    """Random layers: name, inputs, outputs."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, inputs, outputs in layers:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) / 3
    return state


def encode(x, *frequencies):
    """Coordinates, then for each frequency all sines and all cosines."""
    return torch.cat([x, *(f(w * x) for w in frequencies for f in (torch.sin, torch.cos))], -1)


def encode_each(x, *frequencies):
    """For each coordinate: itself, then for each frequency sine and cosine."""
    return torch.cat([encode(x[..., c : c + 1], *frequencies) for c in range(3)], -1)


def autonerf():
    state = pairs(("pts_linears.0", 3, W), ("pts_linears.1", W + 3, W), ("alpha_linear", W, 1), ("feature_linear", W, W),
                  ("views_linears.0", W + 3, 4), ("rgb_linear", 4, 3))  # fmt: skip

    def slow(x, d, at):
        h = relu(at("pts_linears.1", torch.cat([x, relu(at("pts_linears.0", x))], -1)))
        g = relu(at("views_linears.0", torch.cat([at("feature_linear", h), d], -1)))
        return at("rgb_linear", g).sigmoid(), at("alpha_linear", h).sigmoid()

    return state | {"input_ch_dir": 3}, state, slow


def two_layers(density, feature, colour, active):
    state = pairs(("layer1", P, W), ("layer2", W, W), (density, W, 1), (feature, W, W), ("layer4", W + Q, 4), ("layer5", 4, 4),
                  (colour, 4, 3))  # fmt: skip

    def slow(x, d, at):
        h = relu(at("layer2", relu(at("layer1", encode(x, 1, 2)))))
        f = relu(at(feature, h)) if active else at(feature, h)
        return at(colour, relu(at("layer5", relu(at("layer4", torch.cat([f, encode(d, 1)], -1)))))).sigmoid(), relu(
            at(density, h)
        )

    return {"model_coarse_state_dict": state}, state, slow


def tiny(encoding, **others):
    state = pairs(("layer1", P, W), ("layer2", W, W), ("layer3", W, 4))

    def slow(x, d, at):
        out = at("layer3", relu(at("layer2", relu(at("layer1", encoding(x, 1, 2))))))
        return out[..., :3].sigmoid(), relu(out[..., 3:])

    return {"model_state_dict": state} | others, state, slow


LAYOUTS = {
    "autonerf": autonerf,
    "krrish-replicate": lambda: two_layers("fc_alpha", "layer3", "fc_rgb", False),
    "krrish-multihead": lambda: two_layers("layer3_1", "layer3_2", "layer6", True),
    "krrish-tiny": lambda: tiny(encode),
    "jiayi-pan-tiny": lambda: tiny(encode_each, its=[0, 10], psnrs=[8.0, 9.0]),
}


def differs(field, state, slow):
    """Return the largest difference of a field from a slow twin in double precision."""
    generator = torch.Generator().manual_seed(2)
    x, d = (torch.rand(40, 3, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    d = d / d.norm(dim=1, keepdim=True)
    truth = slow(x, d, lambda name, v: linear(v, state[f"{name}.weight"].double(), state[f"{name}.bias"].double()))
    both = torch.cat([x, d], -1) if isinstance(field.domain, Product) else x
    return float((field.double()(both).detach() - torch.cat(truth, -1)).abs().max())


def save(tmp_path, content):
    torch.save(content, tmp_path / "step.ckpt")
    return tmp_path / "step.ckpt"


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_against_slow_twins(name, tmp_path):
    content, state, slow = LAYOUTS[name]()
    path = save(tmp_path, content)
    assert NerfFormat().recognizes(Probe(path))
    field = NerfFormat().open(path)
    assert differs(field, state, slow) < 1e-9
    assert field.assumed[0].startswith(f"dialect = {name} (by the names of the tensors")


def test_a_dialect_that_is_told_needs_no_mark(tmp_path):
    content, state, slow = LAYOUTS["jiayi-pan-tiny"]()
    path = save(tmp_path, content["model_state_dict"])
    assert "krrish-tiny" in NerfFormat().open(path).assumed[0]
    assert differs(NerfFormat().open(path, dialect="jiayi-pan-tiny"), state, slow) < 1e-9
    _, state, slow = autonerf()
    path = save(tmp_path, state)
    assert differs(NerfFormat().open(path), state, slow) > 1e-2  # as yenchenlin
    assert differs(NerfFormat().open(path, dialect="autonerf"), state, slow) < 1e-9


def test_a_tiny_network_that_sees_directions_is_refused(tmp_path):
    state = pairs(("layer1", 2 * P, W), ("layer2", W, W), ("layer3", W, 4))
    with pytest.raises(errors.CannotOpen, match="has 30 inputs, expected 3 \\+ 6 n"):
        NerfFormat().open(save(tmp_path, state))


@pytest.mark.parametrize("places", [True, False])
@pytest.mark.parametrize("directions", [True, False])
def test_equally_spaced_frequencies(places, directions, tmp_path):
    state = pairs(("layer1", 27, W), ("layers_xyz.0", W, W), ("fc_alpha", W, 1), ("fc_feat", W, W), ("layers_dir.0", W + 21, 4),
                  ("fc_rgb", 4, 3))  # fmt: skip
    words = f"log_sampling_xyz: {str(places).lower()}, log_sampling_dir: {str(directions).lower()}"
    (tmp_path / "config.yml").write_text(f"models:\n  coarse: {{{words}}}\n")

    def slow(x, d, at):
        h = relu(at("layers_xyz.0", at("layer1", encode(x, *((1, 2, 4, 8) if places else (1, 10 / 3, 17 / 3, 8))))))
        seen = encode(d, *((1, 2, 4) if directions else (1, 2.5, 4)))
        return at("fc_rgb", relu(at("layers_dir.0", torch.cat([relu(at("fc_feat", h)), seen], -1)))).sigmoid(), relu(
            at("fc_alpha", h)
        )

    field = NerfFormat().open(save(tmp_path, {"model_fine_state_dict": state}))
    assert differs(field, state, slow) < 1e-9
    assert sum("equally spaced" in text for text in field.assumed) == 2 - places - directions
    NerfFormat().save(field, tmp_path / "native.safetensors")
    assert differs(NerfFormat().open(tmp_path / "native.safetensors"), state, slow) < 1e-9


@pytest.mark.parametrize(("name", "text", "side"), [
    ("args.txt", "dataset_type = llff\nexpname = fern\nno_ndc = False\nlrate = 5e-4\n", 1.0),
    ("args.txt", "dataset_type = llff\nno_ndc = True\n", 1.5),
    ("args.txt", "dataset_type = blender\nno_ndc = False\n", 1.5),
    ("config.txt", "dataset_type = llff\n\n# comment\nuse_viewdirs = True\n", 1.0),
    ("config.txt", "nothing of the kind\n", 1.5),
])  # fmt: skip
def test_arguments_beside_a_file_tell_a_forward_facing_scene(name, text, side, tmp_path):
    (tmp_path / name).write_text(text)
    state = pairs(("pts_linears.0", P, W), ("alpha_linear", W, 1), ("feature_linear", W, W), ("views_linears.0", W + Q, 4),
                  ("rgb_linear", 4, 3))  # fmt: skip
    field = NerfFormat().open(save(tmp_path, {"network_fn_state_dict": state}))
    assert field.domain.a == Box.centered(3, side)
    assert any(name in text for text in field.assumed) == ("=" in text)
