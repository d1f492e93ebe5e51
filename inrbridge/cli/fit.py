"""Turn images (.png, .jpg), arrays (.npy, .npz), sounds (.wav) or folders of them into a store of fields.

A file's folder is its label; a folder called train, val or test is its split. Interrupted, it goes on where it stopped.
Photographs with poses (an .npz of images, poses and focal, or a folder with transforms_train.json) become one radiance field.

examples:
  inrbridge fit digits/ -o store --format siren,fourier,grid --set width=32 --set siren.omega_0=15
  inrbridge fit mnist.npz --key x_train --stacked --labels mnist.npz:y_train -o store --split train
  inrbridge fit views.npz --format ngp -o scene.safetensors --shrink 2
"""

import json

from inrbridge.cli.tables import print_facts, print_table

OWN = ("steps", "lr", "points", "oversample", "batch", "seed", "labels", "split", "format", "resume", "device", "progress")


def add_arguments(parser) -> None:
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="signal files or folders of them")
    parser.add_argument("-o", "--out", metavar="STORE", required=True,
                        help="folder of the store to make or go on with; of posed images also a .safetensors file")  # fmt: skip
    parser.add_argument("--format", metavar="NAMES", default="siren", help="format, or several by comma, dealt out by --seed")
    parser.add_argument("--set", metavar="OPTION=VALUE", action="append", default=[],
                        help="option of the formats, or of one: siren.omega_0=15, siren.steps=300")  # fmt: skip
    parser.add_argument("--steps", metavar="N", type=int, help="optimisation steps")
    parser.add_argument("--lr", metavar="RATE", type=float, help="learning rate")
    parser.add_argument("--points", metavar="N", type=int, help="points a step (of posed images: rays)")
    parser.add_argument("--oversample", metavar="X", type=float, default=2.0, help="points a step over samples, along each axis")
    parser.add_argument("--batch", metavar="B", type=int, default=512, help="fields written together")
    parser.add_argument("--seed", metavar="SEED", type=int, default=0)
    parser.add_argument("--labels", metavar="FILE", help=".npy, .npz:KEY, or text with a label a line, in the order of signals")
    parser.add_argument("--split", metavar="WORD", help="split of all fields, or shares: train=0.8,test=0.2")
    parser.add_argument("--stacked", action="store_true", help="axis 0 of arrays counts signals")
    parser.add_argument(
        "--channels", default="auto", choices=["auto", "last", "none"], help="which axis of arrays holds channels"
    )
    parser.add_argument("--key", metavar="NAME", help="array inside .npz files")
    parser.add_argument("--no-resume", dest="resume", action="store_false", help="refuse a store that exists")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N")
    parser.add_argument("--shrink", metavar="K", type=int, default=1, help="posed images: take means of K x K pixels")
    parser.add_argument("--background", metavar="COLOUR", help="posed images: random, white, black, or red,green,blue in 0..1")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    from inrbridge.cli.pack import next_step
    from inrbridge.cli.views import fit_posed
    from inrbridge.errors import ConfigError
    from inrbridge.fitting import deal, fit
    from inrbridge.radiance import is_views
    from inrbridge.signals import read_labels, read_signals
    from inrbridge.training.distributed import choose_device

    common, special = settings(args.set)
    if len(args.sources) == 1 and is_views(args.sources[0]):
        fit_posed(args, common | special.get(args.format, {}))
        return
    posed = [name for name, default in (("shrink", 1), ("background", None)) if getattr(args, name) != default]
    if posed:
        raise ConfigError(f"Got --{posed[0]} for {args.sources[0]}, which holds no images with poses; leave it out.")
    labels = None if args.labels is None else read_labels(args.labels)
    device = None if args.device is None else str(choose_device(args.device))
    signals = read_signals(args.sources, labels=labels, split_axis=args.stacked, channels=args.channels, key=args.key)
    formats = [name for name in args.format.split(",") if name] or [args.format]
    format = (
        formats[0] if len(formats) == 1 else deal([s.name for s in signals], {n: 1 / len(formats) for n in formats}, args.seed)
    )
    store = fit(
        signals, format, args.out, steps=args.steps, lr=args.lr, points=args.points, oversample=args.oversample, batch=args.batch,
        seed=args.seed, splits=splits(args.split), resume=args.resume, device=device, progress=True, format_options=special,
        **common,
    )  # fmt: skip
    facts = {"store": str(args.out), "fields": len(store), "formats": quality(store)}
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    print_facts([("store", facts["store"]), ("fields", facts["fields"])])
    print_table(["format", "fields", "PSNR mean", "PSNR least"], [[n, *row.values()] for n, row in facts["formats"].items()])
    if all(item.split is None for item in store.items):
        print("\nno field is set apart to measure on; to have that: --split train=0.8,test=0.2 into a new store")
    print(f"\nnext: {next_step(store, args.out)}")


def settings(texts: list[str]) -> tuple[dict, dict]:
    """Sort OPTION=VALUE and FORMAT.OPTION=VALUE into options of all formats, and of single ones."""
    from inrbridge.cli.info import option
    from inrbridge.errors import ConfigError

    common, special = {}, {}
    for text in texts:
        format, dot, _ = text.partition("=")[0].rpartition(".")
        name, value = option(text[len(format) + len(dot) :])
        if not dot and name in OWN:
            raise ConfigError(f'Got --set "{text}", expected an option of a format; this one is of fit: --{name} {value}')
        (special.setdefault(format, {}) if dot else common)[name] = value
    return common, special


def splits(text: str | None) -> str | dict | None:
    """Read a word, or shares WORD=SHARE,WORD=SHARE."""
    from inrbridge.errors import ConfigError

    if text is None or "=" not in text:
        return text
    try:
        return {word: float(share) for word, share in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise ConfigError(
            f'Got --split "{text}", expected a word such as train, or shares such as train=0.8,test=0.2.'
        ) from error


def quality(store) -> dict[str, dict]:
    """Return the count and PSNR of the fields of each format."""
    found: dict[str, list] = {}
    for item in store.items:
        found.setdefault(store.manifest.format_of(item), []).append(item.psnr)
    table = {}
    for name, values in sorted(found.items()):
        known = [value for value in values if value is not None]
        mean, least = (round(sum(known) / len(known), 2), round(min(known), 2)) if known else (None, None)
        table[name] = {"fields": len(values), "psnr_mean": mean, "psnr_least": least}
    return table
