"""Draw a field to a PNG file: a curve in 1-D, an image in 2-D, slices through the middle in higher dimensions.

A field of a store is named by --item, by its name or number.

examples:
  inrbridge preview net.safetensors -o net.png
  inrbridge preview store --item digit-0007 --resolution 512
"""

import json
from pathlib import Path


def add_arguments(parser) -> None:
    parser.add_argument("file", metavar="FILE", help="file or folder of a field, or a store with --item")
    parser.add_argument(
        "-o", "--out", metavar="PNG", help="picture to write; default: named as FILE, in this folder, replacing none"
    )
    parser.add_argument("--item", metavar="NAME", help="name or number of a field in a store")
    parser.add_argument("--format", metavar="NAME", help="open with this format, whatever the file looks like")
    parser.add_argument("--set", metavar="OPTION=VALUE", action="append", default=[], help="option of the format's open")
    parser.add_argument("--resolution", metavar="N", type=int, default=256, help="points along the longest side")
    parser.add_argument("--axes", metavar="A,B", help="the one or two coordinates to draw along, counted from 0")
    parser.add_argument("--at", metavar="A=VALUE", action="append", default=[], help="value of a coordinate not drawn along")
    parser.add_argument("--title", metavar="TEXT", help="text above the picture")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    from inrbridge.rendering import preview

    field, name = pick(args)
    out = Path(args.out) if args.out else free_name(name)
    axes = None if args.axes is None else [number(text, int, "--axes") for text in args.axes.split(",")]
    at = {number(text.partition("=")[0], int, "--at"): number(text.partition("=")[2], float, "--at") for text in args.at}
    path = preview(field, out, resolution=args.resolution, axes=axes, at=at or None, title=args.title)
    if args.json:
        facts = {"picture": str(path), "domain": str(field.domain), "channels": field.channels}
        print(json.dumps({**facts, "format": getattr(field, "format", None)}, indent=2))
    else:
        print(path)


def free_name(name: str) -> Path:
    """Return NAME.png, or the next free name beside it: the picture that a field was fitted to may be called so."""
    number, path = 1, Path(f"{name}.png")
    while path.exists():
        number += 1
        path = Path(f"{name}-{number}.png")
    return path


def pick(args) -> tuple[object, str]:
    """Open the field that is asked for; return it with a name for its picture."""
    from inrbridge.cli.info import option
    from inrbridge.errors import ConfigError

    path = Path(args.file)
    if (path / "manifest.json").is_file():
        from inrbridge.data import Store

        store = Store(path)
        if args.item is None:
            raise ConfigError(f"{path} is a store of {len(store)} fields, expected one of them: --item {store.names[0]}")
        index = item_index(store, args.item)
        return store.field(index), store.names[index].replace("/", "-")
    if args.item is not None:
        raise ConfigError(f"Got --item for {path}, which is no store; leave it out.")
    from inrbridge.io import open_field

    return open_field(path, args.format, **dict(option(text) for text in args.set)), path.stem


def item_index(store, word: str) -> int:
    """Return the place of a field by its name, else by its number."""
    from inrbridge.errors import UnknownName, did_you_mean

    if word in store.names:
        return store.names.index(word)
    if word.isdigit() and int(word) < len(store):
        return int(word)
    listed = ", ".join(store.names[:5]) + (", ..." if len(store) > 5 else "")
    raise UnknownName(f'There is no field "{word}" in {store.path}; expected one of {listed}.{did_you_mean(word, store.names)}')


def number(text: str, kind: type, option: str):
    """Read one number of an option."""
    from inrbridge.errors import ConfigError

    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f'Got {option} "{text}", expected numbers, such as --axes 0,2 or --at 1=0.5.') from error
