"""Time of a stack of fields as a ratio to the plain loop over them, for every installed format that builds on a domain.

32 fresh fields of the format's own default size, at 1024 and 8192 shared points, without gradients: the median over rounds of
the ratio inside a round. One JSON line a case; `largest` is the largest difference between the two, relative to the largest
value.

    python tests/benchmarks/stacks.py --threads 1 --rounds 7
"""

import argparse
import json
import statistics
import time

import torch

from inrbridge import Box, Product, Sphere, build_field, sampling, stack
from inrbridge.errors import InrBridgeError
from inrbridge.plugins import registry

KINDS = {
    "plane": (Box.centered(2), 1),
    "space": (Box.centered(3), 1),
    "radiance": (Product(Box.centered(3), Sphere()), 4),
}


def timed(run):
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def build(format, domain, channels, count):
    """Fresh fields of a format, or none where it does not live on the domain."""
    draw = torch.Generator().manual_seed(0)
    try:
        return [build_field(format, domain, channels, generator=draw).requires_grad_(False) for _ in range(count)]
    except InrBridgeError:
        return []


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--fields", type=int, default=32)
    parser.add_argument("--points", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--formats", nargs="+", default=[f.name for f in registry().all() if "build" in f.abilities()])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for format in args.formats:
        for kind, (domain, channels) in KINDS.items():
            fields = build(format, domain, channels, args.fields)
            if not fields:
                continue
            together = stack(fields)
            for n in args.points:
                x = sampling.sobol(domain, n).points

                def loop(x=x, fields=fields):
                    return torch.stack([field(x) for field in fields])

                def stacked(x=x, together=together):
                    return together(x, check=False)

                expected, found = loop(), stacked()
                rounds = [(timed(stacked), timed(loop)) for _ in range(args.rounds)]
                line = {"format": format, "kind": kind, "fields": len(fields), "points": n}
                line["ratio"] = round(statistics.median(a / b for a, b in rounds), 2)
                line["ms"] = round(1e3 * statistics.median(a for a, _ in rounds), 1)
                line["largest"] = float(f"{float((found - expected).abs().max() / expected.abs().max()):.1e}")
                print(json.dumps({**line, "threads": args.threads, "rounds": args.rounds}), flush=True)


if __name__ == "__main__":
    main()
