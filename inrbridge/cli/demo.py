"""Classify real handwritten digits, each held as an implicit field of a random format, with one INR-Net.

Fits 1,797 digits as fields of all installed formats, trains a classifier on them (new points in each step), measures it by
format, number of points, sampler, and on formats that it never saw, and writes a report with pictures.

examples:
  inrbridge demo
  inrbridge demo --quick --json -o /tmp/demo
"""

import json
import sys
from pathlib import Path


def add_arguments(parser) -> None:
    parser.add_argument("-o", "--out", metavar="DIR", default="inrbridge-demo", help="folder to write (default: inrbridge-demo)")
    parser.add_argument("--quick", action="store_true", help="few digits and steps: some seconds, poor accuracy")
    parser.add_argument("--seed", type=int, default=0, help="seed of the formats, fits, weights and points")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on the last line")


def run(args) -> None:
    from dataclasses import replace

    from inrbridge.demo.pipeline import QUICK, Settings, run_demo
    from inrbridge.demo.report import lines

    out = free_folder(Path(args.out))
    settings = replace(QUICK if args.quick else Settings(), seed=args.seed)
    report = run_demo(out, settings, progress=True, say=lambda line: print(f"== {line}", file=sys.stderr, flush=True))
    print("\n".join(line for line in lines(report) if not line.startswith("![")))
    print(f"report and pictures: {out}")
    print(f"next: inrbridge eval {out}/model {out}/store --split test --sampler sobol halton --n 256 1024")
    if args.json:
        print(json.dumps(report))


def free_folder(wanted: Path) -> Path:
    """Return the folder, or the next free one beside it: an earlier report is never overwritten."""
    number, folder = 1, wanted
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
