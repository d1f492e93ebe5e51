"""Snapshots of instant-ngp, and vectors of tiny-cuda-nn, written here from their layout and compared with slow twins."""

import copy
import gzip
import json
import math
import os
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from inrbridge_ngp import NgpFormat

from inrbridge import Box, Probe, Product, Sphere, errors

DATA = os.environ.get("INRBRIDGE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")
GRID = {"levels": 4, "features": 2, "log2_table": 9, "base": 4}
PERCEPTRON = {"otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "None", "n_neurons": 16}
DIMENSIONS = {"nerf": 3, "sdf": 3, "image": 2, "volume": 3}
OUTPUTS = {"nerf": 16, "sdf": 1, "image": 3, "volume": 4}


class Snapshot:
    """A small snapshot: its tree, and its parameters by part."""

    def __init__(self, slow, mode, finest=2048.0, kind="__half", scene=1, extra=0, lights=False, directions=None, **dataset):
        dim, outputs = DIMENSIONS[mode], OUTPUTS[mode]
        self.growth = math.exp(math.log(finest * scene / 4) / 3)
        table = 2 * slow.rows_of(dim, 4, 9, 4, self.growth)
        inputs = 16 + (16 if directions else -(-(16 + extra + 3 * lights) // 16) * 16)
        self.base = slow.numbers(slow.count(8, outputs, 16, 1), 1, 0.4)
        self.colour = slow.numbers(slow.count(inputs, 3, 16, 2), 2, 0.3) if mode == "nerf" else slow.numbers(0, 0)
        self.table = slow.numbers(table, 3)
        parameters = np.concatenate([self.base, self.colour, self.table]).astype(np.float16 if kind == "__half" else np.float32)
        self.tree = {
            "encoding": {"otype": "HashGrid", "n_levels": 4, "n_features_per_level": 2, "log2_hashmap_size": 9,
                         "base_resolution": 4},
            "network": {**PERCEPTRON, "n_hidden_layers": 1},
            "loss": {"otype": "L2"},
            "snapshot": {"version": 1, "mode": mode, "n_params": len(parameters), "params_type": kind,
                         "params_binary": parameters.tobytes()},
        }  # fmt: skip
        if mode == "nerf":
            self.tree["rgb_network"] = {**PERCEPTRON, "n_hidden_layers": 2}
            self.tree["dir_encoding"] = directions or {"otype": "Composite", "nested": [
                {"n_dims_to_encode": 3, "otype": "SphericalHarmonics", "degree": 4}, {"otype": "Identity"}]}  # fmt: skip
            self.tree["snapshot"] |= {"density_grid_size": 4, "density_grid_binary": bytes(2 * 4**3), "nerf": {
                "aabb_scale": scene, "dataset": {"aabb_scale": scene, "scale": 0.33, "offset": [0.5, 0.4, 0.6],
                "from_mitsuba": False, "is_hdr": False, "n_extra_learnable_dims": extra,
                "has_light_dirs": lights, **dataset}}}  # fmt: skip

    def write(self, path):
        path.write_bytes(gzip.compress(msgpack.packb(self.tree)) if path.suffix == ".ingp" else msgpack.packb(self.tree))
        return path

    def grid(self, slow, u):
        return slow.grid(u, self.table, growth=self.growth, **GRID)


def values(field, *parts):
    with torch.no_grad():
        return field(torch.tensor(np.concatenate(parts, 1))).numpy()


def largest(found, truth):
    """Largest difference, relative above 1."""
    return float((np.abs(found - truth) / np.maximum(np.abs(truth), 1)).max())


VARIANTS = {
    "plain": {}, "wide scene": {"scene": 4}, "hdr": {"is_hdr": True}, "lights": {"lights": True},
    "latents": {"extra": 5, "lights": True}, "float": {"kind": "float"}, "finest": {"finest": 4096.0},
    "harmonics alone": {"directions": {"otype": "SphericalHarmonics", "degree": 3}},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".ingp", ".msgpack"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_nerf_equals_its_slow_twin(options, suffix, slow, tmp_path):
    snapshot = Snapshot(slow, "nerf", **options)
    path = snapshot.write(tmp_path / f"base{suffix}")
    scene, count = options.get("scene", 1), options.get("extra", 0) + 3 * options.get("lights", False)
    extra = [0.1 * (i + 1) for i in range(count)]
    told = {"finest": 4096.0} if "finest" in options else {}
    assert NgpFormat().recognizes(Probe(path))
    field = NgpFormat().open(path, **told)
    half = scene / 2
    assert field.domain == Product(Box([0.5 - half] * 3, [0.5 + half] * 3), Sphere())
    x, d = slow.places(12, 0.5 - half, 0.5 + half)
    out = slow.network(snapshot.grid(slow, ((x - (0.5 - half)) / scene).astype(np.float32)), snapshot.base, 16, 1, 16, 0.0)

    def truth(extra):
        angles = slow.harmonics(d.astype(np.float64))
        fed = [np.ones((12, 7)), angles[:, :9]] if "directions" in options else [angles, np.tile(extra, (12, 1))]
        raw = slow.network(np.concatenate([out, *fed], 1), snapshot.colour, 16, 2, 3, 1.0)
        colours = np.exp(np.clip(raw, -10, 10)) if options.get("is_hdr") else slow.sigmoid(raw)
        return np.concatenate([colours, np.exp(out[:, :1])], 1)

    assert largest(values(field, x, d), truth(np.zeros(count))) < 1e-5
    assert ("finest = 2048 (default of dialect instant-ngp)" in field.assumed) != bool(told)
    if count:
        assert f"extra = 0 for its {count} extra inputs (direction of light, latents of images)" in field.assumed
        assert largest(values(NgpFormat().open(path, extra=extra), x, d), truth(extra)) < 1e-5
    with pytest.raises(errors.ConfigError, match=f"expected {count} finite"):
        NgpFormat().open(path, extra=[0.0] * (count + 1), **told)


@pytest.mark.parametrize("mitsuba", [False, True])
def test_the_world_of_the_cameras(mitsuba, slow, tmp_path):
    path = Snapshot(slow, "nerf", from_mitsuba=mitsuba).write(tmp_path / "a.ingp")
    own, world = NgpFormat().open(path), NgpFormat().open(path, frame="world")
    q, d = slow.places(20, -0.5, 0.5)
    p = q * np.float32(0.33) + np.array([0.5, 0.4, 0.6], np.float32)
    cycle = [0, 1, 2] if mitsuba else [1, 2, 0]
    truth = values(own, p[:, cycle], d[:, cycle]) * [1, 1, 1, 0.33]
    assert largest(values(world, q, d), truth) < 2e-4  # a finest level of 2048 steps magnifies the rounding of coordinates
    low, high = world.domain.a.bounds
    assert np.allclose(low, (0 - np.array([0.5, 0.4, 0.6])) / 0.33) and np.allclose(np.subtract(high, low), 1 / 0.33)
    assert own.up == (None if mitsuba else "y") and world.up is None
    assert own.axes == tuple("xyz"[a] for a in cycle) and world.axes == ("x", "y", "z")
    assert any("frame" in sentence for sentence in own.assumed) and any("world" in sentence for sentence in world.assumed)


@pytest.mark.parametrize(
    ("mode", "finest", "told"),
    [("sdf", 2048.0, {}), ("image", 96.0, {}), ("image", 96.0, {"size": [150, 192]}), ("image", 96.0, {"finest": 96}),
     ("volume", 90.0, {}), ("volume", 90.0, {"size": 90})],
)  # fmt: skip
def test_other_modes_equal_their_slow_twin(mode, finest, told, slow, tmp_path):
    snapshot = Snapshot(slow, mode, finest)
    snapshot.tree["network"]["output_activation"] = "ReLU" if mode == "volume" else "None"
    path = snapshot.write(tmp_path / f"{mode}.msgpack")
    if mode == "image" and not told:  # levels as small as here fit many sizes
        with pytest.raises(errors.CannotOpen, match=r"fit a longest side of \d+ to \d+ samples.*size=\[height, width\]"):
            NgpFormat().open(path)
        return
    if mode == "volume" and not told:
        with pytest.raises(errors.CannotOpen, match="samples"):
            NgpFormat().open(path)
        return
    field = NgpFormat().open(path, **told)
    u = np.random.default_rng(1).random((15, DIMENSIONS[mode]), np.float32)
    truth = slow.network(snapshot.grid(slow, u), snapshot.base, 16, 1, OUTPUTS[mode], 0.0)
    truth = np.maximum(truth, 0) if mode == "volume" else truth
    assert largest(values(field, u), truth) < 1e-5
    assert field.domain == Box.unit(DIMENSIONS[mode]) and field.channels == OUTPUTS[mode]
    if mode == "image":
        turned = NgpFormat().open(path, convention="image", **told)
        assert np.array_equal(values(turned, u[:, ::-1].copy()), values(field, u)) and turned.axes == ("row", "column")


def test_the_size_of_a_picture_is_found_by_its_parameters(slow, tmp_path):
    snapshot = Snapshot(slow, "image", 96.0)
    snapshot.tree["encoding"] |= {"n_levels": 16, "log2_hashmap_size": 24, "base_resolution": 16}
    growth = math.exp(math.log(300.5 / 16) / 15)
    count = slow.count(32, 3, 16, 1) + 2 * slow.rows_of(2, 16, 24, 16, growth)
    snapshot.tree["snapshot"] |= {"n_params": count, "params_binary": slow.numbers(count, 1).astype(np.float16).tobytes()}
    field = NgpFormat().open(snapshot.write(tmp_path / "picture.ingp"))
    assert field.grid.growth == pytest.approx(growth, rel=1e-12)
    assert any(sentence.startswith("size = 601 samples") for sentence in field.assumed)


def test_every_container_gives_the_same_field(slow, tmp_path):
    snapshot = Snapshot(slow, "nerf")
    packed = msgpack.packb(snapshot.tree)
    through_text = copy.deepcopy(snapshot.tree)
    for name in ("params_binary", "density_grid_binary"):
        through_text["snapshot"][name] = {"bytes": list(snapshot.tree["snapshot"][name]), "subtype": None}
    contents = {"a.msgpack": packed, "b.ingp": gzip.compress(packed), "c.ingp": zlib.compress(packed), "d.ingp": packed,
                "e.msgpack": msgpack.packb(through_text)}  # fmt: skip
    tables = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert NgpFormat().recognizes(Probe(tmp_path / name)), name
        tables.append(NgpFormat().open(tmp_path / name).table)
    assert all(torch.equal(table, tables[0]) for table in tables)


def test_other_content_under_ingp_is_declined(tmp_path):
    path = tmp_path / "ckpt_last.ingp"
    path.write_bytes(gzip.compress(msgpack.packb({"nre_data": {"positions": b"\0" * 12, "version": 1}})))
    assert not NgpFormat().recognizes(Probe(path))
    with pytest.raises(errors.CannotOpen, match="fit none of the dialects"):
        NgpFormat().open(path)


DAMAGE = {
    "n_params": ({"n_params": 7}, "n_params is 7"),
    "more n_params": ({"n_params": 2**40}, "n_params"),
    "no n_params": ({"n_params": None}, "n_params"),
    "negative": ({"n_params": -4}, "n_params"),
    "type": ({"params_type": "__nv_bfloat16"}, "type"),
    "version": ({"version": 0}, "version 0"),
    "mode": ({"mode": "splats"}, 'mode is "splats"'),
    "cut": ({"params_binary": b"\0" * 100}, "holds 100 bytes"),
    "empty": ({"params_binary": b"", "n_params": 0}, "n_params is 0"),
    "cells": ({"density_grid_binary": b"\0" * 100}, "density grid"),
    "side": ({"density_grid_size": 2.5}, "density grid"),
    "cascades": ({"density_grid_binary": bytes(2 * 64 * 9)}, "density grid"),
    "text": ({"params_binary": "abc"}, "fit none of the dialects"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "text"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_snapshots(change, text, slow, tmp_path):
    snapshot = Snapshot(slow, "nerf")
    snapshot.tree["snapshot"] |= change
    with pytest.raises(errors.CannotOpen, match=text):
        NgpFormat().open(snapshot.write(tmp_path / "a.ingp"))


CONFIGS = {
    "hash": ({"encoding": {"hash": "Rng"}}, 'hashed by "Rng"'),
    "hashed": ({"encoding": {"hash": "BaseConvert"}}, "hashed by"),
    "levels": ({"encoding": {"n_levels": 0}}, "levels = 0"),
    "many levels": ({"encoding": {"n_levels": 1e9}}, "n_levels"),
    "features": ({"encoding": {"n_features_per_level": 3.5}}, "n_features_per_level"),
    "encoding": ({"encoding": {"otype": "Permuto"}}, "Permuto"),
    "text": ({"encoding": {"n_levels": "4"}}, "expected a number"),
    "growth": ({"encoding": {"per_level_scale": 1e30}}, "growth = 1e"),
    "interpolation": ({"encoding": {"interpolation": "Cubic"}}, "cubic"),
    "activation": ({"network": {"activation": "Gelu"}}, "Gelu"),
    "width": ({"network": {"n_neurons": 32}}, "n_params is"),
    "final": ({"network": {"output_activation": "Sine"}}, "expected relu inside"),
    "deep": ({"network": {"n_hidden_layers": 70}}, "n_hidden"),
    "directions": ({"dir_encoding": {"otype": "Frequency"}}, "Frequency"),
    "degree": ({"dir_encoding": {"nested": [{"degree": 9}]}}, "degree"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "text"), CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_do_not_fit(change, text, slow, tmp_path):
    snapshot = Snapshot(slow, "nerf")
    for part, values in change.items():
        snapshot.tree[part] |= values
    with pytest.raises(errors.CannotOpen, match=text):
        NgpFormat().open(snapshot.write(tmp_path / "a.ingp"))


def test_a_growth_in_the_configuration(slow, tmp_path):
    snapshot = Snapshot(slow, "nerf")
    snapshot.tree["encoding"]["per_level_scale"] = snapshot.growth / 2
    path = snapshot.write(tmp_path / "a.ingp")
    assert NgpFormat().open(path).grid.growth == snapshot.growth / 2
    assert NgpFormat().open(path, growth=5.0).grid.growth == 5.0
    assert NgpFormat().open(path, finest=2048).grid.growth == pytest.approx(snapshot.growth)


def test_options_without_use_are_refused(slow, tmp_path):
    path = Snapshot(slow, "nerf").write(tmp_path / "a.ingp")
    with pytest.raises(errors.ConfigError, match=r"appearance for a file of dialect instant-ngp.*expected some of frame"):
        NgpFormat().open(path, appearance="mean")
    with pytest.raises(errors.InrBridgeError, match="frame"):
        NgpFormat().open(path, frame="moon")
    with pytest.raises(errors.CannotOpen, match="tell finest"):
        NgpFormat().open(path, finest=6)


ENCODINGS = {
    "hash": ({"otype": "HashGrid", "per_level_scale": 1.5}, "hash", 1.5), "default": ({"otype": "Grid"}, "hash", 2.0),
    "dense": ({"otype": "DenseGrid", "per_level_scale": 1.3}, "dense", 1.3), "tiled": ({"otype": "TiledGrid"}, "tiled", 2.0),
}  # fmt: skip


def write_vector(folder, vector, config, name="config.json"):
    (folder / name).write_text(json.dumps(config))
    torch.save({"params": torch.tensor(vector)}, folder / "net.pt")
    return folder / "net.pt"


@pytest.mark.parametrize(("encoding", "kind", "growth"), ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("name", ["config.json", "net.config.json"])
def test_a_vector_of_a_grid(encoding, kind, growth, name, slow, tmp_path):
    rows = slow.rows_of(2, 3, 6, 4, growth, kind)
    base, table = slow.numbers(slow.count(6, 3, 16, 2), 1, 0.4), slow.numbers(2 * rows, 2)
    config = {"encoding": encoding | {"n_levels": 3, "log2_hashmap_size": 6, "base_resolution": 4},
              "network": {**PERCEPTRON, "output_activation": "Sigmoid", "n_hidden_layers": 2},
              "n_input_dims": 2, "n_output_dims": 3}  # fmt: skip
    path = write_vector(tmp_path, np.concatenate([base, table]), config, name)
    assert NgpFormat().recognizes(Probe(path))
    u = np.random.default_rng(1).random((15, 2), np.float32)
    grid = slow.grid(u, table, levels=3, features=2, log2_table=6, base=4, growth=growth, kind=kind)
    truth = slow.sigmoid(slow.network(grid, base, 16, 2, 3, 0.0))
    assert largest(values(NgpFormat().open(path), u), truth) < 1e-6


@pytest.mark.parametrize("encoding", [{"otype": "Frequency", "n_frequencies": 3}, {"otype": "Identity"}])
def test_a_vector_of_a_network_whose_padding_is_a_bias(encoding, slow, tmp_path):
    width = 18 if encoding["otype"] == "Frequency" else 3
    vector = slow.numbers(slow.count(width, 2, 32, 1), 1, 0.4)
    config = {"encoding": encoding, "network": {**PERCEPTRON, "n_neurons": 32, "activation": "Tanh", "n_hidden_layers": 1}}
    path = write_vector(tmp_path, vector, config)
    field = NgpFormat().open(path, dim=3, channels=2)
    u = np.random.default_rng(1).random((15, 3), np.float32)
    octaves = [np.stack([np.sin(2.0**k * np.pi * u), np.cos(2.0**k * np.pi * u)], -1) for k in range(3)]
    x = np.stack(octaves, 2).reshape(15, 18) if width == 18 else u
    assert largest(values(field, u), slow.network(x, vector, 32, 1, 2, 1.0, np.tanh)) < 1e-6
    with pytest.raises(errors.CannotOpen, match="n_input_dims"):
        NgpFormat().open(path)
    (tmp_path / "config.json").unlink()
    assert not NgpFormat().recognizes(Probe(path))
    with pytest.raises(errors.CannotOpen, match="configuration beside it"):
        NgpFormat().open(path)


def test_damage_is_told_in_one_word(slow, survives, tmp_path):
    assert survives(Snapshot(slow, "nerf", lights=True, extra=2).write(tmp_path / "a.ingp"), count=32)
    vector = slow.numbers(slow.count(3, 2, 16, 1), 1)
    config = {"encoding": {"otype": "Identity"}, "network": {**PERCEPTRON, "n_hidden_layers": 1}, "n_input_dims": 3,
              "n_output_dims": 2}  # fmt: skip
    assert survives(write_vector(tmp_path, vector, config))


@needs_data
def test_the_sample_has_the_values_of_its_golden_twin(slow):
    truth = np.load(Path(DATA, "checkpoints/instant_ngp/synthetic_lego_nerf.golden.npz"), allow_pickle=False)
    field = NgpFormat().open(Path(DATA, "checkpoints/instant_ngp/synthetic_lego_nerf.ingp"))
    found = values(field, truth["x01"], truth["dirs"])
    assert np.abs(found[:, :3] - truth["rgb"]).max() < 1e-6
    assert largest(found[:, 3], truth["density"]) < 5e-6
    features = field._features({"table": field.table[None]}, torch.tensor(truth["x01"]), 1)[0].detach().numpy()
    assert np.abs(features - truth["encoding"]).max() < 1e-5
    half = np.concatenate([slow.sigmoid(truth["raw_rgb_fp16act"]), np.exp(truth["raw_density_fp16act"])[:, None]], 1)
    assert largest(found, half) < 2e-2  # activations of half precision, as on a GPU
