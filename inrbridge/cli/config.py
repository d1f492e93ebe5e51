"""Write a training configuration with all its keys explained, show the merged one, or check it against its data.

Defaults < file < --set. `check` opens the store and builds the model, as `train` would, and stops there.

examples:
  inrbridge config init config.toml --set data.store=digits
  inrbridge config check config.toml --set points.n=256
"""

import json
import shlex
import sys
from pathlib import Path

from inrbridge.cli.tables import print_facts


def add_arguments(parser) -> None:
    parser.add_argument("action", choices=["init", "show", "check"], help="what to do")
    parser.add_argument("file", metavar="FILE", nargs="?", help="TOML file; init without it prints")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a key, e.g. optimizer.lr=3e-4")
    parser.add_argument("--force", action="store_true", help="init: replace a file that is there")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    from inrbridge.training.config import load_config

    if args.action == "init":
        write(args, load_config(None, args.set))
        return
    config = load_config(args.file, args.set)
    if args.action == "show":
        from inrbridge.training.toml import to_toml

        print(json.dumps(config.to_dict(), indent=2) if args.json else to_toml(config), end="\n" if args.json else "")
        return
    from inrbridge.training.checking import check_config

    facts = check_config(config)
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        print_facts(facts.items())
        print(f"\nnext: inrbridge train {args.file or ''}".rstrip())


def write(args, config) -> None:
    """Write the configuration with comments, to the file or to standard output."""
    from inrbridge.errors import ConfigError
    from inrbridge.training.toml import to_toml

    text = json.dumps(config.to_dict(), indent=2) + "\n" if args.json else to_toml(config, comments=True)
    if args.file is None:
        print(text, end="")
        return
    path = Path(args.file)
    if path.exists() and not args.force:
        raise ConfigError(f'Got "{path}", which exists, expected a new file; choose another name or replace it with --force')
    if not path.parent.is_dir():
        raise ConfigError(f'Got "{path}", but the folder "{path.parent}" does not exist; make it first')
    if path.is_dir():
        raise ConfigError(f'Got "{path}", which is a folder, expected the name of a file, such as {path / "config.toml"}')
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}; next: inrbridge config check {shlex.quote(str(path))}", file=sys.stderr)
