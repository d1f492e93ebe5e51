"""From a field to a field: noisy images of discs are cleaned by a small net, whose outputs are fields of their own.

The net learns at points drawn anew in each step; its targets are fields too, read at the very points asked for. An output on
disk is the net with its input; distilled, it needs neither.
Run: python dense.py [FOLDER]        (default: a new temporary folder)
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import inrbridge
from inrbridge import sampling

SIZE, COUNT = 24, 48  # pixels along each side; images, of which the last 8 are kept to test on
random = np.random.default_rng(0)
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="inrbridge-"))

# 1. Pairs of fields: a disc with soft edges, and the same with noise. One store each; the names tell which belong together.
place = np.stack(np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j], -1)
centres, radii = random.uniform(-0.4, 0.4, (COUNT, 2)), random.uniform(0.3, 0.6, COUNT)
distances = np.hypot(*np.moveaxis(place - centres[:, None, None], -1, 0))  # (COUNT, SIZE, SIZE)
clean = list(np.float32(1 / (1 + np.exp((distances - radii[:, None, None]) / 0.08))))
noisy = [np.float32(image + random.normal(0, 0.25, image.shape)) for image in clean]
names = [f"disc-{i:02d}" for i in range(COUNT)]
splits = ["train"] * (COUNT - 8) + ["test"] * 8
inrbridge.fit(noisy, "grid", folder / "noisy", names=names, splits=splits)
truth = inrbridge.fit(clean, "grid", folder / "clean", names=names)

# 2. A dense net learns one from the other.
run = inrbridge.train({
    "task": "dense",
    "data": {"store": str(folder / "noisy"), "batch_size": 10},
    "targets": {"source": str(folder / "clean"), "n": 0},
    "model": {"name": "unet", "options": {"widths": [8, 12], "convs": 1, "resolution": SIZE}},
    "points": {"n": 512, "pool": 4},
    "optimizer": {"lr": 2e-2, "steps": 60},
    "run": {"out": str(folder / "run"), "eval_every": 0},
})  # fmt: skip
store, points = inrbridge.Store(folder / "noisy"), sampling.sobol(inrbridge.Box.centered(2), 4096).points
noise = torch.stack([store.field(i)(points) - truth.field(i)(points) for i in range(COUNT - 8, COUNT)]).square().mean()
print(f"mean squared error of the test fields: noisy {noise:.4f}, cleaned {run.metrics['mse']:.4f}")
for sampler, n in [("lattice", 1024), ("sobol", 512), ("grid", 576)]:
    found = inrbridge.evaluate(folder / "run", folder / "noisy", split="test", sampler=sampler, n=n)
    print(f"  cleaned, seen at {n} {sampler} points: {found['mse']:.4f}")

# 3. An output is a field: written to disk, opened without the run, evaluated at any resolution.
(folder / "out").mkdir()
(answer,) = inrbridge.predict(folder / "run", store.field(COUNT - 1), out=folder / "out")
output = inrbridge.open_field(answer["output"])
error = (output(points) - truth.field(COUNT - 1)(points)).square().mean()
print(f"{Path(answer['output']).name} holds {type(output).__name__} with its input; its error is {error:.4f}")

# 4. Distilled into a grid it stands for itself, and says how far it is from what it was made of.
small = inrbridge.distill(output, "grid", folder / "detached.safetensors", shape=48)
print(f"detached: deviation {small.notes['rms']:.2%} of the range, at most {small.notes['greatest']:.2%}")
for name, field in (("noisy", store.field(COUNT - 1)), ("cleaned", output), ("detached", small)):
    print(f"{name:8} is drawn in {inrbridge.preview(field, folder / f'{name}.png', resolution=96, title=name)}")
