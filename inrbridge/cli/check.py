"""Run the conformance laws on an installed format, with its own example file or one that you give.

The same laws are a pytest class for the authors of plugins: inrbridge.testing.FormatConformance.

examples:
  inrbridge check grid
  inrbridge check siren model_final.pth --set omega_0=30
"""

import json

from inrbridge.cli.tables import print_table


def add_arguments(parser) -> None:
    parser.add_argument("format", metavar="FORMAT", help="name of the format, see: inrbridge formats")
    parser.add_argument("file", metavar="FILE", nargs="?", help="a file of the format; default: the example that it writes")
    parser.add_argument("--set", metavar="OPTION=VALUE", action="append", default=[], help="option of the format's open")
    parser.add_argument("--law", metavar="NAME", action="append", help="ask this law only; may be given more than once")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> int:
    from inrbridge.cli.info import option
    from inrbridge.io import check_options, look
    from inrbridge.plugins import get_format
    from inrbridge.testing.checking import BROKEN, check_conformance

    format = get_format(args.format)
    path = look(args.file).path if args.file else None
    options = dict(option(text) for text in args.set)
    check_options(format, "open", options)
    results = check_conformance(format, path, options=options, laws=args.law)
    if args.json:
        print(json.dumps([vars(result) for result in results], indent=2))
    else:
        print_table(["law", "outcome", "reason"], ([result.law, result.outcome, result.reason] for result in results))
    return int(any(result.outcome == BROKEN for result in results))
