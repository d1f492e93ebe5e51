"""Time of a convolution on scattered points as a ratio to torch's own convolution of equal size, in the same run.

Shapes: S1 b 48, n 1024, 32 -> 64; S2 b 8, n 4096, 64 -> 64; S3 3-D, b 4, n 8192 (8000 on the grid), 32 -> 32, 27 nodes.
Each round runs every candidate once; the median over rounds of the ratio inside a round. Stencils exist before.

    python tests/benchmarks/convolution.py --threads 1 --rounds 7
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn

from inrbridge.domains import Box
from inrbridge.nn import BasisConv, Conv, MLPConv, Sampled
from inrbridge.sampling import get_sampler

SHAPES = {"S1": (2, 48, 1024, 32, 64), "S2": (2, 8, 4096, 64, 64), "S3": (3, 4, 8192, 32, 32)}


def candidates(shape):
    """Name -> (layer, discretization) of each way to convolve."""
    d, _, n, c, o = SHAPES[shape]
    box, draw = Box.centered(d), torch.Generator().manual_seed(0)
    side = round(n ** (1 / d))
    h = 2 / side
    sets = {kind: get_sampler(kind)(box, n, draw) for kind in ("lattice", "sobol")}
    sets["grid"] = get_sampler("grid")(box, (side,) * d)
    found = {f"reconstruct {kind}": (Conv(c, o, spacing=h, dim=d), points) for kind, points in sets.items()}
    found["spline sobol"] = (BasisConv(c, o, spacing=h, dim=d), sets["sobol"])
    found["mlp 64 bins sobol"] = (MLPConv(c, o, half_width=1.5 * h, bins=64, dim=d), sets["sobol"])
    return found


def timed(run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def passes(layer, values):
    """Forward without gradients, and forward with the gradients of input and weights."""

    def forward():
        with torch.no_grad():
            layer(values)

    def both():
        leaf = values.detach().requires_grad_()
        layer(leaf).sum().backward()

    return {"forward": forward, "forward+backward": both}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for shape in args.shapes:
        d, b, n, c, o = SHAPES[shape]
        side = round(n ** (1 / d))
        conv = (nn.Conv2d, nn.Conv3d)[d - 2](c, o, 3, padding=1)
        runs = {("conv", k): run for k, run in passes(conv, torch.randn(b, c, *(side,) * d)).items()}
        for name, (layer, points) in candidates(shape).items():
            values = torch.randn(len(points), b, c).transpose(0, 1)
            runs |= {(name, k): run for k, run in passes(lambda v, f=layer, p=points: f(Sampled(p, v)).values, values).items()}
        for run in runs.values():
            run()
        rounds = [{key: timed(run) for key, run in runs.items()} for _ in range(args.rounds)]
        for name, kind in runs:
            ratio = statistics.median(r[name, kind] / r["conv", kind] for r in rounds)
            seconds = statistics.median(r[name, kind] for r in rounds)
            line = {"shape": shape, "layer": name, "pass": kind, "ratio": round(ratio, 2), "ms": round(1e3 * seconds, 1)}
            print(json.dumps({**line, "threads": args.threads, "rounds": args.rounds}), flush=True)


if __name__ == "__main__":
    main()
