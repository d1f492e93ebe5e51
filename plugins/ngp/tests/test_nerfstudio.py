"""Checkpoints of nerfstudio of every generation of names: written here from their layout, and the samples; slow twins."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_ngp import NgpFormat

from inrbridge import Box, Probe, errors

DATA = os.environ.get("INRBRIDGE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")
LEVELS, LOG2, FINEST, IMAGES = 4, 6, 128, 5
GROWTH = math.exp(math.log(FINEST / 16) / (LEVELS - 1))
CONFIG = """!!python/object:nerfstudio.engine.trainer.TrainerConfig
pipeline: !!python/object:nerfstudio.pipelines.base_pipeline.VanillaPipelineConfig
  model: !!python/object:nerfstudio.models.nerfacto.NerfactoModelConfig
    _target: &id001 !!python/name:nerfstudio.models.nerfacto.NerfactoModel ''
    num_levels: 4
    max_res: 128
    log2_hashmap_size: 6
"""


def values(field, *parts):
    with torch.no_grad():
        return field(torch.tensor(np.concatenate(parts, 1))).numpy()


def largest(found, truth):
    """Largest difference, relative above 1."""
    return float((np.abs(found - truth) / np.maximum(np.abs(truth), 1)).max())


class Nerfacto:
    """The parts of a small field, whatever they are called."""

    def __init__(self, slow, appearance=32, features=2):
        self.slow, inputs = slow, 31 + appearance
        self.base = slow.numbers(slow.count(LEVELS * features, 16, 64, 1), 1, 0.3)
        self.grid = slow.numbers(features * slow.rows_of(3, LEVELS, LOG2, 16, GROWTH), 2)
        self.head = slow.numbers(slow.count(inputs, 3, 64, 2), 3, 0.2)
        self.appearance = slow.numbers((IMAGES, appearance), 4)
        self.hash_table = slow.numbers((LEVELS * 2**LOG2, features), 5)
        shapes = {"mlp": [(64, LEVELS * features), (16, 64)], "head": [(64, inputs), (64, 64), (3, 64)]}
        self.layers = {
            name: [(slow.numbers(shape, 6 + i, 0.2), slow.numbers(shape[:1], 9 + i, 0.2)) for i, shape in enumerate(found)]
            for name, found in shapes.items()
        }

    def buffers(self):
        return {"aabb": np.array([[-1, -1, -1], [1, 1, 1]], np.float32), "max_res": np.int64(FINEST),
                "num_levels": np.int64(LEVELS), "log2_hashmap_size": np.int64(LOG2)}  # fmt: skip

    def shared(self):
        return self.buffers() | {"embedding_appearance.embedding.weight": self.appearance}

    def linear(self, prefix, name):
        return {f"{prefix}.layers.{i}.{kind}": value for i, layer in enumerate(self.layers[name])
                for kind, value in zip(("weight", "bias"), layer, strict=True)}  # fmt: skip

    def tcnn(self, u, d, appearance):
        slow = self.slow
        grid = slow.grid(u, self.grid, levels=LEVELS, features=2, log2_table=LOG2, base=16, growth=GROWTH)
        out = slow.network(grid, self.base, 64, 1, 16, 0.0)
        fed = [slow.harmonics(d.astype(np.float64)), out[:, 1:], np.tile(appearance, (len(u), 1))]
        return out[:, :1], slow.sigmoid(slow.network(np.concatenate(fed, 1), self.head, 64, 2, 3, 1.0))

    def tcnn_parts(self, u, d, appearance):
        """As `tcnn`, for a grid and a network of their own: the network's padding is 1."""
        slow = self.slow
        grid = slow.grid(u, self.grid, levels=LEVELS, features=2, log2_table=LOG2, base=16, growth=GROWTH)
        out = slow.network(grid, self.base, 64, 1, 16, 1.0)
        fed = [slow.harmonics(d.astype(np.float64)), out[:, 1:], np.tile(appearance, (len(u), 1))]
        return out[:, :1], slow.sigmoid(slow.network(np.concatenate(fed, 1), self.head, 64, 2, 3, 1.0))

    def torch(self, u, d, appearance):
        slow, tables = self.slow, np.split(self.hash_table, LEVELS)
        grid = slow.hashed_levels(u, tables, resolutions(LEVELS, FINEST))
        out = slow.perceptron(grid, self.layers["mlp"])
        fed = [plain_harmonics((d.astype(np.float64) + 1) / 2), out[:, 1:], np.tile(appearance, (len(u), 1))]
        return out[:, :1], slow.sigmoid(slow.perceptron(np.concatenate(fed, 1), self.layers["head"]))


def resolutions(levels, finest):
    """Whole numbers of steps; the powers are torch's in single precision, whose rounding decides the last."""
    return torch.floor(16 * np.exp((np.log(finest) - np.log(16)) / (levels - 1)) ** torch.arange(levels)).int().tolist()


def plain_harmonics(v):
    """The first 16 real harmonics without the signs of Condon and Shortley, of vectors of any length."""
    x, y, z = v.T
    xx, yy, zz = x * x, y * y, z * z
    return np.stack([
        np.full_like(x, 0.28209479), 0.48860251 * y, 0.48860251 * z, 0.48860251 * x, 1.09254843 * x * y, 1.09254843 * y * z,
        0.94617470 * zz - 0.31539157, 1.09254843 * x * z, 0.54627422 * (xx - yy), 0.59004359 * y * (3 * xx - yy),
        2.89061144 * x * y * z, 0.45704580 * y * (5 * zz - 1), 0.37317633 * z * (5 * zz - 3), 0.45704580 * x * (5 * zz - 1),
        1.44530572 * z * (xx - yy), 0.59004359 * x * (xx - 3 * yy),
    ], 1)  # fmt: skip


def generations(parts):
    """Names of the tensors below "field.", by era and implementation, and which evaluator computes them."""
    whole, head = np.concatenate([parts.base, parts.grid]), {"mlp_head.tcnn_encoding.params": parts.head}
    apart = lambda grid, mlp: {f"{grid}.tcnn_encoding.params": parts.grid, f"{mlp}.tcnn_encoding.params": parts.base}  # noqa: E731
    table = lambda grid, mlp: {f"{grid}.hash_table": parts.hash_table} | parts.linear(mlp, "mlp")  # noqa: E731
    torch_head = parts.linear("mlp_head", "head")
    return {
        "tcnn since December 2023": ({"mlp_base.model.params": whole} | head, parts.tcnn),
        "tcnn of mid 2023": (apart("mlp_base_grid", "mlp_base_mlp") | apart("mlp_base.0", "mlp_base.1") | head, parts.tcnn_parts),
        "tcnn of mid 2023, once": (apart("mlp_base.0", "mlp_base.1") | head, parts.tcnn_parts),
        "tcnn before": ({"mlp_base.params": whole, "mlp_head.params": parts.head}, parts.tcnn),
        "torch since December 2023": (table("mlp_base.model.0", "mlp_base.model.1") | torch_head, parts.torch),
        "torch of mid 2023": (
            table("mlp_base_grid", "mlp_base_mlp") | table("mlp_base.0", "mlp_base.1") | torch_head,
            parts.torch,
        ),
    }


ERAS = ["tcnn since December 2023", "tcnn of mid 2023", "tcnn of mid 2023, once", "tcnn before", "torch since December 2023",
        "torch of mid 2023"]  # fmt: skip


def save(folder, state, prefix="_model.field.", **more):
    path = folder / "step-000000100.ckpt"
    pipeline = {f"{prefix}{name}": torch.as_tensor(value) for name, value in state.items()}
    torch.save({"step": 100, "pipeline": pipeline | {name: torch.as_tensor(value) for name, value in more.items()}}, path)
    assert NgpFormat().recognizes(Probe(path))
    return path


def contracted(x):
    most = np.maximum(np.abs(x).max(1, keepdims=True), 1)
    return (np.where(most > 1, (2 - 1 / most) * (x / most), x) + 2) / 4


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("prefix", ["_model.field.", "_model.module.field."])
def test_every_generation_of_names(era, prefix, slow, tmp_path):
    parts = Nerfacto(slow)
    state, twin = generations(parts)[era]
    field = NgpFormat().open(save(tmp_path, parts.shared() | state, prefix))
    x, d = slow.places(24, -3, 3)
    raw, colours = twin(contracted(x), d, parts.appearance.mean(0))
    scale = 0.01 if "since" in era else 1.0
    assert largest(values(field, x, d), np.concatenate([colours, scale * np.exp(raw)], 1)) < 1e-4
    assert field.domain.a == Box.centered(3, 5.0)
    assert {"appearance = mean (default of dialect nerfstudio)", f"density_scale = {scale:g} (default of dialect nerfstudio)",
            "contraction = cube (default of dialect nerfstudio)"} <= set(field.assumed)  # fmt: skip


@pytest.mark.parametrize("era", ["tcnn since December 2023", "torch since December 2023", "tcnn before"])
def test_a_bounded_scene(era, slow, tmp_path):
    parts = Nerfacto(slow)
    state, twin = generations(parts)[era]
    box = {"aabb": np.array([[-2, -1, 0], [2, 1, 3]], np.float32)}
    field = NgpFormat().open(save(tmp_path, parts.shared() | state | box), contraction="none", density_scale=2.0, appearance="3")
    x, d = slow.places(40, -2.2, 3.2)
    u = ((x - np.float32([-2, -1, 0])) / np.float32([4, 2, 3])).astype(np.float32)
    inside = ((u > 0) & (u < 1)).all(1, keepdims=True)
    raw, colours = twin(u * inside, d, parts.appearance[3])
    assert largest(values(field, x, d), np.concatenate([colours, 2 * np.exp(raw) * inside], 1)) < 1e-4
    assert field.domain.a == Box([-2.0, -1.0, 0.0], [2.0, 1.0, 3.0])


def test_before_february_2023_the_configuration_tells_the_grid(slow, tmp_path):
    parts = Nerfacto(slow)
    state = generations(parts)["tcnn before"][0] | {k: v for k, v in parts.shared().items() if "aabb" in k or "embedding" in k}
    folder = tmp_path / "nerfstudio_models"
    folder.mkdir()
    path = save(folder, state)
    with pytest.raises(errors.CannotOpen, match="tell levels"):
        NgpFormat().open(path)
    (tmp_path / "config.yml").write_text(CONFIG)
    field = NgpFormat().open(path)
    x, d = slow.places(8, -3, 3)
    raw, colours = parts.tcnn(contracted(x), d, parts.appearance.mean(0))
    assert largest(values(field, x, d), np.concatenate([colours, np.exp(raw)], 1)) < 1e-4
    told = NgpFormat().open(path, levels=4, log2_table=6, finest=128)
    assert torch.equal(told.table, field.table)


def test_the_configuration_beside_the_folder(slow, tmp_path):
    parts = Nerfacto(slow)
    state, twin = generations(parts)["tcnn since December 2023"]
    folder = tmp_path / "nerfstudio_models"
    folder.mkdir()
    path = save(folder, parts.shared() | state)
    (tmp_path / "config.yml").write_text(
        CONFIG
        + "    average_init_density: 0.5\n    disable_scene_contraction: true\n    use_average_appearance_embedding: false\n"
    )
    field = NgpFormat().open(path)
    x, d = slow.places(8, -1, 1)
    raw, colours = twin(((x + 1) / 2).astype(np.float32), d, np.zeros(32))
    assert largest(values(field, x, d), np.concatenate([colours, 0.5 * np.exp(raw)], 1)) < 1e-4
    assert "density_scale = 0.5 (config.yml)" in field.assumed and field.domain.a == Box.centered(3)
    with pytest.raises(errors.CannotOpen, match="dataparser_transforms"):
        NgpFormat().open(path, frame="world")
    turn = [[0.0, -1.0, 0.0, 0.1], [1.0, 0.0, 0.0, 0.2], [0.0, 0.0, 1.0, -0.3]]
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps({"transform": turn, "scale": 0.4}))
    world = NgpFormat().open(path, frame="world")
    turn = np.array(turn)
    q = ((x / 0.4 - turn[:, 3]) @ turn[:, :3]).astype(np.float32)  # x = 0.4 (R q + t)
    w = (d @ turn[:, :3]).astype(np.float32)
    assert largest(values(world, q, w), values(field, x, d) * [1, 1, 1, 0.4]) < 1e-3
    assert world.domain.a.contains(torch.tensor(q)).all()


@pytest.mark.parametrize(("appearance", "expected"), [(None, "mean"), ("zeros", "zeros"), ("mean", "mean"), (2, "2")])
def test_appearances(appearance, expected, slow, tmp_path):
    parts = Nerfacto(slow)
    state, twin = generations(parts)["tcnn since December 2023"]
    path = save(tmp_path, parts.shared() | state)
    field = NgpFormat().open(path, **({} if appearance is None else {"appearance": appearance}))
    chosen = {"mean": parts.appearance.mean(0), "zeros": np.zeros(32), "2": parts.appearance[2]}[expected]
    x, d = slow.places(8, -1, 1)
    assert largest(values(field, x, d)[:, :3], twin(contracted(x), d, chosen)[1]) < 1e-4
    with pytest.raises(errors.CannotOpen, match="number of an image, 0 to 4"):
        NgpFormat().open(path, appearance="5")


@pytest.mark.parametrize("early", [False, True])
def test_instant_ngp_of_nerfstudio(early, slow, tmp_path):
    """It has no appearance, no average density; before nerfacc 0.5 it contracted space by the Euclidean norm."""
    parts = Nerfacto(slow, appearance=0)
    state = generations(parts)["tcnn before" if early else "tcnn since December 2023"][0]
    grid = {"_model.occupancy_grid._roi_aabb" if early else "_model.occupancy_grid.aabbs": np.array([[-1.0] * 3 + [1.0] * 3])}
    field = NgpFormat().open(save(tmp_path, parts.buffers() | state, **grid))
    x, d = slow.places(12, -2, 2)
    length = np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1)
    u = ((2 - 1 / length) * x / length / 4 + 0.5).astype(np.float32) if early else contracted(x)
    raw, colours = parts.tcnn(u, d, np.zeros(0))
    assert largest(values(field, x, d), np.concatenate([colours, np.exp(raw)], 1)) < 1e-4


SAMPLES = {
    "nerfstudio/minted_nerfacto_aabb_step-000000100": {"contraction": "none", "density_scale": 1.0},
    "tcnn_params/nerfacto_tcnn_step-000000100": {},
}


@needs_data
@pytest.mark.parametrize(("name", "options"), SAMPLES.items(), ids=SAMPLES)
def test_the_samples_have_the_values_of_their_golden_twins(name, options):
    truth = np.load(Path(DATA, "checkpoints", f"{name}.golden.npz"), allow_pickle=False)
    found = values(NgpFormat().open(Path(DATA, "checkpoints", f"{name}.ckpt"), **options), truth["points"], truth["dirs"])
    assert np.abs(found[:, :3] - truth["rgb"]).max() < 1e-6
    assert np.abs(found[:, 3:] - truth["density"]).max() < 1e-6 * truth["density"].max()


@needs_data
def test_the_sample_with_contraction(slow):
    path = Path(DATA, "checkpoints/nerfstudio/minted_nerfacto_contract_step-000000100.ckpt")
    pipeline = torch.load(path, weights_only=True)["pipeline"]
    state = {name.removeprefix("_model.field."): value.numpy() for name, value in pipeline.items() if "_model.field." in name}
    layers = lambda name: [(state[f"{name}.layers.{i}.weight"], state[f"{name}.layers.{i}.bias"])  # noqa: E731
                           for i in range(3) if f"{name}.layers.{i}.weight" in state]  # fmt: skip
    x, d = slow.places(64, -4, 4)
    tables = np.split(state["mlp_base.model.0.hash_table"], 8)
    grid = slow.hashed_levels(contracted(x), tables, resolutions(8, 256))
    out = slow.perceptron(grid, layers("mlp_base.model.1"))
    mean = np.tile(state["embedding_appearance.embedding.weight"].mean(0), (64, 1))
    raw = slow.perceptron(
        np.concatenate([plain_harmonics((d.astype(np.float64) + 1) / 2), out[:, 1:], mean], 1), layers("mlp_head")
    )
    truth = np.concatenate([slow.sigmoid(raw), 0.01 * np.exp(out[:, :1])], 1)
    assert largest(values(NgpFormat().open(path), x, d), truth) < 1e-5


@pytest.mark.parametrize(
    "change",
    [{"aabb": np.zeros((2, 3), np.float32)}, {"aabb": np.zeros(6, np.float32)}, {"num_levels": np.int64(0)},
     {"num_levels": np.float32(np.nan)}, {"max_res": np.int64(-5)}, {"log2_hashmap_size": np.int64(900)},
     {"mlp_base.model.0.hash_table": np.zeros((96 * 4, 2), np.float32)},
     {"mlp_head.layers.1.weight": np.zeros((3, 3), np.float32)},
     {"mlp_head.layers.0.weight": np.zeros((64, 7), np.float32)}, {"mlp_base.model.0.hash_table": np.zeros((0, 2), np.float32)},
     {"embedding_appearance.embedding.weight": np.zeros((5, 3), np.float32)},
     {"embedding_appearance.embedding.weight": np.zeros(5)}],
)  # fmt: skip
def test_parts_that_do_not_fit(change, slow, tmp_path):
    parts = Nerfacto(slow)
    state = generations(parts)["torch since December 2023"][0]
    if "log2_hashmap_size" in change:
        state = generations(parts)["tcnn since December 2023"][0]
    with pytest.raises(errors.CannotOpen):
        NgpFormat().open(save(tmp_path, parts.shared() | state | change))


@pytest.mark.parametrize("era", ["tcnn since December 2023", "torch of mid 2023"])
def test_damage_is_told_in_one_word(era, slow, survives, tmp_path):
    parts = Nerfacto(slow)
    (tmp_path / "config.yml").write_text(CONFIG + "    average_init_density: 0.5\n")
    assert survives(save(tmp_path, parts.shared() | generations(parts)[era][0]), count=24)
