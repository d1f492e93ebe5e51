"""Write the skeleton of a format plugin: a folder that installs, opens its own files, and passes the conformance kit.

examples:
  inrbridge new-plugin splines
  inrbridge new-plugin splines --folder ~/code/inrbridge-splines
"""

import sys
from pathlib import Path


def add_arguments(parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the format: lower case letters, digits and '_', a letter first")
    parser.add_argument("--folder", metavar="DIR", help="where to write; default: inrbridge-NAME")


def run(args) -> None:
    folder = write_plugin(args.name, args.folder)
    print(folder)
    print(f"next: pip install -e {folder} pytest && pytest {folder} && inrbridge check {args.name}", file=sys.stderr)


def write_plugin(name: str, folder: str | Path | None = None) -> Path:
    """Write a plugin for a format of this name and return its folder.

    Raises:
        ConfigError: the name is no name of a format, or is taken by one that is installed or known.
        CannotSave: the folder is there and not empty.
    """
    import re

    from inrbridge.cli.plugin_template import FILES
    from inrbridge.errors import CannotSave, ConfigError
    from inrbridge.known import KNOWN_PLUGINS
    from inrbridge.plugins import registry

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f'Got the name "{name}", expected lower case letters, digits and "_", a letter first, such as "splines".'
        )
    if name in KNOWN_PLUGINS or any(name in (record.name, *record.formats) for record in registry().records):
        raise ConfigError(f'The format name "{name}" is taken, expected a new one; see: inrbridge formats')
    folder = Path(folder or f"inrbridge-{name.replace('_', '-')}").expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotSave(f"{folder} is there already and not empty, expected a new folder; choose another: --folder DIR")
    words = {"@name@": name, "@Name@": name.replace("_", " ").title().replace(" ", ""), "@dist@": name.replace("_", "-")}
    for path, text in FILES.items():
        for word, value in words.items():
            path, text = path.replace(word, value), text.replace(word, value)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder
