"""How the output of a converted network moves as its points leave the pixel grid (Wang & Golland 2023, figure E.2).

Each point wanders from a pixel to its partner in a Sobol set. A small network is trained first, unless the folder of a converted
net and a store of labelled images are named. Needs matplotlib: pip install "inrbridge[plot]"
Run: python convert_curve.py [FOLDER] [MODEL STORE]        (default: a new temporary folder)
"""

import sys
import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import nn

from inrbridge import Box, Discretization, FieldDataset, GridField, convert, models, sampling, stack
from inrbridge.training import load_model

WAYS = {
    "fields read onto the pixels (default)": {"levels": "grids"},
    "kernels at their nodes, on the points": {"levels": "points", "oversampling": 1.0},
    "the paper: kernels as splines": {"kernel": "spline", "levels": "points", "oversampling": 1.0},
}


def stripes(n: int, size: int = 16):
    """Pictures of stripes in noise, and their directions among eight."""
    y, (u, v) = torch.randint(8, (n, 1, 1)), torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    along = torch.cos(y * torch.pi / 8) * u + torch.sin(y * torch.pi / 8) * v
    return torch.sin(7 * along + 6.3 * torch.rand(n, 1, 1))[:, None] + torch.randn(n, 1, size, size), y.flatten()


torch.manual_seed(0)
if len(sys.argv) > 2:
    net = load_model(sys.argv[2])
    data = FieldDataset(sys.argv[3], domain=net.domain, channels=net.card.channels, class_names=net.card.class_names)
    fields, labels = data.batch(torch.randperm(len(data))[:256])
else:
    layers = [nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        x, y = stripes(64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    net, (x, labels) = convert(network, Box.centered(2), 16).eval(), stripes(256)
    fields = stack([GridField(image, net.domain) for image in x.permute(0, 2, 3, 1)])

# Pair the pixels with Sobol points: those that two strides keep with the first, of which coarse levels are made, and so on.
pixels, low = net.pixels(), sampling.sobol(net.domain, len(net.pixels()), torch.Generator().manual_seed(0)).points
index = torch.cartesian_prod(*[torch.arange(n) for n in net.resolution])
level, start, done = sum((index % step == 0).all(1).int() for step in (2, 4)), torch.empty_like(low), 0
for depth in (2, 1, 0):
    own = pixels.points[level == depth]
    _, partners = linear_sum_assignment(torch.cdist(own, low[done : done + len(own)]).square())
    start[done + torch.as_tensor(partners)] = own
    done += len(own)

shares, figure = [0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0], Figure(figsize=(9, 3.8), dpi=110, layout="constrained")
moved = [Discretization(torch.lerp(start, low, share), pixels.weights, net.domain) for share in shares]
panels = dict(zip(("distance from the output on the grid", "accuracy"), figure.subplots(1, 2), strict=True))
with torch.no_grad():
    truth = net(fields)
    for name, options in WAYS.items():
        other = models.build_model(net.name, net.domain, net.in_channels, net.classes, **{**net.options, **options})
        other.load_state_dict(net.state_dict())
        found = [other.eval()(fields, points) for points in moved]
        far = [float(((y - truth).norm(dim=1) / truth.norm(dim=1)).mean()) for y in found]
        right = [float((y.argmax(1) == labels).float().mean()) for y in found]
        for (title, axes), values in zip(panels.items(), (far, right), strict=True):
            axes.set(title=title, xlabel="share of the way to the Sobol set")
            axes.plot(shares, values, "o-", label=name)
            print(f"{name:38} {title:37}" + " ".join(f"{value:.3f}" for value in values))
panels["accuracy"].legend(frameon=False)
path = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="inrbridge-")) / "convert_curve.png"
path.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(path)
print(path)
