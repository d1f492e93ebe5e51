"""Floor 9: the laws about the module that brings a format: how it is found, imported, and what it leans on."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import inrbridge
from inrbridge import plugins
from inrbridge.testing.case import Absent, Case, require

_PUBLIC_MODULES = {*inrbridge._MODULES, "testing"}

_WATCH = """
import contextlib, importlib, io, json, random, sys
import numpy, torch
def state():
    return [repr(random.getstate()), repr(numpy.random.get_state()), torch.random.get_rng_state().tolist()]
before, kind, talk = state(), torch.get_default_dtype(), io.StringIO()
with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
    importlib.import_module(sys.argv[1])
found = {"prints": talk.getvalue()[:200], "seeds": state() != before, "dtype": torch.get_default_dtype() != kind,
         "cuda": torch.cuda.is_initialized()}
print(json.dumps(found))
"""


def is_discovered(case: Case) -> None:
    """an entry point of group inrbridge, named like the format, leads to it"""
    name = case.format.name
    records = [record for record in plugins.registry().records if record.name == name]
    if records and records[0].distribution == plugins.SESSION:
        raise Absent("it was registered by hand in this session")
    advice = f'install the plugin, and name its entry point: [project.entry-points.inrbridge] {name} = "MODULE".'
    require(bool(records), f'no entry point of group inrbridge is named "{name}"; {advice}')
    if records[0].is_builtin:
        return
    try:
        found = [format for format in records[0].entry.load().inrbridge_formats() if format.name == name]
    except Exception as error:
        require(
            False,
            f'the entry point "{name}" = {records[0].target} fails ({type(error).__name__}: {error}); run: inrbridge doctor',
        )
    same = bool(found) and type(found[0]).__qualname__ == type(case.format).__qualname__
    require(same, f'the entry point "{name}" = {records[0].target} leads to {[type(f).__name__ for f in found]}; {advice}')


def imports_quietly(case: Case) -> None:
    """importing it prints nothing, seeds nothing, keeps the default dtype, and touches no GPU"""
    module = type(case.format).__module__
    if module == "__main__":
        raise Absent("its class was written in this session, not in a module")
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    run = subprocess.run(
        [sys.executable, "-c", _WATCH, module],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
    )
    if run.returncode and f"No module named '{module}'" in run.stderr:
        raise Absent(f"its module {module} cannot be imported by name in a fresh interpreter")
    require(run.returncode == 0, f"importing {module} alone fails: {run.stderr.strip().splitlines()[-1:]}")
    found = json.loads(run.stdout.strip().splitlines()[-1])
    require(not found["prints"], f"importing {module} prints {found['prints']!r}; log or stay silent.")
    require(not found["seeds"], f"importing {module} draws from or seeds a global generator; use a torch.Generator of its own.")
    require(not found["dtype"], f"importing {module} changes the default dtype; pass dtype= where it matters.")
    require(not found["cuda"], f"importing {module} starts CUDA; do that when a field is evaluated.")


def names_its_options(case: Case) -> None:
    """open, build and sample name their options, without *args and **kwargs"""
    for method in ("open", "build", "sample"):
        for parameter in inspect.signature(getattr(case.format, method)).parameters.values():
            loose = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            require(not loose, f"`{method}` takes {parameter}; spell each option out with its default, so that it can be listed.")


def imports_public_names(case: Case) -> None:
    """its modules import nothing from inrbridge but public names"""
    if type(case.format).__module__.partition(".")[0] == "inrbridge":
        raise Absent("it is part of inrbridge")
    for path in _sources(type(case.format).__module__):
        for line, name in _private_imports(ast.parse(path.read_text(encoding="utf-8"))):
            require(
                False, f"{path.name}, line {line}: {name} is not public; import from inrbridge, or ask for it to be published."
            )


def _sources(module: str) -> list[Path]:
    top = sys.modules.get(module.partition(".")[0])
    if top is not None and hasattr(top, "__path__") and getattr(top, "__file__", None):
        return sorted(Path(top.__file__).parent.rglob("*.py"))
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        raise Absent("its source is not a file")
    return [Path(file)]


def _private_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            if top == "inrbridge" and rest and not _is_public(rest):
                yield node.lineno, name


def _is_public(rest: list[str]) -> bool:
    if rest[0] in _PUBLIC_MODULES:
        return len(rest) <= 2 and not rest[-1].startswith("_")
    return len(rest) == 1 and rest[0] in inrbridge.__all__


PLUGIN_LAWS = (is_discovered, imports_quietly, names_its_options, imports_public_names)
