"""Turn a pretrained network on pixels into an INR-Net: a model folder that works without the network's own code.

MODEL holds weights alone, and nothing in it is run. The architecture is code that you trust by naming it; it is imported from
this folder or an installed package. On its pixel grid the result equals the network, and elsewhere it acts on the field.

examples:
  inrbridge convert resnet20.pth --arch resnet:resnet20 --resolution 32x32 --mean 0.49,0.46,0.41 --std 0.23,0.22,0.23 -o net
  inrbridge convert unet.safetensors --arch nets:UNet --arch-options width=16 --resolution 96x96 --classes sky,road,tree -o net
"""

import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

from inrbridge.cli.arguments import count, positive
from inrbridge.cli.tables import print_facts

USUAL = {"domain": "centered", "kernel": "reconstruct", "order": 2, "oversampling": 4.0,
         "calibrate_fields": 256, "sampler": ["lattice", "sobol"]}  # fmt: skip

SEEDS = range(1, 5)  # of the points that a net is calibrated on: those of an evaluation (seed 0) are as new to it as any


def add_arguments(parser) -> None:
    parser._negative_number_matcher = re.compile(r"^-\.?\d")  # else "--mean -1,0.5" would count as an unknown option
    parser.add_argument("model", metavar="MODEL", help="file of weights: .pt, .pth, .th, .safetensors, .npz")
    parser.add_argument("--arch", metavar="MODULE:NAME", required=True, help="what builds the network when it is called")
    parser.add_argument("--arch-options", metavar="KEY=VALUE", nargs="+", default=[], help="arguments of that call")
    parser.add_argument("--resolution", metavar="N[xN[xN]]", required=True, help="pixels along each axis, as in the array")
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="folder to make")
    parser.add_argument("--force", action="store_true", help="replace the model that DIR holds")
    parser.add_argument(
        "--channels", metavar="NAMES", help="of the input, by comma, or their number; default of images their own"
    )
    parser.add_argument("--classes", metavar="NAMES", help="of the output, by comma, or a file with one a line")
    parser.add_argument("--domain", metavar="DOMAIN", default="centered",
                        help="centered ([-1, 1] on each axis, as fields of images; default), unit, torus, or JSON")  # fmt: skip
    parser.add_argument("--mean", metavar="NUMBERS", help="of the channels, subtracted first, by comma; of colours in 0..1")
    parser.add_argument("--std", metavar="NUMBERS", help="of the channels, divided by then")
    parser.add_argument("--activation", choices=["identity", "softmax", "sigmoid"],
                        help="of an output that is a field; default softmax with --classes, else identity")  # fmt: skip
    points = parser.add_argument_group("how it acts on points that are no pixels")
    points.add_argument("--kernel", choices=["reconstruct", "spline"], default="reconstruct",
                        help="kernels act on the field at their nodes (default), or become splines as in the paper")  # fmt: skip
    points.add_argument("--order", metavar="N", type=int, default=2, help="of the local polynomials (default 2)")
    points.add_argument("--neighbors", metavar="N", type=count, help="points of a local fit")
    points.add_argument("--oversampling", metavar="X", type=positive, default=4.0, help="points of coarser levels per pixel")
    points.add_argument(
        "--levels",
        choices=["points", "inner-grids", "grids"],
        help="where feature maps live: on given points, all but the first on grids, all on grids (default)",
    )
    points.add_argument(
        "--reader",
        choices=["pixels", "polynomials"],
        help="what a field is between its points: an image between its pixels (default in 1 and 2 dimensions), or polynomials",
    )
    adapting = parser.add_argument_group("adapting it to such points, in one pass over fields without labels")
    adapting.add_argument("--calibrate", metavar="PATH", nargs="+", help="a store, images or field files of the kind it is for")
    adapting.add_argument("--calibrate-fields", metavar="N", type=count, default=256, help="how many of them (default 256)")
    adapting.add_argument("--calibrate-split", metavar="NAME", help="of a store; without it, all of it")
    adapting.add_argument("--sampler", metavar="NAME", nargs="+", default=["lattice", "sobol"], help="default lattice sobol")
    adapting.add_argument("--points", metavar="N", type=count, nargs="+", help="numbers of points; default as many as pixels")
    adapting.add_argument("--ridge", metavar="X", type=positive, help="correct all weights too, held back by X (0.1 is cautious)")
    names = parser.add_argument_group("names in MODEL")
    names.add_argument("--prefix", metavar="TEXT", help="what stands before the names of the network; default: found")
    names.add_argument("--ignore", metavar="PATTERN", nargs="+", default=[], help="tensors of no account, e.g. '*total_ops'")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    import torch

    from inrbridge.cli.architectures import channels_of, domain_of, names_of, network, resolution
    from inrbridge.conversion import convert
    from inrbridge.conversion.describing import difference_on_grid, levels_of
    from inrbridge.training.model_folder import Card, save_model

    out, shape = free_folder(args), resolution(args.resolution)
    domain, channels = domain_of(args.domain, len(shape)), channels_of(args.channels, len(shape))
    module = network(args, len(shape))
    options = {name: getattr(args, name) for name in ("kernel", "order", "neighbors", "oversampling", "levels", "reader")}
    net = convert(module, domain, shape, in_channels=len(channels) if channels else None, **options)
    channels = channels or channels_of(str(net.in_channels), len(shape))
    class_names = names_of(args.classes)
    activation = args.activation or ("softmax" if class_names and net.classes > 1 else "identity")
    sampler = "grid" if len(set(shape)) == 1 else f"grid:{'x'.join(map(str, shape))}"
    card = Card.of(net, channels=channels, class_names=class_names, sampler=sampler, activation=activation,
                   command=command_line(args))  # fmt: skip
    adapted = adapt(net, card, args) if args.calibrate else []
    card = replace(card, model=net.config())
    image = torch.rand(2, net.in_channels, *shape, generator=torch.Generator().manual_seed(0))
    off = difference_on_grid(net, module, image)
    save_model(out, net, card)
    facts = {
        "folder": str(out), "model": f"{card.model['name']} of {args.arch}, for {card.task}", "domain": str(domain),
        "channels": channels, "classes": card.class_names, "resolution": list(shape),
        "parameters": sum(value.numel() for value in net.network.parameters()), "calibrated": adapted,
        "levels": [{"shape": list(level.shape), "why": level.why, "line": level.line} for level in levels_of(net)],
        "difference_on_grid": off,
    }  # fmt: skip
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    show(facts)
    has_fields = card.task == "dense"
    print(f"\nnext: inrbridge {'predict' if has_fields else 'eval'} {shlex.quote(str(out))}"
          + (" FILES -o DIR" if has_fields else " STORE --sampler grid lattice"))  # fmt: skip


def show(facts: dict) -> None:
    """Print what was converted."""
    lines = []
    for level in facts["levels"]:
        share = math.prod(level["shape"]) / math.prod(facts["resolution"])
        part = "the given points" if share == 1 else f"points, {share:.3g} times as many"
        shape, line = "x".join(map(str, level["shape"])), f" ({level['line']})" if level["line"] else ""
        lines.append((f"  level {shape}", f"its own grid: {level['why']}{line}" if level["why"] else part))
    classes = ", ".join(facts["classes"][:12]) + (", ..." if len(facts["classes"]) > 12 else "")
    print_facts([
        ("folder", facts["folder"]), ("model", facts["model"]), ("domain", facts["domain"]),
        ("input", f"{', '.join(facts['channels'])} at {'x'.join(map(str, facts['resolution']))} pixels"),
        ("output", f"{len(facts['classes'])}: {classes}"), ("parameters", f"{facts['parameters']:,}"), *lines,
        *[("calibrated", text) for text in facts["calibrated"]],
        ("on the grid", f"differs from the network by {facts['difference_on_grid']:.1g} of its greatest output"),
    ])  # fmt: skip


def adapt(net, card, args) -> list[str]:
    """Calibrate a net in place; return the kinds of points it is then adapted to."""
    from inrbridge.conversion.calibrating import calibrate
    from inrbridge.sampling.fixed import fixed_points
    from inrbridge.training.choosing import some_fields

    fields = some_fields(args.calibrate, card, args.calibrate_fields, split=args.calibrate_split)
    kinds = [(sampler, n) for sampler in args.sampler for n in args.points or [math.prod(net.resolution)]]
    draws = [fixed_points(net.domain, *kind, seed=seed) for kind in kinds for seed in SEEDS]
    calibrate(net, fields, draws, ridge=args.ridge, show=True)
    return [f"{n} {sampler} points, on {len(fields)} fields" for sampler, n in kinds]


def free_folder(args) -> Path:
    """Return the folder to write, which holds no model unless that is to be replaced, and nothing else."""
    from inrbridge.errors import ConfigError

    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"Got -o {out}, which is a file, expected a folder; choose another.")
    if out.is_dir() and any(out.iterdir()):
        if not (out / "config.json").is_file():
            raise ConfigError(f"Got -o {out}, which holds files that are no model, expected a new folder; choose another.")
        if not args.force:
            raise ConfigError(f"Got -o {out}, which holds a model already, expected a new folder; choose another, or --force")
    return out


def command_line(args) -> str:
    """Return the command as the user may repeat it."""
    words = ["inrbridge", "convert", args.model, "--arch", args.arch, "--resolution", args.resolution, "-o", args.out]
    for name in ("arch_options", "channels", "classes", "domain", "mean", "std", "activation", "kernel", "order", "neighbors",
                 "oversampling", "levels", "reader", "calibrate", "calibrate_fields", "calibrate_split", "sampler", "points",
                 "ridge", "prefix", "ignore"):  # fmt: skip
        value, usual = getattr(args, name), USUAL.get(name)
        if value not in (usual, None, []):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)
