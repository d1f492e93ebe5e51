"""Train one network on images that are stored as three kinds of field, then ask it at points it never saw.

Needs the plugins inrbridge-siren and inrbridge-fourier.
Run: python train_mixed.py [FOLDER]        (default: a new temporary folder)
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import inrbridge

FORMATS = ["siren", "fourier", "grid"]
CLASSES = ["disc", "bar"]
SIZE = 16  # pixels along each side
COUNT = 120  # images: 90 to learn from, 30 to be tested on


def draw(kind: str, random: np.random.Generator) -> np.ndarray:
    """Draw a disc or a bar with soft edges at a random place: (SIZE, SIZE) in [0, 1]."""
    place = np.stack(np.meshgrid(*2 * [np.linspace(-1, 1, SIZE)], indexing="ij"), -1) - random.uniform(-0.4, 0.4, 2)
    if kind == "disc":
        outside = np.hypot(*np.moveaxis(place, -1, 0)) - random.uniform(0.3, 0.5)
    else:
        angle = random.uniform(0, np.pi)
        outside = np.abs(place @ [np.cos(angle), np.sin(angle)]) - random.uniform(0.12, 0.25)
    return np.float32(1 / (1 + np.exp(outside / 0.05)))


folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="inrbridge-"))
random = np.random.default_rng(0)
kinds = [CLASSES[i % 2] for i in range(COUNT)]
formats = [FORMATS[i % 3] for i in range(COUNT)]  # each format holds both classes

# 1. Every image becomes a field of its own format. All go into one store.
store = inrbridge.fit(
    [draw(kind, random) for kind in kinds],
    formats,
    folder / "store",
    labels=kinds,
    splits=["train"] * 90 + ["test"] * 30,
    points=256,  # that each step of the fit looks at
    format_options={
        "siren": {"width": 32, "layers": 2, "omega_0": 15, "steps": 120, "lr": 5e-3},
        "fourier": {"width": 32, "layers": 2, "sigma": 1.5, "steps": 120, "lr": 1e-2},
    },
)
for format in FORMATS:
    fields = inrbridge.FieldDataset(store, formats=[format])
    picture = inrbridge.preview(fields.field(0), folder / f"{format}.png", title=format)
    psnr = np.mean([item.psnr for item in fields.items])
    print(f"{format:8} {len(fields)} fields, on average {psnr:.0f} dB from the pixels, one is drawn in {picture}")

# 2. One small network learns from all of them, at new points in every step. It is never told the format.
config = {
    "data": {"store": str(folder / "store"), "batch_size": 30},
    "model": {"name": "convnet", "options": {"widths": [16, 16], "strides": [1, 2], "resolution": 12}},
    "points": {"sampler": "lattice", "n": 128},
    "optimizer": {"lr": 1e-2, "epochs": 24},
    "run": {"out": str(folder / "model"), "eval_every": 0},
}
run = inrbridge.train(config)
print(f"trained {run.steps} steps in {run.seconds:.1f} s")

# 3. How good is it on each format, and on points of other kinds and numbers?
result = inrbridge.evaluate(run.model, folder / "store", split="test")
for format, accuracy in result["accuracy_by_format"].items():
    print(f"test accuracy on {format:8} {accuracy:.0%}")
for sampler, n in [("lattice", 128), ("lattice", 512), ("sobol", 128), ("halton", 300), ("grid", 144), ("uniform", 256)]:
    accuracy = inrbridge.evaluate(run.model, folder / "store", split="test", sampler=sampler, n=n)["accuracy"]
    print(f"test accuracy under {n:4} {sampler:8} points {accuracy:.0%}")
