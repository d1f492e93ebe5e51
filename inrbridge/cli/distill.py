"""Fit a field of another format to any field, and measure the difference: so the output of a net becomes a field of its own.

The new file needs neither the net nor its input; its header tells what it was made from and how far it is from that. Of several
files, or a folder of them, -o names a folder.

examples:
  inrbridge distill out/street.safetensors -o street.safetensors --format siren --set width=128
  inrbridge distill out/ -o small --format grid --set shape=96 --json
"""

import json
from pathlib import Path

from inrbridge.cli.arguments import count
from inrbridge.cli.tables import print_facts, print_table


def add_arguments(parser) -> None:
    parser.add_argument("files", metavar="FIELD", nargs="+", help="field files, or folders of them")
    parser.add_argument("-o", "--out", metavar="FILE", required=True, help="file to write; of several fields a folder")
    parser.add_argument("--format", metavar="NAME", default="siren", help="of the new fields (default siren)")
    parser.add_argument("--set", metavar="OPTION=VALUE", action="append", default=[], help="option of the format, e.g. width=64")
    parser.add_argument("--n", metavar="N", type=count, help="points a step")
    parser.add_argument("--steps", metavar="N", type=count, help="optimisation steps")
    parser.add_argument("--lr", metavar="RATE", type=float, help="learning rate")
    parser.add_argument("--seed", metavar="SEED", type=int, default=0)
    parser.add_argument("--trust", metavar="MODULE", default="", help="a module that may bring the class of a net")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    from inrbridge.cli.info import option
    from inrbridge.data.opening import entries_of
    from inrbridge.errors import ConfigError
    from inrbridge.fitting import distill
    from inrbridge.io import open_field

    entries = [entry for path in args.files for entry in entries_of(path)]
    is_one = len(entries) == 1 and not Path(args.files[0]).is_dir()
    options = dict(option(text) for text in args.set)
    own = {"n", "steps", "lr", "seed", "out", "format"} & set(options)
    if own:
        name = min(own)
        raise ConfigError(f'Got --set "{name}={options[name]}", expected an option of a format; this one is: --{name}')
    common = {"steps": args.steps, "lr": args.lr, "seed": args.seed, "n": args.n, "progress": True, **options}
    trust = {"trust": args.trust} if args.trust else {}
    sources = [open_field(entry.path, entry.format, **entry.options, **trust) for entry in entries]
    fields = distill(sources[0] if is_one else sources, args.format, args.out, names=[stem(entry) for entry in entries], **common)
    fields = [fields] if is_one else fields
    rows = [{"file": str(entry), **field.notes} for entry, field in zip(entries, fields, strict=True)]
    if args.json:
        print(json.dumps(rows, indent=2))
    elif is_one:
        print_facts([("written", args.out), *((name, value) for name, value in rows[0].items() if name != "file")])
    else:
        print_table(["file", "rms", "greatest", "psnr"], [[r["file"], r["rms"], r["greatest"], f"{r['psnr']:.2f}"] for r in rows])
        print(f"\nwritten into {args.out}")


def stem(entry) -> str:
    """Return the name of the new file of a field: that of its own, with its number in a file of several."""
    return entry.path.stem + (f"-{entry.options['index']}" if "index" in entry.options else "")
