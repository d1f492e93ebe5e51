"""CIFAR-10 images as fields on the square [-1, 1]^2, in three kinds: the images off the pixel grid that nets are measured on.

    cubic   cubic interpolation of the pixels (`GridField`)
    siren   SIRENs of 3 hidden layers of 64, each fitted to the cubic interpolation of one image
    ngp     hash grids of 8 levels, fitted likewise

Fitted fields are kept in a store, one for each kind, in the folder that the caller names; those found there are not fitted again,
and more images are added to them. From other programs:

    fields, labels = cifar_fields("siren", 128, folder, kept)       # a FieldStack of 128, its values RGB in [0, 1]
    values = fields(points)                                         # points (n, 2) -> (128, n, 3)

As a program it fits, and prints a JSON line for each kind: seconds an image of those fitted now, PSNR in dB at the pixels and,
against the cubic interpolation, at 4096 lattice points between them.

    INRBRIDGE_DATA=.. python tests/benchmarks/cifar_fields.py --kinds siren ngp --count 128 --kept cifar_fields
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inrbridge import FieldDataset, fit, sampling
from inrbridge.domains import Box
from inrbridge.grid import GridField
from inrbridge.stacking import FieldStack

BOX = Box.centered(2)
PIXELS = (32, 32)
# Fewer points a step than the default 4096 serve as well, as they differ from step to step: SIRENs of 512 and 1024 points reach
# 49.8 and 51.1 dB in 1.8 and 2.3 s, hash grids of 1024 and 4096 points 46.0 and 46.5 dB in 0.6 and 3.3 s (8 images).
FITTED = {
    "siren": {"width": 64, "layers": 3, "points": 512, "steps": 1000, "lr": 2e-3},
    "ngp": {"points": 1024, "steps": 400, "lr": 1e-2},
}
KINDS = ("cubic", *FITTED)
KEPT = Path("cifar_fields")


def cifar_images(count: int, folder: Path, part: str = "test") -> tuple[np.ndarray, Tensor]:
    """Return the first images of a part, "test" (517) or "train" (5000): (m, 32, 32, 3) of 0..255, and their classes (m,)."""
    archive = np.load(Path(folder) / "data" / "cifar10.npz", allow_pickle=False)
    return archive[f"x_{part}"][:count], torch.from_numpy(archive[f"y_{part}"][:count]).long()


def cifar_fields(kind: str, count: int, folder: Path, kept: Path = KEPT, part: str = "test") -> tuple[FieldStack, Tensor]:
    """Return the first images of a part as fields of one kind, and their classes (m,).

    Array rows lie along the first coordinate, pixel i of 32 at -1 + (i + 1/2) / 16; values are RGB in [0, 1].

    Args:
        kind: one of `KINDS`.
        folder: the shared data.
        kept: where fitted fields are kept.
        part: "test" or "train".
    """
    images, classes = cifar_images(count, folder, part)
    if kind == "cubic":
        samples = torch.from_numpy(images).float() / 255
        return FieldStack.from_states(GridField(samples[0], BOX), {"samples": samples}), classes
    names = [f"{part}-{i:04d}" for i in range(len(images))]
    store = fit(list(images), kind, Path(kept) / kind, names=names, splits=part, labels=classes.tolist(), batch=64,
                **FITTED[kind])  # fmt: skip
    fields = FieldDataset(store, split=part, domain=BOX)
    place = {name: i for i, name in enumerate(fields.names)}
    return fields.stack([place[name] for name in names]), classes


@torch.no_grad()
def quality(fields: FieldStack, truth: FieldStack, points: Tensor) -> Tensor:
    """PSNR in dB of each field, (b,), against the true one at these points; the peak is 1."""
    return -10 * (fields(points) - truth(points)).double().square().mean((1, 2)).log10()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=os.environ.get("INRBRIDGE_DATA"), help="where data/cifar10.npz lies")
    parser.add_argument("--kinds", choices=list(FITTED), nargs="+", default=list(FITTED))
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--part", choices=["test", "train"], default="test")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the fitted fields")
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth, _ = cifar_fields("cubic", args.count, args.folder, part=args.part)
    places = {"pixels": sampling.grid(BOX, PIXELS).points, "between": sampling.lattice(BOX, 4096).points}
    for kind in args.kinds:
        started, before = time.process_time(), held(args.kept / kind)
        fields, _ = cifar_fields(kind, args.count, args.folder, args.kept, args.part)
        seconds, fitted = time.process_time() - started, held(args.kept / kind) - before
        line = {"kind": kind, "fields": len(fields), "fitted": fitted}
        line["seconds"] = round(seconds / fitted, 2) if fitted else None
        for name, points in places.items():
            found = quality(fields, truth, points)
            line |= {f"psnr_{name}": round(float(found.mean()), 1), f"least_{name}": round(float(found.min()), 1)}
        print(json.dumps(line), flush=True)


def held(path: Path) -> int:
    """Number of fields in a store, 0 where there is none yet."""
    return len(FieldDataset(path)) if (path / "manifest.json").exists() else 0


if __name__ == "__main__":
    main()
