"""List the formats: those installed, from the metadata of their plugins, and known ones that can be installed.

No plugin is imported unless --load is given, so suffixes and status of foreign plugins are known only then.

examples:
  inrbridge formats
  inrbridge formats --load --json
"""

import json

from inrbridge.cli.tables import print_table


def add_arguments(parser) -> None:
    parser.add_argument("--load", action="store_true", help="import every plugin, and say whether it loads and what it can do")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    rows = list_formats(args.load)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    columns = ["name", "plugin", "version", "suffixes", "status"] + (["can", "description"] if args.load else [])
    print_table(columns, ([_cell(row, column) for column in columns] for row in rows))


def list_formats(load: bool = False) -> list[dict]:
    """Return one row a format: name, plugin, version, suffixes, status, can, description, error."""
    from inrbridge.known import KNOWN_PLUGINS, pip_line
    from inrbridge.plugins import FAILED, LOADED, registry

    found = registry()
    if load:
        found.load_all()
    rows = []
    for record in found.records:
        for name in record.formats or (() if record.status == LOADED else (record.name,)):
            format = found.loaded(name) if record.status == LOADED else None
            known = KNOWN_PLUGINS.get(name)
            rows.append({
                "name": name, "plugin": record.distribution, "version": record.version,
                "suffixes": list(format.suffixes if format else known.suffixes if known else ()),
                "status": record.status, "can": ["open", *format.abilities()] if format else [],
                "description": format.description if format else known.summary if known else "",
                "error": record.error if record.status == FAILED else "",
            })  # fmt: skip
    absent = set(KNOWN_PLUGINS) - {row["name"] for row in rows}
    for name in sorted(absent):
        known = KNOWN_PLUGINS[name]
        rows.append({
            "name": name, "plugin": f"inrbridge-{name}", "version": "", "suffixes": list(known.suffixes), "can": [],
            "status": f"not installed: {pip_line(name)}", "description": known.summary, "error": "",
        })  # fmt: skip
    return rows


def _cell(row: dict, column: str) -> str:
    value = row[column]
    if column == "status" and row["error"]:
        return "failed: inrbridge doctor"
    return " ".join(value) if isinstance(value, list) else value
