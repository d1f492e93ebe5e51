"""Checkpoints of nerfacc, ngp_pl, torch-ngp, HashNeRF-pytorch, nerf2vec and GMNeRF: written here from their layouts, and the
samples; all compared with slow twins of those code bases.
"""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_ngp import NgpFormat

from inrbridge import Box, Probe, Product, Sphere, errors

DATA = os.environ.get("INRBRIDGE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")


def values(field, *parts):
    with torch.no_grad():
        return field(torch.tensor(np.concatenate(parts, 1))).numpy()


def largest(found, truth):
    """Largest difference, relative above 1."""
    return float((np.abs(found - truth) / np.maximum(np.abs(truth), 1)).max())


def growth_to(finest, base=16, levels=16):
    return math.exp(math.log(finest / base) / (levels - 1))


def sample(name):
    path = Path(DATA, "checkpoints", name)
    assert NgpFormat().recognizes(Probe(path))
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("state_dict", "model"):
        loaded = loaded.get(wrapper, loaded)
    return path, {key.removeprefix("model."): value.numpy() for key, value in loaded.items()}


def save(path, state, **beside):
    torch.save({key: torch.as_tensor(value) for key, value in state.items()} | beside, path)
    assert NgpFormat().recognizes(Probe(path))
    return path


# nerfacc


def nerfacc_state(slow):
    grid = 2 * slow.rows_of(3, 16, 8, 16, growth_to(4096))
    base = np.concatenate([slow.numbers(slow.count(32, 16, 64, 1), 1, 0.3), slow.numbers(grid, 2)])
    return {"aabb": np.array([-1.5, -1.5, -0.5, 1.5, 1.5, 2.5], np.float32), "mlp_base.params": base,
            "mlp_head.params": slow.numbers(slow.count(31, 3, 64, 2), 3, 0.2),
            "direction_encoding.params": np.zeros(0, np.float32)}  # fmt: skip


def nerfacc_twin(slow, state, x, d, unbounded, log2_table):
    low, high = state["aabb"][:3], state["aabb"][3:]
    u = (x - low) / (high - low)
    if unbounded:
        y = 2 * u - 1
        length = np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1)
        u = np.where(length > 1, (2 - 1 / length) * (y / length), y) / 4 + np.float32(0.5)
    cut = slow.count(32, 16, 64, 1)
    grid = slow.grid(u.astype(np.float32), state["mlp_base.params"][cut:], levels=16, features=2, log2_table=log2_table, base=16,
                     growth=growth_to(4096))  # fmt: skip
    out = slow.network(grid, state["mlp_base.params"][:cut], 64, 1, 16, 0.0)
    seen = ((u > 0) & (u < 1)).all(1, keepdims=True)
    fed = np.concatenate([slow.harmonics(d.astype(np.float64)), out[:, 1:]], 1)
    return np.concatenate(
        [slow.sigmoid(slow.network(fed, state["mlp_head.params"], 64, 2, 3, 1.0)), np.exp(out[:, :1] - 1) * seen], 1
    )


@pytest.mark.parametrize("unbounded", [False, True])
def test_nerfacc(unbounded, slow, tmp_path):
    state = nerfacc_state(slow)
    field = NgpFormat().open(save(tmp_path / "ngp.pt", state), **({"contraction": "sphere"} if unbounded else {}))
    x, d = slow.places(16, -4, 4) if unbounded else slow.places(16, -1.6, 1.6)
    assert largest(values(field, x, d), nerfacc_twin(slow, state, x, d, unbounded, 8)) < (3e-4 if unbounded else 1e-5)
    assert field.domain.a == (Box([-7.5, -7.5, -6.5], [7.5, 7.5, 8.5]) if unbounded else Box([-1.5, -1.5, -0.5], [1.5, 1.5, 2.5]))


@needs_data
def test_the_sample_of_unbounded_nerfacc(slow):
    path, state = sample("tcnn_params/nerfacc_ngp_unbounded.pt")
    field = NgpFormat().open(path, contraction="sphere")
    x, d = slow.places(16, -4, 4)
    assert largest(values(field, x, d), nerfacc_twin(slow, state, x, d, True, 12)) < 1e-4
    bounded = NgpFormat().open(path)  # the file cannot know
    assert "contraction = none (default of dialect nerfacc)" in bounded.assumed


def test_nerfacc_without_directions_or_a_box(slow, tmp_path):
    state = nerfacc_state(slow) | {"mlp_head.params": slow.numbers(slow.count(15, 3, 64, 2), 3, 0.2)}
    del state["direction_encoding.params"], state["aabb"]
    field = NgpFormat().open(save(tmp_path / "ngp.pt", state), low=-2, high=2)
    x, d = slow.places(5, -1, 1)
    assert np.array_equal(values(field, x, d), values(field, x, -d)) and field.domain.a == Box([-2.0] * 3, [2.0] * 3)


# ngp_pl


def ngp_pl_state(slow, tone=False):
    grid = 2 * slow.rows_of(3, 16, 8, 16, growth_to(1024))
    state = {"center": np.zeros((1, 3), np.float32), "xyz_min": np.full((1, 3), -0.5, np.float32),
             "xyz_max": np.full((1, 3), 0.5, np.float32), "half_size": np.full((1, 3), 0.5, np.float32),
             "xyz_encoder.params": np.concatenate([slow.numbers(slow.count(32, 16, 64, 1), 1, 0.3), slow.numbers(grid, 2)]),
             "rgb_net.params": slow.numbers(slow.count(32, 3, 64, 2), 3, 0.2), "dir_encoder.params": np.zeros(0, np.float32),
             "density_bitfield": np.zeros(8, np.uint8)}  # fmt: skip
    for i in range(3 if tone else 0):
        state[f"tonemapper_net_{i}.params"] = slow.numbers(slow.count(1, 1, 64, 1), 5 + i, 0.3)
    return state


def ngp_pl_twin(slow, state, x, d, log2_table):
    low, high = state["xyz_min"], state["xyz_max"]
    cut = slow.count(32, 16, 64, 1)
    grid = slow.grid(((x - low) / (high - low)).astype(np.float32), state["xyz_encoder.params"][cut:], levels=16, features=2,
                     log2_table=log2_table, base=16, growth=growth_to(2048 * float(high[0, 0])))  # fmt: skip
    out = slow.network(grid, state["xyz_encoder.params"][:cut], 64, 1, 16, 0.0)
    raw = slow.network(np.concatenate([slow.harmonics(d.astype(np.float64)), out], 1), state["rgb_net.params"], 64, 2, 3, 1.0)
    if "tonemapper_net_0.params" in state:
        raw = [slow.network(raw[:, i : i + 1], state[f"tonemapper_net_{i}.params"], 64, 1, 1, 1.0) for i in range(3)]
        raw = np.concatenate(raw, 1)
    return np.concatenate([slow.sigmoid(raw), np.exp(out[:, :1])], 1)


@pytest.mark.parametrize("tone", [False, True])
@pytest.mark.parametrize("slim", [False, True])
def test_ngp_pl(tone, slim, slow, tmp_path):
    state = ngp_pl_state(slow, tone)
    full = {"state_dict": {f"model.{key}": torch.tensor(value) for key, value in state.items()}, "epoch": 29}
    path = save(tmp_path / "epoch=29.ckpt", state if slim else {}, **({} if slim else full))
    field = NgpFormat().open(path)
    x, d = slow.places(16, -0.5, 0.5)
    assert largest(values(field, x, d), ngp_pl_twin(slow, state, x, d, 8)) < 1e-5
    assert field.domain == Product(Box.centered(3, 0.5), Sphere())


@needs_data
@pytest.mark.parametrize("name", ["ngp_pl_epoch=29.ckpt", "ngp_pl_epoch=29_slim.ckpt"])
def test_the_samples_of_ngp_pl(name, slow):
    path, state = sample(f"tcnn_params/{name}")
    x, d = slow.places(16, -0.02, 0.02)
    assert largest(values(NgpFormat().open(path), x, d), ngp_pl_twin(slow, state, x, d, 19)) < 1e-5


# torch-ngp


def torch_ngp_levels(bound, log2_table, levels=16):
    """Scale, stride and rows of each level; a dense level is one row wider than tiny-cuda-nn's."""
    found = []
    for level in range(levels):
        power = np.float32(2.0 ** np.float64(np.float32(level) * np.float32(math.log2(growth_to(2048 * bound, 16, levels)))))
        scale = np.float32(power * np.float32(16) - np.float32(1))
        stride = math.ceil(scale) + 2
        found.append((float(scale), stride, -(-min(2**log2_table, stride**3) // 8) * 8))
    return found


def torch_ngp_state(slow, bound, log2_table=6, sdf=False):
    rows = [rows for _, _, rows in torch_ngp_levels(bound, log2_table)]
    state = {"encoder.embeddings": slow.numbers((sum(rows), 2), 1), "encoder.offsets": np.cumsum([0, *rows], dtype=np.int32)}
    if sdf:
        return state | {"backbone.0.weight": slow.numbers((24, 32), 2, 0.3), "backbone.1.weight": slow.numbers((1, 24), 3, 0.3)}
    return state | {
        "aabb_train": np.array([-bound] * 3 + [bound] * 3, np.float32), "density_bitfield": np.zeros(8, np.uint8),
        "sigma_net.0.weight": slow.numbers((64, 32), 2, 0.3), "sigma_net.1.weight": slow.numbers((16, 64), 3, 0.3),
        "color_net.0.weight": slow.numbers((64, 31), 4, 0.2), "color_net.1.weight": slow.numbers((64, 64), 5, 0.2),
        "color_net.2.weight": slow.numbers((3, 64), 6, 0.2),
    }  # fmt: skip


def torch_ngp_features(slow, state, u, bound, log2_table):
    out, first = [], 0
    for scale, stride, rows in torch_ngp_levels(bound, log2_table):
        table = state["encoder.embeddings"][first : first + rows].reshape(-1)
        hashed = stride**3 > rows
        out.append([slow.corners(point, table, scale, 0.5, stride, rows, 2, "hash", hashed=hashed) for point in u])
        first += rows
    inside = ((u >= 0) & (u <= 1)).all(1)
    return np.concatenate(out, 1) * inside[:, None]


def layers_of(state, name):
    return [(state[f"{name}.{i}.weight"], None) for i in range(3) if f"{name}.{i}.weight" in state]


def torch_ngp_twin(slow, state, x, d, bound, log2_table):
    u = ((x + np.float32(bound)) / np.float32(2 * bound)).astype(np.float32)
    out = slow.perceptron(torch_ngp_features(slow, state, u, bound, log2_table), layers_of(state, "sigma_net"))
    raw = slow.perceptron(np.concatenate([slow.harmonics(d.astype(np.float64)), out[:, 1:]], 1), layers_of(state, "color_net"))
    return np.concatenate([slow.sigmoid(raw), np.exp(out[:, :1])], 1)


@pytest.mark.parametrize("bound", [1, 2])
def test_torch_ngp(bound, slow, tmp_path):
    state = torch_ngp_state(slow, bound, log2_table=14)
    wrapped = {"model": {key: torch.tensor(value) for key, value in state.items()}, "epoch": 3, "mean_density": 0.0}
    field = NgpFormat().open(save(tmp_path / "ngp_ep0003.pth", {}, **wrapped))
    x, d = slow.places(16, -1.1 * bound, 1.1 * bound)  # some beyond the box, where there are no features
    assert largest(values(field, x, d), torch_ngp_twin(slow, state, x, d, bound, 14)) < 1e-3
    assert field.grid.layout == "torch-ngp" and field.domain.a == Box.centered(3, float(bound))


@needs_data
@pytest.mark.parametrize("bound", [1, 2])
def test_the_samples_of_torch_ngp(bound, slow):
    path, state = sample(f"instant_ngp/torchngp_minted_b{bound}.pth")
    x, d = slow.places(16, -1.1 * bound, 1.1 * bound)
    assert largest(values(NgpFormat().open(path), x, d), torch_ngp_twin(slow, state, x, d, bound, 12)) < 1e-5


def test_torch_ngp_over_tiny_cuda_nn(slow, tmp_path):
    growth = growth_to(2048 * 2)
    state = {"aabb_train": np.array([-2] * 3 + [2] * 3, np.float32),
             "encoder.params": slow.numbers(2 * slow.rows_of(3, 16, 8, 16, growth), 1),
             "sigma_net.params": slow.numbers(slow.count(32, 16, 64, 1), 2, 0.3),
             "color_net.params": slow.numbers(slow.count(31, 3, 64, 2), 3, 0.2)}  # fmt: skip
    field = NgpFormat().open(save(tmp_path / "ngp.pth", state))
    x, d = slow.places(16, -2, 2)
    grid = slow.grid((x + 2) / 4, state["encoder.params"], levels=16, features=2, log2_table=8, base=16, growth=growth)
    out = slow.network(grid, state["sigma_net.params"], 64, 1, 16, 1.0)
    fed = np.concatenate([slow.harmonics(d.astype(np.float64)), out[:, 1:]], 1)
    truth = np.concatenate([slow.sigmoid(slow.network(fed, state["color_net.params"], 64, 2, 3, 1.0)), np.exp(out[:, :1])], 1)
    assert largest(values(field, x, d), truth) < 1e-5


def test_a_distance_of_torch_ngp(slow, tmp_path):
    state = torch_ngp_state(slow, 1, sdf=True)
    field = NgpFormat().open(save(tmp_path / "sdf.pth", state))
    x, _ = slow.places(16, -1, 1)
    truth = slow.perceptron(torch_ngp_features(slow, state, (x + 1) / 2, 1, 6), layers_of(state, "backbone"))
    assert largest(values(field, x), truth) < 1e-5 and field.channel_names == ("sdf",)


@pytest.mark.parametrize(
    "spoil",
    [lambda o: o[::-1].copy(), lambda o: np.r_[o[:1], o[2:3], o[1:2], o[3:]], lambda o: o[:-1], lambda o: o * 0, lambda o: o + 8,
     lambda o: np.r_[o[:-1], o[-1:] + 8], lambda o: o[:1], lambda o: o[:0], lambda o: o.astype(np.float32) * np.nan,
     lambda o: np.r_[0, o[-1:]], lambda o: np.int64(2) ** 62 * np.arange(len(o))],
)  # fmt: skip
def test_offsets_that_do_not_fit(spoil, slow, tmp_path):
    state = torch_ngp_state(slow, 1)
    with pytest.raises(errors.CannotOpen):
        NgpFormat().open(save(tmp_path / "ngp.pth", state | {"encoder.offsets": spoil(state["encoder.offsets"])}))


# HashNeRF-pytorch


def hashnerf_state(slow, levels=4, log2_table=6):
    state = {f"embed_fn_state_dict.embeddings.{i}.weight": slow.numbers((2**log2_table, 2), 1 + i) for i in range(levels)}
    for part, seed in (("network_fn_state_dict", 20), ("network_fine_state_dict", 40)):
        shapes = {"sigma_net.0": (24, 2 * levels), "sigma_net.1": (16, 24), "color_net.0": (24, 31), "color_net.1": (24, 24),
                  "color_net.2": (3, 24)}  # fmt: skip
        state |= {f"{part}.{name}.weight": slow.numbers(shape, seed + i, 0.3) for i, (name, shape) in enumerate(shapes.items())}
    return state


@pytest.mark.parametrize("fine", [False, True])
def test_hashnerf(fine, slow, tmp_path):
    state = {k: v for k, v in hashnerf_state(slow).items() if fine or "fine" not in k}
    nested = {}
    for key, value in state.items():
        part, _, name = key.partition(".")
        nested.setdefault(part, {})[name] = torch.tensor(value)
    path = save(tmp_path / "050000.tar", {}, global_step=5, **nested)
    field = NgpFormat().open(path, low=[-2, -1, 0], high=[2, 1, 3], finest=100)
    x, d = slow.places(60, -2.2, 3.2)
    low, high = np.float32([-2, -1, 0]), np.float32([2, 1, 3])
    inside = ((x >= low) & (x <= high)).all(1, keepdims=True)
    assert 0 < inside.sum() < 60
    tables = [state[f"embed_fn_state_dict.embeddings.{i}.weight"] for i in range(4)]
    features = slow.hashed_levels((np.clip(x, low, high) - low) / (high - low), tables, [16, 29, 54, 100], upper=None)
    part = {k.split(".", 1)[1]: v for k, v in state.items() if k.startswith("network_fine" if fine else "network_fn")}
    out = slow.perceptron(features, layers_of(part, "sigma_net"))
    raw = slow.perceptron(np.concatenate([slow.harmonics(d.astype(np.float64)), out[:, 1:]], 1), layers_of(part, "color_net"))
    truth = np.concatenate([slow.sigmoid(raw), np.maximum(out[:, :1], 0) * inside], 1)
    assert field.grid.resolutions == [16, 29, 54, 100]
    assert largest(values(field, x, d), truth) < 1e-4
    assert not any("does not tell the box" in sentence for sentence in field.assumed)
    assert any("does not tell the box" in sentence for sentence in NgpFormat().open(path).assumed)
    (tmp_path / "args.txt").write_text("expname = lego\nfinest_res = 100\n")
    beside = NgpFormat().open(path)
    assert beside.grid.resolutions == [16, 29, 54, 100] and "finest = 100 (args.txt)" in beside.assumed


# nerf2vec, GMNeRF


def octaves(u, count):
    # in single precision and by the kernel's shift by pi / 2: the highest octaves are noise that the networks have learnt
    phase = (u[..., None] * (np.float32(np.pi) * np.float32(2.0) ** np.arange(count, dtype=np.float32))).astype(np.float32)
    return np.stack([np.sin(phase), np.sin(phase + np.float32(np.pi / 2))], -1).reshape(len(u), -1)


def bilinear(plane, x, y):
    """A square grid of features on [-1, 1]^2 whose corners are grid points, 0 one step beyond: x along the columns."""
    padded = np.pad(plane, ((1, 2), (1, 2), (0, 0)))
    column, row = ((np.clip(v, -1.5, 1.5) + 1) / 2 * (len(plane) - 1) for v in (x, y))
    c, r = (np.clip(np.floor(v).astype(int), -1, len(plane)) for v in (column, row))
    a, b = np.clip(column - c, 0, 1)[:, None], np.clip(row - r, 0, 1)[:, None]
    top, below = (padded[r + 1 + i, c + 1] * (1 - a) + padded[r + 1 + i, c + 2] * a for i in (0, 1))
    return top * (1 - b) + below * b


def gmnerf_twin(slow, state, x, layers):
    u = ((x + np.float32(0.7)) / np.float32(1.4)).astype(np.float32)
    activation, vector = lambda h: np.maximum(h, 0), state["mlp_base.params"]
    if "triplane" in state:
        y = 2 * u.astype(np.float64) - 1
        planes = sum(bilinear(state["triplane"][i], y[:, a], y[:, b]) for i, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))))
        features, activation = np.concatenate([octaves(u, 48), planes], 1), np.sin
    elif len(state.get("encoding.params", ())):
        features = slow.grid(u, state["encoding.params"], levels=4, features=2, log2_table=12, base=16, growth=2.0)
    else:
        features = octaves(u, 24)
    out = slow.network(features, vector, 64, layers, 4, 1.0, activation)
    seen = ((u > 0) & (u < 1)).all(1, keepdims=True)
    return np.concatenate([slow.sigmoid(out[:, :3]), np.exp(out[:, 3:] - 1) * seen], 1)


@needs_data
@pytest.mark.parametrize("name", ["mlp", "hash", "triplane"])
def test_the_samples_of_gmnerf(name, slow):
    path, state = sample(f"tcnn_params/gmnerf_{name}/nerf_weights.pth")
    x, _ = slow.places(64, -0.68, 0.68)
    inputs, count = {"mlp": 144, "hash": 8, "triplane": 304}[name], len(state["mlp_base.params"])
    layers = next(k for k in range(1, 6) if count == slow.count(inputs, 4, 64, k))
    assert largest(values(NgpFormat().open(path), x), gmnerf_twin(slow, state, x, layers)) < 2e-5


@pytest.mark.parametrize("name", ["mlp", "hash", "triplane"])
def test_gmnerf(name, slow, tmp_path):
    inputs = {"mlp": 144, "hash": 8, "triplane": 288 + 16}[name]
    state = {"mlp_base.params": slow.numbers(slow.count(inputs, 4, 64, 2), 1, 0.1)}
    if name == "hash":
        state["encoding.params"] = slow.numbers(2 * slow.rows_of(3, 4, 12, 16, 2.0), 2)
    if name == "triplane":
        state |= {"triplane": slow.numbers((3, 8, 8, 16), 3), "encoding.params": np.zeros(0, np.float32)}
    field = NgpFormat().open(save(tmp_path / "nerf_weights.pth", state))
    x, _ = slow.places(32, -0.75, 0.75)
    assert largest(values(field, x), gmnerf_twin(slow, state, x, 2)) < 1e-4
    assert field.domain == Box.centered(3, 0.7) and field.channel_names[-1] == "density"


@pytest.mark.parametrize("name", ["nerfacc", "ngp_pl", "torch_ngp", "hashnerf"])
def test_damage_is_told_in_one_word(name, slow, survives, tmp_path):
    state = {"nerfacc": nerfacc_state, "ngp_pl": lambda slow: ngp_pl_state(slow, True), "hashnerf": hashnerf_state,
             "torch_ngp": lambda slow: torch_ngp_state(slow, 1)}[name](slow)  # fmt: skip
    assert survives(save(tmp_path / "field.pth", state))
