"""Let a trained model make new fields, written as files that every other verb opens.

A file holds the generator and the vector that its field is made of; with --format the field is distilled into that format, and
its file tells how far it is from what was made. The same seed gives the same fields, however many are asked for.

examples:
  inrbridge generate runs/digits -n 16 -o made --sheet made.png
  inrbridge generate runs/digits -n 4 --seed 7 --format siren -o small
"""

import json
import sys
from pathlib import Path

from inrbridge.cli.arguments import count, natural


def add_arguments(parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a model trained for the task generation")
    parser.add_argument("-n", metavar="N", type=count, default=16, help="how many fields (default 16)")
    parser.add_argument("--seed", metavar="SEED", type=natural, default=0, help="seed of the fields (default 0)")
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="folder for the files; it must not hold any yet")
    parser.add_argument("--format", metavar="NAME", help="fit the fields in this format, such as siren, ngp or grid")
    parser.add_argument("--points", metavar="N", type=count, help="how many points the layers of the generator work on")
    parser.add_argument("--sheet", metavar="PNG", help="draw all fields side by side")
    parser.add_argument("--resolution", metavar="N", type=count, default=64, help="pixels of a field on the sheet (default 64)")
    parser.add_argument("--trust", metavar="MODULE", action="append", default=[], help="a module that may bring a class")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    from inrbridge import save_field
    from inrbridge.errors import ConfigError
    from inrbridge.fitting import distill
    from inrbridge.sheets import check_sheet, sheet
    from inrbridge.training.generating import generate
    from inrbridge.training.model_folder import load_model

    out = Path(args.out)
    paths = [out / f"{i:04d}.safetensors" for i in range(args.n)]
    held = next((path for path in paths if path.exists()), None)
    if held is not None:
        raise ConfigError(f"Got the folder {out}, which holds {held.name} already, expected a new one; choose another: -o DIR")
    if args.sheet:
        check_sheet(args.sheet, args.resolution)
    out.mkdir(parents=True, exist_ok=True)  # asked now: work that cannot be kept is not begun
    fields = generate(load_model(args.run, trusted=args.trust), args.n, args.seed, points=args.points)
    if args.format:
        fields = distill(fields, args.format, names=[path.stem for path in paths], seed=args.seed, progress=True)
    for field, path in zip(fields, paths, strict=True):
        save_field(field, path)
    if args.sheet:
        print(f"wrote {sheet(fields, args.sheet, resolution=args.resolution)}", file=sys.stderr)
    print(json.dumps([str(path) for path in paths], indent=2) if args.json else "\n".join(map(str, paths)))
