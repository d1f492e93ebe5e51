"""List the architectures by name, or show one: what it is, and its options with their defaults.

Those for classification serve regression too; the output of those for dense tasks is a field. Options go into the section
[model.options] of a configuration, or behind --set model.options.NAME=VALUE.

examples:
  inrbridge models
  inrbridge models unet
"""

import json

from inrbridge.cli.tables import print_table

NEEDED = "needed"  # in place of a default


def add_arguments(parser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help='an architecture, or "package.module:Class"; without it, all')
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    from inrbridge.models import model_names

    found = [describe(name) for name in ([args.name] if args.name else model_names())]
    if args.json:
        print(json.dumps(found[0] if args.name else found, indent=2))
    elif args.name:
        show(found[0])
    else:
        print_table(["name", "for", "is"], ([model["name"], model["kind"], model["summary"]] for model in found))


def describe(name: str) -> dict:
    """Return name, kind, summary, options with their defaults, and the text that explains them."""
    import inspect

    from inrbridge.models import model_class, model_options

    model = model_class(name)
    options = {key: NEEDED if value is inspect.Parameter.empty else value for key, value in model_options(name).items()}
    summary, *rest = (inspect.getdoc(model) or "").split("\n\n")
    return {
        "name": name,
        "kind": model.kind,
        "summary": " ".join(summary.split()),
        "options": options,
        "about": "\n\n".join(rest),
    }


def show(model: dict) -> None:
    """Print one architecture as text."""
    print(f"{model['name']}, for {model['kind']}: {model['summary']}\n")
    if model["about"]:
        print(f"{model['about'].replace('Args:', 'Options:')}\n")
    print_table(["option", "default"], ([key, _written(value)] for key, value in model["options"].items()))
    is_converted = NEEDED in model["options"].values()  # its options are made from another network
    begin = "convert --help" if is_converted else f"config init config.toml --set model.name={model['name']}"
    print(f"\nnext: inrbridge {begin}")


def _written(value: object) -> str:
    """A default as --set takes it; None has no such form: the option is then left out."""
    return "not set" if value is None else value if value == NEEDED else json.dumps(value)
