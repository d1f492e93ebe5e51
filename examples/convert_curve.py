"""How the output of a converted network moves as its points leave the pixel grid (Wang & Golland 2023, figure E.2).

Each point wanders straight from a pixel to its partner in a Sobol set; the pixels that strided layers keep are paired with the
first points of the set, of which the coarser levels of the net are made. "reconstruct" reads the field at the nodes of the
discrete kernels, "spline" is the paper's transfer. A small network is trained first, unless a folder of `inrbridge convert`
and a store of labelled images are named. Needs matplotlib: pip install "inrbridge[plot]"
Run: python convert_curve.py [FOLDER] [MODEL STORE]        (default: a new temporary folder)
"""

import sys
import tempfile
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import nn

from inrbridge import Box, Discretization, FieldDataset, GridField, convert, models, sampling, stack
from inrbridge.training import load_model


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
    widths = [(1, 8, 1), (8, 16, 2), (16, 16, 2)]
    layers = [part for i, o, stride in widths for part in (nn.Conv2d(i, o, 3, stride, 1), nn.ReLU())]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        x, y = stripes(64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    net, (x, labels) = convert(network, Box.centered(2), 16).eval(), stripes(256)
    fields = stack([GridField(image, net.domain) for image in x.permute(0, 2, 3, 1)])

# Pair the pixels with Sobol points: those that two strides keep, then those that one keeps, then the others.
pixels, low = net.pixels(), sampling.sobol(net.domain, len(net.pixels()), torch.Generator().manual_seed(0)).points
index = torch.cartesian_prod(*[torch.arange(n) for n in net.resolution])
level, start, done = sum((index % step == 0).all(1).int() for step in (2, 4)), torch.empty_like(low), 0
for depth in (2, 1, 0):
    own = pixels.points[level == depth]
    rows, columns = linear_sum_assignment(torch.cdist(own, low[done : done + len(own)]).square())
    start[done + torch.as_tensor(columns)] = own[torch.as_tensor(rows)]
    done += len(own)

shares, figure = [0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0], Figure(figsize=(8, 3.4), dpi=110, layout="constrained")
FigureCanvasAgg(figure)
panels = figure.subplots(1, 2)
with torch.no_grad():
    truth = net(fields)
    print(f"on the grid {float((truth.argmax(1) == labels).float().mean()):.1%} of {len(labels)} images are right")
    for kernel, colour in {"reconstruct": "#3366cc", "spline": "#cc3311"}.items():
        other = models.build_model(net.name, net.domain, net.in_channels, net.classes, **{**net.options, "kernel": kernel})
        other.load_state_dict(net.state_dict())
        moved = [Discretization(torch.lerp(start, low, share), pixels.weights, net.domain) for share in shares]
        found = [other.eval()(fields, points) for points in moved]
        far = [float(((y - truth).norm(dim=1) / truth.norm(dim=1)).mean()) for y in found]
        right = [float((y.argmax(1) == labels).float().mean()) for y in found]
        for axes, name, values in zip(panels, ("distance from the output on the grid", "accuracy"), (far, right), strict=True):
            axes.set(title=name, xlabel="share of the way from the grid to the Sobol set")
            axes.plot(shares, values, "o-", color=colour, label=kernel)
            axes.legend(frameon=False)
            print(f"{kernel:11} {name:36}" + " ".join(f"{value:6.3f}" for value in values))
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="inrbridge-"))
folder.mkdir(parents=True, exist_ok=True)
figure.savefig(folder / "convert_curve.png")
print(folder / "convert_curve.png")
