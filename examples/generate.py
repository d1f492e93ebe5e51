"""Learn to make new fields: train a generator on pictures, then ask it for fields that are drawn at any resolution.

Run: python generate.py [FOLDER]        (default: a new temporary folder)
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import inrbridge
from inrbridge import sampling
from inrbridge.sheets import sheet

SIZE = 12  # pixels along each side
COUNT = 96  # pictures: 80 to learn from, 16 to compare with


def ring(random: np.random.Generator) -> np.ndarray:
    """Draw a soft ring of random size at a random place: (SIZE, SIZE) in [0, 1]."""
    rows, columns = np.meshgrid(*2 * [np.linspace(-1, 1, SIZE)], indexing="ij")
    distance = np.hypot(rows - random.uniform(-0.3, 0.3), columns - random.uniform(-0.3, 0.3))
    return np.float32(np.exp(-(((distance - random.uniform(0.3, 0.6)) / 0.15) ** 2)))


folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="inrbridge-"))
random = np.random.default_rng(0)

# 1. Pictures become fields. They need no labels.
store = inrbridge.fit([ring(random) for _ in range(COUNT)], "grid", folder / "store", splits=["train"] * 80 + ["test"] * 16)

# 2. An autoencoder of fields: an INR-Net turns a field into a vector of 3 numbers, a generator makes a field of it.
config = {
    "task": "generation",
    "data": {"store": str(folder / "store"), "batch_size": 16},
    "model": {
        "name": "vae",  # or "gan", whose generator learns from a critic
        "options": {
            "latent": 3,
            "beta": 2e-4,
            "encoder_options": {"widths": [16, 16], "strides": [1, 2], "resolution": 12},
            "generator_options": {"widths": [24, 16], "resolution": 12, "output": "sigmoid"},
        },
    },
    "points": {"sampler": "lattice", "n": 128, "pool": 4},
    "optimizer": {"lr": 8e-3, "warmup": 20, "steps": 300},
    "run": {"out": str(folder / "model"), "eval_every": 0},
}
run = inrbridge.train(config)
print(f"trained {run.steps} steps in {run.seconds:.1f} s")
print(f"error of reconstruction on test fields {run.metrics['mse']:.4f}")
print(f"energy distance of made fields to test fields {run.metrics['energy']:.4f} (0: the same distribution)")

# 3. Fields of noise. Each is evaluated wherever it is asked for, and is written as one file that opens like any other.
fields = inrbridge.generate(run.model, 16, seed=1)
for n in (10, 1000, 100_000):
    points = sampling.halton(fields[0].domain, n)
    print(f"the first one at {n:6} points: mean {float(fields[0](points.points).mean()):.3f}")
inrbridge.save_field(fields[0], folder / "made.safetensors")
again = inrbridge.open_field(folder / "made.safetensors")
print(f"written and opened again, it differs by {float((again(points.points) - fields[0](points.points)).abs().max()):.1g}")

# 4. What was made, and what is real, at five times the resolution of the pictures.
test = inrbridge.FieldDataset(store, "test")
print(f"what was made is drawn in {sheet(fields, folder / 'made.png', resolution=5 * SIZE)}")
print(f"what is real is drawn in {sheet(list(test.stack(range(16))), folder / 'real.png', resolution=5 * SIZE)}")
