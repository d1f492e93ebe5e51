"""A network that was trained on pixels, applied to fields of several formats and on points that are no pixels.

Needs the plugins inrbridge-siren and inrbridge-fourier.
Run: python convert_pretrained.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import inrbridge
from inrbridge import Box, sampling
from inrbridge.training import save_model
from inrbridge.training.model_folder import Card

SIZE, FORMATS = 16, ["siren", "fourier", "grid"]


def draw(n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, SIZE, SIZE) of a ring, a disc or a cross at random places, and which of them it is."""
    kinds, (y, x) = random.integers(0, 3, n), np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    y, x = (axis - random.uniform(-0.3, 0.3, (n, 1, 1)) for axis in (y, x))
    radius, size = np.hypot(x, y), random.uniform(0.35, 0.6, (n, 1, 1))
    outside = np.select([kinds[:, None, None] == k for k in range(2)], [np.abs(radius - size) - 0.13, radius - size],
                        np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.13, radius - size))  # fmt: skip
    return np.float32(1 / (1 + np.exp(outside / 0.04))), kinds


# 1. A plain network of torch learns from pixels. It could as well be one that somebody else has trained.
random = np.random.default_rng(0)
torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
)  # fmt: skip
optimizer = torch.optim.Adam(network.parameters(), 0.01)
for _ in range(80):
    pictures, kinds = draw(64, random)
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(torch.from_numpy(pictures)[:, None]), torch.from_numpy(kinds)).backward()
    optimizer.step()
network.eval()

# 2. Converted, it takes fields. On its pixels it is the same network.
net = inrbridge.convert(network, Box.centered(2), SIZE)
pictures, kinds = draw(90, random)
pixels = torch.from_numpy(pictures)[:, None]
with torch.no_grad():
    print(f"on the pixels the outputs differ by {float((net(pixels) - network(pixels)).abs().max()):.1g}")

# 3. The pictures become fields of three formats; the net was never told of any.
options = {"siren": {"width": 32, "layers": 2, "omega_0": 15, "steps": 120, "lr": 5e-3},
           "fourier": {"width": 32, "layers": 2, "sigma": 1.5, "steps": 120, "lr": 1e-2}}  # fmt: skip
folder, names = Path(tempfile.mkdtemp(prefix="inrbridge-")), ["ring", "disc", "cross"]
inrbridge.fit(list(pictures), [FORMATS[i % 3] for i in range(90)], folder / "store", labels=[names[k] for k in kinds],
              points=256, format_options=options)  # fmt: skip


def show(title: str, net) -> None:
    """Write a model folder, which opens without the code above; print its accuracy by format, under points of several kinds."""
    save_model(folder / title, net, Card.of(net, channels=["gray"], class_names=names, sampler="grid"))
    print(f"accuracy of the net in {folder / title}")
    for sampler, n in [("grid", 256), ("lattice", 256), ("sobol", 256), ("sobol", 100)]:
        found = inrbridge.evaluate(folder / title, folder / "store", sampler=sampler, n=n)["accuracy_by_format"]
        print(f"  {n} {sampler:8} points: " + ", ".join(f"{name} {share:.0%}" for name, share in found.items()))


show("converted", net)

# 4. Fewer points tell less than the pixels did. Calibrated on fields without labels, it makes up for what such points do to
#    its statistics; on all other points nothing changes.
fields = inrbridge.FieldDataset(folder / "store")
points = [sampling.sobol(net.domain, 100, torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]
show("calibrated", inrbridge.convert(network, net.domain, SIZE, calibrate=fields, points=points))
