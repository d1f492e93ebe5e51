"""Error against the number of points: of an integral, of a whole net's output, and of the gradient of its parameters.

Points of low discrepancy (lattice, Sobol) against a grid and independent points, as lines in logarithmic scales: their slope is
the rate. The truth of the net is its output on many more points. Needs matplotlib: pip install "inrbridge[plot]"
Run: python convergence.py [FOLDER]        (default: a new temporary folder)
"""

import math
import sys
import tempfile
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inrbridge import Box, sampling
from inrbridge.nn import Activation, AvgPool, GlobalIntegral, InstanceNorm, Linear, Sampled, Sequential

SQUARE, SIZES, DRAWS = Box.centered(2), [64, 256, 1024], 6
SAMPLERS = {"lattice": "#3366cc", "sobol": "#009988", "grid": "#888888", "uniform": "#cc3311"}
first, last = (Linear(*c, generator=torch.Generator().manual_seed(c[0])) for c in ((2, 8), (8, 3)))
net = Sequential(first, Activation("tanh"), AvgPool(0.3), InstanceNorm(8), Activation("tanh"), last, GlobalIntegral())
net.double()


def field(x: torch.Tensor) -> torch.Tensor:
    """exp(a + b) and sin(2 a + b), whose integrals over the square are 4 sinh(1)^2 and 0."""
    a, b = x.unbind(-1)
    return torch.stack([(a + b).exp(), torch.sin(2 * a + b)], dim=-1)


def integral(x) -> torch.Tensor:
    """The integral of both channels."""
    return x.weights @ field(x.points)


def output(x) -> torch.Tensor:
    """The net's output."""
    with torch.no_grad():
        return net(Sampled(x, field(x.points)[None]))[0]


def gradient(x) -> torch.Tensor:
    """The gradient of the squared output by all parameters."""
    loss = net(Sampled(x, field(x.points)[None])).square().sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, tuple(net.parameters()))])


def draw(name: str, n: int, seed: int):
    """Points and weights; a grid knows no chance."""
    return sampling.get_sampler(name)(SQUARE, n, torch.Generator().manual_seed(seed), dtype=torch.float64)


figure = Figure(figsize=(10.5, 3.6), dpi=110, layout="constrained")
FigureCanvasAgg(figure)
exact = torch.tensor([4 * math.sinh(1) ** 2, 0.0], dtype=torch.float64)
panels = [("integral", integral, exact), ("output of a net", output, None), ("gradient of its parameters", gradient, None)]
for axes, (title, quantity, truth) in zip(figure.subplots(1, 3), panels, strict=True):
    truth = quantity(draw("sobol", 4096, 99)) if truth is None else truth
    print(f"{title}: RMS error at {', '.join(map(str, SIZES))} points, and the rate N^slope")
    for name, colour in SAMPLERS.items():
        squares = [[float((quantity(draw(name, n, seed)) - truth).square().mean()) for seed in range(DRAWS)] for n in SIZES]
        errors = [math.sqrt(sum(of_draws) / DRAWS) for of_draws in squares]
        slope = math.log(errors[-1] / errors[0]) / math.log(SIZES[-1] / SIZES[0])
        print(f"  {name:8}" + "".join(f"{e:10.1e}" for e in errors) + f"   N^{slope:.2f}")
        axes.loglog(SIZES, errors, "o-", color=colour, label=f"{name}, {slope:.2f}")
    axes.set(title=title, xlabel="points", ylabel="RMS error")
    axes.legend(frameon=False, fontsize=8, title="slope", title_fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="inrbridge-"))
folder.mkdir(parents=True, exist_ok=True)
path = folder / "convergence.png"
figure.savefig(path)
print(path)
