"""Collect field files of any format into a store, as they are.

A folder is taken with all that is in it: files that no format claims are passed over, files that do not open are reported and
left out. A file's folder is its label, a folder called train, val or test its split; or a table or a pattern tells them. A file
of several fields becomes several items. A store that exists is added to, and what it holds already is passed over, so that the
same command goes on after an interruption.

A table is CSV with the header path,label or path,label,split; paths are relative to it. A labels.csv in the folder is found by
itself.

examples:
  inrbridge pack fields/ -o store
  inrbridge pack runs/ -o store --label-pattern 'png_(?P<split>training|testing)_(?P<label>\\d)_'
  inrbridge pack nets/ a.pth -o store --labels labels.csv --split test --strict
"""

import json
import shlex
import sys

from inrbridge.cli.tables import print_facts


def add_arguments(parser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="field files or folders of them")
    parser.add_argument("-o", "--out", metavar="STORE", required=True, help="folder of the store")
    parser.add_argument("--format", metavar="NAME", help="format of all files; default: each is recognized")
    parser.add_argument("--set", metavar="OPTION=VALUE", action="append", default=[], help="option of the formats' open")
    parser.add_argument("--labels", metavar="FILE", help="CSV with the header path,label,split, in place of the folders")
    parser.add_argument(
        "--label-pattern", metavar="REGEX", help="groups label, split and name in the path, in place of the folders"
    )
    parser.add_argument("--split", metavar="WORD", help="split of all fields, in place of the folders")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a file of a folder is left out")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> int:
    from pathlib import Path

    from inrbridge.cli.info import option
    from inrbridge.data import pack
    from inrbridge.data.packing import UNCLAIMED

    failed: list[tuple[str, int]] = []
    skipped: dict[str, list[str]] = {}
    named = {Path(path).absolute() for path in args.paths}

    def tell(path, error) -> None:
        failed.append((str(path), error.exit_code if path in named else int(args.strict)))
        print(f"inrbridge pack: {error if str(path) in str(error) else f'{path}: {error}'}", file=sys.stderr)

    is_single = len(args.paths) == 1 and not Path(args.paths[0]).is_dir()  # then its error is all that there is to say
    store = pack(
        args.paths, args.out, args.labels, args.split, args.format, label_pattern=args.label_pattern,
        options=dict(option(text) for text in args.set), keep_going=not is_single, on_error=tell,
        on_skip=lambda path, why: skipped.setdefault(why, []).append(str(path)), progress=True,
    )  # fmt: skip
    facts = summary(store, args.out)
    facts["left_out"] = [path for path, _ in failed]
    facts["skipped"] = skipped
    code = max((code for _, code in failed), default=0)
    if args.json:
        print(json.dumps(facts, indent=2))
        return code
    formats = ", ".join(f"{count} {name}" for name, count in facts["formats"].items())
    lines = [("store", args.out), ("fields", f"{facts['fields']}: {formats}"), ("labels", shown(facts["labels"]))]
    lines += [("  without one", facts["unlabelled"])] if facts["labels"] and facts["unlabelled"] else []
    lines += [("splits", shown(facts["splits"]))] if facts["splits"] else []
    lines += [("left out", f"{len(failed)} that do not open")] if failed else []
    for why, paths in skipped.items():
        lines.append(("passed over", f"{len(paths)} ({why}{': ' + suffixes(paths) if why == UNCLAIMED else ''})"))
    print_facts(lines)
    print(f"\nnext: {next_step(store, args.out)}")
    return code


def summary(store, out: str) -> dict:
    """Return what a store holds: fields, formats, labels and splits with their counts."""
    counts = {"formats": {}, "labels": {}, "splits": {}}
    for item in store.items:
        for what, word in zip(counts, (store.manifest.format_of(item), item.label, item.split), strict=True):
            if word is not None:
                counts[what][str(word)] = counts[what].get(str(word), 0) + 1
    counts = {what: dict(sorted(found.items())) for what, found in counts.items()}
    return {"store": out, "fields": len(store), **counts, "unlabelled": len(store) - sum(counts["labels"].values())}


def shown(counts: dict[str, int], most: int = 12) -> str:
    """Spell the first few words of many, with their counts."""
    texts = [f"{word} ({count})" for word, count in counts.items()]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def suffixes(paths: list[str]) -> str:
    """Count the suffixes of files."""
    from pathlib import Path

    found: dict[str, int] = {}
    for path in paths:
        suffix = Path(path).suffix or Path(path).name
        found[suffix] = found.get(suffix, 0) + 1
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.items(), key=lambda pair: -pair[1])[:6])


def next_step(store, out: str) -> str:
    """Return the command that comes next: a configuration, of all items where none is set apart."""
    held = {item.split for item in store.items}
    words = [f"data.store={out}"]
    words += [f"data.{key}=" for key, split in (("train_split", "train"), ("eval_split", "test")) if split not in held]
    return f"inrbridge config init config.toml {' '.join(f'--set {shlex.quote(word)}' for word in words)}"
