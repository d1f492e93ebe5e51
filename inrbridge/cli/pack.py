"""Collect field files of any format into a store, as they are.

A file's folder is its label; a folder called train, val or test is its split. A store that exists is added to.

examples:
  inrbridge pack fields/ -o store
  inrbridge pack a.safetensors b.pth -o store --labels labels.csv --split test --keep-going
"""

import csv
import json
import shlex
import sys
from pathlib import Path

from inrbridge.cli.tables import print_facts


def add_arguments(parser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="field files or folders of them")
    parser.add_argument("-o", "--out", metavar="STORE", required=True, help="folder of the store")
    parser.add_argument("--format", metavar="NAME", help="format of all files; default: each is recognized")
    parser.add_argument("--labels", metavar="FILE", help="CSV lines FILE,LABEL by path or file name, in place of the folders")
    parser.add_argument("--split", metavar="WORD", help="split of all fields, in place of the folders")
    parser.add_argument("--keep-going", action="store_true", help="leave out what cannot be opened; the exit code is then 1")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> int:
    from inrbridge.data import pack

    failed = []

    def tell(path, error) -> None:
        failed.append(str(path))
        print(f"inrbridge pack: {error if str(path) in str(error) else f'{path}: {error}'}", file=sys.stderr)

    store = pack(args.paths, args.out, labels(args.labels), args.split, args.format, keep_going=args.keep_going, on_error=tell)
    counts: dict[str, int] = {}
    for item in store.items:
        name = store.manifest.format_of(item)
        counts[name] = counts.get(name, 0) + 1
    found = sorted({str(item.label) for item in store.items if item.label is not None})
    facts = {"store": args.out, "fields": len(store), "formats": counts, "labels": found, "left_out": failed}
    if args.json:
        print(json.dumps(facts, indent=2))
        return int(bool(failed))
    formats = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    shown = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
    print_facts([("store", args.out), ("fields", f"{len(store)}: {formats}"), ("labels", shown), ("left out", len(failed))])
    print(f"\nnext: {next_step(store, args.out)}")
    return int(bool(failed))


def next_step(store, out: str) -> str:
    """Return the command that comes next: a configuration, of all items where none is set apart."""
    held = {item.split for item in store.items}
    words = [f"data.store={out}"]
    words += [f"data.{key}=" for key, split in (("train_split", "train"), ("eval_split", "test")) if split not in held]
    return f"inrbridge config init config.toml {' '.join(f'--set {shlex.quote(word)}' for word in words)}"


def labels(path: str | None) -> dict[str, str] | None:
    """Read FILE,LABEL lines."""
    from inrbridge.errors import CannotOpen

    if path is None:
        return None
    try:
        rows = [row for row in csv.reader(Path(path).read_text(encoding="utf-8").splitlines()) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CannotOpen(f"Cannot read labels from {path} ({error}), expected CSV lines FILE,LABEL.") from error
    wrong = [row for row in rows if len(row) != 2]
    if wrong:
        raise CannotOpen(f"{path} holds the line {wrong[0]}, expected FILE,LABEL on each.")
    return {name.strip(): label.strip() for name, label in rows}
