"""Say what a file holds: its format and why, domain, channels, parameters, and what the file did not tell.

--all asks every installed format for its verdict instead, and opens nothing.

examples:
  inrbridge info net.safetensors
  inrbridge info model_final.pth --format siren --set omega_0=30
"""

import json

from inrbridge.cli.tables import print_facts, print_table


def add_arguments(parser) -> None:
    parser.add_argument("file", metavar="FILE", help="file or folder of a field")
    parser.add_argument("--format", metavar="NAME", help="open with this format, whatever the file looks like")
    parser.add_argument("--set", metavar="OPTION=VALUE", action="append", default=[], help="option of the format's open")
    parser.add_argument("--all", action="store_true", help="show what each installed format says about the file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    if args.all:
        show_verdicts(args.file, args.json)
        return
    facts = describe(args.file, args.format, dict(option(text) for text in args.set))
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    plugin = f"{facts['plugin']} {facts['version']}".strip()
    lines = [
        ("file", f"{facts['file']} ({facts['container']}, {facts['bytes']} bytes)"),
        ("format", f"{facts['format']} ({plugin}): {facts['why']}"),
        *([("configuration", f"{facts['sidecar']}, beside the file")] if facts["sidecar"] else []),
        *(
            [("fields", f"{facts['fields']}; shown is one of them, choose with --set index=NUMBER")]
            if facts["fields"] > 1
            else []
        ),
        *([("label", facts["label"])] if facts["label"] is not None else []),
        ("domain", facts["domain"]),
        ("channels", f"{facts['channels']}: {', '.join(facts['channel_names'])}"),
        ("parameters", f"{facts['parameters']:,} {' '.join(facts['dtypes'])}" if facts["parameters"] is not None else "not told"),
        *[(f"  {name}", value) for name, value in leaves(facts["architecture"])],
        *[(f"note: {name}", value) for name, value in facts["notes"].items()],
        *[("assumed", text) for text in facts["assumed"]],
    ]
    print_facts(lines)


def leaves(values: dict, prefix: str = "") -> list[tuple[str, object]]:
    """Return the values of nested tables by dotted names.

    >>> leaves({"net": {"widths": [4, 8]}, "n": 3})
    [('net.widths', [4, 8]), ('n', 3)]
    """
    found = []
    for name, value in values.items():
        if isinstance(value, dict) and {"steps", "modules", "tensors"} <= set(value):  # of a converted network: hundreds of them
            value = f"{len(value['steps'])} steps, {len(value['modules'])} modules"
        inner = isinstance(value, dict) and value
        found += leaves(value, f"{prefix}{name}.") if inner else [(prefix + name, value)]
    return found


def show_verdicts(path: str, as_json: bool) -> None:
    """Print what each installed format says about the file."""
    from inrbridge.io import look, verdicts

    probe = look(path)
    answers, wrong = [vars(verdict) for verdict in verdicts(probe)], probe.damage or probe.refused
    if as_json:
        print(json.dumps({"file": path, "found": probe.describe(), "wrong": wrong, "verdicts": answers}, indent=2))
        return
    print(f"{path}: {probe.describe()}{f'; {wrong}' if wrong else ''}")
    said = {True: "yes", False: "no"}
    rows = [[v["format"], v["distribution"], v["version"], v["error"] or said[v["is_recognized"]]] for v in answers]
    print_table(["format", "plugin", "version", "recognizes it"], rows)


def option(text: str, flag: str = "--set") -> tuple[str, object]:
    """Read OPTION=VALUE behind a flag; the value is JSON where it can be, else text.

    >>> option("omega_0=30"), option("order=xy")
    (('omega_0', 30), ('order', 'xy'))
    """
    from inrbridge.errors import ConfigError

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        example = "omega_0=30" if flag == "--set" else "width=16"
        raise ConfigError(f'Got {flag} "{text}", expected OPTION=VALUE, such as {flag} {example}.')
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def describe(path: str, format: str | None, options: dict) -> dict:
    """Open a field and return what is known of it, ready for JSON."""
    from inrbridge.data.manifest import is_label
    from inrbridge.field import Stackable, channel_names
    from inrbridge.io import count_fields, identify_probe, look, open_field
    from inrbridge.plugins import get_format, registry

    probe = look(path)
    name = format or identify_probe(probe)
    field = open_field(path, name, **options)
    label = getattr(field, "label", None)
    owner = registry().owner(name)
    state = field.state_dict() if isinstance(field, Stackable) else None
    others = len([other for record in registry().records for other in record.formats]) - 1
    why = "asked for" if format else "named in the file" if probe.native else f"alone of {others + 1} formats in recognizing it"
    return {
        "file": str(path), "container": probe.magic, "bytes": probe.size,
        "format": name, "plugin": owner.distribution, "version": owner.version, "why": why, "sidecar": probe.sidecar_name,
        "fields": count_fields(probe, get_format(name)), "label": label if is_label(label) else None,
        "domain": str(field.domain), "channels": field.channels, "channel_names": list(channel_names(field)),
        "parameters": None if state is None else sum(value.numel() for value in state.values()),
        "dtypes": [] if state is None else sorted({str(value.dtype).removeprefix("torch.") for value in state.values()}),
        "architecture": dict(field.architecture) if isinstance(field, Stackable) else {},
        "notes": dict(getattr(field, "notes", {})), "assumed": list(getattr(field, "assumed", ())),
    }  # fmt: skip
