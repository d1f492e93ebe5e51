"""What pretrained networks lose when they leave the pixel grid: the discrete network against the converted one on other points.

    resnet20, resnet44   CIFAR-10: the 517 test images as fields; accuracy
    espnet               CamVid: validation frames of 96x128 or 360x480 as fields; mean IoU of 11 classes and, as accuracy, the
                         share of pixels, at the pixel centres

Each line is one net at one stage:

    discrete       the network itself on the pixels of the images (its figures stand beside all others as discrete_*)
    grid           converted, on the pixel grid, where it sees the fields at the pixel centres
    uncalibrated   converted, on as many points of a sampler, as it is
    statistics     after one pass over training fields without labels: gains and offsets of all layers
    calibrated     the same with the weights of all layers corrected, in closed form
    finetuned      after that and a short distillation on training fields, for each sampler by itself

`agreement` is the share of images (pixels) where it says what the discrete network says on pixels. `seconds`: of the test, with
the building of stencils; `adapting`: of the pass or the training. Tests are on points that these never saw. Fields: cubic
interpolation, fitted SIRENs, fitted hash grids (`cifar_fields.py`; fitting 517 takes 20 minutes, 128 5).

    INRBRIDGE_DATA=.. python tests/benchmarks/convert.py --json                      # the table of ResNet-20: 10 minutes
    INRBRIDGE_DATA=.. python tests/benchmarks/convert.py --net resnet20 --rule reconstruct --levels points
    INRBRIDGE_DATA=.. python tests/benchmarks/convert.py --net espnet --resolution 360x480 --rule reconstruct
    INRBRIDGE_DATA=.. python tests/benchmarks/convert.py --net resnet20 --time       # a batch on points against one on pixels
    INRBRIDGE_DATA=.. python tests/benchmarks/convert.py --net espnet --picture scene.png
"""

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/: the discrete networks
sys.path.insert(0, str(Path(__file__).parent))

from cifar_fields import BOX
from convert_tasks import Classification, Segmentation

from inrbridge.conversion import convert
from inrbridge.conversion.calibrating import calibrate
from inrbridge.conversion.finetuning import finetune
from inrbridge.discretization import Discretization
from inrbridge.nn import Sampled
from inrbridge.sampling import get_sampler

STAGES = ("discrete", "grid", "uncalibrated", "statistics", "calibrated", "finetuned")
NETS = ("resnet20", "resnet44", "espnet")


def load(net: str, fields: str, args) -> Classification | Segmentation:
    """The task of a net."""
    if net == "espnet":
        return Segmentation(args.folder, args.resolution, args.images)
    return Classification(int(net.removeprefix("resnet")), args.folder, fields, args.images, args.kept)


def draw(sampler: str, points: int, seed: int) -> Discretization:
    return get_sampler(sampler)(BOX, points, torch.Generator().manual_seed(seed))


def build(task, rule: str, args):
    """The converted net."""
    return convert(task.module, BOX, task.resolution, kernel=rule, oversampling=args.oversampling, levels=args.levels,
                   neighbors=args.neighbors, reader=args.reader)  # fmt: skip


def adapt(net, stage: str, task, args) -> None:
    """Bring a converted net to a stage, in place, on training fields; `finetuned` goes on from `calibrated`."""
    kinds = [draw(sampler, args.points, args.seed + 10**6) for sampler in args.sampler]
    if stage == "finetuned":
        for points in kinds:
            generator = torch.Generator().manual_seed(args.seed)
            finetune(net, task.training(args.learned), points, generator=generator, steps=args.steps, lr=args.lr)
    elif stage != "uncalibrated":
        calibrate(net, task.training(args.training), kinds, ridge=args.ridge if stage == "calibrated" else None)


def placing(net) -> dict:
    """Where the feature maps of a converted net live, and how they are read between their points."""
    p = net.placement
    return {"levels": p.levels, "oversampling": p.oversampling, "neighbors": net.reading.neighbors, "reader": net.reading.reader}


@torch.no_grad()
def predict(net, task, points: Discretization) -> Tensor:
    """What a converted net says, seen from these points: (images,) or (images, pixels)."""
    parts = [net(Sampled(points, task.values(some, points.points)), **task.asked) for some in task.batches()]
    return task.decide(torch.cat(parts))


def measure(name: str, kind: str, args, report) -> None:
    """All stages, rules and samplers of one net on one kind of fields."""
    task = load(name, kind, args)
    args.points = args.points or math.prod(task.resolution)
    common = {"net": name, "fields": kind, "images": task.count, "threads": args.threads, "seed": args.seed}
    if name == "espnet":
        common["resolution"] = args.resolution
    started = time.perf_counter()
    with torch.no_grad():
        truth = task.decide(torch.cat([task.module(task.pixels(some)) for some in task.batches()]))
    base = task.scores(truth)
    discrete = {f"discrete_{key}": value for key, value in base.items()}

    def line(predicted: Tensor, since: float, **more) -> None:
        agreement = round(100 * float((predicted == truth).float().mean()), 2)
        seconds = round(time.perf_counter() - since, 2)
        report(**common, **more, **task.scores(predicted), **discrete, agreement=agreement, seconds=seconds)

    if "discrete" in args.stage:
        line(truth, started, points=math.prod(task.resolution), sampler="grid", rule="pixels", stage="discrete")
    for rule in args.rule:
        fresh = build(task, rule, args)
        more = {"rule": rule, **placing(fresh)}
        if "grid" in args.stage:
            pixels, started = fresh.pixels(), time.perf_counter()
            line(predict(fresh, task, pixels), started, points=len(pixels), sampler="grid", stage="grid", **more)
        tested = [draw(sampler, args.points, args.seed) for sampler in args.sampler]
        for stage in [s for s in STAGES[2:] if s in args.stage]:
            net, started = build(task, rule, args), time.perf_counter()
            for step in ("calibrated", "finetuned") if stage == "finetuned" else (stage,):
                adapt(net, step, task, args)
            adapting = round(time.perf_counter() - started, 1)
            for sampler, points in zip(args.sampler, tested, strict=True):
                started = time.perf_counter()
                line(predict(net, task, points), started, points=len(points), sampler=sampler, stage=stage, adapting=adapting,
                     **more)  # fmt: skip


@torch.no_grad()
def time_batches(name: str, args, report) -> None:
    """Seconds of a batch on points against the discrete network on pixels, taken in turn, the median of each."""
    task = load(name, "cubic", args)
    args.points = args.points or math.prod(task.resolution)
    some = task.batches()[0]
    image = task.pixels(some)
    settings = [{"oversampling": 1.0, "levels": "points"}, {"levels": "points"}, {"levels": "inner-grids"}, {"levels": "grids"}]
    for sampler, rule, options in itertools.product(args.sampler, args.rule, settings):
        if rule == "spline" and options["levels"] == "grids":
            continue
        net = convert(task.module, BOX, task.resolution, kernel=rule, neighbors=args.neighbors, reader=args.reader, **options)
        points = draw(sampler, args.points, args.seed)
        sampled = Sampled(points, task.values(some, points.points))
        started = time.perf_counter()
        net(sampled, **task.asked)
        first = time.perf_counter() - started
        own = Sampled(net.pixels(), task.values(some, net.pixels().points))
        seconds = medians(
            {
                "discrete": partial(task.module, image),
                "grid": partial(net, own, **task.asked),
                "points": partial(net, sampled, **task.asked),
            },
            args.repeats,
        )
        report(net=name, stage="time", sampler=sampler, points=len(points), rule=rule, batch=len(some), threads=args.threads,
               **placing(net), first_call=round(first, 2),
               **{f"seconds_{key}": round(value, 4) for key, value in seconds.items()},
               **{f"ratio_{key}": round(seconds[key] / seconds["discrete"], 2) for key in ("grid", "points")})  # fmt: skip


def medians(calls: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Seconds of this process that each call takes, in turn with the others."""
    taken: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(repeats):
        for key, call in calls.items():
            started = time.process_time()
            call()
            taken[key].append(time.process_time() - started)
    return {key: sorted(times)[len(times) // 2] for key, times in taken.items()}


def as_json(**line) -> None:
    print(json.dumps(line), flush=True)


def as_words(**line) -> None:
    print("  ".join(f"{key} {value}" for key, value in line.items()), flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=os.environ.get("INRBRIDGE_DATA"), help="the shared data")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--net", choices=NETS, nargs="+", default=["resnet20"])
    parser.add_argument("--rule", choices=["reconstruct", "spline"], nargs="+", default=["reconstruct", "spline"])
    parser.add_argument("--sampler", nargs="+", default=["lattice", "sobol"])
    parser.add_argument("--points", type=int, help="default: as many as pixels")
    parser.add_argument("--stage", choices=STAGES, nargs="+", default=list(STAGES[:-1]))
    parser.add_argument("--fields", choices=["cubic", "siren", "ngp"], nargs="+", default=["cubic"])
    parser.add_argument("--kept", type=Path, default=Path("cifar_fields"), help="folder of fitted fields")
    parser.add_argument("--images", type=int, default=517, help="test images or frames")
    parser.add_argument("--training", type=int, default=256, help="training fields that calibration sees")
    parser.add_argument("--ridge", type=float, default=0.1, help="of the correction of weights")
    parser.add_argument("--learned", type=int, default=2000, help="training fields that fine-tuning sees")
    parser.add_argument("--steps", type=int, default=200, help="of fine-tuning")
    parser.add_argument("--lr", type=float, default=3e-4, help="of fine-tuning")
    parser.add_argument(
        "--resolution", default="96x128", help="of espnet: 96x128, 360x480, or a part of the latter from its centre"
    )
    parser.add_argument("--oversampling", type=float, default=4.0)
    parser.add_argument("--levels", help="where feature maps live: points, inner-grids or grids, as of `convert`")
    parser.add_argument("--neighbors", type=int)
    parser.add_argument("--reader", help="how fields are read onto pixels: pixels or polynomials, as of `convert`")
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time", action="store_true", help="measure the time of a batch instead")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--picture", type=Path, help="write a picture of a segmentation instead")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    asked, report = args.points, as_json if args.json else as_words
    if args.picture:
        task = load("espnet", "cubic", args)
        points = draw(args.sampler[-1], args.points or math.prod(task.resolution), args.seed)
        task.picture(build(task, args.rule[0], args), points, args.picture)
        return
    for name, kind in itertools.product(args.net, args.fields):
        args.points = asked
        if args.time:
            time_batches(name, args, report)
        else:
            measure(name, kind, args, report)


if __name__ == "__main__":
    main()
