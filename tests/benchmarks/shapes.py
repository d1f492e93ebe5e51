"""One INR-Net on shapes that come in five formats: 218 shapes of four classes, formats assigned at random.

SIRENs and Fourier-feature nets hold the signed distance of a shape; hash grids, plenoxels and NeRFs hold a radiance field of
it: density inside, the colour of its normal with a highlight that moves with the direction of view. The net sees the occupancy
of all of them at the points of one discretization. Prints JSON lines: quality of the fits, accuracy on the 43 test shapes
(over all, by format, by points, by sampler), and the matrix of accuracies with one format left out of training.

    INRBRIDGE_DATA=.. python tests/benchmarks/shapes.py --out shapes --seeds 0 1 2

Data: `$INRBRIDGE_DATA/data/shapes4.npz`. The store is fitted once and gone on with.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from inrbridge import Box, FieldDataset, FunctionField, GridField, Product, Sphere, evaluate, fit, train
from inrbridge.data import align
from inrbridge.signals import Signal

BOX, SPACE = Box.centered(3), Product(Box.centered(3), Sphere())
DENSITY, SKIN = 40.0, 0.125  # per unit of length inside, and the thickness over which it sets in: two cells of the data
RADIANCE = ("red", "green", "blue", "density")
FITS = {
    "siren": {"width": 48, "layers": 3, "steps": 600, "lr": 1e-3, "omega_0": 15.0},
    "fourier": {"width": 48, "layers": 3, "steps": 600, "lr": 3e-3, "sigma": 1.5},
    "ngp": {"levels": 6, "log2_table": 12, "finest": 32, "steps": 400},
    "plenoxels": {"resolution": 20, "steps": 800, "lr": 0.4},
    "nerf": {"width": 64, "layers": 4, "frequencies": 5, "steps": 600},
}
VIEW = {"domain": BOX, "channels": ["occupancy"], "ramp": SKIN, "length": SKIN}


class Radiance:
    """Colours and density of a body with the signed distance f, at positions and directions (..., 6)."""

    def __init__(self, sdf: GridField):
        self.sdf = sdf

    def __call__(self, coords: torch.Tensor) -> torch.Tensor:
        places, directions = coords[..., :3], coords[..., 3:]
        step = SKIN / 2
        shifts = step * torch.eye(3, dtype=coords.dtype)
        ends = [self.sdf((places[..., None, :] + sign * shifts).clamp(-1, 1))[..., 0] for sign in (1, -1)]
        normal = torch.nn.functional.normalize(ends[0] - ends[1], dim=-1)
        shine = (normal * directions).sum(-1, keepdim=True).clamp(max=0) ** 4
        colour = 0.5 + 0.3 * normal + 0.2 * shine
        density = DENSITY * (0.5 - self.sdf(places) / SKIN).clamp(0, 1)
        return torch.cat([colour, density], -1)


def signals(folder: Path, seed: int) -> tuple[list[Signal], list[str], list[str]]:
    """Return the shapes as signals, their formats (dealt out evenly within each class and split), and their splits."""
    data = np.load(folder / "data" / "shapes4.npz", allow_pickle=False)
    generator = torch.Generator().manual_seed(seed)
    names, turn = list(FITS), 0
    made, formats, splits = [], [], []
    for split in ("train", "test"):
        labels = data[f"label_{split}"]
        for label in sorted(set(labels.tolist())):
            rows = np.flatnonzero(labels == label)
            for row in rows[torch.randperm(len(rows), generator=generator).numpy()].tolist():
                values = torch.from_numpy(data[f"sdf_milli_{split}"][row].astype(np.float32) / 1000)
                sdf, name = GridField(values[..., None], BOX, channel_names=("sdf",)), names[turn % len(names)]
                is_radiance = name not in ("siren", "fourier")
                field = FunctionField(Radiance(sdf), SPACE, 4, RADIANCE) if is_radiance else sdf
                made.append(Signal(f"{split}-{row}", field, str(label), None))
                formats.append(name)
                splits.append(split)
                turn += 1
    return made, formats, splits


def quality(store, made: list[Signal]) -> dict[str, dict[str, float]]:
    """How the occupancy of test fields compares with that of what they were fitted to, 32^3 points each, by format.

    Mean absolute error, and intersection over union of where it exceeds a half.
    """
    signals = {signal.name: signal.field for signal in made}
    test, found = FieldDataset(store, "test", **VIEW), {}
    axis = (torch.arange(32) + 0.5) / 16 - 1
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    for i, (name, format) in enumerate(zip(test.names, test.formats, strict=True)):
        seen, truth = test.stack([i])(points)[0], align(signals[name], **VIEW)(points)
        both, either = ((seen > 0.5) & (truth > 0.5)).sum(), ((seen > 0.5) | (truth > 0.5)).sum()
        found.setdefault(format, []).append((float((seen - truth).abs().mean()), float(both / either.clamp(min=1))))
    means = {name: [round(sum(column) / len(rows), 4) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    return {name: {"error": error, "intersection_over_union": share} for name, (error, share) in sorted(means.items())}


def learn(store, out: Path, seed: int, n: int, epochs: int, exclude: list[str]):
    """Train on the training shapes of all formats but those excluded."""
    data = {split: FieldDataset(store, split, exclude_formats=exclude or None, **VIEW) for split in ("train", "test")}
    config = {
        "data": {"batch_size": 16},
        "points": {"n": n, "pool": 24, "sampler": ["lattice", "sobol"]},
        "model": {"name": "convnet", "options": {"widths": [16, 32, 64], "strides": [1, 2, 2], "resolution": 12, "points": n,
                                                 "dropout": 0.2}},
        "optimizer": {"epochs": epochs, "lr": 5e-3, "warmup": 20, "label_smoothing": 0.05},
        "run": {"out": str(out), "seed": seed, "eval_every": 0, "checkpoint_every": 10**9},
    }  # fmt: skip
    return train(config, data["train"], eval_dataset=data["test"], progress=False).model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("shapes"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--points", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--assignment", type=int, default=0, help="seed of the formats")
    args = parser.parse_args()
    folder = Path(os.environ["INRBRIDGE_DATA"])
    started = time.perf_counter()
    made, formats, splits = signals(folder, args.assignment)
    store = fit(made, formats, args.out / "store", splits=splits, seed=0, format_options=FITS, progress=True)
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps({"fit_seconds": seconds, "occupancy": quality(store, made)}), flush=True)
    torch.set_num_threads(1)  # nets as small as these gain little from several
    test = FieldDataset(store, "test", **VIEW)
    for seed in args.seeds:
        started = time.perf_counter()
        model = learn(store, args.out / f"run-{seed}", seed, args.points, args.epochs, [])
        row = {"seed": seed, "points": args.points, "train_seconds": round(time.perf_counter() - started, 1)}
        for sampler, n in (("lattice", 1), ("lattice", 0.5), ("lattice", 2), ("sobol", 1), ("halton", 1), ("grid", 1)):
            found = evaluate(model, test, sampler=sampler, n=round(n * args.points))
            row[f"{sampler} x{n}"] = round(found["accuracy"], 4)
            if (sampler, n) == ("lattice", 1):
                row["by_format"] = found["accuracy_by_format"]
        print(json.dumps(row), flush=True)
        for name in FITS:
            model = learn(store, args.out / f"run-{seed}-without-{name}", seed, args.points, args.epochs, [name])
            found = evaluate(model, test, sampler="lattice", n=args.points)
            print(json.dumps({"seed": seed, "left_out": name, "by_format": found["accuracy_by_format"]}), flush=True)


if __name__ == "__main__":
    main()
