"""Train one network on bodies in space that are stored in five formats: as signed distance, and as radiance fields.

Needs the plugins inrbridge-siren, inrbridge-fourier, inrbridge-ngp, inrbridge-plenoxels and inrbridge-nerf.
Run: python shapes_in_space.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

import inrbridge
from inrbridge import Box, FieldDataset, FunctionField, Product, Sphere

FORMATS = {  # what each format fits well in a second or two
    "siren": {"width": 32, "layers": 2, "omega_0": 10, "steps": 100, "lr": 2e-3},
    "fourier": {"width": 32, "layers": 2, "sigma": 1.0, "steps": 100, "lr": 5e-3},
    "ngp": {"levels": 4, "log2_table": 10, "finest": 16, "steps": 100},
    "plenoxels": {"resolution": 12, "harmonics": 1, "steps": 100, "lr": 0.4},
    "nerf": {"width": 32, "layers": 3, "frequencies": 3, "steps": 100},
}
COUNT = 60  # bodies: 40 to learn from, 20 to be tested on
SPACE = Box.centered(3)


def body(kind: str, random: np.random.Generator):
    """Return the signed distance of a ball or of a rod at a random place: points (..., 3) -> (..., 1)."""
    place = torch.tensor(random.uniform(-0.3, 0.3, 3), dtype=torch.float32)
    axis = torch.nn.functional.normalize(torch.tensor(random.normal(size=3), dtype=torch.float32), dim=0)
    size, half = (random.uniform(0.35, 0.5), 0.0) if kind == "ball" else (random.uniform(0.12, 0.2), 0.6)

    def distance(x):
        x = x - place
        along = (x @ axis).clamp(-half, half).unsqueeze(-1)
        return (x - along * axis).norm(dim=-1, keepdim=True) - size

    return distance


def signal(format: str, distance) -> FunctionField:
    """A body as what the format is made for: its distance, or a medium whose colour changes with the direction of view."""
    if format in ("siren", "fourier"):
        return FunctionField(distance, SPACE, 1, ("sdf",))

    def radiance(x):
        return torch.cat([0.5 + 0.4 * x[..., 3:], 30 * (0.5 - distance(x[..., :3]) / 0.2).clamp(0, 1)], -1)

    return FunctionField(radiance, Product(SPACE, Sphere()), 4, ("red", "green", "blue", "density"))


folder, random = Path(tempfile.mkdtemp(prefix="inrbridge-")), np.random.default_rng(0)
kinds = [("ball", "rod")[i % 2] for i in range(COUNT)]
formats = [list(FORMATS)[(i // 2) % 5] for i in range(COUNT)]

# 1. Every body becomes a field of its own format. All go into one store.
fields = [signal(format, body(kind, random)) for format, kind in zip(formats, kinds, strict=True)]
store = inrbridge.fit(fields, formats, folder / "store", labels=kinds, splits=["train"] * 40 + ["test"] * 20,
                      points=512, format_options=FORMATS)  # fmt: skip
print(f"{len(store.items)} fields of {len(FORMATS)} formats in {folder / 'store'}")

# 2. The network sees the occupancy of all of them, made of distance or density; it is never told the format.
view = {"domain": SPACE, "channels": ["occupancy"], "ramp": 0.2, "length": 0.2}
train_set, test_set = (FieldDataset(store, split, **view) for split in ("train", "test"))
model = {"name": "convnet", "options": {"widths": [8, 16], "strides": [1, 2], "resolution": 8, "points": 256}}
config = {"data": {"batch_size": 10}, "model": model, "points": {"n": 256, "pool": 8}, "optimizer": {"lr": 1e-2, "epochs": 40},
          "run": {"out": str(folder / "model"), "eval_every": 0}}  # fmt: skip
run = inrbridge.train(config, train_set, eval_dataset=test_set, progress=False)
print(f"trained {run.steps} steps in {run.seconds:.1f} s")
for sampler, n in [("lattice", 256), ("lattice", 512), ("sobol", 512)]:
    result = inrbridge.evaluate(run.model, test_set, sampler=sampler, n=n)
    print(f"test accuracy under {n} {sampler} points {result['accuracy']:.0%}, by format {result['accuracy_by_format']}")
