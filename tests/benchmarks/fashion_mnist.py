"""Accuracy of an INR-Net and of its twin CNN on Fashion-MNIST, at the training resolution, at half and at twice of it.

Both networks have four 3x3 convolutions of widths 16-32-32-64 with two strides, batch normalization, a global average and a
linear layer, and are trained by one recipe: the same images in the same order, AdamW, a one-cycle learning rate. The CNN
sees the 28x28 pixels; the INR-Net sees fields (cubic interpolation) at the points of a randomly shifted lattice, one of a pool
drawn once. Prints one JSON line a measurement. Data: `$INRBRIDGE_DATA/data/fashion_mnist.npz`.

    INRBRIDGE_DATA=.. python tests/benchmarks/fashion_mnist.py --seeds 0 1 2
    INRBRIDGE_DATA=.. python tests/benchmarks/fashion_mnist.py --nets inr-net --points 256 1024 --samplers lattice sobol grid
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from inrbridge.domains import Box
from inrbridge.grid import GridField
from inrbridge.models import build_model
from inrbridge.nn import Sampled
from inrbridge.sampling import get_sampler
from inrbridge.stacking import FieldStack

WIDTHS, STRIDES, BOX, BATCH = (16, 32, 32, 64), (1, 2, 1, 2), Box.centered(2), 64
SCALES = {"half": 14, "same": 28, "twice": 56}
POINTS = {"half": (196, 256), "same": (784, 1024), "twice": (3136, 4096)}


def load(folder: Path, train: int):
    """Fields of the images, normalized by the mean and deviation of the training pixels, and the labels."""
    data = np.load(folder / "data" / "fashion_mnist.npz", allow_pickle=False)
    images = [torch.from_numpy(data[k][:m]).float() / 255 for k, m in (("x_train", train), ("x_test", None))]
    mean, std = images[0].mean(), images[0].std()
    stacks = [((x - mean) / std).unsqueeze(-1) for x in images]
    labels = [torch.from_numpy(data[k][:m]).long() for k, m in (("y_train", train), ("y_test", None))]
    return *stacks, *labels


def values_at(images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    template = GridField(images[0], BOX)
    return FieldStack.from_states(template, {"samples": images})(points, check=False)


class Cnn(nn.Sequential):
    def __init__(self):
        layers, channels = [], 1
        for width, stride in zip(WIDTHS, STRIDES, strict=True):
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def fit(net, forward, labels, epochs, seed, lr=3e-3):
    """Train; forward(indices, step) returns logits."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-2)
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    order, step = torch.Generator().manual_seed(seed), 0
    net.train()
    for _ in range(epochs):
        for indices in torch.randperm(len(labels), generator=order).split(BATCH):
            if len(indices) < BATCH:
                continue
            loss = nn.functional.cross_entropy(forward(indices, step), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    net.eval()


@torch.no_grad()
def accuracy(forward, labels) -> float:
    right = [(forward(i).argmax(1) == labels[i]).sum() for i in torch.arange(len(labels)).split(250)]
    return 100 * float(sum(right)) / len(labels)


def measure_cnn(args, data, seed, report):
    """Train the CNN on pixels; test it on the pixel grids of the three scales."""
    train, test, train_labels, test_labels = data
    torch.manual_seed(seed)
    started, net = time.perf_counter(), Cnn()
    fit(net, lambda i, _: net(train[i].movedim(-1, 1)), train_labels, args.epochs, seed)
    seconds = time.perf_counter() - started
    for scale, side in SCALES.items():
        points = get_sampler("grid")(BOX, (side, side)).points

        def forward(i, points=points, side=side):
            return net(values_at(test[i], points).transpose(1, 2).unflatten(2, (side, side)))

        report(
            net="cnn",
            seed=seed,
            scale=scale,
            sampler="grid",
            points=side**2,
            accuracy=accuracy(forward, test_labels),
            seconds=seconds,
        )


def measure_inr_net(args, data, seed, report):
    """Train the INR-Net on a pool of discretizations; test it on fresh ones at the three scales."""
    train, test, train_labels, test_labels = data
    started = time.perf_counter()
    options = {"widths": WIDTHS, "strides": STRIDES, "resolution": 28, "order": args.order, "neighbors": args.neighbors}
    net = build_model("convnet", BOX, 1, 10, generator=torch.Generator().manual_seed(seed), **options)
    draw = torch.Generator().manual_seed(seed)
    kinds = [(sampler, n) for n in args.points for sampler in args.samplers]
    pool = [get_sampler(kinds[k % len(kinds)][0])(BOX, kinds[k % len(kinds)][1], draw) for k in range(args.pool)]
    pick = torch.randint(len(pool), (10**6,), generator=draw).tolist()

    def step_forward(i, step):
        chosen = pool[pick[step]]
        return net(Sampled(chosen, values_at(train[i], chosen.points)))

    fit(net, step_forward, train_labels, args.epochs, seed)
    seconds = time.perf_counter() - started
    for scale, sizes in POINTS.items():
        for sampler, n in [("lattice", sizes[1]), ("sobol", sizes[1]), ("grid", sizes[0])]:
            points = get_sampler(sampler)(BOX, n, torch.Generator().manual_seed(1234))

            def forward(i, points=points):
                return net(Sampled(points, values_at(test[i], points.points)))

            report(
                net="inr-net",
                seed=seed,
                scale=scale,
                sampler=sampler,
                points=n,
                accuracy=accuracy(forward, test_labels),
                seconds=seconds,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("INRBRIDGE_DATA"))
    parser.add_argument("--train", type=int, default=12000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--nets", nargs="+", default=["cnn", "inr-net"])
    parser.add_argument("--points", type=int, nargs="+", default=[1024], help="sizes of the pool's discretizations")
    parser.add_argument("--samplers", nargs="+", default=["lattice"], help="samplers of the pool's discretizations")
    parser.add_argument("--pool", type=int, default=16)
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--neighbors", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = load(args.data, args.train)

    def report(accuracy, seconds, **line):
        facts = {
            "train": args.train,
            "epochs": args.epochs,
            "threads": args.threads,
            "pool": [args.samplers, args.points],
            **line,
        }
        print(json.dumps({**facts, "accuracy": round(accuracy, 2), "seconds": round(seconds, 1)}), flush=True)

    for seed in args.seeds:
        for net, measure in (("cnn", measure_cnn), ("inr-net", measure_inr_net)):
            if net in args.nets:
                measure(args, data, seed, report)


if __name__ == "__main__":
    main()
