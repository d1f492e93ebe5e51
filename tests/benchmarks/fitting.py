"""How fast and how well many small networks are fitted: 600 handwritten digits (8x8) as SIRENs 2-32-32-1, 300 steps.

    python tests/benchmarks/fitting.py [fields]

Prints wall and CPU seconds and the PSNR at the pixels and between them, side by side and one after the other.
"""

import sys
import time

import torch
from sklearn.datasets import load_digits

from inrbridge import fit, sampling
from inrbridge.signals import read_signals

OPTIONS = dict(format="siren", width=32, layers=2, omega_0=15.0, steps=300, lr=5e-3)


def measure(what: str, signals: list, **changes) -> list:
    """Fit, print what it took, and return the fields."""
    wall, cpu = time.perf_counter(), time.process_time()
    fields = fit(signals, **{**OPTIONS, **changes})
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    psnr = torch.tensor([field.psnr for field in fields])
    print(
        f"{what}: {len(fields)} fields, {wall:.1f} s wall, {cpu:.1f} s CPU, PSNR mean {psnr.mean():.1f} least {psnr.min():.1f} dB"
    )
    return fields


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    signals = read_signals(list(load_digits().images[:count] / 16))
    fit(signals[:2], **{**OPTIONS, "steps": 2})  # imports and first calls
    print(f"{torch.get_num_threads()} threads")
    fields = measure("side by side, 256 points a step", signals)
    points = sampling.grid(fields[0].domain, (50, 50)).points
    with torch.no_grad():
        errors = torch.stack([(f(points) - s.field(points)).square().mean() for f, s in zip(fields, signals, strict=True)])
    between = -10 * errors.log10()
    print(f"  on a 50x50 grid between the pixels: PSNR mean {between.mean():.1f} least {between.min():.1f} dB")
    measure("side by side, 64 points a step", signals, oversample=1)
    measure("one after the other", signals[: max(1, count // 20)], batch=1)


if __name__ == "__main__":
    main()
