"""A net from fields to fields on street scenes: CamVid in 7 categories, labels at the centres of the pixels (Algorithm 2).

Every frame of 96x128 pixels is a field (format grid, cubic interpolation); a U-Net sees it at lattice points and learns from
labels at pixels drawn at random. Prints JSON lines: mIoU and share of pixels on the 101 frames of the validation split, by the
points of the trunk. The labels are read where the output is asked, whatever the points. With --out the first output is kept
there as a field file, with a picture at twice the resolution.

    INRBRIDGE_DATA=.. python tests/benchmarks/segmentation.py --steps 400 --out segmentation

Data: `$INRBRIDGE_DATA/data/camvid.npz`. A run of 400 steps takes about 10 minutes of one CPU core.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from inrbridge import Box, FieldDataset, evaluate, fit, open_field, predict, preview, train
from inrbridge.data.labelled import LabelledPoints

BOX = Box.centered(2)
UNKNOWN = 255


def load(folder: Path, out: Path, most: int | None) -> tuple[FieldDataset, FieldDataset, LabelledPoints]:
    """Return the fields to learn from, those to measure on, and the labels of both."""
    data = np.load(folder / "data" / "camvid.npz", allow_pickle=False)
    images, names, splits, labels = [], [], [], {}
    for part, split in (("train", "train"), ("val", "test")):
        for i, (image, classes) in enumerate(zip(data[f"x_{part}"][:most], data[f"y_{part}"][:most], strict=True)):
            name = f"{split}-{i:03d}"
            images.append(image)
            names.append(name)
            splits.append(split)
            labels[name] = data["category_of_class"][classes]
    store = fit(images, "grid", out / "store", names=names, splits=splits)
    categories = [str(name) for name in data["category_names"]]
    return *(FieldDataset(store, split) for split in ("train", "test")), LabelledPoints(
        labels, BOX, class_names=categories, ignore=UNKNOWN
    )


def settings(args, out: Path) -> dict:
    """The run: what a file for `inrbridge train` would say."""
    return {
        "task": "dense",
        "data": {"batch_size": args.batch},
        "targets": {"n": 1024, "ignore": UNKNOWN},
        "model": {"name": "unet", "options": {"widths": args.widths, "convs": 1, "resolution": 64, "head": 32}},
        "points": {"sampler": "lattice", "n": args.n, "pool": 8},
        "optimizer": {"lr": 4e-3, "steps": args.steps, "warmup": args.steps // 20},
        "run": {"out": str(out / f"run-{args.seed}"), "seed": args.seed, "eval_every": 0, "checkpoint_every": args.steps},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the store, the run and a picture; default: a temporary one")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--n", type=int, default=2048, help="points of the trunk in training")
    parser.add_argument("--widths", type=int, nargs="+", default=[24, 32, 48])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, help="frames of each split, for a quick look")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = args.out or Path(tempfile.mkdtemp(prefix="inrbridge-"))
    train_set, test_set, labels = load(Path(os.environ["INRBRIDGE_DATA"]), out, args.most)
    started = time.perf_counter()
    run = train(settings(args, out), train_set, targets=labels)
    facts = {"steps": run.steps, "seconds": round(time.perf_counter() - started), "loss": run.loss}
    print(json.dumps({"trained": facts, "parameters": sum(p.numel() for p in run.model.parameters())}), flush=True)
    for sampler in ("lattice", "sobol"):
        for n in (args.n, 2 * args.n):
            found = evaluate(run.model, test_set, targets=labels, sampler=sampler, n=n, batch_size=8)
            line = {name: found[name] for name in ("sampler", "n", "miou", "accuracy", "loss", "iou_by_class", "seconds")}
            print(json.dumps(line), flush=True)
    (answer,) = predict(run.model, test_set.store.field(test_set.indices[0]), out=out)
    output = answer["output"]
    print(json.dumps({"output": output, "shares": answer["shares"]}))
    print(json.dumps({"picture": str(preview(open_field(output), out / "segmentation.png", resolution=256))}))


if __name__ == "__main__":
    main()
