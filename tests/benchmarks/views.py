"""How well formats learn a scene from photographs, by the seconds of one CPU thread: held-out PSNR of 50x50 Lego views.

    INRBRIDGE_DATA=... python tests/benchmarks/views.py [format[:option=value[:...]] ...]

Options are those of the format's `build`, and steps, lr, rays, samples. Prints one JSON line for each format: seconds, steps,
parameters, and the mean PSNR over the nine views of 70 that were not learnt from, on white. Default: ngp, plenoxels, nerf.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch

from inrbridge.cli.info import option
from inrbridge.fitting.views import fit_views
from inrbridge.radiance import read_views

FORMATS = ["ngp", "plenoxels", "nerf"]


def measure(spec: str, views) -> dict:
    """Fit one format; return what it took and gave."""
    name, *texts = spec.split(":")
    options = dict(option(text) for text in texts)
    start = time.perf_counter()
    field = fit_views(name, views.images, views.poses, views.focal, progress=True, **options)
    seconds = time.perf_counter() - start
    parameters = sum(p.numel() for p in field.parameters())
    return {"format": name, **options, "parameters": parameters, "seconds": round(seconds, 1), "psnr": round(field.psnr, 2)}


def main() -> None:
    torch.set_num_threads(1)
    views = read_views(Path(os.environ["INRBRIDGE_DATA"]) / "data" / "lego_views_100.npz").shrink(2)
    for spec in sys.argv[1:] or FORMATS:
        print(json.dumps(measure(spec, views)), flush=True)


if __name__ == "__main__":
    main()
