"""Floor 5: the configuration that lies beside a file: YAML, JSON or lines `name = value`, read as plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from inrbridge.containers.contents import is_plain, walk

MAX_BYTES, MAX_YAML = 2**20, 2**17  # bytes, characters: reading YAML takes a second for 100 KB
MAX_NAMES, MAX_DEPTH = 20_000, 16
_NAMED = {"True": True, "true": True, "False": False, "false": False, "None": None}
_WORDS = ("config.yml", "config.yaml", "config.json", "nef.json", "args.txt", "config.txt")
_LINE = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*")
_TRANSFORMS = "dataparser_transforms.json"


def find_sidecar(path: Path) -> tuple[str, Mapping[str, object]]:
    """Return the name and the values, by dotted name, of the configuration beside a file; ("", {}) where there is none.

    Looked for are STEM.config.yml, .yaml and .json, then config.yml, .yaml, .json, nef.json (of fit-a-nef), args.txt and
    config.txt (of NeRF's code and its kin: lines `name = value`) in the file's folder, and in the one above where the file lies
    in `nerfstudio_models`; nerfstudio's `dataparser_transforms.json` is added as "dataparser...".
    """
    folders = [path.parent, path.parent.parent] if path.parent.name == "nerfstudio_models" else [path.parent]
    places = [path.with_name(f"{path.stem}.{word}") for word in _WORDS] + [folder / word for folder in folders for word in _WORDS]
    name, values = "", {}
    for place in places:
        tree = _read(place)
        if isinstance(tree, dict):
            name, values = place.name, dict(_flat(tree))
            break
    for folder in folders:
        tree = _read(folder / _TRANSFORMS)
        if isinstance(tree, dict):
            values |= {f"dataparser.{key}": value for key, value in _flat(tree)}
            name = name or _TRANSFORMS
            break
    return name, values


def _read(path: Path) -> object | None:
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        text = path.read_text(encoding="utf-8")
        return _lines(text) if path.suffix == ".txt" else json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (OSError, ValueError, RecursionError):
        return None


def _lines(text: str) -> dict[str, object] | None:
    """Read lines `name = value`, values as Python or configargparse write them; None where there are none."""
    found = {}
    for line in text.splitlines()[:MAX_NAMES]:
        match = _LINE.fullmatch(line)
        if match:
            name, value = match.groups()
            if value in _NAMED:
                found[name] = _NAMED[value]
                continue
            try:
                found[name] = float(value) if {".", "e"} & set(value) else int(value)
            except ValueError:
                found[name] = value
    return found or None


def _yaml(text: str) -> object | None:
    import yaml

    if len(text) > MAX_YAML:
        return None

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):  # a few lines of aliases can stand for more than the memory holds
                event = self.peek_event()
                kept = self.anchors.get(event.anchor)
                if not isinstance(kept, yaml.ScalarNode):
                    self.get_event()
                    return yaml.ScalarNode("tag:yaml.org,2002:null", "")
            return super().compose_node(parent, index)

    def untagged(loader, _, node):
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Plain.add_multi_constructor("", untagged)
    try:
        return yaml.load(text, Plain)  # a SafeLoader that constructs nothing but plain values
    except Exception:  # its tags promise numbers and dates that are none: KeyError, IndexError, ... are the reader's words for it
        return None


def _flat(tree: dict) -> Iterator[tuple[str, object]]:
    return ((name, value) for name, value in walk(tree, names=MAX_NAMES, depth=MAX_DEPTH) if is_plain(value))
