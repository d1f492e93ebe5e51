"""Does depth help, and does a trained INR-Net keep its accuracy when number and kind of points change?

The paper's nets lose both ways: its deeper classifier is no better than the shallow one, and a change of sampler costs up to 23
points (Wang & Golland 2023, tables 1 and E.1: trained on shrunk points, tested on QMC points, 57.0 -> 33.9). Three parts:

    depth     nets of 2, 4 and 8 convolutions (8: with residual blocks), trained on all samplers
    points    the net of 4 convolutions, tested on 512 to 4096 points of each sampler
    samplers  nets trained on one sampler each, and on all of them, tested on each

Recipe: every step draws one of a pool of discretizations of 512, 1024 or 2048 points, randomly shifted or scrambled; the fields
are frozen, so their samples are computed once. Shrunk points carry the weights of the domain's integral. Three kinds of nets:

    given     all layers live on the points of the input; kernel nodes lie 2/14 apart, wider than the sparsest points
    own       the first layer reads the field onto a grid of the net's own (`Resample`), the rest lives there, as fast as a CNN
    pixels    that CNN, trained and tested on the pixels themselves, for comparison (depth only)

CIFAR-10 images are augmented by reading the field elsewhere: mirrored and shifted points. Tests are on discretizations never
seen in training. A trained net is a file in `--out` (which test images it gets right); nets found there are not trained again.
Prints one JSON line a net and cell, and paired differences with their standard errors over images and nets.

    INRBRIDGE_DATA=.. python tests/benchmarks/robustness.py --data fashion --part depth --seeds 0 1 2 --out runs
    INRBRIDGE_DATA=.. python tests/benchmarks/robustness.py --data cifar --part samplers --nets own --out runs
"""

import argparse
import itertools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.grid import GridField
from inrbridge.models.net import linear, node_spacing
from inrbridge.nn import Activation, BatchNorm, Conv, GlobalIntegral, Resample, Residual, Sampled, Sequential
from inrbridge.sampling import get_sampler, grid
from inrbridge.stacking import FieldStack

BOX = Box.centered(2)
SAMPLERS = ("lattice", "sobol", "grid", "shrunk")
TRAINED_ON, TESTED_ON = (512, 1024, 2048), (512, 1024, 2048, 4096)
FILES = {"fashion": "fashion_mnist.npz", "cifar": "cifar10.npz"}
# cells along each axis of the grid that the kernel nodes are taken from: the images' own, or as wide as the sparsest points
PIXELS, RESOLUTION = {"fashion": 28, "cifar": 32}, {"given": 14}


@dataclass(frozen=True)
class Run:
    """One net to train: its depth, the points of its layers, the samplers it learns on."""

    data: str
    net: str
    depth: int
    samplers: str  # one of SAMPLERS, or "mixed"
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.net}-{self.depth}-{self.samplers}-{self.seed}"


@dataclass(frozen=True)
class Data:
    """Images (m, side, side, c), normalized by the training pixels, and labels."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor

    @classmethod
    def load(cls, folder: Path, name: str, train: int, test: int) -> "Data":
        archive = np.load(folder / "data" / FILES[name], allow_pickle=False)
        images = [torch.from_numpy(archive[f"x_{part}"][:m]).float() / 255 for part, m in (("train", train), ("test", test))]
        images = [x.unsqueeze(-1) if x.ndim == 3 else x for x in images]
        mean, std = images[0].mean((0, 1, 2)), images[0].std((0, 1, 2))
        images = [(x - mean) / std for x in images]
        labels = [torch.from_numpy(archive[f"y_{part}"][:m]).long() for part, m in (("train", train), ("test", test))]
        return cls(images[0], labels[0], images[1], labels[1])


def draw(sampler: str, n: int, generator: torch.Generator) -> Discretization:
    """Points of a sampler whose weights integrate the domain, not the density of the points."""
    options = {"weights": "density"} if sampler == "shrunk" else {}
    size = (round(n**0.5),) * 2 if sampler == "grid" else n
    return get_sampler(sampler)(BOX, size, generator, **options)


def read(images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Values (m, n, c) of the images' fields (cubic interpolation) at points (n, 2)."""
    template = GridField(images[0], BOX)
    return torch.cat([FieldStack.from_states(template, {"samples": x})(points, check=False) for x in images.split(250)])


def moved(points: torch.Tensor, generator: torch.Generator, most: float = 0.25) -> torch.Tensor:
    """Where to read a mirrored and shifted image: each axis moves by up to `most`, reflected at the border."""
    flip = 1 - 2 * torch.randint(2, (), generator=generator)
    shift = most * (2 * torch.rand(2, generator=generator) - 1)
    there = points * torch.tensor([1.0, float(flip)]) + shift
    return torch.where(there.abs() > 1, there.sign() * 2 - there, there)


def convolve(inputs: int, outputs: int, resolution: int, times: int, generator, stride: int = 1, last: bool = False) -> list:
    spacing = node_spacing(BOX, resolution, times)
    layers = [Conv(inputs, outputs, 3, spacing=spacing, stride=stride, bias=False, generator=generator), BatchNorm(outputs)]
    return layers if last else [*layers, Activation("relu")]


def build(run: Run, channels: int, generator: torch.Generator) -> Sequential:
    """A net of `depth` convolutions: two strides, 64 channels at the end, the global integral, a linear layer."""

    def layer(inputs: int, outputs: int, times: int, stride: int = 1, last: bool = False) -> list:
        return convolve(inputs, outputs, resolution, times, generator, stride, last)

    def block(width: int, times: int) -> list:
        return [Residual(*layer(width, width, times), *layer(width, width, times, last=True)), Activation("relu")]

    resolution = RESOLUTION.get(run.net, PIXELS[run.data])
    first = [Resample(grid(BOX, (resolution, resolution)))] if run.net == "own" else []
    layers = {
        2: [*layer(channels, 16, 1, 2), *layer(16, 64, 2, 2)],
        4: [*layer(channels, 16, 1, 2), *layer(16, 32, 2), *layer(32, 32, 2, 2), *layer(32, 64, 4)],
        8: [*layer(channels, 16, 1, 2), *layer(16, 32, 2), *block(32, 2), *layer(32, 32, 2, 2), *layer(32, 64, 4), *block(64, 4)],
    }[run.depth]
    return Sequential(*first, *layers, GlobalIntegral(), linear(64, 10, generator))


def make_pool(run: Run, net: Sequential, data: Data, size: int, generator: torch.Generator) -> list[Sampled]:
    """Samples of all training fields on discretizations of the run's samplers and sizes, in turn.

    `Resample` has no parameters and the fields are frozen: what it returns is kept instead of what it reads.
    """
    samplers = SAMPLERS if run.samplers == "mixed" else (run.samplers,)
    kinds = list(itertools.product(TRAINED_ON, samplers))
    if run.net == "pixels":
        kinds = [(PIXELS[run.data] ** 2, "grid")]
    pool = []
    for number in range(size):
        n, sampler = kinds[number % len(kinds)]
        points = draw(sampler, n, generator)
        where = moved(points.points, generator) if run.data == "cifar" else points.points
        sampled = Sampled(points, read(data.train, where))
        pool.append(net[0](sampled) if isinstance(net[0], Resample) else sampled)
    return pool


def train(run: Run, data: Data, args) -> Sequential:
    """AdamW, a one-cycle learning rate; each step draws a minibatch and one discretization of the pool."""
    generator = torch.Generator().manual_seed(run.seed)
    net = build(run, data.train.shape[-1], generator)
    pool = make_pool(run, net, data, args.pool, generator)
    optimizer = torch.optim.AdamW(net.parameters(), args.lr, weight_decay=args.decay)
    steps = args.epochs * (len(data.train) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps, pct_start=0.2)
    for _ in range(args.epochs):
        for indices in torch.randperm(len(data.train), generator=generator).split(args.batch):
            if len(indices) < args.batch:
                continue
            seen = pool[int(torch.randint(len(pool), (), generator=generator))]
            logits = net(Sampled(seen.discretization, seen.values[indices]))
            loss = nn.functional.cross_entropy(logits, data.train_labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def test(net: Sequential, data: Data, sampler: str, n: int, seen: dict[tuple, Sampled]) -> np.ndarray:
    """Which test images are classified rightly (m,) on a discretization that training never drew; `seen` keeps samples."""
    key = (sampler, n, isinstance(net[0], Resample))
    if key not in seen:
        points = draw(sampler, n, torch.Generator().manual_seed(10**6))
        sampled = Sampled(points, read(data.test, points.points))
        seen[key] = net[0](sampled) if key[2] else sampled
    points, values = seen[key].discretization, seen[key].values
    logits = torch.cat([net(Sampled(points, some)) for some in values.split(250)])
    return (logits.argmax(1) == data.test_labels).numpy()


def measure(run: Run, data: Data, args, seen: dict[tuple, Sampled]) -> dict[tuple[str, int], np.ndarray]:
    """Train and test a net, or read what is known of it: (sampler, n) -> right or wrong for each test image."""
    path = args.out / f"{run.name}-{len(data.train)}x{args.epochs}.npz"
    if not path.exists():
        started = time.perf_counter()
        net = train(run, data, args)
        seconds = time.perf_counter() - started
        sizes = TESTED_ON if run.samplers == "mixed" or run.net == "own" else (1024,)
        kinds = home(run.net, run.data) if run.net == "pixels" else itertools.product(SAMPLERS, sizes)
        cells = {f"{sampler} {n}": test(net, data, sampler, n, seen) for sampler, n in kinds}
        args.out.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, seconds=seconds, **cells)
    archive = np.load(path, allow_pickle=False)
    found = {(name.split()[0], int(name.split()[1])): archive[name] for name in archive.files if " " in name}
    for (sampler, n), right in found.items():
        report(**vars(run), sampler=sampler, n=n, accuracy=percent(right), seconds=round(float(archive["seconds"]), 1))
    return found


def home(net: str, data: str) -> list[tuple[str, int]]:
    """The samplers and numbers of points on which depths are compared."""
    return [("grid", PIXELS[data] ** 2)] if net == "pixels" else [(sampler, 1024) for sampler in SAMPLERS]


def report(**line) -> None:
    print(json.dumps(line), flush=True)


def percent(right: np.ndarray) -> float:
    return round(100 * float(right.mean()), 2)


def compare(part: str, net: str, what: str, first: list[np.ndarray], second: list[np.ndarray]) -> None:
    """Report first - second in points: mean over nets and images, the standard error over the images that all nets share."""
    gaps = 100 * (np.stack(first).astype(float) - np.stack(second))  # (nets, images)
    images = gaps.mean(0)
    report(part=part, net=net, difference=what, points=round(float(images.mean()), 2),
           error=round(float(images.std(ddof=1) / len(images) ** 0.5), 2), nets=np.round(gaps.mean(1), 2).tolist())  # fmt: skip


def depth_part(get, data: str, net: str, seeds) -> None:
    """Mean over all samplers at 1024 points, of 4 layers against 2 and of 8 against 4."""
    cells, row = home(net, data), "grid" if net == "pixels" else "mixed"
    right = {d: [np.mean([get(net, d, row, s)[cell] for cell in cells], 0) for s in seeds] for d in (2, 4, 8)}
    for deep, shallow in ((4, 2), (8, 4)):
        compare("depth", net, f"{deep} layers - {shallow} layers", right[deep], right[shallow])


def points_part(get, data: str, net: str, seeds) -> None:
    """The net of 4 layers at other numbers of points, against 1024 points of the same sampler."""
    runs = [get(net, 4, "mixed", s) for s in seeds]
    for sampler, n in itertools.product(SAMPLERS, TESTED_ON):
        if n != 1024:
            first, second = ([r[sampler, m] for r in runs] for m in (n, 1024))
            compare("points", net, f"{sampler} {n} - {sampler} 1024", first, second)


def samplers_part(get, data: str, net: str, seeds) -> None:
    """Each cell of the matrix against the diagonal of its row (trained on all: against the row's own mean)."""
    for row in (*SAMPLERS, "mixed"):
        runs = [get(net, 4, row, s) for s in seeds]
        home = [r[row, 1024] if row != "mixed" else np.mean([r[s, 1024] for s in SAMPLERS], 0) for r in runs]
        for sampler in SAMPLERS:
            if sampler != row:
                compare("samplers", net, f"{row} -> {sampler}", [r[sampler, 1024] for r in runs], home)


PARTS = {"depth": depth_part, "points": points_part, "samplers": samplers_part}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=os.environ.get("INRBRIDGE_DATA"), help="where data/*.npz lie")
    parser.add_argument("--data", choices=list(FILES), default="fashion")
    parser.add_argument("--part", choices=list(PARTS), nargs="+", default=list(PARTS))
    parser.add_argument("--nets", choices=["given", "own", "pixels"], nargs="+", default=["given", "own"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, help="training images (fashion 10000, cifar 5000)")
    parser.add_argument("--test", type=int, default=None, help="test images (all)")
    parser.add_argument("--epochs", type=int, help="fashion 6, cifar 20")
    parser.add_argument("--pool", type=int, help="discretizations to learn on (fashion 24, cifar 36)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=1e-2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("robustness"), help="folder of what was measured")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    for option, values in {"train": (10000, 5000), "epochs": (6, 20), "pool": (24, 36)}.items():
        if getattr(args, option) is None:
            setattr(args, option, values[list(FILES).index(args.data)])
    data, known = Data.load(args.folder, args.data, args.train, args.test), {}
    seen: dict[tuple, Sampled] = {}

    def get(net: str, depth: int, samplers: str, seed: int) -> dict[tuple[str, int], np.ndarray]:
        run = Run(args.data, net, depth, samplers, seed)
        if run not in known:
            known[run] = measure(run, data, args, seen)
        return known[run]

    for part, net in itertools.product(args.part, args.nets):
        if part == "depth" or net != "pixels":
            PARTS[part](get, args.data, net, args.seeds)


if __name__ == "__main__":
    main()
