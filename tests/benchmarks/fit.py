"""How fast small networks are fitted: SIRENs 3 x 64 on images of 32 x 32, side by side, against one after the other.

Ours is `inrbridge.fit` from the images to the fields with their PSNR. The loop is a module for each field, fused Adam, the same
points, steps and schedule, its targets ready. A part of the thousand fields and of the 500 steps is measured, of the loop
`looped` fields, and counted up: times are those of one field and 500 steps, ours from the times of two numbers of steps. On a GPU
all fields are one stack and a step is one CUDA graph.

    python tests/benchmarks/fit.py --threads 1 --rounds 3
    python tests/benchmarks/fit.py --device cuda --fields 1000 --steps 200 --rounds 3
"""

import math
import statistics
import time
from itertools import pairwise

import torch
from measuring import arguments, report
from torch import nn
from torch.nn import functional

from inrbridge import fit
from inrbridge.fitting.optimizing import PointPlan, sample_targets
from inrbridge.signals import read_signals

SIDE, WIDTH, LAYERS, OMEGA, LR, WHOLE = 32, 64, 3, 30.0, 1e-3, 500


class Siren(nn.Module):
    """What one would write for one field."""

    def __init__(self, channels):
        super().__init__()
        widths = [2, *[WIDTH] * LAYERS, channels]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.sin(OMEGA * layer(x))
        return self.layers[-1](x)


def pictures(count):
    """Smooth pictures of three waves each."""
    draw = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    waves = torch.randn(count, 3, 2, generator=draw)[..., None, None] * 4
    phases = torch.rand(count, 3, 1, 1, generator=draw) * 2 * math.pi
    return list(((waves[:, :, 0] * x + waves[:, :, 1] * y + phases).sin().mean(1) / 2 + 0.5).numpy())


def loop(pool, targets, order):
    """Fit targets (blocks, b, n, c) field after field."""
    for field in range(targets.shape[1]):
        net = Siren(targets.shape[-1]).to(pool.device)
        optimizer = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
        for step, block in enumerate(order):
            optimizer.param_groups[0]["lr"] = 0.5 * LR * (1 + math.cos(math.pi * step / len(order)))
            loss = functional.mse_loss(net(pool[block]), targets[block, field])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def seconds(run):
    started = time.perf_counter()
    found = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def main():
    args = arguments(__doc__, fields=(16, "fitted side by side"), steps=(50, "of Adam"), looped=(4, "fields that the loop fits"))
    signals = read_signals(pictures(args.fields))
    plan, draw = PointPlan.of(signals[0], None, 2), torch.Generator().manual_seed(0)
    pool, order = plan.pool(signals[0].field.domain, draw), plan.order(args.steps, draw)
    targets, pool = sample_targets(signals[: args.looped], pool).to(args.device), pool.to(args.device)
    options = {"width": WIDTH, "layers": LAYERS, "omega_0": OMEGA, "lr": LR}

    def ours(steps):
        return fit(signals, "siren", device=args.device, batch=args.fields, steps=steps, **options)

    few = max(1, args.steps // 5)
    ours(5), loop(pool, targets, order[:5])  # first calls
    rounds = []
    for _ in range(args.rounds):
        short, _ = seconds(lambda: ours(few))
        whole, fields = seconds(lambda: ours(args.steps))
        slow, _ = seconds(lambda: loop(pool, targets, order))
        step = (whole - short) / (args.steps - few)
        rounds.append(((whole + step * (WHOLE - args.steps)) / args.fields, slow / args.looped * WHOLE / args.steps, step))
    each, other, step = (statistics.median(column) for column in zip(*rounds, strict=True))
    report(args, case=f"fit {args.fields} SIRENs {LAYERS}x{WIDTH} on {SIDE}x{SIDE}, {plan.n} points a step",
           device=args.device if args.device == "cpu" else torch.cuda.get_device_name(), threads=args.threads,
           ours_ms=round(1e3 * each, 3), anchor="loop", anchor_ms=round(1e3 * other, 3),
           ratio=round(statistics.median(a / b for a, b, _ in rounds), 4), step_ms=round(1e3 * step, 3),
           fields_per_second=round(1 / each, 3), loop_fields_per_second=round(1 / other, 3),
           psnr=round(statistics.mean(field.psnr for field in fields), 1), steps_measured=args.steps)  # fmt: skip


if __name__ == "__main__":
    main()
