"""Memory of a training step as a ratio to the CNN's: b 48, n 4096, 4 layers of 32 channels with normalization and ReLU.

Each candidate runs in a process of its own. On the CPU a first step warms up, and the high-water mark of the resident set is
reset; what is stated is the mark after one more step over the resident set before it. Large arrays have pages of their own,
handed back at once (MALLOC_MMAP_THRESHOLD_): else the mark tells how a heap was cut. On a GPU it is the peak of what torch had
allocated. `held_mib` is what exists before the step (weights, stencils, and on the CPU the libraries).

    python tests/benchmarks/memory.py
    python tests/benchmarks/memory.py --device cuda --cases reconstruct
"""

import ctypes
import gc
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from measuring import arguments, report, wanted
from torch import nn

from inrbridge.domains import Box
from inrbridge.nn import Activation, BasisConv, BatchNorm, Conv, GlobalIntegral, MLPConv, Sampled, Sequential
from inrbridge.sampling import get_sampler

FIELDS, SIDE, WIDTH, LAYERS, MIB = 48, 64, 32, 4, 2**20
STEP = 2 / SIDE
CONVOLUTIONS = {
    "reconstruct": lambda c, o: Conv(c, o, spacing=STEP),
    "quadrature": lambda c, o: BasisConv(c, o, spacing=STEP),
    "network in 64 bins": lambda c, o: MLPConv(c, o, half_width=1.5 * STEP, bins=64),
    "network": lambda c, o: MLPConv(c, o, half_width=1.5 * STEP, bins=None),
}
ANCHOR = "conv2d"


def step(name: str, kind: str, device: str):
    """A training step of one net."""
    torch.manual_seed(0)
    widths = [3] + [WIDTH] * LAYERS
    pairs = list(itertools.pairwise(widths))
    if name == ANCHOR:
        layers = [part for c, o in pairs for part in (nn.Conv2d(c, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)).to(device)
        values = torch.randn(FIELDS, 3, SIDE, SIDE, device=device)
    else:
        layers = [part for c, o in pairs for part in (CONVOLUTIONS[name](c, o), BatchNorm(o), Activation("relu"))]
        net = Sequential(*layers, GlobalIntegral()).to(device)
        points = get_sampler(kind)(Box.centered(2), SIDE**2, torch.Generator().manual_seed(0)).to(device)
        values = Sampled(points, torch.randn(SIDE**2, FIELDS, 3, device=device).transpose(0, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def run():
        optimizer.zero_grad()
        net(values).square().sum().backward()
        optimizer.step()

    return run


def resident(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def measure(name: str, kind: str, device: str) -> dict[str, float]:
    """Peak of one step over what is held before it, and what is held, in MiB."""
    run = step(name, kind, device)
    run()
    gc.collect()
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return {"peak": (torch.cuda.max_memory_allocated() - held) / MIB, "held": held / MIB}
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    held = resident("VmRSS")
    run()
    return {"peak": (resident("VmHWM") - held) / MIB, "held": held / MIB}


def alone(name: str, kind: str, args) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--one", name, "--points", kind, "--device", args.device, "--threads", str(args.threads)]
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=given)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def main():
    args = arguments(__doc__, one=("", "measure this candidate in this very process"), points=("sobol", "kind of points"))
    if args.one:
        print(json.dumps(measure(args.one, args.points, args.device)))
        return
    device = args.device if args.device == "cpu" else torch.cuda.get_device_name()
    theirs = alone(ANCHOR, args.points, args)
    for name in CONVOLUTIONS:
        case = f"{name} {args.points}"
        if not wanted(case, args):
            continue
        try:
            ours = alone(name, args.points, args)
        except RuntimeError as error:  # the others go on
            print(f"{case} failed: {error}", file=sys.stderr, flush=True)
            continue
        report(args, case=case, device=device, threads=args.threads, ours_mib=round(ours["peak"], 1), anchor=ANCHOR,
               anchor_mib=round(theirs["peak"], 1), ratio=round(ours["peak"] / theirs["peak"], 3),
               held_mib=round(ours["held"]))  # fmt: skip


if __name__ == "__main__":
    main()
