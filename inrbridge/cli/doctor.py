"""Report versions, devices and the state of every plugin, and what to do where something is wrong.

The report can be pasted into a bug report. The exit code is 1 when anything needs care.

examples:
  inrbridge doctor
  inrbridge doctor --json
"""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform

from inrbridge.cli.tables import print_facts, print_table

PACKAGES = ("torch", "numpy", "scipy", "safetensors", "pluggy")


def add_arguments(parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> int:
    report = {"machine": machine(), "plugins": plugins()}
    troubles = [f"{name}: {text}" for name, text in report["machine"].items() if text.startswith("fails")]
    for plugin in report["plugins"]:
        if plugin["error"]:
            troubles.append(f'plugin "{plugin["name"]}" ({plugin["place"]}): {plugin["error"]} {plugin["remedy"]}'.rstrip())
        troubles += [f'plugin "{plugin["name"]}": {complaint}' for complaint in plugin["self_check"]]
    report["troubles"] = troubles
    if args.json:
        print(json.dumps(report, indent=2))
        return int(bool(troubles))
    print_facts(report["machine"].items())
    print()
    columns = ["name", "distribution", "version", "api", "status", "formats", "seconds"]
    print_table(columns, ([_cell(plugin[column]) for column in columns] for plugin in report["plugins"]))
    print()
    print("\n".join(troubles) if troubles else "all is well")
    return int(bool(troubles))


def machine() -> dict[str, str]:
    """Return versions and devices; what cannot be imported is told, not raised."""
    from inrbridge import __version__

    facts = {"inrbridge": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            importlib.import_module(package)
            facts[package] = importlib.metadata.version(package)
        except Exception as error:  # a broken native library raises what it likes
            facts[package] = f"fails ({type(error).__name__}: {error}): pip install -U {package}"
    try:
        import torch

        from inrbridge.compiled.building import describe

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        facts["cuda"] = ", ".join(torch.cuda.get_device_name(i) for i in range(count)) or "none"
        facts["threads"] = str(torch.get_num_threads())
        facts["compiled kernels"] = describe()
        facts["triton"] = importlib.metadata.version("triton") if importlib.util.find_spec("triton") else "none"
    except Exception:  # told above
        pass
    for name in ("INRBRIDGE_PLUGINS", "INRBRIDGE_STRICT"):
        if name in os.environ:
            facts[name] = repr(os.environ[name])
    return facts


def plugins() -> list[dict]:
    """Load every plugin and return its record, with the API it speaks, its self-check, and a remedy where it failed."""
    from inrbridge.plugins import FAILED, LOADED, registry

    found = registry()
    found.load_all()
    rows = []
    for record in found.records:
        row = {**record.to_json(), "api": None, "self_check": [], "remedy": ""}
        if record.status == LOADED:
            formats = [found.loaded(name) for name in record.formats]
            row["api"] = max((format.api for format in formats), default=None)
            row["self_check"] = [text for format in formats for text in _self_check(format)]
        elif record.status == FAILED and not record.is_builtin:
            row["remedy"] = f"Repair: pip install -U {record.distribution}   Remove: pip uninstall {record.distribution}"
        rows.append(row)
    return rows


def _self_check(format) -> list[str]:
    try:
        return [str(text) for text in format.self_check()]
    except Exception as error:  # a plugin's own check may be the broken part
        return [f"its self_check fails ({type(error).__name__}: {error})"]


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}"
    return " ".join(value) if isinstance(value, tuple) else value
